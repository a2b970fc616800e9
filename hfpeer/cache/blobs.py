"""Blobs on their way into the cache: the partial file, written at any offset by many threads, and its hash.

A partial is `data` and `journal` in a folder of its own on the cache's volume. It owns those two files and nothing
that other tools see; making a blob visible is `store`'s. Whoever has it open holds a flock on `data`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import SoftFileLock, Timeout

from hfpeer.cache import journal
from hfpeer.cache.failures import storage_error, translated
from hfpeer.cache.layout import partial_folder, partials_folder
from hfpeer.cache.locks import NO_FLOCK, locked, names, take_flock
from hfpeer.cache.snapshots import ASIDE_SUFFIX, copy_blob
from hfpeer.errors import Locked
from hfpeer.names import Digest
from hfpeer.ranges import PieceGrid, RangeSet

HASH_CHUNK_BYTES = 1024 * 1024
ALLOCATION_SAMPLE_BYTES = 32 * 1024 * 1024
ALLOCATION_SAMPLE_SECONDS = 0.002
"""A file system that takes longer to reserve the sample writes what it reserves."""
_TRIES = 20


class BlobHash:
    """The hash a digest is made of, fed in order: SHA-256, or git's SHA-1 over `blob <size>\\0` and the bytes."""

    def __init__(self, algorithm: str, size_bytes: int) -> None:
        if algorithm == "git-sha1":
            self._hash = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
        else:
            self._hash = hashlib.sha256()

    def update(self, view: bytes | memoryview) -> None:
        """Releases the GIL for views of more than 2 KiB."""
        self._hash.update(view)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def hash_file(
    file: Path | int,
    algorithm: str,
    size_bytes: int,
    on_chunk: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> str | None:
    """The hex digest of a file's first `size_bytes`, or of what there is if it is shorter.

    `on_chunk` is told the size of every chunk. None if `should_stop` said so. Raises BrokenCache if it is unreadable.
    """
    if isinstance(file, Path):
        with translated("read a blob", file), file.open("rb", buffering=0) as opened:
            return hash_file(opened.fileno(), algorithm, size_bytes, on_chunk, should_stop)
    digest, offset = BlobHash(algorithm, size_bytes), 0
    buffer = memoryview(bytearray(min(HASH_CHUNK_BYTES, size_bytes)))
    while offset < size_bytes:
        if should_stop is not None and should_stop():
            return None
        count = os.preadv(file, [buffer[: size_bytes - offset]], offset)
        if count == 0:
            break
        digest.update(buffer[:count])
        offset += count
        if on_chunk is not None:
            on_chunk(count)
    return digest.hexdigest()


class PartialBlob:
    """A blob that is still growing. Thread-safe, but for `close` and `remove` against a `write` under way.

    `write` first, then `record` who gave it. Nothing here checks the bytes: the caller does, over the whole blob.
    """

    def __init__(
        self,
        folder: Path,
        digest: Digest,
        size_bytes: int,
        data_fd: int,
        journal_fd: int,
        known: journal.Replay,
        unlock: Callable[[], None],
        on_close: Callable[[PartialBlob], None] | None = None,
    ) -> None:
        self.digest = digest
        self.size_bytes = size_bytes
        self.path = folder / "data"
        self._folder = folder
        self._fd = data_fd
        self._journal_fd = journal_fd
        self._present = known.present
        self._sources = known.sources
        self._unlock = unlock
        self._on_close = on_close
        self._grid = PieceGrid(size_bytes)
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()

    @property
    def present(self) -> RangeSet:
        """The bytes that are there: a copy, exact to the byte."""
        with self._lock:
            return self._present.copy()

    @property
    def is_whole(self) -> bool:
        """Whether every byte is there; not whether they are right."""
        with self._lock:
            return self._present.covers(0, self.size_bytes)

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of `[start, stop)` is there."""
        with self._lock:
            return self._present.covers(start, stop)

    def write(self, offset: int, view: memoryview) -> None:
        """Puts all of `view` at `offset`. Raises NoSpace or BrokenCache."""
        try:
            written = os.pwrite(self._fd, view, offset)
            while written < len(view):
                written += os.pwrite(self._fd, view[written:], offset + written)
        except OSError as error:
            raise storage_error(error, "write a blob", self.path, self.size_bytes - self.present.total) from error

    def record(self, start: int, stop: int, source: str) -> None:
        """`[start, stop)` was written and came from `source`. Every piece that is now whole goes into the journal, and
        what was there before, for it has another source now."""
        with self._lock:
            changed = self._present.within(start, stop)
            self._present.add(start, stop)
            self._sources.give(start, stop, source)
            for piece in self._grid.pieces_touching(start, stop):
                extent = self._grid.range_of(piece)
                if self._present.covers(*extent):
                    changed.add(*extent)
            if changed:
                self._append(journal.have(part for run in changed for part in self._sources.inside(*run)))

    def sources(self) -> list[tuple[int, int, str]]:
        """`(start, stop, source)` for every byte that is there, in order."""
        with self._lock:
            return list(self._sources)

    def discard(self, start: int, stop: int) -> None:
        """Forgets bytes that were found wrong, for good."""
        with self._lock:
            self._present.discard(start, stop)
            self._sources.drop(start, stop)
            self._append(journal.drop(start, stop))
        with translated("sync the journal of a blob", self._folder):
            os.fsync(self._journal_fd)

    def read(self, offset: int, view: memoryview) -> int:
        """Fills the front of `view` from `offset`; how many bytes, 0 at the end."""
        with translated("read a blob", self.path):
            return os.preadv(self._fd, [view], offset)

    def sync(self) -> None:
        """Makes what was recorded until now outlive a power cut. As slow as the disk."""
        with self._sync_lock, translated("sync a blob", self.path):
            self._append_locked(journal.mark())
            fdatasync(self._fd)
            self._append_locked(journal.synced())
            fdatasync(self._journal_fd)

    def close(self) -> None:
        """Lets go of the files; a later open continues. Safe to repeat."""
        with self._lock:
            fds, self._fd, self._journal_fd = (self._fd, self._journal_fd), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        self._unlock()
        if self._on_close is not None:
            self._on_close(self)

    def remove(self) -> None:
        """Closes it and deletes what is left of it: all of it, or the journal of a blob that was published."""
        with contextlib.suppress(OSError):
            if names(self.path, self._fd):
                self.path.unlink()
        with contextlib.suppress(OSError):
            if names(self._folder / "journal", self._journal_fd):
                (self._folder / "journal").unlink()
        self.close()
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def publish_to(self, blob: Path) -> None:
        """Syncs the data once and renames it to `blob`, replacing what is there; then closes and cleans up.

        A repo whose folder is a link to another volume gets a copy. Raises NoSpace or BrokenCache, and then the
        partial is as before.
        """
        with translated("put a blob into the cache", blob):
            os.fsync(self._fd)
            blob.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.path.replace(blob)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                copy_blob(self.path, blob)
        self.remove()

    def _append_locked(self, records: bytes) -> None:
        with self._lock:
            self._append(records)

    def _append(self, records: bytes) -> None:
        try:
            journal.append(self._journal_fd, records)
        except OSError as error:
            raise storage_error(error, "write the journal of a blob", self._folder, len(records)) from error


def open_partial(
    cache: Path,
    digest: Digest,
    size_bytes: int,
    boot: str | None = None,
    on_close: Callable[[PartialBlob], None] | None = None,
) -> PartialBlob:
    """Opens the partial of a blob, new or as far as it came, and keeps every other process out of it.

    Raises Locked at once when another has it open (it may publish the blob meanwhile: look again before a new try),
    NoSpace when the volume cannot take the whole blob, BrokenCache. `boot` names this boot of the machine.
    """
    folder = partial_folder(cache, digest)
    boot = journal.boot_id() if boot is None else boot
    with contextlib.ExitStack() as undo, translated("make a partial file", folder, size_bytes):
        data_fd, unlock = _open_data(folder)
        undo.callback(unlock)
        undo.callback(os.close, data_fd)
        journal_fd, known = _open_journal(folder / "journal", data_fd, digest, size_bytes, boot)
        undo.callback(os.close, journal_fd)
        partial = PartialBlob(folder, digest, size_bytes, data_fd, journal_fd, known, unlock, on_close)
        undo.pop_all()
    try:
        with translated("make room for a blob", folder, size_bytes - known.present.total):
            _allocate(data_fd, size_bytes)
    except BaseException:
        (partial.close if known.present else partial.remove)()
        raise
    return partial


def partial_bytes(cache: Path) -> int:
    """The bytes of all partials of a cache together, as their journals have them, whoever is writing them now."""
    total = 0
    for file in partials_folder(cache).glob("*/journal"):
        with contextlib.suppress(OSError):
            total += journal.recorded_bytes(file.read_bytes())
    return total


def sweep(cache: Path, older_than: float) -> int:
    """Deletes what a killed process left: partials that nobody has open and nobody wrote to since `older_than`
    (seconds since the epoch), and small files that were on their way. How many bytes of the disk that gave back.
    """
    freed_bytes = 0
    for stray in cache.glob(f"*--*/.*{ASIDE_SUFFIX}"):
        with contextlib.suppress(OSError):
            if stray.lstat().st_mtime < older_than:
                stray.unlink()
    for data in partials_folder(cache).glob("*/data"):
        with contextlib.suppress(OSError, Locked):
            freed_bytes += _sweep_one(data, older_than)
    return freed_bytes


def _sweep_one(data: Path, older_than: float) -> int:
    journal_file = data.with_name("journal")
    newest = max(path.stat().st_mtime for path in (data, journal_file) if path.exists())
    if newest >= older_than:
        return 0
    fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
    try:
        unlock = _exclude_others(fd, data.parent)
        size_bytes = os.fstat(fd).st_blocks * 512
        data.unlink()
        journal_file.unlink(missing_ok=True)
        data.parent.rmdir()
    finally:
        os.close(fd)
    unlock()
    return size_bytes


def _open_data(folder: Path) -> tuple[int, Callable[[], None]]:
    """An fd of the data file that nobody else has, and how to let a lock go that is no flock."""
    path = folder / "data"
    for _ in range(_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        try:
            unlock = _exclude_others(fd, folder)
            if names(path, fd):
                return fd, unlock
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        unlock()
    raise locked(path)


def _exclude_others(fd: int, folder: Path) -> Callable[[], None]:
    """Takes the lock on a partial, or raises Locked. What it returns lets go of it after `fd` is closed."""
    try:
        if not take_flock(fd):
            raise locked(folder)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
    else:
        return lambda: None
    soft = SoftFileLock(folder.with_suffix(".lock"), timeout=0)
    try:
        soft.acquire()
    except Timeout as error:
        raise locked(folder) from error
    return soft.release


def _open_journal(path: Path, data_fd: int, digest: Digest, size_bytes: int, boot: str) -> tuple[int, journal.Replay]:
    """The journal, ready for more, and what it says. One that does not belong to the data is begun anew."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(path, flags, 0o666)
    try:
        is_own = os.fstat(data_fd).st_size == size_bytes
        text = _read_all(fd) if is_own else b""
        known = journal.replay(text, digest, size_bytes, boot)
        if known.good_bytes:
            os.ftruncate(fd, known.good_bytes)
        else:
            os.close(fd)
            path.unlink()
            fd = os.open(path, flags, 0o666)
            os.ftruncate(data_fd, 0)
            journal.append(fd, journal.head(digest, size_bytes))
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


def _allocate(fd: int, size_bytes: int) -> None:
    """Gives the file its full size: real blocks where the file system can promise them fast, else a sparse file.

    A disk's file system reserves extents in no time, and is much faster afterwards. One in memory touches each page,
    which would be done twice: there it is enough that the space is free now. Raises OSError with ENOSPC early.
    """
    if os.fstat(fd).st_size == size_bytes or size_bytes == 0:
        return
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
    volume = os.fstatvfs(fd)
    if volume.f_bavail * volume.f_frsize < size_bytes - sample_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, size_bytes)


def fdatasync(fd: int) -> None:
    """`fdatasync`, or `fsync` where there is none."""
    getattr(os, "fdatasync", os.fsync)(fd)
