"""Networks, sticks and read-only volumes: what they cannot do is one sentence, and nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import exfat
from fakes.exfat import exfat_volume
from fakes.hub import HubSimulator, Lfs
from fakes.hub_cache import COMMIT, REPO, download, manifest_of, proved_manifest_of, sha256_of
from fakes.machine import HFPEER
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.disk import mounts
from hfpeer.cache.disk.os_errors import storage_error
from hfpeer.cache.disk.volume import refuse_unfit
from hfpeer.cache.index.schema import DOUBT_NS
from hfpeer.cache.store import Store
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest
from hfpeer.errors import NotThisVolume
from hfpeer.names import MAIN, FilePath, RepoId, Revision
from hfpeer.node.node import Node

BODIES = {"config.json": b"{}", "weights.bin": bytes(range(256)) * 8000}
NO_EXFAT = exfat.why_not()
needs_exfat = pytest.mark.skipif(NO_EXFAT is not None, reason=NO_EXFAT or "")


def why_no_mounts() -> str | None:
    """Why this process cannot mount something in a namespace of its own; None if it can."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        return "mounting needs root and unshare"
    tried = subprocess.run([unshare, "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "no mount namespaces here"


NO_MOUNTS = why_no_mounts()
needs_mounts = pytest.mark.skipif(NO_MOUNTS is not None, reason=NO_MOUNTS or "")


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    with exfat_volume(tmp_path) as volume:
        yield volume


def on_a_volume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """Makes the system list everything as one volume of this kind."""
    device = tmp_path.stat().st_dev
    listed = tmp_path / "mounts"
    listed.write_text(f"21 1 {os.major(device)}:{os.minor(device)} / / rw - {kind} server:/ rw\n")
    monkeypatch.setattr(mounts, "LIST", listed)
    mounts.forget()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "gpfs", "fuse.sshfs", "fuseblk", "vfat"])
def test_a_blob_is_known_by_size_and_time_where_its_number_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    on_a_volume(monkeypatch, tmp_path, kind)
    download(tmp_path / "hub", BODIES)
    store = Store(tmp_path / "hub", tmp_path / "home")
    store.scan()
    assert store.inventory.verify_all(store.inventory.unverified(100)) == []
    digest = sha256_of(BODIES["weights.bin"])
    blob = store.inventory.find(digest)
    assert blob is not None and blob.is_verified
    before = blob.path.stat()
    other = blob.path.with_name("copy")
    shutil.copy2(blob.path, other)
    other.replace(blob.path)
    assert blob.path.stat().st_ino != before.st_ino
    again = store.inventory.find(digest)
    assert again is not None and again.is_verified
    os.close(again.open())
    os.utime(blob.path, ns=(1, 1))
    changed = store.inventory.find(digest)
    assert changed is not None and not changed.is_verified
    store.close()


def test_a_local_volume_still_tells_a_file_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_volume(monkeypatch, tmp_path, "ext4")
    assert mounts.inode_of(tmp_path.stat()) == tmp_path.stat().st_ino


def test_a_verdict_in_doubt_is_no_verdict_until_the_file_was_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With whole seconds a write right after the hash leaves size and time as they were."""
    on_a_volume(monkeypatch, tmp_path, "vfat")
    download(tmp_path / "hub", BODIES)
    digest = sha256_of(BODIES["weights.bin"])
    blob = tmp_path / "hub" / REPO.folder / "blobs" / digest.hex
    written_ns = time.time_ns() // 1_000_000_000 * 1_000_000_000
    os.utime(blob, ns=(written_ns, written_ns))
    store = Store(tmp_path / "hub", tmp_path / "home")
    store.scan()
    store.set_share(REPO, True)
    store.inventory.verify_all(store.inventory.unverified(100))
    assert store.shared.blob(digest) is None
    blob.write_bytes(bytes(len(BODIES["weights.bin"])))
    os.utime(blob, ns=(written_ns, written_ns))
    assert [one.path for one in store.inventory.unverified(100)] == [], "now a second hash would prove no more"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4)
    monkeypatch.setattr(time, "time_ns", lambda: written_ns + DOUBT_NS + 1_000_000_000)
    (doubted,) = store.inventory.unverified(100)
    assert doubted.path == blob
    assert store.inventory.verify_all([doubted]) == [doubted], "the write is found"
    assert store.inventory.find(digest) is None
    store.close()


@needs_exfat
def test_a_cache_on_a_stick_is_complete_verified_and_shared(stick: Path, tmp_path: Path) -> None:
    store = Store(stick / "hub", tmp_path / "home")
    manifest = manifest_of(BODIES)
    store.save_manifest(manifest)
    store.ingester.ingest_many(REPO, {file.digest: BODIES[file.path] for file in manifest.files})
    store.ingester.install(REPO, COMMIT, manifest.files)
    store.scan()
    (found,) = store.revisions.all()
    assert found.is_complete is True
    assert store.verify().exit_code == 0
    assert store.inventory.missing(manifest.files) == []
    store.close()


@needs_exfat
def test_names_that_a_stick_cannot_hold_are_refused_before_the_first_byte(stick: Path) -> None:
    files = [("a:b.txt", 1), ("sub/what?.json", 1), ("README", 1), ("readme", 1), ("fine.bin", 1)]
    with pytest.raises(NotThisVolume) as caught:
        refuse_unfit(stick / "hub", files)
    assert "4 of 5 files" in caught.value.message and "'a:b.txt' (: in its name)" in caught.value.message
    assert "--exclude" in str(caught.value.hint) and caught.value.exit_code == 8
    assert list(stick.iterdir()) == []
    refuse_unfit(stick / "hub", [("fine.bin", 5 << 30), ("sub/also fine.txt", 1)])


@needs_exfat
def test_an_add_of_a_file_that_another_one_on_a_stick_hides_is_refused_before_its_first_byte(
    stick: Path, tmp_path: Path
) -> None:
    bodies: dict[str, bytes | Lfs] = {"README.md": b"upper", "readme.md": Lfs(b"lower" * 1000), "sub/a": b"1"}
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/tiny", bodies)
        hub.put_repo("model", "Acme/Tiny", {"config.json": b"{}"})
        environ = {
            "HFPEER_HOME": str(tmp_path / "home"),
            "HF_HUB_CACHE": str(stick / "hub"),
            "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
        }

        async def run() -> None:
            node = Node(read_settings(environ))
            await node.start(None)

            async def add(*files: str, repo: str = "acme/tiny") -> Path:
                request = AddRequest(RepoId.parse(repo), MAIN, tuple(map(FilePath, files)))
                return Path((await node.add(request, lambda event: None)).snapshot)

            try:
                snapshot = await add("README.md", "sub/a")
                with pytest.raises(NotThisVolume, match=r"1 of 1 files .*'readme.md'"):
                    await add("readme.md")
                with pytest.raises(NotThisVolume, match="2 of 3 files"):
                    await add()
                with pytest.raises(NotThisVolume, match="models--Acme--Tiny cannot be made"):
                    await add(repo="Acme/Tiny")
                assert (snapshot / "README.md").read_bytes() == b"upper"
                assert {one.repo for one in await node.list_revisions()} == {"acme/tiny"}
            finally:
                await node.stop()

        asyncio.run(run())
    assert not [path for path in (stick / "hub").rglob("*") if path.is_file() and path.read_bytes()[:5] == b"lower"]


def test_a_usual_volume_refuses_no_name(tmp_path: Path) -> None:
    refuse_unfit(tmp_path / "hub", [("a:b?.txt", 1), ("README", 1), ("readme", 1), ("ends.", 1), ("large", 1 << 40)])
    assert list(tmp_path.iterdir()) == []


def test_fat_refuses_a_large_file_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_volume(monkeypatch, tmp_path, "vfat")
    with pytest.raises(NotThisVolume, match="4 GiB or more"):
        refuse_unfit(tmp_path / "hub", [("w.bin", (1 << 32) - 1), ("large.bin", 1 << 32)])


@pytest.mark.parametrize(
    ("number", "code", "said", "hint"),
    [
        (errno.EFBIG, "not_this_volume", "FAT holds none of 4 GiB or more", "exFAT or ext4"),
        (errno.ENOSPC, "no_space", "the volume is full", "Make room"),
        (errno.EROFS, "broken_cache", "Read-only file system", "mounted read-only"),
        (errno.ESTALE, "broken_cache", "Stale file handle", "Mount /mnt/share again"),
        (errno.ENOTCONN, "broken_cache", "not connected", "Mount /mnt/share again"),
        (errno.EIO, "broken_cache", "Input/output error", "reports a fault"),
    ],
)
def test_an_error_of_the_volume_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str, said: str, hint: str
) -> None:
    (tmp_path / "mounts").write_text("21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:44 / /mnt/share rw - nfs4 s:/ rw\n")
    monkeypatch.setattr(mounts, "LIST", tmp_path / "mounts")
    error = storage_error(OSError(number, os.strerror(number)), "write a blob", Path("/mnt/share/hub/blob"))
    assert (error.code, error.exit_code) == (code, 8)
    assert said in error.message and hint in str(error.hint)


def test_a_limit_of_this_process_is_not_blamed_on_the_volume() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, hard))
    try:
        error = storage_error(OSError(errno.EFBIG, "File too large"), "write a blob", Path("/hub/blob"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.code == "no_space" and "this process may write" in error.message


READ_ONLY = """
mount --make-rprivate /
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 90
shift
exec "$@"
"""


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize("words", ["model ls", "verify", "model add -r acme/tiny", "why acme/tiny"])
def test_a_complete_cache_that_is_mounted_read_only_works(tmp_path: Path, words: str) -> None:
    manifest = proved_manifest_of(BODIES)
    cache = tmp_path / "hub"
    download(cache, BODIES, manifest.commit)
    write_proof(cache, manifest)
    environment = {
        "PATH": os.environ["PATH"],
        "HFPEER_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(cache),
        "HFPEER_UPSTREAMS": "",
        "HOME": str(tmp_path),
    }
    before = sorted(str(path) for path in cache.rglob("*"))
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(cache), *HFPEER, *words.split(), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sorted(str(path) for path in cache.rglob("*")) == before
    assert str(manifest.commit) in json.dumps(json.loads(ran.stdout))


def test_a_folder_that_was_set_and_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """Its disk is unplugged: hfpeer must not fill the disk below."""
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "settings.toml").write_text(f'cache = "{tmp_path / "disk" / "hub"}"\n')

    async def run() -> None:
        node = Node(read_settings({"HFPEER_HOME": str(tmp_path / "home"), "HFPEER_UPSTREAMS": ""}))
        await node.start(None)
        try:
            with pytest.raises(Exception, match="is not there") as caught:
                await node.add(AddRequest(REPO, Revision("main")), lambda event: None)
            assert getattr(caught.value, "exit_code", 0) == 8
            with pytest.raises(Exception, match="is not there"):
                await node.list_revisions()
        finally:
            await node.stop()

    asyncio.run(run())
    assert not (tmp_path / "disk").exists()
