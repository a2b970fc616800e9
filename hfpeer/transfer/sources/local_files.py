"""Files on this machine that may have the bytes of a blob: a source like any other, at the speed of the disk.

A file may lie: it may be cut short, damaged, or another file of the same name. So its bytes go into the partial, where
the digest of the blob judges them, and no peer gets them before. The files themselves are only read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.cache.partial.hashing import HASH_CHUNK_BYTES, BlobHash, hash_file
from hfpeer.git.lfs import MAX_POINTER_BYTES
from hfpeer.ranges import ByteRange
from hfpeer.system.cancellation import check_stop
from hfpeer.transfer.sources.sources import WantedBlob

THIS_MACHINE = "\0files of this machine"
"""The name of all local files together, as the source of bytes in a partial. It is not printable, so no peer has it."""
THIS_MACHINE_SHOWN = "files of this machine"
"""The same for people."""


@dataclass(frozen=True)
class LocalFile:
    """A file that may have a blob, or the beginning of it. `is_wrong`: its bytes were hashed, and are not the blob's,
    but most of them may be."""

    path: Path
    is_wrong: bool = False


FindLocal = Callable[[WantedBlob], Sequence[LocalFile]]
"""Finds the local files that may have a blob, the likeliest first. Called from any thread."""


def fill(partial: PartialBlob, files: Sequence[LocalFile]) -> bool:
    """Fills the gaps of a partial from local files. A file that has all of the blob goes first, then the likeliest.
    Returns whether the partial is the right blob now, so that no other source is needed.

    Blocking. A file that cannot be read is passed over. Raises NoSpace, BrokenCache and Stopped.
    """
    may_be_right = False
    whole = _whole(partial, files) if len(files) > 1 and not partial.is_whole else None
    for file in files if whole is None else (whole,):
        with _opened(file.path) as fd:
            size_bytes = -1 if fd is None else os.fstat(fd).st_size
            if fd is None or size_bytes <= MAX_POINTER_BYTES < partial.size_bytes:
                continue
            gaps = list(partial.present.gaps(0, partial.size_bytes))
            may_be_right |= bool(gaps) and not file.is_wrong
            for start, stop in gaps:
                partial.take(fd, start, min(stop, size_bytes), THIS_MACHINE)
    return may_be_right and partial.is_whole and _is_right(partial)


def read_small(blob: WantedBlob, files: Sequence[LocalFile]) -> Iterator[bytes]:
    """The bytes of local files of the size of a small blob. The caller checks their digest. Blocking."""
    for file in files:
        with _opened(file.path) as fd:
            if fd is not None and os.fstat(fd).st_size == blob.size_bytes:
                yield os.pread(fd, blob.size_bytes, 0)


def spans_of_files(partial: PartialBlob) -> list[ByteRange]:
    """The ranges of a partial that came from local files."""
    return [ByteRange(start, stop) for start, stop, source in partial.sources() if source == THIS_MACHINE]


def has_only_files(partial: PartialBlob) -> bool:
    """Whether all that a partial has came from local files, which still have it."""
    return bool(partial.present) and all(source == THIS_MACHINE for _, _, source in partial.sources())


def _is_right(partial: PartialBlob) -> bool:
    """Whether a whole partial has its digest."""
    digest, position = BlobHash(partial.digest.algorithm, partial.size_bytes), 0
    view = memoryview(bytearray(min(HASH_CHUNK_BYTES, partial.size_bytes)))
    while count := partial.read(position, view):
        check_stop()
        digest.update(view[:count])
        position += count
    return digest.hexdigest() == partial.digest.hex


def _whole(partial: PartialBlob, files: Sequence[LocalFile]) -> LocalFile | None:
    """The first file whose bytes have the digest of the blob."""
    for file in files:
        with _opened(file.path) as fd:
            if fd is None or file.is_wrong or os.fstat(fd).st_size != partial.size_bytes:
                continue
            try:
                if hash_file(fd, partial.digest.algorithm, partial.size_bytes) == partial.digest.hex:
                    return file
            except OSError:
                continue
    return None


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A descriptor of a regular file; None if there is none that this user can read. No link is followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)
