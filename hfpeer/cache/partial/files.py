"""The files of a partial: `data` and `journal`, in a folder of their own on the volume of the cache.

No other process has them open: see `claims`. Other users may be allowed to write into the cache, so each file
is checked to be the opened one before its name is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.disk.directories import open_file, open_to_readers, opened, path_of
from hfpeer.cache.disk.layout import partials_folder
from hfpeer.cache.disk.locks import names
from hfpeer.cache.disk.os_errors import free_of, storage_error
from hfpeer.cache.partial import journal
from hfpeer.cache.partial.claims import claim, may_be_claimed
from hfpeer.cache.snapshots import copy_blob, swapped
from hfpeer.errors import BrokenCache
from hfpeer.names import Digest

ALLOCATION_SAMPLE_BYTES = 32 * 1024 * 1024
"""Bytes reserved first, to measure how fast the file system does it."""
ALLOCATION_SAMPLE_SECONDS = 0.002
"""Seconds for the sample. A slower file system writes the bytes that it reserves, so the rest is not reserved."""


class PartialFiles:
    """The open files of the partial of one blob, which no other process has. Thread-safe, except `close`."""

    def __init__(self, cache: Path, digest: Digest) -> None:
        """Opens the files, and makes them if they do not exist. Raises Locked, BrokenCache or OSError."""
        claimed = claim(cache, digest)
        self.folder = claimed.folder
        self.path = self.folder / "data"
        self._cache = cache
        self._folder_fd, self.data_fd, self._release = claimed.folder_fd, claimed.data_fd, claimed.release
        self._inside = path_of(self._folder_fd, self.folder)
        self.journal_fd = -1

    def open_journal(self, digest: Digest, size_bytes: int, boot: str) -> journal.Replay:
        """Opens the journal and returns its state. Without a journal of this data, both begin anew. Raises OSError."""
        self.journal_fd, known = _open_journal(self._inside / "journal", self.data_fd, digest, size_bytes, boot)
        return known

    def append(self, records: bytes) -> None:
        """Appends records to the journal. Raises NoSpace or BrokenCache."""
        try:
            journal.append(self.journal_fd, records)
        except OSError as error:
            raise storage_error(error, "write the journal of a blob", self.folder, len(records)) from error

    def open_data_again(self) -> int:
        """A new descriptor of the data. Raises OSError when the files are closed, or another file is in its place,
        which another user may have put there."""
        fd = -1 if self.data_fd < 0 else os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if fd >= 0 and os.path.samestat(os.fstat(fd), os.fstat(self.data_fd)):
            return fd
        if fd >= 0:
            os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))

    def move_data(self, blob: Path) -> None:
        """Syncs the data and renames it to `blob`, or copies it to another volume. Raises BrokenCache or OSError."""
        os.fsync(self.data_fd)
        with opened(self._cache, blob.parent, makes=True) as folder:
            self._move_data(folder / blob.name, blob)

    def _move_data(self, place: Path, blob: Path) -> None:
        """`place` is the path of `blob` through its opened folder."""
        data = self._inside / "data"
        if not names(data, self.data_fd):
            raise swapped(blob)
        open_to_readers(self.data_fd, place.parent)
        try:
            data.replace(place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy_blob(data, place)
            return
        if not names(place, self.data_fd):
            place.unlink()
            raise swapped(blob)

    def unlink(self) -> None:
        """Deletes the files, those that still have their names."""
        for name, fd in (("data", self.data_fd), ("journal", self.journal_fd)):
            with contextlib.suppress(OSError):
                if names(self._inside / name, fd):
                    (self._inside / name).unlink()

    def remove_folder(self) -> None:
        """Removes the folder, if it is empty. For closed files."""
        with contextlib.suppress(OSError, BrokenCache), opened(self._cache, self.folder.parent) as around:
            (around / self.folder.name).rmdir()

    def close(self) -> None:
        """Closes the files and gives the partial back. May be called again."""
        fds = self.data_fd, self.journal_fd, self._folder_fd
        self.data_fd = self.journal_fd = self._folder_fd = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        if fds[0] >= 0:
            self.folder = self._release()


def partial_folders(cache: Path) -> list[Path]:
    """The folders of all partials of a cache."""
    place = partials_folder(cache)
    with contextlib.suppress(OSError, BrokenCache), opened(cache, place) as inside:
        return [place / path.name for path in inside.iterdir()]
    return []


@dataclass(frozen=True)
class BegunBlob:
    """A partial as it lies on the disk: `present_bytes` of `whole_bytes` are here, and it takes `disk_bytes`."""

    etag: str
    present_bytes: int
    whole_bytes: int
    disk_bytes: int
    changed_at: float


def begun_blobs(cache: Path) -> list[BegunBlob]:
    """All partials of a cache, by their journals. Needs no lock."""
    found = []
    for folder in partial_folders(cache):
        with (
            contextlib.suppress(OSError, BrokenCache),
            opened(cache, folder) as inside,
            open(open_file(inside / "journal", os.O_RDONLY), "rb") as file,
        ):
            data = (inside / "data").lstat()
            present_bytes = journal.recorded_bytes(file.read())
            etag = folder.name.partition(".")[0]
            found.append(BegunBlob(etag, present_bytes, data.st_size, data.st_blocks * 512, data.st_mtime))
    return found


def partial_bytes(cache: Path) -> int:
    """The number of present bytes of all partials of a cache."""
    return sum(one.present_bytes for one in begun_blobs(cache))


def begun_bytes(cache: Path, digests: Collection[Digest]) -> int:
    """The bytes that the partials of these blobs take on the disk."""
    wanted = {digest.hex for digest in digests}
    return sum(_disk_bytes(folder) for folder in partial_folders(cache) if folder.name.partition(".")[0] in wanted)


def partials_bytes(cache: Path) -> int:
    """The bytes that all partials take on the disk."""
    return sum(map(_disk_bytes, partial_folders(cache)))


def _disk_bytes(folder: Path) -> int:
    try:
        return (folder / "data").lstat().st_blocks * 512
    except OSError:
        return 0


def kept_bytes(cache: Path, sizes: Mapping[Digest, int]) -> int:
    """The bytes that the partials of these blobs have, by their journals. Needs no lock."""
    boot, total = journal.boot_id(), 0
    wanted = {digest.hex: digest for digest in sizes}
    for folder in partial_folders(cache):
        digest = wanted.get(folder.name.partition(".")[0])
        if digest is not None:
            with (
                contextlib.suppress(OSError, BrokenCache),
                opened(cache, folder) as inside,
                open(open_file(inside / "journal", os.O_RDONLY), "rb") as file,
            ):
                total += journal.replay(file.read(), digest, sizes[digest], boot).present.total
    return total


def kept_prefixes(cache: Path) -> list[journal.Prefix]:
    """The partials of a cache that this process could go on from, each with the bytes that it has from its start on.
    Needs no lock."""
    boot, found = journal.boot_id(), []
    for folder in filter(may_be_claimed, partial_folders(cache)):
        with (
            contextlib.suppress(OSError, BrokenCache),
            opened(cache, folder) as inside,
            open(open_file(inside / "journal", os.O_RDONLY), "rb") as file,
        ):
            prefix = journal.kept_prefix(file.read(), boot)
            if prefix is not None and (inside / "data").stat().st_size == prefix.size_bytes:
                found.append(prefix)
    return found


def _open_journal(path: Path, data_fd: int, digest: Digest, size_bytes: int, boot: str) -> tuple[int, journal.Replay]:
    """The journal, open for appending, and its state. A journal that does not belong to the data is begun anew."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    fd = open_file(path, flags)
    try:
        is_own = os.fstat(data_fd).st_size == size_bytes
        text = _read_all(fd) if is_own else b""
        known = journal.replay(text, digest, size_bytes, boot)
        if known.good_bytes:
            os.ftruncate(fd, known.good_bytes)
        else:
            os.close(fd)
            path.unlink()
            fd = open_file(path, flags)
            os.ftruncate(data_fd, 0)
            journal.append(fd, journal.head(digest, size_bytes) + journal.opened())
            known.is_given = True
        journal.append(fd, journal.booted(boot))
    except BaseException:
        os.close(fd)
        raise
    return fd, known


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    chunks = []
    offset = 0
    while offset < size and (chunk := os.pread(fd, size - offset, offset)):
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks)


def allocate(fd: int, size_bytes: int) -> None:
    """Gives the file its full size: with reserved blocks where the file system reserves them fast, else sparse.

    A file system on a disk reserves extents at once, and later writes are much faster. One in memory touches each page:
    there only the free space is checked. Raises OSError with ENOSPC before any byte is fetched.
    """
    if os.fstat(fd).st_size == size_bytes or size_bytes == 0:
        return
    try:
        _allocate(fd, size_bytes)
    except OSError:
        os.ftruncate(fd, 0)  # what it has reserved would count as taken in the error
        raise


def _allocate(fd: int, size_bytes: int) -> None:
    sample_bytes = min(size_bytes, ALLOCATION_SAMPLE_BYTES)
    try:
        began_at = time.perf_counter()
        os.posix_fallocate(fd, 0, sample_bytes)
        if time.perf_counter() - began_at < ALLOCATION_SAMPLE_SECONDS:
            os.posix_fallocate(fd, 0, size_bytes)
            return
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    free = free_of(os.fstatvfs(fd))
    if free is not None and free < size_bytes - sample_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, size_bytes)


def fdatasync(fd: int) -> None:
    """`fdatasync`, or `fsync` on systems without it."""
    getattr(os, "fdatasync", os.fsync)(fd)
