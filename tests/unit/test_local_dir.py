"""A plain folder is filled from a snapshot: what is right stays, what a user changed stays, and nothing leads out."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub._local_folder import read_download_metadata
from huggingface_hub._tree_cache import read_tree_cache

from fakes import exfat
from fakes.exfat import exfat_volume
from fakes.hub_cache import COMMIT, digest_of, download
from fakes.waiting import wait_until
from hfpeer.cache.disk import plain_folder
from hfpeer.cache.disk.linking import LINK_MIN_BYTES
from hfpeer.control.operations import CachedFile
from hfpeer.errors import BrokenCache, Locked, NoSpace, NotThisVolume
from hfpeer.names import Commit
from hfpeer.node.operations.moving import local_dir
from hfpeer.node.operations.moving.local_dir import FilledFolder, fill_folder
from hfpeer.transfer.events import Event, Progressed

BODIES = {"config.json": b"{}", "onnx/a.json": b"[1]", "onnx/deep/w.bin": os.urandom(300_000)}
NO_EXFAT = exfat.why_not()
LATER = Commit("d" * 40)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return download(tmp_path / "hub", BODIES, tree=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "plain"


def listed(bodies: dict[str, bytes]) -> list[CachedFile]:
    return [CachedFile(path, len(body), str(digest_of(path, body)), True) for path, body in bodies.items()]


def fill(folder: Path, snapshot: Path, bodies: dict[str, bytes] = BODIES, **options: Any) -> FilledFolder:
    return fill_folder(folder, snapshot, snapshot.name, listed(bodies), **options)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def inodes(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def size_of(path: Path) -> int:
    """The bytes of a file; 0 for one that is renamed right now."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def left_over(folder: Path) -> list[str]:
    """The files of the folder that are neither the repo's nor the Hub client's."""
    unfinished = folder / ".cache" / "huggingface" / "hfpeer"
    return [path.name for path in unfinished.iterdir() if path.name != "lock"]


def test_a_folder_holds_the_files_and_what_the_hub_client_wants_to_know(folder: Path, snapshot: Path) -> None:
    filled = fill(folder, snapshot)
    assert (filled.folder, filled.right_files, filled.kept, filled.replaced) == (str(folder), 0, (), ())
    assert sum(filled.ways.values()) == 3
    assert contents(folder) == BODIES
    for name, body in BODIES.items():
        known = read_download_metadata(folder, name)
        assert known is not None
        assert (known.commit_hash, known.etag) == (COMMIT, digest_of(name, body).hex)
    tree = read_tree_cache(str(folder / ".cache" / "huggingface"), COMMIT)
    assert tree is not None
    assert tree.keys() == BODIES.keys()
    assert left_over(folder) == []


def test_what_is_right_is_left_alone(folder: Path, snapshot: Path) -> None:
    fill(folder, snapshot)
    before = inodes(folder)
    again = fill(folder, snapshot)
    assert (again.ways, again.right_files) == ({}, 3)
    assert inodes(folder) == before


@pytest.mark.parametrize("loss", ["new times", "no metadata", "half a metadata file", "metadata of nonsense"])
def test_a_right_file_is_known_by_its_hash_when_its_metadata_is_void(folder: Path, snapshot: Path, loss: str) -> None:
    """Case 11: a folder that was copied without its times is neither copied nor fetched again."""
    fill(folder, snapshot)
    metadata = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    if loss == "new times":
        for path in BODIES:
            os.utime(folder / path, (time.time() + 60,) * 2)
    elif loss == "no metadata":
        shutil.rmtree(folder / ".cache")
    else:
        metadata.write_text(f"{COMMIT}\n" if loss.startswith("half") else "a b c")
    before = {path: (folder / path).stat().st_ino for path in BODIES}
    again = fill(folder, snapshot)
    assert (again.ways, again.right_files, again.kept) == ({}, 3, ())
    assert {path: (folder / path).stat().st_ino for path in BODIES} == before
    assert all(read_download_metadata(folder, path) for path in BODIES)


@pytest.mark.parametrize("name", ["config.json", "onnx/deep/w.bin"])
@pytest.mark.parametrize("same_size", [True, False])
def test_a_changed_file_is_left_alone_and_named_until_it_may_be_replaced(
    folder: Path, snapshot: Path, name: str, same_size: bool
) -> None:
    fill(folder, snapshot)
    changed = bytes(len(BODIES[name]) + (0 if same_size else 1))
    (folder / name).write_bytes(changed)
    again = fill(folder, snapshot)
    assert (again.kept, again.replaced, again.right_files) == ((name,), (), 2)
    assert (folder / name).read_bytes() == changed
    assert (snapshot / name).read_bytes() == BODIES[name]
    forced = fill(folder, snapshot, replaceable=[name])
    assert (forced.kept, forced.replaced, forced.right_files) == ((), (name,), 2)
    assert contents(folder) == BODIES


def test_a_file_that_was_there_before_is_a_changed_one(folder: Path, snapshot: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("mine")
    assert fill(folder, snapshot).kept == ("config.json",)
    assert (folder / "config.json").read_text() == "mine"


@pytest.mark.parametrize("times_are_new", [False, True])
def test_the_unchanged_file_of_another_commit_is_replaced(
    tmp_path: Path, folder: Path, snapshot: Path, times_are_new: bool
) -> None:
    fill(folder, snapshot)
    if times_are_new:
        os.utime(folder / "config.json", (time.time() + 60,) * 2)
    later = {**BODIES, "config.json": b'{"v": 2}'}
    filled = fill(folder, download(tmp_path / "hub", later, LATER), later)
    assert (sum(filled.ways.values()), filled.right_files, filled.kept, filled.replaced) == (1, 2, (), ())
    assert contents(folder) == later
    known = [read_download_metadata(folder, path) for path in BODIES]
    assert all(one and one.commit_hash == LATER for one in known)


def test_a_changed_file_stays_when_the_commit_moves(tmp_path: Path, folder: Path, snapshot: Path) -> None:
    fill(folder, snapshot)
    (folder / "config.json").write_text("mine")
    os.utime(folder / "config.json", (time.time() + 60,) * 2)
    later = {**BODIES, "config.json": b'{"v": 2}'}
    assert fill(folder, download(tmp_path / "hub", later, LATER), later).kept == ("config.json",)


def test_links_are_made_for_large_lfs_files_only(tmp_path: Path, folder: Path) -> None:
    bodies = {"big.bin": bytes(LINK_MIN_BYTES), "big.json": bytes(LINK_MIN_BYTES), "small.bin": b"small"}
    snapshot = download(tmp_path / "hub", bodies)
    filled = fill(folder, snapshot, bodies, links_large_files=True)
    if "clone" in filled.ways:
        pytest.skip("this file system shares blocks")
    assert filled.ways["hard_link"] == 1
    assert (folder / "big.bin").samefile(snapshot / "big.bin")
    assert stat.S_IMODE((folder / "big.bin").stat().st_mode) == 0o444
    assert not (folder / "big.json").samefile(snapshot / "big.json")
    assert not (folder / "small.bin").samefile(snapshot / "small.bin")
    assert fill(folder, snapshot, bodies, links_large_files=True).right_files == 3


def test_without_links_the_folder_has_bytes_of_its_own(tmp_path: Path, folder: Path) -> None:
    bodies = {"big.bin": bytes(LINK_MIN_BYTES)}
    snapshot = download(tmp_path / "hub", bodies)
    fill(folder, snapshot, bodies)
    assert (folder / "big.bin").stat().st_nlink == 1
    (folder / "big.bin").write_bytes(b"mine")
    assert (snapshot / "big.bin").read_bytes() == bodies["big.bin"]


@pytest.mark.parametrize(
    ("target", "is_kept"), [("right", False), ("nowhere", False), ("other", True)], ids=["same", "dangling", "another"]
)
def test_a_link_in_the_place_of_a_file_is_replaced_if_nothing_is_lost(
    tmp_path: Path, folder: Path, snapshot: Path, target: str, is_kept: bool
) -> None:
    """Older Hub clients left links to the cache in such folders."""
    folder.mkdir()
    (tmp_path / "other").write_text("of the user")
    (folder / "config.json").symlink_to(snapshot / "config.json" if target == "right" else tmp_path / target)
    filled = fill(folder, snapshot)
    assert (filled.kept == ("config.json",)) is is_kept
    assert (folder / "config.json").is_symlink() is is_kept
    assert (tmp_path / "other").read_text() == "of the user"
    assert not (tmp_path / "nowhere").exists()
    fill(folder, snapshot, replaceable=BODIES)
    assert contents(folder) == BODIES
    assert not (folder / "config.json").is_symlink()
    assert (tmp_path / "other").read_text() == "of the user"


@pytest.mark.parametrize("place", ["onnx", "onnx/deep", ".cache", ".cache/huggingface", ".cache/huggingface/download"])
def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path, folder: Path, snapshot: Path, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / place).parent.mkdir(parents=True)
    (folder / place).symlink_to(outside)
    with pytest.raises(BrokenCache, match=f"{folder / place} is a link to {outside}, and hfpeer does not follow it"):
        fill(folder, snapshot)
    assert list(outside.iterdir()) == []
    assert (folder / place).is_symlink()


def test_the_folder_itself_may_be_a_link_of_the_user(tmp_path: Path, folder: Path, snapshot: Path) -> None:
    (tmp_path / "disk").mkdir()
    folder.symlink_to(tmp_path / "disk")
    fill(folder, snapshot)
    assert contents(tmp_path / "disk") == BODIES


@pytest.mark.parametrize("place", ["", "onnx", "onnx/deep", ".cache"])
def test_a_file_where_a_folder_must_be(folder: Path, snapshot: Path, place: str) -> None:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text("a file")
    with pytest.raises(BrokenCache, match=f"{folder / place} is a file, but has to be a folder") as caught:
        fill(folder, snapshot)
    assert "choose another folder" in str(caught.value.hint)
    assert (folder / place).read_text() == "a file"


def test_a_folder_or_a_pipe_where_a_file_must_be(folder: Path, snapshot: Path) -> None:
    (folder / "config.json").mkdir(parents=True)
    with pytest.raises(BrokenCache, match=r"config\.json is a folder, but has to be a file"):
        fill(folder, snapshot)
    (folder / "config.json").rmdir()
    os.mkfifo(folder / "config.json")
    with pytest.raises(BrokenCache, match=r"config\.json is a special file, but has to be a file"):
        fill(folder, snapshot)


def failing_after(count: int, number: int) -> Callable[..., int]:
    calls = iter(range(count))

    def write(old: int, new: int, size: int, *_offsets: int | None) -> int:
        if next(calls, None) is None:
            raise OSError(number, os.strerror(number))
        return os.write(new, os.read(old, 100_000))

    return write


def test_a_full_disk_keeps_what_is_whole_and_the_same_call_goes_on(
    folder: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "copy_file_range", failing_after(5, errno.ENOSPC))
        with pytest.raises(NoSpace, match=r"the volume is full\. 300,000 bytes are needed") as caught:
            fill(folder, snapshot)
    assert "choose another folder" in str(caught.value.hint)
    assert "conf cache set" not in str(caught.value.hint)
    assert contents(folder).keys() == {"config.json", "onnx/a.json"}
    assert left_over(folder) == []
    assert fill(folder, snapshot).right_files == 2
    assert contents(folder) == BODIES


@pytest.mark.parametrize(("number", "words"), [(errno.EROFS, "mounted read-only"), (errno.EACCES, "write access")])
def test_a_folder_that_cannot_be_written_is_named(
    folder: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    folder.mkdir()
    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(BrokenCache, match=str(folder)) as caught:
        fill(folder, snapshot)
    assert words in str(caught.value.hint)


def test_a_volume_inside_the_folder_gets_its_files_too(
    folder: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def across(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if not os.path.samestat(os.fstat(src_dir_fd), os.fstat(dst_dir_fd)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", across)
    fill(folder, snapshot)
    assert contents(folder) == BODIES
    assert left_over(folder) == []


@pytest.mark.skipif(NO_EXFAT is not None, reason=NO_EXFAT or "")
def test_a_folder_on_a_stick(tmp_path: Path) -> None:
    """exFAT has no links and no modes, its times are coarse, and it cannot hold every name."""
    bodies = {**BODIES, "big.bin": bytes(LINK_MIN_BYTES)}
    snapshot = download(tmp_path / "hub", bodies, tree=True)
    with exfat_volume(tmp_path) as stick:
        filled = fill(stick / "plain", snapshot, bodies, links_large_files=True)
        assert sum(filled.ways.values()) == 4
        assert "hard_link" not in filled.ways
        assert contents(stick / "plain") == bodies
        assert all(read_download_metadata(stick / "plain", path) for path in bodies)
        assert fill(stick / "plain", snapshot, bodies).right_files == 4
        odd = {"a:b.json": b"{}"}
        with pytest.raises(NotThisVolume, match=r"a:b\.json.* \(: in its name\)"):
            fill(stick / "plain", download(tmp_path / "hub", odd, LATER), odd)


def test_a_blob_that_vanished_is_named(folder: Path, snapshot: Path) -> None:
    (snapshot / "config.json").resolve().unlink()
    with pytest.raises(BrokenCache, match="Another process deleted a file from the cache"):
        fill(folder, snapshot)
    assert contents(folder) == {}


def test_what_a_killed_process_left_is_swept(folder: Path, snapshot: Path) -> None:
    unfinished = folder / ".cache" / "huggingface" / "hfpeer"
    unfinished.mkdir(parents=True)
    (unfinished / "0123456789abcdef").write_bytes(bytes(1000))
    fill(folder, snapshot)
    assert left_over(folder) == []


KILLED = """
import os, sys, time
from pathlib import Path
from hfpeer.control.operations import CachedFile
from hfpeer.node.operations.moving.local_dir import fill_folder
kernel, folder, snapshot = os.copy_file_range, Path(sys.argv[1]), Path(sys.argv[2])
def slowly(old, new, size, *offsets):
    time.sleep(0.05)
    return kernel(old, new, 20_000, *offsets)
os.copy_file_range = slowly
files = [CachedFile(*line.split(" ")[:1], int(line.split(" ")[1]), line.split(" ")[2], True) for line in sys.argv[3:]]
fill_folder(folder, snapshot, snapshot.name, files)
"""


@pytest.mark.parametrize("copied_bytes", [20_000, 150_000, 280_000])
def test_a_kill_leaves_nothing_wrong_and_the_next_call_finishes(
    folder: Path, snapshot: Path, copied_bytes: int
) -> None:
    words = [f"{file.path} {file.size_bytes} {file.digest}" for file in listed(BODIES)]
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(snapshot), *words])
    unfinished = folder / ".cache" / "huggingface" / "hfpeer"
    try:
        wait_until(lambda: any(size_of(path) >= copied_bytes for path in unfinished.glob("*")), "no copy began")
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert contents(folder).items() <= BODIES.items()
    assert "onnx/deep/w.bin" not in contents(folder)
    assert left_over(folder) != []
    assert fill(folder, snapshot).right_files == 2
    assert contents(folder) == BODIES
    assert left_over(folder) == []


def test_a_second_process_waits_for_the_first(folder: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_folder, "LOCK_SECONDS", 0.2)
    with plain_folder.PlainFolder(folder), pytest.raises(Locked, match="Another process is filling the folder"):
        fill(folder, snapshot)
    fill(folder, snapshot)


@pytest.mark.parametrize("flock", ["fails", "does nothing"])
def test_nothing_rests_on_the_lock(folder: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch, flock: str) -> None:
    def no_flock(fd: int) -> bool:
        if flock == "fails":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return True

    monkeypatch.setattr(plain_folder, "take_flock", no_flock)
    fill(folder, snapshot)
    assert contents(folder) == BODIES


def test_the_progress_of_large_files_is_told(folder: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_dir, "EVENT_SECONDS", 0.0)
    events: list[Event] = []
    fill(folder, snapshot, on_event=events.append)
    last = events[-1]
    assert isinstance(last, Progressed)
    assert (last.present_bytes, last.size_bytes, last.files_done, last.files_total) == (300_005, 300_005, 2, 3)
