"""The contract of the cache with the node and its transfers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

from fakes.hub_cache import COMMIT, REPO, digest_of, download, git_sha1_of, listed, manifest_of, sha256_of
from hfpeer.cache import snapshots
from hfpeer.cache.cleaning import removal
from hfpeer.cache.disk.directories import OpenFolders
from hfpeer.cache.disk.layout import blob_path, lock_path, partial_folder, partials_folder
from hfpeer.cache.disk.locks import etag_lock, folder_lock
from hfpeer.cache.index import shared_blobs as shared_module
from hfpeer.cache.index.database import Database
from hfpeer.cache.index.schema import RefRow
from hfpeer.cache.index.traffic import SENT_WINDOW_SECONDS, Traffic
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, CorruptData, Locked
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision, Visibility
from hfpeer.node.operations.publishing import read_folder
from hfpeer.ranges import MIB
from hfpeer.system.cancellation import Stop, Stopped, check_stop
from hfpeer.trust.visibility import Fact

BODIES = {"config.json": b"{}", "sub/model.bin": b"weights" * 1000, "empty": b""}
OTHER = RepoId.parse("acme/other", "dataset")
COMMIT_2 = Commit("d" * 40)
MAIN = Revision("main")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


def ingest(store: Store, body: bytes, digest: Digest, repo: RepoId = REPO, *, is_open: bool = False) -> Path:
    partial = store.open_partial(digest, len(body))
    partial.write(0, memoryview(body))
    partial.record(0, len(body), "origin:hub", is_open=is_open)
    return store.ingester.ingest_blob(partial, repo)


def fill(
    store: Store,
    bodies: dict[str, bytes] = BODIES,
    commit: Commit = COMMIT,
    repo: RepoId = REPO,
    *,
    is_open: bool = False,
) -> Path:
    """The steps of an `add` after verifying, with bytes of an origin or (if `is_open`) of peers."""
    manifest = manifest_of(bodies, commit, repo)
    store.save_manifest(manifest, is_of_origin=not is_open, is_given=is_open)
    for file in store.inventory.missing(manifest.files):
        ingest(store, bodies[file.path], file.digest, repo, is_open=is_open)
    snapshot = store.ingester.install(repo, commit, manifest.files)
    store.refs.write(repo, MAIN, commit, "origin")
    return snapshot


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


# Ingest and install


def test_what_is_installed_can_be_read_and_is_listed(store: Store) -> None:
    snapshot = fill(store)
    assert {name: (snapshot / name).read_bytes() for name in BODIES} == BODIES
    assert (snapshot / "sub/model.bin").readlink() == Path(f"../../../blobs/{sha256_of(BODIES['sub/model.bin']).hex}")
    [revision] = store.revisions.all()
    assert (revision.repo, revision.type, revision.commit, revision.refs) == ("acme/tiny", "model", COMMIT, ("main",))
    assert (revision.files, revision.size_bytes, revision.is_complete) == (3, 7002, True)
    assert not revision.is_proved
    assert revision.snapshot == str(snapshot)
    assert store.inventory.missing(listed(BODIES)) == []


def test_nothing_is_visible_before_it_is_ingested(store: Store) -> None:
    digest = sha256_of(b"abc")
    partial = store.open_partial(digest, 3)
    partial.write(0, memoryview(b"abc"))
    partial.record(0, 3, "peer:x")
    assert store.inventory.find(digest) is None
    assert [path.name for path in store.cache.iterdir()] == [".locks"]
    partial.close()


def test_an_ingested_blob_is_found_verified_and_its_partial_is_gone(store: Store) -> None:
    digest = sha256_of(b"abc")
    path = ingest(store, b"abc", digest)
    found = store.inventory.find(digest)
    assert found is not None
    assert (found.path, found.size_bytes, found.is_verified) == (path, 3, True)
    assert not partial_folder(store.cache, digest).exists()


def test_a_partly_fetched_revision_is_not_complete_and_names_the_missing_files(store: Store) -> None:
    manifest = manifest_of(BODIES)
    store.save_manifest(manifest)
    ingest(store, b"{}", git_sha1_of(b"{}"))
    store.ingester.install(REPO, COMMIT, [file for file in manifest.files if file.path == "config.json"])
    revision = store.revisions.find(REPO, COMMIT)
    assert revision is not None
    assert revision.is_complete is False
    assert {file.path: file.is_present for file in revision.listing} == {
        "config.json": True,
        "empty": False,
        "sub/model.bin": False,
    }
    assert store.revisions.find(REPO, COMMIT_2) is None


def test_missing_names_each_blob_once_and_finds_it_in_any_repo(store: Store) -> None:
    fill(store, {"a.json": b"{}"}, repo=OTHER)
    wanted = listed({"x.json": b"{}", "first": b"new", "second": b"new"})
    assert [file.path for file in store.inventory.missing(wanted)] == ["first"]


def test_a_blob_of_another_repo_is_taken_over_without_a_copy(store: Store) -> None:
    fill(store, repo=OTHER)
    snapshot = store.ingester.install(REPO, COMMIT_2, listed(BODIES))
    assert (snapshot / "sub/model.bin").read_bytes() == BODIES["sub/model.bin"]
    digest = sha256_of(BODIES["sub/model.bin"])
    assert blob_path(store.cache, REPO, digest).samefile(blob_path(store.cache, OTHER, digest))


def test_installing_a_file_without_a_blob_is_refused(store: Store) -> None:
    with pytest.raises(BrokenCache):
        store.ingester.install(REPO, COMMIT, listed({"a": b"never came"}))
    assert not store.snapshot_path(REPO, COMMIT).exists()


def test_installing_twice_changes_nothing(store: Store) -> None:
    snapshot = fill(store)
    before = {path: path.lstat().st_mtime_ns for path in snapshot.rglob("*")}
    fill(store)
    assert {path: path.lstat().st_mtime_ns for path in snapshot.rglob("*")} == before


def test_a_wrong_link_is_replaced(store: Store) -> None:
    place = store.snapshot_path(REPO, COMMIT) / "config.json"
    place.parent.mkdir(parents=True)
    place.symlink_to("/etc/hostname")
    fill(store)
    assert place.read_bytes() == b"{}"
    assert names_below(store.cache / REPO.folder / "snapshots" / COMMIT) == sorted(BODIES)


def test_small_blobs_are_ingested_together(store: Store) -> None:
    bodies = [b"%d" % number for number in range(40)]
    store.ingester.ingest_many(REPO, {git_sha1_of(body): body for body in bodies})
    assert all(blob_path(store.cache, REPO, git_sha1_of(body)).read_bytes() == body for body in bodies)
    assert len(names_below(store.cache / REPO.folder / "blobs")) == 40
    found = store.inventory.find(git_sha1_of(b"7"))
    assert found is not None
    assert found.is_verified
    store.ingester.ingest_many(REPO, {})


def locks_of(store: Store) -> list[str]:
    folder = lock_path(store.cache, REPO, git_sha1_of(b"")).parent
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_many_small_blobs_make_no_locks_of_their_own(store: Store) -> None:
    bodies = {f"{number}.json": b"%d" % number for number in range(40)}
    fill_at_once(store, bodies)
    store.ingester.install(REPO, COMMIT_2, listed(bodies))
    assert locks_of(store) == []


def test_where_folders_cannot_be_locked_each_blob_is(store: Store) -> None:
    plain = fcntl.flock

    def flock(fd: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        plain(fd, how)

    with mock.patch("fcntl.flock", flock):
        there = fill_at_once(store, BODIES)
    assert {name: (there / name).read_bytes() for name in BODIES} == BODIES
    assert locks_of(store) == sorted(f"{file.digest.hex}.lock" for file in listed(BODIES))


@pytest.mark.parametrize("holds_folder", [True, False], ids=["all blobs", "one blob"])
def test_a_removal_keeps_blobs_to_which_another_program_links_now(
    store: Store, monkeypatch: pytest.MonkeyPatch, holds_folder: bool
) -> None:
    monkeypatch.setattr(removal, "LOCK_SECONDS", 0.05)
    fill_at_once(store, BODIES)
    digests = [file.digest for file in listed(BODIES)]
    with OpenFolders(store.cache) as folders, ExitStack() as held:
        if holds_folder:
            held.enter_context(folder_lock(folders, blob_path(store.cache, REPO, digests[0]).parent, 0.0))
        else:
            held.enter_context(etag_lock(store.cache, REPO, digests[0], 0.0, folders))
        removed = store.remove(REPO, COMMIT)
        kept = digests if holds_folder else digests[:1]
        assert removed.busy == tuple(sorted(str(blob_path(store.cache, REPO, digest)) for digest in kept))
        assert all(blob_path(store.cache, REPO, digest).exists() for digest in kept)
        assert store.inventory.missing(listed(BODIES)) == [file for file in listed(BODIES) if file.digest not in kept]


def test_many_links_are_made_while_no_removal_looks_at_the_blobs(store: Store) -> None:
    """Without the lock, a blob that is found could be removed before a link leads to it."""
    store.ingester.ingest_many(REPO, {file.digest: BODIES[file.path] for file in listed(BODIES)})
    blobs = blob_path(store.cache, REPO, listed(BODIES)[0].digest).parent
    plain, was_free = os.symlink, []

    def symlink(target: str, name: str, *, dir_fd: int | None = None) -> None:
        with OpenFolders(store.cache) as folders, contextlib.suppress(Locked), folder_lock(folders, blobs, 0.0):
            was_free.append(name)
        plain(target, name, dir_fd=dir_fd)

    with mock.patch("os.symlink", symlink):
        store.ingester.install(REPO, COMMIT, listed(BODIES))
        fill_at_once(store, BODIES, COMMIT_2)
    assert was_free == []


def fill_at_once(store: Store, bodies: dict[str, bytes], commit: Commit = COMMIT) -> Path:
    """The steps of an `add` for small files."""
    manifest = manifest_of(bodies, commit)
    store.save_manifest(manifest)
    store.ingester.ingest_files(
        REPO, commit, manifest.files, {file.digest: bodies[file.path] for file in manifest.files}
    )
    store.ingester.sum_up(REPO, commit)
    return store.snapshot_path(REPO, commit)


def test_small_files_are_ingested_and_installed_together(store: Store) -> None:
    bodies = {**BODIES, "same.json": b"{}"}
    for commit in (COMMIT, COMMIT, COMMIT_2):
        there = fill_at_once(store, bodies, commit)
        assert {name: (there / name).read_bytes() for name in bodies} == bodies
        assert all((there / name).is_symlink() for name in bodies)
    assert store.inventory.missing(listed(bodies)) == []
    assert all(revision.is_complete and revision.files == 4 for revision in store.revisions.of(REPO))
    assert all(found.is_verified for file in listed(bodies) if (found := store.inventory.find(file.digest)))
    assert len(names_below(store.cache / REPO.folder / "blobs")) == 3


def test_without_links_small_files_are_moved_too(store: Store) -> None:
    bodies = {**BODIES, "same.json": b"{}"}
    with (
        mock.patch("os.symlink", side_effect=PermissionError(1, "Operation not permitted")),
        mock.patch("os.link", side_effect=PermissionError(1, "Operation not permitted")),
    ):
        there = fill_at_once(store, bodies)
    assert {name: (there / name).read_bytes() for name in bodies} == bodies
    assert names_below(store.cache / REPO.folder / "blobs") == []
    assert store.inventory.missing(listed(bodies)) == []
    found = store.inventory.find(sha256_of(BODIES["sub/model.bin"]))
    assert found is not None and found.is_verified


def test_a_blob_that_another_process_ingested_first_stays(store: Store) -> None:
    digest = sha256_of(b"abc")
    blob = blob_path(store.cache, REPO, digest)
    partial = store.open_partial(digest, 3)
    partial.write(0, memoryview(b"abc"))
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"abc")
    inode = blob.stat().st_ino
    assert store.ingester.ingest_blob(partial, REPO) == blob
    assert blob.stat().st_ino == inode
    assert not partial_folder(store.cache, digest).exists()
    found = store.inventory.find(digest)
    assert found is not None
    assert found.is_verified, "it was hashed before it was kept"


def test_a_blob_of_the_wrong_size_or_known_to_be_wrong_is_replaced(store: Store) -> None:
    for body, there in ((b"abc", b"abcd"), (b"def", b"xyz")):
        digest = sha256_of(body)
        blob = blob_path(store.cache, REPO, digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(there)
        found = store.inventory.find(digest, REPO)
        assert found is not None
        assert not store.inventory.verify(found)
        ingest(store, body, digest)
        assert blob.read_bytes() == body


PUBLISH = """
import sys
from pathlib import Path
from hfpeer.cache.store import Store
from hfpeer.names import Digest, RepoId
store = Store(Path(sys.argv[1]), Path(sys.argv[2]))
partial = store.open_partial(Digest.parse(sys.argv[3]), 3)
partial.write(0, memoryview(b"abc"))
print("ready", flush=True)
sys.stdin.readline()
print(store.ingester.ingest_blob(partial, RepoId.parse(sys.argv[4])), flush=True)
store.close()
"""


def test_two_processes_ingest_one_blob_and_one_wins(store: Store, tmp_path: Path) -> None:
    digest = sha256_of(b"abc")
    command: list[str | Path] = [
        sys.executable,
        "-c",
        PUBLISH,
        store.cache,
        tmp_path / "home 2",
        str(digest),
        "acme/tiny",
    ]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(Locked):
            store.open_partial(digest, 3)
        store.ingester.ingest_many(REPO, {digest: b"abc"})
        inode = blob_path(store.cache, REPO, digest).stat().st_ino
        said, _ = other.communicate("go\n", timeout=30)
        assert said.strip() == str(blob_path(store.cache, REPO, digest))
        assert blob_path(store.cache, REPO, digest).stat().st_ino == inode
    finally:
        other.kill()
        other.communicate()
    assert names_below(store.cache / REPO.folder) == [f"blobs/{digest.hex}"]


def test_a_published_folder_is_copied_and_checked(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"mine")
    store.inventory.adopt(path, git_sha1_of(b"mine"), REPO)
    blob = blob_path(store.cache, REPO, git_sha1_of(b"mine"))
    assert blob.read_bytes() == b"mine"
    assert not blob.samefile(path)
    path.write_bytes(b"changed since it was hashed")
    with pytest.raises(CorruptData):
        store.inventory.adopt(path, git_sha1_of(b"as it was"), REPO)
    assert len(names_below(store.cache / REPO.folder / "blobs")) == 1
    with pytest.raises(BrokenCache):
        store.inventory.adopt(tmp_path / "none", git_sha1_of(b"x"), REPO)


def test_a_ref_file_has_the_bare_commit(store: Store) -> None:
    fill(store)
    ref = store.cache / REPO.folder / "refs" / "main"
    assert ref.read_bytes() == COMMIT.encode()
    pull = Revision("refs/pr/1")
    store.refs.write(REPO, pull, COMMIT, "mirror")
    assert (store.cache / REPO.folder / "refs/refs/pr/1").read_text() == COMMIT
    known = store.refs.read(REPO, pull)
    assert known is not None
    assert (known[0], known[2]) == (COMMIT, "mirror")
    assert time.time() - 60 < known[1] <= time.time()


def test_a_ref_to_a_commit_without_a_snapshot_is_known_but_not_written(store: Store) -> None:
    store.refs.write(REPO, MAIN, COMMIT, "origin")
    known = store.refs.read(REPO, MAIN)
    assert known is not None
    assert known[0] == COMMIT
    assert not (store.cache / REPO.folder).exists()


def test_a_ref_that_another_tool_moved_since_counts(store: Store) -> None:
    fill(store)
    store._catalog.put_refs([RefRow(REPO.folder, MAIN, COMMIT, time.time() - 60, "origin")])
    ref = store.cache / REPO.folder / "refs" / "main"
    ref.write_text(COMMIT_2)
    os.utime(ref, (time.time() - 5, time.time() - 5))
    known = store.refs.read(REPO, MAIN)
    assert known is not None
    assert (known[0], known[2]) == (COMMIT_2, "cache")


def test_of_two_answers_one_from_the_future_is_the_older(store: Store) -> None:
    """The clock was years ahead when a hub answered, and is right again."""
    fill(store)
    store._catalog.put_refs([RefRow(REPO.folder, MAIN, COMMIT, time.time() + 1e8, "origin")])
    ref = store.cache / REPO.folder / "refs" / "main"
    ref.write_text(COMMIT_2)
    for _ in range(2):
        known = store.refs.read(REPO, MAIN)
        assert known is not None
        assert (known[0], known[2]) == (COMMIT_2, "cache")
        store.scan()
    assert store.revisions.all()[0].refs == ()


def test_without_links_files_are_moved_as_the_hub_client_does(store: Store) -> None:
    bodies = {**BODIES, "same.json": b"{}"}
    with (
        mock.patch("os.symlink", side_effect=PermissionError(1, "Operation not permitted")),
        mock.patch("os.link", side_effect=PermissionError(1, "Operation not permitted")),
    ):
        snapshot = fill(store, bodies)
        fill(store, bodies)
        fill(store, bodies, COMMIT_2)
    for commit in (COMMIT, COMMIT_2):
        there = store.snapshot_path(REPO, commit)
        assert {name: (there / name).read_bytes() for name in bodies} == bodies
        assert not any(path.is_symlink() for path in there.rglob("*"))
    assert names_below(store.cache / REPO.folder / "blobs") == []
    assert store.inventory.missing(listed(bodies)) == []
    found = store.inventory.find(sha256_of(BODIES["sub/model.bin"]))
    assert found is not None
    assert found.is_verified
    assert found.path.is_relative_to(snapshot.parent)


def test_files_meet_in_a_snapshot_with_links_again(store: Store) -> None:
    download(store.cache, BODIES, links=False, tree=True)
    store.scan()
    assert store.inventory.missing(listed(BODIES)) == []
    store.ingester.install(REPO, COMMIT, listed(BODIES))
    store.ingester.install(REPO, COMMIT_2, listed(BODIES))
    assert {name: (store.snapshot_path(REPO, COMMIT_2) / name).read_bytes() for name in BODIES} == BODIES


def test_a_client_that_holds_its_lock_for_long_does_not_stop_an_ingest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfpeer.cache.index.inventory.LOCK_SECONDS", 0.05)
    path = lock_path(store.cache, REPO, git_sha1_of(b"{}"))
    path.parent.mkdir(parents=True)
    with FileLock(path):
        snapshot = fill(store, {"config.json": b"{}"})
    assert (snapshot / "config.json").read_bytes() == b"{}"


def test_a_client_that_waited_for_us_finds_the_blob(store: Store) -> None:
    """Hub protocol: a client blocked on the lock looks again once it has it."""
    digest = sha256_of(b"abc")
    blob = blob_path(store.cache, REPO, digest)
    seen: list[bool] = []

    def client() -> None:
        with FileLock(lock_path(store.cache, REPO, digest)):
            seen.append(blob.exists())

    with etag_lock(store.cache, REPO, digest):
        waiting = threading.Thread(target=client)
        waiting.start()
        snapshots.write_file(blob, "abc")
    waiting.join()
    assert seen == [True]


def test_a_blob_deleted_between_finding_and_linking_leaves_no_dangling_link(store: Store) -> None:
    ingest(store, b"{}", git_sha1_of(b"{}"), OTHER)
    store.ingester.install(REPO, COMMIT, listed({"config.json": b"{}"}))
    blob = blob_path(store.cache, REPO, git_sha1_of(b"{}"))
    blob.unlink()
    snapshot = store.ingester.install(REPO, COMMIT, listed({"config.json": b"{}"}))
    assert (snapshot / "config.json").read_bytes() == b"{}"


def test_blobs_that_were_never_hashed_are_named_before_an_install(store: Store) -> None:
    download(store.cache, BODIES)
    store.scan()
    ingest(store, b"new", git_sha1_of(b"new"))
    files = listed({**BODIES, "new": b"new"})
    assert store.inventory.missing(files) == []
    unverified = store.inventory.unverified_of(files)
    assert {blob.digest for blob in unverified} == {file.digest for file in listed(BODIES)}
    assert all(store.inventory.verify(blob) for blob in unverified)
    assert store.inventory.unverified_of(files) == []


def test_many_installs_at_once_add_up(store: Store) -> None:
    bodies = {f"{number}": b"%d" % number for number in range(64)}
    manifest = manifest_of(bodies)
    store.save_manifest(manifest)

    def work(part: int) -> None:
        files = manifest.files[part::4]
        for file in files:
            store.ingester.ingest_many(REPO, {file.digest: bodies[file.path]})
            store.ingester.install(REPO, COMMIT, [file])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [revision] = store.revisions.all()
    assert (revision.files, revision.is_complete) == (64, True)
    assert revision.size_bytes == sum(map(len, bodies.values()))


# Trust and sharing


def test_a_blob_that_was_changed_is_no_longer_verified(store: Store) -> None:
    digest = sha256_of(b"abc")
    path = ingest(store, b"abc", digest)
    store.set_share(REPO, True)
    assert store.shared.blob(digest) is not None
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert store.shared.blob(digest) is None
    found = store.inventory.find(digest)
    assert found is not None
    assert not found.is_verified
    assert not store.inventory.verify(found)
    assert store.inventory.find(digest) is None
    assert path.exists()
    assert [file.path for file in store.inventory.missing(listed({"x.bin": b"abc"}))] == ["x.bin"]


def test_a_blob_that_was_deleted_is_missing(store: Store) -> None:
    ingest(store, b"abc", sha256_of(b"abc")).unlink()
    assert store.inventory.find(sha256_of(b"abc")) is None
    assert len(store.inventory.missing(listed({"x.bin": b"abc"}))) == 1


def test_a_blob_that_cannot_be_read_is_not_verified_again_and_again(store: Store) -> None:
    download(store.cache, {"a": b"abc"})
    store.scan()
    [blob] = store.inventory.unverified(5)
    with mock.patch("os.preadv", side_effect=OSError(5, "Input/output error")):
        assert not store.inventory.verify(blob)
    assert store.inventory.unverified(5) == []


def test_a_blob_known_to_be_wrong_is_not_found_again_by_looking_into_its_repo(store: Store) -> None:
    download(store.cache, {"a": b"abc"})
    blob = blob_path(store.cache, REPO, git_sha1_of(b"abc"))
    blob.write_bytes(b"xyz")
    found = store.inventory.find(git_sha1_of(b"abc"), REPO)
    assert found is not None
    assert not store.inventory.verify(found)
    assert store.inventory.find(git_sha1_of(b"abc"), REPO) is None
    assert store.inventory.unverified(5) == []


HUB = "https://hub"


def hub_says(
    store: Store, visibility: Visibility, repo: RepoId = REPO, commit: Commit = COMMIT, *, is_origin: bool = True
) -> None:
    """Records the answer of a hub to an asker without a token."""
    place = commit if visibility is Visibility.PUBLIC else ""
    store.learn(repo, [Fact(place, HUB if is_origin else "https://mirror", is_origin, visibility, time.time())], {HUB})


@pytest.mark.parametrize("visibility", [Visibility.PUBLIC, Visibility.GATED, Visibility.PRIVATE, None])
def test_only_public_commits_are_shared_unless_the_owner_overrides(store: Store, visibility: Visibility | None) -> None:
    fill(store, {"a": b"abc"})
    digest = git_sha1_of(b"abc")
    assert store.shared.verdict(REPO, COMMIT).visibility is Visibility.UNKNOWN
    if visibility is not None:
        hub_says(store, visibility)
    is_public = visibility is Visibility.PUBLIC
    assert store.shared.is_commit_shared(REPO, COMMIT) is is_public
    assert (store.shared.blob(digest) is not None) is is_public
    for word in (True, False):
        store.set_share(REPO, word)
        assert store.shared.is_commit_shared(REPO, COMMIT) is (store.shared.blob(digest) is not None) is word
    store.set_share(REPO, None)
    assert store.shared.is_commit_shared(REPO, COMMIT) is is_public


def test_a_public_commit_opens_no_other_commit_of_its_repo(store: Store) -> None:
    fill(store, {"a": b"abc"})
    fill(store, {"a": b"abc", "b": b"secret"}, COMMIT_2)
    hub_says(store, Visibility.PUBLIC)
    assert [store.shared.is_commit_shared(REPO, commit) for commit in (COMMIT, COMMIT_2)] == [True, False]
    assert store.shared.blobs([git_sha1_of(b"abc"), git_sha1_of(b"secret")]).keys() == {git_sha1_of(b"abc")}
    assert {one.commit: (one.visibility, one.is_shared) for one in store.revisions.all()} == {
        COMMIT: ("public", True),
        COMMIT_2: ("unknown", False),
    }


def test_a_blob_in_a_private_and_a_public_repo_is_shared(store: Store) -> None:
    digest = git_sha1_of(b"abc")
    fill(store, {"a": b"abc"})
    hub_says(store, Visibility.PUBLIC, OTHER)
    assert store.shared.blob(digest) is None
    fill(store, {"a": b"abc"}, repo=OTHER)
    assert store.shared.blob(digest) is not None


def test_a_list_that_only_a_peer_gave_opens_no_blob_that_was_here(store: Store) -> None:
    """A peer may list any digest under a commit that an origin lists."""
    digest = git_sha1_of(b"secret")
    fill(store, {"a": b"secret"}, repo=OTHER)
    forged = manifest_of({"a": b"secret"})
    store.save_manifest(forged)
    store.ingester.install(REPO, COMMIT, forged.files)
    hub_says(store, Visibility.PUBLIC)
    assert store.shared.blob(digest) is None
    store.save_manifest(forged, is_of_origin=True)
    assert store.shared.blob(digest) is not None, "an origin says the same"
    store.save_manifest(manifest_of({"a": b"secret", "b": b"other"}))
    assert store.manifests.load(REPO, COMMIT) == forged, "and is not put aside for a peer's"


def test_blobs_given_openly_are_shared_until_a_hub_closes_their_repo(store: Store) -> None:
    digest, other = git_sha1_of(b"abc"), git_sha1_of(b"of another tool")
    fill(store, {"a": b"abc"}, is_open=True)
    assert store.shared.is_commit_shared(REPO, COMMIT)
    assert store.shared.blob(digest) is not None
    assert [one.visibility for one in store.revisions.all()] == ["given"]
    blob_path(store.cache, REPO, other).write_bytes(b"of another tool")
    store.ingester.install(REPO, COMMIT, listed({"b": b"of another tool"}))
    assert store.inventory.verify_all(store.inventory.unverified(5)) == []
    assert not store.shared.is_commit_shared(REPO, COMMIT), "not all that is here of the commit was given openly"
    assert store.shared.blobs([digest, other]).keys() == {digest}
    hub_says(store, Visibility.PRIVATE, is_origin=False)
    assert store.shared.blob(digest) is None
    hub_says(store, Visibility.PUBLIC, is_origin=False)
    assert store.shared.blob(digest) is None, "a mirror opens nothing, not even what a mirror closed"


def test_a_blob_with_one_byte_that_was_not_given_openly_is_not_shared(store: Store) -> None:
    """Also if an earlier process fetched that byte, from a source with another name now."""
    body = bytes(2 * MIB)
    digest = sha256_of(body)
    partial = store.open_partial(digest, len(body))
    partial.write(0, memoryview(body)[:MIB])
    partial.record(0, MIB, "hub")
    partial.close()
    partial = store.open_partial(digest, len(body))
    assert not partial.is_given
    partial.write(MIB, memoryview(body)[MIB:])
    partial.record(MIB, len(body), "hub", is_open=True)
    store.ingester.ingest_blob(partial, REPO)
    assert store.shared.blob(digest) is None


def test_a_file_that_another_tool_replaced_was_not_given_openly(store: Store) -> None:
    fill(store, {"a": b"abc"}, is_open=True)
    path = blob_path(store.cache, REPO, git_sha1_of(b"abc"))
    path.unlink()
    path.write_bytes(b"abc")
    store.scan()
    assert store.inventory.verify_all(store.inventory.unverified(5)) == []
    assert store.shared.blob(git_sha1_of(b"abc")) is None


def test_a_blob_that_was_only_found_is_not_shared_until_it_is_verified(store: Store) -> None:
    download(store.cache, {"a": b"abc"})
    store.scan()
    store.set_share(REPO, True)
    digest = git_sha1_of(b"abc")
    assert store.shared.blob(digest) is None
    [blob] = store.inventory.unverified(5)
    assert store.inventory.verify(blob)
    assert store.shared.blob(digest) is not None
    assert store.inventory.unverified(5) == []


def test_many_ranges_cost_one_query_of_the_catalog(store: Store) -> None:
    digest, other = git_sha1_of(b"abc"), sha256_of(b"not here")
    fill(store, {"a": b"abc"})
    store.save_manifest(manifest_of({"a": b"abc"}), is_of_origin=True)
    hub_says(store, Visibility.PUBLIC)

    def ask() -> object:
        shown = [store.shared.is_commit_shared(repo, COMMIT) for repo in (REPO, OTHER)]
        return store.shared.blobs([digest, other]).keys(), shown, store.shared.may_pass_on(REPO, COMMIT, digest)

    first = ask()
    assert first == ({digest}, [True, False], True)
    with mock.patch.object(Database, "reading", side_effect=AssertionError("it was asked")):
        assert ask() == first


WITHDRAWALS: dict[str, Callable[[Store], object]] = {
    "the owner": lambda store: store.set_share(REPO, False),
    "its hub": lambda store: hub_says(store, Visibility.GATED),
    "a removal": lambda store: store.remove(REPO),
}


@pytest.fixture
def beside(store: Store) -> Iterator[Store]:
    """The same cache as a command without a daemon opens it: another process, as far as SQLite can tell."""
    beside = Store(store.cache, store.home)
    yield beside
    beside.close()


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("by", WITHDRAWALS)
def test_a_withdrawn_blob_is_refused_at_the_next_request(
    store: Store, beside: Store, by: str, is_elsewhere: bool
) -> None:
    fill(store)
    hub_says(store, Visibility.PUBLIC)
    digest = sha256_of(BODIES["sub/model.bin"])
    for _ in range(3):
        assert store.shared.blob(digest) is not None
    WITHDRAWALS[by](beside if is_elsewhere else store)
    assert store.shared.blob(digest) is None
    assert not store.shared.is_commit_shared(REPO, COMMIT)


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_new_blob_is_shared_at_the_next_request(store: Store, beside: Store, is_elsewhere: bool) -> None:
    writing = beside if is_elsewhere else store
    digest = git_sha1_of(b"abc")
    assert store.shared.blob(digest) is None
    fill(writing, {"a": b"abc"})
    assert store.shared.blob(digest) is None
    hub_says(writing, Visibility.PUBLIC)
    assert store.shared.blob(digest) is not None


def test_changes_by_other_tools_count_after_the_scan_that_found_them(store: Store) -> None:
    digest = git_sha1_of(b"abc")
    store.set_share(REPO, True)
    assert store.shared.blob(digest) is None
    download(store.cache, {"a": b"abc"})
    store.scan()
    assert store.inventory.verify_all(store.inventory.unverified(5)) == []
    blob = store.shared.blob(digest)
    assert blob is not None
    blob.path.unlink()
    assert store.shared.blob(digest) is None


def test_an_override_counts_at_once_whichever_process_wrote_it(store: Store, tmp_path: Path) -> None:
    hub_says(store, Visibility.PUBLIC)
    assert store.shared.is_commit_shared(REPO, COMMIT)
    (tmp_path / "home" / "shares.json").write_text(json.dumps({REPO.folder: {"is_shared": False}}))
    assert not store.shared.is_commit_shared(REPO, COMMIT)


def test_the_override_of_an_older_version_holds_for_the_published_commits_only(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    made = read_folder(folder, REPO).manifest
    store.save_manifest(made)
    fill(store, {"a": b"secret"})
    words = {REPO.folder: {"is_shared": True, "is_published": True}, OTHER.folder: {"is_shared": True}}
    (tmp_path / "home" / "shares.json").write_text(json.dumps(words))
    for _ in range(2):
        assert store.shared.is_commit_shared(REPO, made.commit)
        assert not store.shared.is_commit_shared(REPO, COMMIT)
        assert store.shared.is_commit_shared(OTHER, COMMIT), "what the owner alone said stays"
        store.set_share(REPO, None)
    store.set_share(REPO, True)
    assert store.shared.is_commit_shared(REPO, COMMIT)


def test_requests_for_ever_new_digests_do_not_fill_the_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_module, "MAX_REMEMBERED", 10)
    for number in range(100):
        store.shared.blob(sha256_of(b"%d" % number))
    assert len(store.shared._kept.places) <= 11


def test_an_override_outlives_the_catalog(store: Store, tmp_path: Path) -> None:
    store.set_share(OTHER, True)
    store.note_published(REPO, COMMIT, "pegasus")
    store.close()
    (tmp_path / "home" / "catalog.sqlite").unlink()
    again = Store(tmp_path / "hub", tmp_path / "home")
    assert again.shared.is_commit_shared(OTHER, COMMIT)
    assert again.shared.is_published(REPO) and again.shared.is_published(REPO, COMMIT)
    assert again.shared.is_commit_shared(REPO, COMMIT) and not again.shared.is_commit_shared(REPO, COMMIT_2)
    assert not again.shared.is_published(OTHER)
    again.close()


@pytest.mark.parametrize(
    "words", ["{broken", "[" * 100_000, "[]", json.dumps({REPO.folder: {"is_shared": "no"}}), '{"models--x": null}']
)
def test_an_unreadable_override_shares_nothing(store: Store, tmp_path: Path, words: str) -> None:
    hub_says(store, Visibility.PUBLIC)
    (tmp_path / "home" / "shares.json").write_text(words)
    with pytest.raises(BrokenCache):
        store.shared.is_commit_shared(REPO, COMMIT)


# The catalog can go


def test_a_lost_catalog_is_rebuilt_from_the_disk(store: Store, tmp_path: Path) -> None:
    fill(store)
    before = store.revisions.find(REPO, COMMIT)
    store.close()
    (tmp_path / "home" / "catalog.sqlite").unlink()
    again = Store(tmp_path / "hub", tmp_path / "home")
    assert again.revisions.all() == []
    again.scan()
    after = again.revisions.find(REPO, COMMIT)
    assert before is not None
    assert after is not None
    assert (after.listing, after.refs, after.is_complete) == (before.listing, before.refs, True)
    assert again.inventory.missing(listed(BODIES)) == []
    again.close()


def test_statistics_add_up_over_restarts(store: Store, tmp_path: Path) -> None:
    store.traffic.note_received("peer", "node1", 10)
    store.traffic.note_received("peer", "node2", 5)
    store.traffic.note_received("origin", "hub", 1)
    store.traffic.note_sent(7)
    store.close()
    again = Store(tmp_path / "hub", tmp_path / "home")
    again.traffic.note_received("peer", "node1", 1)
    totals = again.totals()
    assert totals["received_bytes"] == {"peer": 16, "origin": 1}
    assert totals["received_by_source"] == {"node1": 11, "node2": 5, "hub": 1}
    assert totals["sent_bytes"] == 7
    assert totals["peer_bytes_by_month"] == {time.strftime("%Y-%m", time.gmtime()): 16}
    again.close()


def test_the_rate_of_sending_is_that_of_the_last_seconds(store: Store) -> None:
    now = 1000.0
    traffic = Traffic(store._catalog.database, clock=lambda: now)
    assert traffic.sent_bytes_per_second == 0
    traffic.note_sent(600)
    traffic.note_sent(400)
    assert traffic.sent_bytes_per_second == 100
    for second in range(50):
        now = 1001.0 + second
        traffic.note_sent(200)
    assert traffic.sent_bytes_per_second == 200
    assert traffic.totals()["sent_bytes_per_second"] == 200, "written bytes count on"
    now += SENT_WINDOW_SECONDS
    assert traffic.sent_bytes_per_second == 0


def test_statistics_that_cannot_be_written_now_are_written_later(store: Store) -> None:
    store.traffic.note_sent(3)
    store.traffic.note_received("peer", "node1", 10)
    with mock.patch("hfpeer.cache.index.traffic.count_in", side_effect=Locked("busy")):
        totals = store.totals()
        assert (totals["sent_bytes"], totals["received_bytes"]) == (0, {}), "all of it or nothing"
    totals = store.totals()
    assert (totals["sent_bytes"], totals["received_bytes"]) == (3, {"peer": 10})
    assert sum(totals["peer_bytes_by_month"].values()) == 10


def test_the_generation_grows_with_what_peers_should_hear_of(store: Store) -> None:
    seen = [store.generation]

    def grew() -> bool:
        seen.append(store.generation)
        return seen[-1] > seen[-2]

    fill(store)
    assert grew()
    hub_says(store, Visibility.PUBLIC)
    assert grew()
    hub_says(store, Visibility.PUBLIC)
    assert not grew(), "the same again, at another time, is no news"
    store.set_share(REPO, False)
    assert grew()
    store.scan()
    assert not grew()
    store.traffic.note_received("peer", "x", 1)
    assert not grew()
    store.remove(REPO)
    assert grew()


def test_a_manifest_is_kept_and_an_attested_one_never_replaces_a_proved_one(store: Store) -> None:
    from dataclasses import replace

    attested = manifest_of(BODIES)
    proved = replace(attested, commit_object=b"tree ...")
    assert store.manifests.load(REPO, COMMIT) is None
    fill(store)
    assert store.manifests.load(REPO, COMMIT) == attested
    store.save_manifest(proved)
    store.save_manifest(attested)
    assert store.manifests.load(REPO, COMMIT) == proved
    assert store.revisions.all()[0].is_proved
    path = store.home / "manifests" / REPO.folder / f"{COMMIT}.json"
    path.write_text("{")
    assert store.manifests.load(REPO, COMMIT) is None


# Removing


def test_removing_a_repo_leaves_nothing_of_it(store: Store) -> None:
    fill(store)
    fill(store, {"a.json": b"{}", "new": b"new"}, COMMIT_2)
    removed = store.remove(REPO)
    assert set(removed.commits) == {COMMIT, COMMIT_2}
    assert (removed.files, removed.freed_bytes) == (5, 7005)
    assert not (store.cache / REPO.folder).exists()
    assert store.revisions.all() == []
    assert store.refs.read(REPO, MAIN) is None
    assert store.manifests.load(REPO, COMMIT) is None
    assert store.totals()["size_bytes"] == 0


def test_removing_a_revision_keeps_blobs_that_another_needs(store: Store) -> None:
    fill(store)
    fill(store, {"config.json": b"{}", "new": b"new"}, COMMIT_2)
    removed = store.remove(REPO, COMMIT)
    assert removed.commits == (COMMIT,)
    assert removed.freed_bytes == 7000
    assert (store.snapshot_path(REPO, COMMIT_2) / "config.json").read_bytes() == b"{}"
    assert [revision.commit for revision in store.revisions.all()] == [COMMIT_2]
    assert store.inventory.find(sha256_of(BODIES["sub/model.bin"])) is None
    assert store.inventory.find(git_sha1_of(b"{}")) is not None
    assert (store.cache / REPO.folder / "refs/main").read_text() == COMMIT_2


def test_refs_to_a_removed_commit_go_with_it(store: Store) -> None:
    fill(store)
    store.refs.write(REPO, Revision("refs/pr/1"), COMMIT, "origin")
    fill(store, {"new": b"new"}, COMMIT_2)
    store.remove(REPO, COMMIT)
    assert names_below(store.cache / REPO.folder / "refs") == ["main"]
    assert store.refs.read(REPO, Revision("refs/pr/1")) is None
    assert not (store.cache / REPO.folder / "trees" / f"{COMMIT}.json").exists()


def test_removing_files_keeps_the_rest_of_the_revision(store: Store) -> None:
    fill(store)
    removed = store.remove(REPO, COMMIT, iter([FilePath("sub/model.bin"), FilePath("never/there")]))
    assert (removed.commits, removed.files, removed.freed_bytes) == ((), 1, 7000)
    revision = store.revisions.find(REPO, COMMIT)
    assert revision is not None
    assert (revision.is_complete, revision.files) == (False, 2)
    assert not (store.snapshot_path(REPO, COMMIT) / "sub").exists()
    assert store.manifests.load(REPO, COMMIT) is not None
    assert store.remove(REPO, COMMIT, [FilePath("config.json"), FilePath("empty")]).commits == (COMMIT,)
    assert not (store.cache / REPO.folder).exists()


def test_removing_a_missing_repo_removes_nothing(store: Store) -> None:
    fill(store)
    assert store.remove(OTHER).files == 0
    assert store.remove(REPO, COMMIT_2).files == 0
    assert len(store.revisions.all()) == 1


def test_a_blob_two_repos_share_on_disk_frees_nothing_until_the_second_goes(store: Store) -> None:
    fill(store, repo=OTHER)
    fill(store)
    assert store.remove(REPO).freed_bytes == 0
    assert (store.snapshot_path(OTHER, COMMIT) / "sub/model.bin").read_bytes() == BODIES["sub/model.bin"]
    assert store.remove(OTHER).freed_bytes == 7002


def test_a_locked_blob_is_not_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.cache.cleaning.removal.LOCK_SECONDS", 0.1)
    fill(store)
    fill(store, {"new": b"new"}, COMMIT_2)
    digest = sha256_of(BODIES["sub/model.bin"])
    with etag_lock(store.cache, REPO, digest):
        store.remove(REPO, COMMIT)
    assert blob_path(store.cache, REPO, digest).exists()
    assert store.inventory.find(digest) is not None


def test_a_link_made_while_blobs_are_removed_keeps_its_blob(store: Store) -> None:
    """The Hub client takes the lock, links a blob, and releases the lock: that blob stays."""
    fill(store)
    fill(store, {"new": b"new"}, COMMIT_2)
    digest = sha256_of(BODIES["sub/model.bin"])
    place = store.snapshot_path(REPO, COMMIT_2) / "late.bin"
    gone = threading.Event()

    def remove() -> None:
        store.remove(REPO, COMMIT)
        gone.set()

    with etag_lock(store.cache, REPO, digest):
        remover = threading.Thread(target=remove)
        remover.start()
        while store.snapshot_path(REPO, COMMIT).exists():
            assert remover.is_alive()
        time.sleep(0.05)
        place.symlink_to(f"../../blobs/{digest.hex}")
    assert gone.wait(10)
    remover.join()
    assert place.read_bytes() == BODIES["sub/model.bin"]


def test_the_shared_store_of_the_hub_client_is_left_alone(store: Store) -> None:
    payload = share_payload(store.cache, b"payload")
    store.scan()
    assert store.remove(REPO).freed_bytes == 0
    assert payload.read_bytes() == b"payload"
    assert not (store.cache / REPO.folder).exists()


def share_payload(cache: Path, body: bytes) -> Path:
    """A repo whose blob is a link into the store that the Hub client shares between repos."""
    payload = cache / "blobs" / "ab" / ("ab" + "0" * 62)
    payload.parent.mkdir(parents=True)
    payload.write_bytes(body)
    payload.chmod(0o444)
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    blob = blob_path(cache, REPO, sha256_of(body))
    blob.parent.mkdir(parents=True)
    blob.symlink_to(f"../../blobs/ab/{payload.name}")
    place = cache / REPO.folder / "snapshots" / COMMIT / "model.bin"
    place.parent.mkdir(parents=True)
    place.symlink_to(f"../../blobs/{blob.name}")
    return payload


def test_a_blob_in_the_shared_store_is_found_verified_and_taken_over(store: Store) -> None:
    payload = share_payload(store.cache, b"payload")
    store.scan()
    digest = sha256_of(b"payload")
    found = store.inventory.find(digest)
    assert found is not None
    assert store.inventory.verify(found)
    store.ingester.install(OTHER, COMMIT_2, listed({"x.bin": b"payload"}))
    assert (store.snapshot_path(OTHER, COMMIT_2) / "x.bin").read_bytes() == b"payload"
    payload.unlink()
    assert (store.snapshot_path(OTHER, COMMIT_2) / "x.bin").read_bytes() == b"payload"


HOUR, DAY = 3600.0, 86400.0


def left_partial(store: Store) -> Path:
    """The folder of a partial that a killed process left."""
    store.open_partial(sha256_of(b"abc"), 3).close()
    return partial_folder(store.cache, sha256_of(b"abc"))


def test_an_idle_partial_is_swept_after_a_daemon_ran_for_long(store: Store) -> None:
    left = left_partial(store)
    store.leftovers.sweep(0.0, DAY)
    for _ in range(24):
        store.leftovers.sweep(HOUR, DAY)
    assert left.exists()
    store.leftovers.sweep(HOUR, DAY)
    assert list(partials_folder(store.cache).iterdir()) == []


def test_a_write_to_a_partial_ends_its_idle_time(store: Store) -> None:
    left = left_partial(store)
    for _ in range(20):
        store.leftovers.sweep(HOUR, DAY)
    left_partial(store)
    for _ in range(20):
        store.leftovers.sweep(HOUR, DAY)
    assert left.exists()


@pytest.mark.parametrize(
    "written_at",
    [1.0, time.time() + 40 * DAY, time.time() - 40 * DAY],
    ids=["long ago", "in the future", "lately"],
)
def test_a_jump_of_the_system_clock_sweeps_no_partial(store: Store, tmp_path: Path, written_at: float) -> None:
    """Whatever the clock showed at the write, at each start of a daemon since, and now."""
    left = left_partial(store)
    for path in left.iterdir():
        os.utime(path, (written_at, written_at))
    for jump in (0.0, 40 * DAY, -40 * DAY, 4000 * DAY):
        with mock.patch("time.time", return_value=time.time() + jump):
            again = Store(store.cache, tmp_path / "home")
            again.leftovers.sweep(0.0, DAY)
            again.leftovers.sweep(HOUR, DAY)
            again.close()
    assert left.exists()


def test_a_daemon_that_was_stopped_for_days_has_not_run_for_days(store: Store) -> None:
    left = left_partial(store)
    store.leftovers.sweep(0.0, DAY)
    store.leftovers.sweep(40 * DAY, DAY)
    assert left.exists()


def test_idle_times_outlive_restarts_and_garbage_starts_them_anew(store: Store, tmp_path: Path) -> None:
    left = left_partial(store)
    note = tmp_path / "home" / "leftovers.json"
    store.leftovers.sweep(0.0, 3 * HOUR)
    store.leftovers.sweep(2 * HOUR, 3 * HOUR)
    kept = note.read_bytes()
    for garbage in (b"", b"[]", b"{", b'{"a": 1}', bytes(10)):
        note.write_bytes(garbage)
        Store(store.cache, tmp_path / "home").leftovers.sweep(2 * HOUR, 3 * HOUR)
        assert left.exists()
    note.write_bytes(kept)
    Store(store.cache, tmp_path / "home").leftovers.sweep(2 * HOUR, 3 * HOUR)
    assert not left.exists()


def test_no_temporary_file_is_left_when_the_disk_is_full(store: Store) -> None:
    from hfpeer.errors import NoSpace

    fill(store)
    before = names_below(store.cache)
    with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")), pytest.raises(NoSpace):
        store.ingester.ingest_many(REPO, {digest_of("x", b"new"): b"new"})
    with mock.patch.object(Path, "replace", side_effect=OSError(28, "No space left")), pytest.raises(NoSpace):
        snapshots.write_ref(store.cache, REPO, Revision("dev"), COMMIT)
    assert names_below(store.cache) == before


def test_the_ref_of_a_published_commit_is_no_answer_of_a_hub(store: Store, tmp_path: Path) -> None:
    fill(store)
    store.note_published(REPO, COMMIT, "pegasus")
    store.name_published(REPO, MAIN, COMMIT)
    store._catalog.drop_refs(REPO.folder, ["main"])
    assert (store.cache / REPO.folder / "refs/main").read_text() == COMMIT
    store.scan()
    assert store.refs.read(REPO, MAIN) is None
    commit, _, by = store.refs.read_published(REPO, MAIN) or ("", 0, "")
    assert (commit, by) == (COMMIT, "pegasus")
    (revision,) = store.revisions.all()
    assert (revision.refs, revision.published_by, revision.is_published_here) == (("main",), "pegasus", True)
    store.remove(REPO)
    assert store.refs.read_published(REPO, MAIN) is None
    assert not store.shared.is_published(REPO)


def test_a_mark_of_a_peer_never_replaces_one_of_this_node_and_marks_that_cannot_be_read_are_left_out(
    store: Store, tmp_path: Path
) -> None:
    store.publications.note(REPO, COMMIT, "orion", is_own=False)
    assert not store.shared.is_published(REPO)
    store.note_published(REPO, COMMIT, "pegasus")
    store.publications.note(REPO, COMMIT, "orion", is_own=False)
    assert store.publications.of(REPO)[COMMIT].by == "pegasus"
    for text in ("{broken", "[]", '{"a": {"b": {}}}', '{"a": 7}'):
        (tmp_path / "home" / "published.json").write_text(text)
        assert store.publications.of(REPO) == {}


def test_an_answer_from_the_future_does_not_win_over_a_ref_that_another_tool_writes(store: Store) -> None:
    fill(store)
    with mock.patch("time.time", return_value=time.time() + 4000 * DAY):
        store.refs.write(REPO, Revision("main"), COMMIT, "hub")
    download(store.cache, {"a.txt": b"newer"}, COMMIT_2)
    found = store.refs.read(REPO, Revision("main"))
    assert found is not None and (found[0], found[2]) == (COMMIT_2, "cache")
    store.scan()
    found = store.refs.read(REPO, Revision("main"))
    assert found is not None and (found[0], found[2]) == (COMMIT_2, "cache")


def test_a_temporary_file_that_cannot_be_removed_fails_nothing(store: Store) -> None:
    with mock.patch.object(Path, "unlink", side_effect=OSError(5, "Input/output error")):
        store.ingester.ingest_many(REPO, {digest_of("x", b"new"): b"new"})
    assert store.inventory.find(digest_of("x", b"new")) is not None


def test_a_removal_that_was_stopped_between_links_and_blobs_is_finished_by_the_next(store: Store) -> None:
    fill(store)
    stop = Stop()

    def stopped(*_: object) -> None:
        stop.set()
        check_stop()

    with mock.patch.object(removal, "etag_lock", side_effect=stopped), pytest.raises(Stopped):
        stop.run(store.remove, REPO, COMMIT)
    assert not store.snapshot_path(REPO, COMMIT).exists()
    assert not (store.cache / REPO.folder / "refs" / "main").exists()
    found = store.refs.read(REPO, Revision("main"))
    assert found is not None and found[0] == COMMIT, "the same command still knows what to remove"
    assert store.remove(REPO, COMMIT).commits == (COMMIT,)
    assert store.refs.read(REPO, Revision("main")) is None
    assert not (store.cache / REPO.folder).exists()


def test_a_blob_that_was_replaced_since_it_was_found_is_not_opened(store: Store) -> None:
    bodies = {"config.json": b"abc", "other.json": b"xyz"}
    fill(store, bodies)
    found = store.inventory.find(digest_of("config.json", b"abc"))
    assert found is not None
    fd = found.open()
    assert os.pread(fd, 3, 0) == b"abc"
    os.close(fd)
    other = found.path.with_name("other")
    other.write_bytes(b"xyz")
    other.replace(found.path)
    with pytest.raises(FileNotFoundError):
        found.open()
