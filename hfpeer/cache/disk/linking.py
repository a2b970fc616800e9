"""Gives the bytes of a file another place: by shared blocks, by a hard link, or by a copy.

Each way is tried, none is predicted: the device numbers of bind mounts, subvolumes and overlays do not say what works.
A hard link is a second name for the same bytes, so it is made only where no writer can reach them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from hfpeer.system.cancellation import check_stop

UNSUPPORTED = {
    errno.ENOSYS,
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.EMLINK,
    errno.EACCES,
    errno.ENOTTY,
}
"""Errors after which the next way is tried. The last way, a plain copy, raises all errors."""
LINK_MIN_BYTES = 10_000_000
"""A file of fewer bytes is never hard-linked out of the cache: users edit configurations and tokenizers."""
COPY_BYTES = 1024 * 1024
"""Bytes copied at a time by this process."""
RANGE_BYTES = 16 * COPY_BYTES
"""Bytes copied at a time by the kernel."""
SYNC_BYTES = 256 * COPY_BYTES
"""Bytes copied between two syncs: one sync of a large file would block for minutes."""
_FICLONE = 0x40049409
"""Linux: makes a file share the blocks of another. Source: ioctl_ficlonerange(2)."""
_FICLONERANGE = struct.Struct("=qQQQ"), 0x4020940D
"""The same for a range: source, its offset, the length, the offset in the target."""
_DEDUPE_RANGE = struct.Struct("=QQHHIqQQiI"), 0xC0189436
"""Linux: makes a range of a file share the blocks of another if the bytes are equal. Source, its offset and length are
followed by one target, its offset, and the answer: bytes and status. Source: ioctl_fideduperange(2)."""
_EXTENT_MAP, _EXTENT, _GET_EXTENTS = struct.Struct("=QQIIII"), struct.Struct("=QQQ32x"), 0xC020660B
"""Linux: where the blocks of a file lie on the disk. Source: the kernel's Documentation/filesystems/fiemap.rst."""
MAX_EXTENTS = 512
"""At most this many extents of two files are compared to see whether they are the same blocks."""
BLOCK_BYTES = 4096
"""The size of a block on all file systems that share blocks. Ranges of whole blocks can be shared."""
_MAY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class Way(str, Enum):
    """How a file came to its new place."""

    CLONE = "clone"
    """It shares the blocks of the first. A later write to either leaves the other as it is."""
    HARD_LINK = "hard_link"
    """It is a second name of the first."""
    KERNEL_COPY = "copy_file_range"
    """The kernel, or the server of a network file system, copied the bytes."""
    COPY = "copy"
    """This process copied the bytes."""


class HardLinks(Enum):
    """When a hard link may take the place of a copy."""

    NEVER = "never"
    BLOBS = "blobs"
    """First of all ways: inside a cache, where files are replaced and never written in place."""
    READ_ONLY = "read_only"
    """After shared blocks: for this user's files of LINK_MIN_BYTES or more, which lose their write permissions."""


OnChunk: TypeAlias = "Callable[[int], None]"


def place_file(
    source: Path, target: Path, hard_links: HardLinks = HardLinks.NEVER, on_chunk: OnChunk = lambda count: None
) -> Way:
    """Makes `target`, a new name, a file with the bytes of `source`. Returns the way that worked.

    A new file is synced and has the mode of new files. `on_chunk` is called with the number of bytes of each step. A
    link as `source` is followed. Raises OSError and Stopped, and may then leave a part of `target`.
    """
    origin = source.resolve()
    if hard_links is HardLinks.BLOBS and _hard_link(origin, target):
        return Way.HARD_LINK
    with open(os.open(origin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as old:
        with target.open("xb", buffering=0) as new:
            if _clone(old.fileno(), new.fileno()):
                os.fsync(new.fileno())
                on_chunk(os.fstat(new.fileno()).st_size)
                return Way.CLONE
        if hard_links is HardLinks.READ_ONLY:
            target.unlink()
            if _link_read_only(origin, target):
                on_chunk(target.stat().st_size)
                return Way.HARD_LINK
        with target.open("r+b" if target.exists() else "xb", buffering=0) as new:
            return _copy(old.fileno(), new.fileno(), on_chunk)


def can_clone(source: Path, folder: Path) -> bool:
    """Whether a file can share its blocks with a new one in `folder`. It is tried, with a file without a name. False
    also where the source cannot be read."""
    try:
        with (
            open(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as old,
            open(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "wb", buffering=0) as new,
        ):
            return _clone(old.fileno(), new.fileno())
    except (AttributeError, OSError):
        return False


def _clone(old: int, new: int) -> bool:
    return _works(lambda: fcntl.ioctl(new, _FICLONE, old))


def _hard_link(source: Path, target: Path) -> bool:
    return _works(lambda: os.link(source, target))


def _link_read_only(source: Path, target: Path) -> bool:
    """Makes a hard link that this user cannot write to. Some volumes keep no modes: there it makes none."""
    facts = source.stat()
    if facts.st_size < LINK_MIN_BYTES or facts.st_uid != os.geteuid() or not _hard_link(source, target):
        return False
    if facts.st_mode & _MAY_WRITE:
        _works(lambda: target.chmod(stat.S_IMODE(facts.st_mode) & ~_MAY_WRITE))
    if target.stat().st_mode & _MAY_WRITE:
        target.unlink()
        return False
    return True


def _copy(old: int, new: int, on_chunk: OnChunk) -> Way:
    """Copies the bytes through the kernel, and what the kernel leaves through this process."""
    unsynced_bytes = 0

    def note(count: int) -> None:
        nonlocal unsynced_bytes
        on_chunk(count)
        check_stop()
        unsynced_bytes += count
        if unsynced_bytes >= SYNC_BYTES:
            os.fsync(new)
            unsynced_bytes = 0

    way = Way.COPY
    with contextlib.suppress(_NextWay):
        while count := _copy_range(old, new):
            way = Way.KERNEL_COPY
            note(count)
    while chunk := os.read(old, COPY_BYTES):
        way = Way.COPY
        _write(new, chunk)
        note(len(chunk))
    os.fsync(new)
    return way


def copy_range(old: int, new: int, start: int, stop: int) -> int:
    """Gives the file `new` the bytes `[start, stop)` of the file `old`, at the same place, by the first way that works.

    Returns how many came: fewer where `old` ends. Syncs nothing. Raises OSError.
    """
    stop = min(stop, os.fstat(old).st_size)
    position = start
    if start % BLOCK_BYTES == 0:
        whole = stop if stop == os.fstat(new).st_size else stop // BLOCK_BYTES * BLOCK_BYTES
        if whole > start and _clone_range(old, new, start, whole):
            position = whole
    with contextlib.suppress(_NextWay):
        while position < stop and (count := _copy_range(old, new, stop - position, position)):
            position += count
    while position < stop and (chunk := os.pread(old, min(COPY_BYTES, stop - position), position)):
        position += _write(new, chunk, position)
    return max(0, position - start)


def share_blocks(old: int, new: int) -> int:
    """Makes the file `new` share the blocks of the file `old`, which has the same bytes. Both may be open for reading.

    The kernel compares the bytes, and changes nothing but where they lie: mode, times and contents stay. Returns how
    many bytes share blocks from now on: 0 where the files do already, where the bytes differ from the first on, and
    where the file system cannot do it.
    """
    size_bytes, done = os.fstat(old).st_size, 0
    if size_bytes != os.fstat(new).st_size or os.path.sameopenfile(old, new) or _have_same_blocks(old, new):
        return 0
    layout, request = _DEDUPE_RANGE
    with contextlib.suppress(OSError):
        while done < size_bytes:
            check_stop()
            asked = bytearray(layout.pack(done, min(RANGE_BYTES, size_bytes - done), 1, 0, 0, new, done, 0, 0, 0))
            fcntl.ioctl(old, request, asked)
            *_, count, status, _ = layout.unpack(asked)
            if status != 0 or count == 0:
                break
            done += count
    return done


def _have_same_blocks(one: int, other: int) -> bool:
    """Whether two files lie in the same blocks. False where the file system does not tell."""
    with contextlib.suppress(OSError):
        return _extents(one) == _extents(other)
    return False


def _extents(fd: int) -> list[tuple[int, int, int]]:
    """Of the first extents of a file: offset in the file, offset on the disk, length. Raises OSError."""
    whole, is_synced = (1 << 64) - 1, 1
    answer = bytearray(_EXTENT_MAP.pack(0, whole, is_synced, 0, MAX_EXTENTS, 0) + bytes(_EXTENT.size * MAX_EXTENTS))
    fcntl.ioctl(fd, _GET_EXTENTS, answer)
    count = _EXTENT_MAP.unpack_from(answer)[3]
    return [_EXTENT.unpack_from(answer, _EXTENT_MAP.size + number * _EXTENT.size) for number in range(count)]


def _clone_range(old: int, new: int, start: int, stop: int) -> bool:
    layout, request = _FICLONERANGE
    return _works(lambda: fcntl.ioctl(new, request, layout.pack(old, start, stop - start, start)))


class _NextWay(Exception):
    """The kernel does not copy between these files."""


def _copy_range(old: int, new: int, size_bytes: int = RANGE_BYTES, offset: int | None = None) -> int:
    """Copies bytes from the position of `old` to that of `new`, or from one `offset` to the same; returns their number,
    0 at the end."""
    if not hasattr(os, "copy_file_range"):
        raise _NextWay
    try:
        return os.copy_file_range(old, new, min(size_bytes, RANGE_BYTES), offset, offset)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        raise _NextWay from error


def _write(fd: int, chunk: bytes, offset: int | None = None) -> int:
    """Writes all of a chunk, at the position of the file or at an `offset`. Returns its size."""
    rest = memoryview(chunk)
    while rest:
        at = None if offset is None else offset + len(chunk) - len(rest)
        rest = rest[os.write(fd, rest) if at is None else os.pwrite(fd, rest, at) :]
    return len(chunk)


def _works(way: Callable[[], object]) -> bool:
    """Whether a way worked. Raises OSError for an error that another way would not mend."""
    try:
        way()
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True
