"""Nothing rests on locks: where every lock succeeds, or none does, two processes on one cache give right bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from sqlalchemy.engine import Engine

from fakes import other_user
from fakes.hub_cache import COMMIT, REPO, listed, sha256_of
from fakes.other_user import common_folder, forked_as_nobody
from hfpeer.cache.cleaning.leftovers import sweep
from hfpeer.cache.disk import mounts
from hfpeer.cache.disk.layout import partial_folder, partials_folder
from hfpeer.cache.index.database import Database
from hfpeer.cache.partial.blob import PartialBlob, open_partial
from hfpeer.cache.partial.files import begun_bytes, kept_prefixes, partial_bytes
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, Locked
from hfpeer.names import Digest

BODY = bytes(range(256)) * 8000
DIGEST = sha256_of(BODY)
FILES = {f"{number}.bin": b"%d" % number * 400_000 for number in range(6)}
NO_OTHER_USER = other_user.why_not()

FLOCK = {
    "every lock succeeds": "lambda fd, how: None",
    "no lock is known": "lambda fd, how: fail(errno.ENOSYS)",
    "no lock is left": "lambda fd, how: fail(errno.ENOLCK)",
}
FILL = """
import errno, fcntl, hashlib, os, sys, time
def fail(code):
    raise OSError(code, os.strerror(code))
fcntl.flock = eval(sys.argv[3])
from pathlib import Path
from fakes.hub_cache import COMMIT, REPO, manifest_of
from hfpeer.cache.store import Store
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, Locked

bodies = {f"{number}.bin": b"%d" % number * 400_000 for number in range(6)}
store = Store(Path(sys.argv[1]), Path(sys.argv[2]))
manifest = manifest_of(bodies)
store.save_manifest(manifest)
print("begin", flush=True)
for file in manifest.files:
    body = bodies[file.path]
    while store.inventory.find(file.digest, REPO) is None:
        try:
            partial = store.open_partial(file.digest, file.size_bytes)
        except Locked:
            time.sleep(0.01)
            continue
        # A source that lies at first: its bytes are written, found wrong, and written again.
        for bytes_of in (bytes(len(body)), body):
            for at in range(0, len(body), 100_000):
                partial.write(at, memoryview(bytes_of)[at : at + 100_000])
                time.sleep(0.001)
        partial.record(0, len(body), "liar")
        found = bytearray(len(body))
        partial.read(0, memoryview(found))
        if hashlib.sha256(found).hexdigest() == file.digest.hex:
            store.ingester.ingest_blob(partial, REPO)
        partial.close()
store.ingester.install(REPO, COMMIT, manifest.files)
store.close()
"""


@pytest.mark.parametrize("flock", FLOCK.values(), ids=FLOCK.keys())
def test_two_processes_on_one_cache_give_right_bytes(tmp_path: Path, flock: str) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""}
    running = []
    for name in ("ann", "bob"):
        command: list[str | Path] = [sys.executable, "-c", FILL, tmp_path / "hub", tmp_path / name, flock]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "begin\n"
    while any(process.poll() is None for process in running):
        assert_all_right(tmp_path / "hub")
    assert [process.communicate()[0] for process in running] == ["", ""]
    assert [process.returncode for process in running] == [0, 0]
    assert_all_right(tmp_path / "hub")
    snapshot = tmp_path / "hub" / REPO.folder / "snapshots" / COMMIT
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == FILES
    assert len(listed(FILES)) == len(FILES)


def assert_all_right(cache: Path) -> None:
    for blob in (cache / REPO.folder / "blobs").glob("*"):
        if not blob.name.endswith(".incomplete"):
            digest = Digest.from_etag(blob.name)
            assert hash_file(blob, digest.algorithm, blob.stat().st_size) == digest.hex


def no_flock(fd: int, how: int) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def flock_that_locks_nothing(fd: int, how: int) -> None:
    pass


@pytest.fixture(params=["no lock", "lock of nothing", "network"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache where no lock can be trusted."""
    if request.param == "network":
        (tmp_path / "mounts").write_text("21 1 8:1 / / rw - nfs4 server:/ rw\n")
        monkeypatch.setattr(mounts, "LIST", tmp_path / "mounts")
        yield tmp_path / "hub"
        return
    with mock.patch.object(fcntl, "flock", no_flock if request.param == "no lock" else flock_that_locks_nothing):
        yield tmp_path / "hub"


def begun(cache: Path) -> PartialBlob:
    partial = open_partial(cache, DIGEST, len(BODY))
    partial.write(0, memoryview(BODY)[:1_048_576])
    partial.record(0, 1_048_576, "peer")
    return partial


def test_a_partial_is_of_one_process_at_a_time(cache: Path) -> None:
    first = begun(cache)
    with pytest.raises(Locked):
        open_partial(cache, DIGEST, len(BODY))
    first.close()
    assert [path.name for path in partials_folder(cache).iterdir()] == [DIGEST.hex]
    assert [prefix.digest for prefix in kept_prefixes(cache)] == [DIGEST]
    second = open_partial(cache, DIGEST, len(BODY))
    assert second.present.total == 1_048_576
    assert partial_bytes(cache) == 1_048_576 and begun_bytes(cache, [DIGEST]) > 0
    assert kept_prefixes(cache) == [], "what a process has open, another cannot go on from"
    assert sweep(cache) == 0, "what a process has open is never swept"
    second.remove()
    assert list(partials_folder(cache).iterdir()) == []


def in_a_fork(work: Callable[[], object]) -> int:
    """Begins `work` in a process of its own. Returns its id once it is done; the process stays until it is killed."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(writes, b"done")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writes)
    with open(reads, "rb") as pipe:
        assert pipe.read(4) == b"done"
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_partial_is_taken_over_from_a_process_that_was_killed(cache: Path) -> None:
    kept: list[PartialBlob] = []
    child = in_a_fork(lambda: kept.append(begun(cache)))
    try:
        with pytest.raises(Locked):
            open_partial(cache, DIGEST, len(BODY))
    finally:
        end(child)
    partial = open_partial(cache, DIGEST, len(BODY))
    assert partial.present.total == 1_048_576
    partial.move_to(cache / "blob")
    assert list(partials_folder(cache).iterdir()) == []


def test_a_partial_of_another_machine_is_left_to_it(cache: Path) -> None:
    begun(cache).close()
    theirs = partial_folder(cache, DIGEST, "0123456789ab-17-4711")
    partial_folder(cache, DIGEST).rename(theirs)
    partial = open_partial(cache, DIGEST, len(BODY))
    assert partial.present.total == 0
    assert (theirs / "data").exists()
    partial.remove()


@pytest.mark.skipif(NO_OTHER_USER is not None, reason=NO_OTHER_USER or "")
@pytest.mark.parametrize("mode", [0o644, 0o600], ids=["readable", "unreadable"])
def test_the_partial_of_another_user_is_left_alone_and_both_go_on(mode: int) -> None:
    with common_folder() as cache:
        begun(cache).close()
        folder = partial_folder(cache, DIGEST)
        folder.parent.chmod(0o777)
        (folder / "data").chmod(mode)

        def work() -> str:
            partial = begun(cache)
            partial.close()
            partial = open_partial(cache, DIGEST, len(BODY))
            return f"{partial.path.parent.name.partition('.')[2]} {partial.present.total}"

        assert forked_as_nobody(work) == f"u{other_user.NOBODY} 1048576"
        mine = open_partial(cache, DIGEST, len(BODY))
        assert mine.present.total == 1_048_576
        mine.close()


def test_the_catalog_of_a_home_without_locks_lies_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite needs the locks of POSIX. Where it has none, it says that the disk is faulty."""
    home, local = tmp_path / "home", tmp_path / "local" / "0123"

    def open_database(database: Database) -> tuple[Engine, Engine]:
        if database._path.parent == home:
            raise BrokenCache("disk I/O error")
        return real_open(database)

    def lockf(fd: object, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    real_open = Database._open
    monkeypatch.setattr(Database, "_open", open_database)
    monkeypatch.setattr("hfpeer.cache.index.database.folder_without_locks", lambda home: local)
    home.mkdir(mode=0o700)
    (home / "catalog.sqlite").write_bytes(b"of another host")
    with pytest.raises(BrokenCache):
        Store(tmp_path / "hub", home)
    monkeypatch.setattr(fcntl, "lockf", lockf)
    (home / "catalog.sqlite").write_bytes(b"of another host")
    store = Store(tmp_path / "hub", home)
    store.traffic.note_received("peer", "node1", 10)
    store.close()
    assert (home / "catalog.sqlite").read_bytes() == b"of another host", "it is left alone"
    assert (local / "catalog.sqlite").exists() and local.parent.stat().st_mode & 0o077 == 0
    again = Store(tmp_path / "hub", home)
    assert again.totals()["received_bytes"] == {"peer": 10}
    again.close()
    assert sorted(path.name for path in home.iterdir()) == ["catalog.sqlite"]
