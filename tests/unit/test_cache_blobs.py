"""A partial blob on a real disk: two processes, a kill, a full disk, a folder that cannot be written."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from fakes.hub_cache import git_sha1_of, sha256_of
from hfpeer.cache.cleaning.leftovers import sweep
from hfpeer.cache.disk.layout import partial_folder
from hfpeer.cache.partial.blob import open_partial
from hfpeer.cache.partial.hashing import BlobHash, hash_file
from hfpeer.errors import BrokenCache, Locked, NoSpace
from hfpeer.names import Digest
from hfpeer.ranges import MIB
from hfpeer.system.cancellation import Stop, Stopped

DIGEST = Digest("sha256", "a" * 64)


def child(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs `program` and talks by lines."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


WRITE_FOREVER = """
import sys
from pathlib import Path
from hfpeer.cache.partial.blob import open_partial
from hfpeer.names import Digest
partial = open_partial(Path(sys.argv[1]), Digest("sha256", "a" * 64), 64 << 20)
for number in range(64):
    partial.write(number << 20, memoryview(bytes([number + 1]) * (1 << 20)))
    partial.record(number << 20, number + 1 << 20, "peer:child")
    print(number, flush=True)
    if number == 10:
        sys.stdin.readline()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has written eleven pieces and is stopped in the middle."""
    process = child(WRITE_FOREVER, tmp_path)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "10":
        assert process.poll() is None
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_at_once_that_the_first_is_at_work(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    with pytest.raises(Locked):
        open_partial(tmp_path, DIGEST, 64 * MIB)


def test_the_partial_of_a_killed_process_is_continued(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    partial = open_partial(tmp_path, DIGEST, 64 * MIB)
    assert list(partial.present) == [(0, 11 * MIB)]
    assert partial.sources() == [(0, 11 * MIB, "peer:child")]
    view = memoryview(bytearray(11 * MIB))
    assert partial.read(0, view) == 11 * MIB
    assert all(view[number * MIB : (number + 1) * MIB] == bytes([number + 1]) * MIB for number in range(11))
    partial.remove()


def test_the_same_process_cannot_open_it_twice_either(tmp_path: Path) -> None:
    first = open_partial(tmp_path, DIGEST, 10)
    with pytest.raises(Locked):
        open_partial(tmp_path, DIGEST, 10)
    first.close()
    open_partial(tmp_path, DIGEST, 10).remove()
    assert not partial_folder(tmp_path, DIGEST).exists()


def test_two_processes_without_flock_are_kept_apart_too(tmp_path: Path) -> None:
    with mock.patch("fcntl.flock", side_effect=OSError(errno.ENOSYS, "Function not implemented")):
        first = open_partial(tmp_path, DIGEST, 10)
        with pytest.raises(Locked):
            open_partial(tmp_path, DIGEST, 10)
        first.close()
        open_partial(tmp_path, DIGEST, 10).remove()


def test_bytes_are_exact_in_memory_and_whole_pieces_on_disk(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 3 * MIB)
    partial.record(0, MIB + 5, "peer:a")
    partial.record(2 * MIB, 3 * MIB - 1, "peer:b")
    assert list(partial.present) == [(0, MIB + 5), (2 * MIB, 3 * MIB - 1)]
    assert not partial.is_whole
    partial.close()
    again = open_partial(tmp_path, DIGEST, 3 * MIB)
    assert list(again.present) == [(0, MIB)]
    again.remove()


def test_a_piece_of_several_sources_keeps_the_source_of_each_part_over_a_restart(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, MIB)
    partial.record(0, 700, "peer:a")
    partial.record(700, MIB, "peer:b")
    partial.close()
    again = open_partial(tmp_path, DIGEST, MIB)
    assert again.is_whole
    assert again.sources() == [(0, 700, "peer:a"), (700, MIB, "peer:b")]
    again.remove()


def test_bytes_found_wrong_stay_forgotten(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 2 * MIB)
    partial.record(0, 2 * MIB, "peer:liar")
    partial.discard(10, 20)
    partial.close()
    again = open_partial(tmp_path, DIGEST, 2 * MIB)
    assert list(again.present) == [(0, 10), (20, 2 * MIB)]
    again.remove()


def test_an_empty_blob_is_whole_from_the_start(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 0)
    assert partial.is_whole
    partial.record(0, 0, "peer:a")
    partial.sync()
    partial.move_to(tmp_path / "blobs" / "x")
    assert (tmp_path / "blobs" / "x").read_bytes() == b""


def test_another_size_begins_anew(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, MIB)
    partial.record(0, MIB, "peer:a")
    partial.close()
    other = open_partial(tmp_path, DIGEST, 2 * MIB)
    assert not other.present
    assert other.path.stat().st_size == 2 * MIB
    other.remove()


def test_a_journal_left_behind_by_an_ingest_does_not_count_for_a_new_partial(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, MIB)
    partial.record(0, MIB, "peer:a")
    partial.path.rename(tmp_path / "published")
    partial.close()
    again = open_partial(tmp_path, DIGEST, MIB)
    assert not again.present
    again.remove()


def test_an_ingested_blob_has_the_mode_of_a_new_file(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            partial = open_partial(tmp_path, DIGEST, 3)
            partial.move_to(tmp_path / "blobs" / str(mask))
        finally:
            os.umask(before)
        assert (tmp_path / "blobs" / str(mask)).stat().st_mode & 0o777 == mode
    assert not partial_folder(tmp_path, DIGEST).exists()


def test_an_ingest_replaces_a_link_and_does_not_write_through_it(tmp_path: Path) -> None:
    payload, blob = tmp_path / "payload", tmp_path / "blobs" / "x"
    payload.write_bytes(b"shared by others")
    blob.parent.mkdir()
    blob.symlink_to("../payload")
    partial = open_partial(tmp_path, DIGEST, 3)
    partial.write(0, memoryview(b"new"))
    partial.move_to(blob)
    assert payload.read_bytes() == b"shared by others"
    assert not blob.is_symlink()
    assert blob.read_bytes() == b"new"


def test_a_repo_on_another_volume_gets_a_copy(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 3)
    partial.write(0, memoryview(b"new"))
    cross = OSError(errno.EXDEV, "Invalid cross-device link")
    replace = Path.replace

    def rename(self: Path, target: Path) -> Path:
        if self.name == "data":
            raise cross
        return replace(self, target)

    with mock.patch.object(Path, "replace", rename), mock.patch("os.link", side_effect=cross):
        partial.move_to(tmp_path / "blobs" / "x")
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == ["x"]
    assert (tmp_path / "blobs" / "x").read_bytes() == b"new"
    assert not partial_folder(tmp_path, DIGEST).exists()


def test_space_is_reserved_where_the_file_system_can(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 8 * MIB)
    assert partial.path.stat().st_blocks * 512 >= 8 * MIB
    partial.remove()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_elsewhere_the_file_is_sparse(tmp_path: Path, number: int) -> None:
    with mock.patch("os.posix_fallocate", side_effect=OSError(number, "no")):
        partial = open_partial(tmp_path, DIGEST, 8 * MIB)
    assert partial.path.stat().st_size == 8 * MIB
    partial.remove()


# The disk refuses


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of four mebibytes, made by root."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("needs root")
    place = tmp_path / "volume"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_a_blob_too_large_for_the_volume_is_refused_before_a_byte_is_fetched(small_volume: Path) -> None:
    with pytest.raises(NoSpace) as caught:
        open_partial(small_volume, DIGEST, 16 * MIB)
    error = caught.value
    assert error.facts["volume"] == str(small_volume)
    assert error.facts["needed_bytes"] == 16 * MIB
    assert 0 < error.facts["free_bytes"] <= 4 * MIB
    assert "16,777,216 bytes are needed" in error.message
    assert "continues where this one stopped" in (error.hint or "")
    assert not partial_folder(small_volume, DIGEST).exists()


@pytest.mark.root
def test_the_figure_of_what_is_free_does_not_count_what_the_refused_blob_had_reserved(small_volume: Path) -> None:
    before = os.statvfs(small_volume).f_bavail * os.statvfs(small_volume).f_frsize
    with mock.patch("hfpeer.cache.partial.files.ALLOCATION_SAMPLE_BYTES", 3 * MIB), pytest.raises(NoSpace) as caught:
        open_partial(small_volume, DIGEST, 16 * MIB)
    assert before - caught.value.facts["free_bytes"] < MIB


@pytest.mark.root
def test_a_volume_that_fills_up_meanwhile_keeps_what_came(small_volume: Path) -> None:
    with mock.patch("os.posix_fallocate", side_effect=OSError(errno.EOPNOTSUPP, "no")):
        partial = open_partial(small_volume, DIGEST, 16 * MIB)
    written = 0
    with pytest.raises(NoSpace) as caught:
        for number in range(16):
            partial.write(number * MIB, memoryview(bytes(MIB)))
            partial.record(number * MIB, (number + 1) * MIB, "peer:a")
            written = number + 1
    partial.close()
    assert caught.value.facts["needed_bytes"] == (16 - written) * MIB
    subprocess.run(["mount", "-o", "remount,size=32m", small_volume], check=True)
    again = open_partial(small_volume, DIGEST, 16 * MIB)
    assert list(again.present) == [(0, written * MIB)]
    again.remove()


@pytest.mark.root
def test_a_read_only_volume_is_named_as_one(small_volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_volume], check=True)
    with pytest.raises(BrokenCache) as caught:
        open_partial(small_volume, DIGEST, 10)
    assert "read-only" in (caught.value.hint or "")


def test_a_limit_on_the_size_of_files_is_no_space_too(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        with pytest.raises(NoSpace):
            open_partial(tmp_path, DIGEST, 2 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EIO, BrokenCache), (errno.EROFS, BrokenCache)],
)
def test_errors_of_the_disk_during_a_write_are_translated(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    partial = open_partial(tmp_path, DIGEST, MIB)
    with mock.patch("os.pwrite", side_effect=OSError(number, os.strerror(number))), pytest.raises(kind):
        partial.write(0, memoryview(b"x"))
    partial.remove()


def test_a_write_cut_short_is_finished(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 10)
    pwrite = os.pwrite
    with mock.patch("os.pwrite", lambda fd, view, offset: pwrite(fd, view[:3], offset)):
        partial.write(0, memoryview(b"0123456789"))
    assert partial.path.read_bytes() == b"0123456789"
    partial.remove()


def test_a_journal_that_cannot_grow_stays_readable(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 3 * MIB)
    partial.record(0, MIB, "peer:a")
    write = os.write
    with mock.patch("os.write", lambda fd, body: write(fd, body[:50])), pytest.raises(NoSpace):
        partial.record(MIB, 2 * MIB, "peer:a")
    partial.record(2 * MIB, 3 * MIB, "peer:a")
    partial.close()
    again = open_partial(tmp_path, DIGEST, 3 * MIB)
    assert list(again.present) == [(0, MIB), (2 * MIB, 3 * MIB)]
    again.remove()


def test_a_closed_partial_refuses_to_write(tmp_path: Path) -> None:
    partial = open_partial(tmp_path, DIGEST, 10)
    partial.close()
    partial.close()
    with pytest.raises(BrokenCache):
        partial.write(0, memoryview(b"x"))


# Sweeping


def test_stale_partials_are_swept_and_open_or_fresh_ones_stay(tmp_path: Path) -> None:
    old, young, used = (Digest("sha256", letter * 64) for letter in "abc")
    for digest in (old, young):
        open_partial(tmp_path, digest, MIB).close()
    held = open_partial(tmp_path, used, MIB)
    stray = tmp_path / "models--a--b" / ".0123abcd.hfpeer"
    stray.parent.mkdir()
    stray.touch()
    assert sweep(tmp_path, lambda name, _: not name.endswith(young.hex)) >= MIB
    assert not partial_folder(tmp_path, old).exists()
    assert not stray.exists()
    assert partial_folder(tmp_path, young).exists()
    assert held.path.exists()
    held.remove()


# Hashes


@pytest.mark.parametrize("body", [b"", b"hello", os.urandom(3 * MIB + 17)])
def test_hashes_equal_the_etags_of_the_hub(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(body)
    assert hash_file(path, "sha256", len(body)) == sha256_of(body).hex == hashlib.sha256(body).hexdigest()
    assert hash_file(path, "git-sha1", len(body)) == git_sha1_of(body).hex
    with path.open("rb") as file:
        seen: list[int] = []
        assert hash_file(file.fileno(), "sha256", len(body), seen.append) == sha256_of(body).hex
    assert sum(seen) == len(body)


def test_git_agrees(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what git says")
    said = subprocess.run(["git", "hash-object", tmp_path / "file"], capture_output=True, text=True, check=True)
    assert git_sha1_of(b"what git says").hex == said.stdout.strip()


def test_a_file_shorter_than_it_should_be_does_not_hash_to_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    assert hash_file(tmp_path / "file", "git-sha1", 10) != git_sha1_of(b"short").hex


def test_a_hash_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 * MIB))
    seen: list[int] = []
    stop = Stop()

    def hear(size_bytes: int) -> None:
        seen.append(size_bytes)
        stop.set()

    with pytest.raises(Stopped):
        stop.run(hash_file, tmp_path / "file", "sha256", 3 * MIB, hear)
    assert len(seen) == 1


def test_a_hash_fed_in_parts_is_the_hash_of_the_whole() -> None:
    parts = BlobHash("git-sha1", 6)
    for part in (b"ab", b"cd", b"ef"):
        parts.update(part)
    assert parts.hexdigest() == git_sha1_of(b"abcdef").hex


def test_a_file_that_cannot_be_read_is_a_broken_cache(tmp_path: Path) -> None:
    with pytest.raises(BrokenCache):
        hash_file(tmp_path / "none", "sha256", 1)
