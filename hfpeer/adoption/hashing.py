"""Hashes the files of places, once: one thread a core, the largest first, and tells what each of them is.

A small file may be an LFS file or a plain one, so it gets both digests. A file that changes while it is read gets none.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfpeer.adoption.results import Trouble
from hfpeer.cache.disk.access import why_unreadable
from hfpeer.cache.index.adopted import stamp_of
from hfpeer.cache.partial.hashing import HASH_CHUNK_BYTES, BlobHash
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer
from hfpeer.names import Digest
from hfpeer.system.background import DROP_BYTES, be_nice, cores, drop_pages
from hfpeer.system.cancellation import check_stop, in_threads

MAX_PLAIN_BYTES = 16 * 1024 * 1024
"""A larger file is an LFS file: hubs take no plain file of more than 10 MB."""
TELL_SECONDS = 0.2
"""Seconds between two reports of progress."""

OnProgress = Callable[[str, int, int, int, int], None]
"""Called with the path that is read, the bytes done and those of all, the files done and all files."""


@dataclass(frozen=True)
class HashedFile:
    """A file with the digests of its bytes, and its stamp (`index.adopted.stamp_of`). Without digests it is an LFS
    pointer."""

    path: str
    stamp: tuple[int, int, int, int]
    digests: tuple[Digest, ...]


class Hasher:
    """Hashes files. `on_hashed` is called with each, from any thread."""

    def __init__(self, on_hashed: Callable[[HashedFile], None], on_progress: OnProgress) -> None:
        self._on_hashed = on_hashed
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._done_files = self._done_bytes = self._files = self._size_bytes = 0
        self._told_at = 0.0
        self.troubles: list[Trouble] = []

    def run(self, files: Sequence[tuple[str, int]]) -> None:
        """Hashes files, given with their sizes in bytes. Those that cannot be hashed become `troubles`. Blocking.
        Raises Stopped."""
        ordered = sorted(files, key=lambda file: -file[1])
        self._files, self._size_bytes = len(ordered), sum(size_bytes for _, size_bytes in ordered)
        if ordered:
            in_threads(self._hash, ordered, max(1, min(cores(), len(ordered))), "adopt")

    def _hash(self, file: tuple[str, int]) -> None:
        be_nice()
        path = file[0]
        try:
            hashed = self._read(path)
        except (OSError, ValueError) as error:
            known = error if isinstance(error, OSError) else None
            self._leave_out(Trouble(path, *why_unreadable(Path(path), known)))
        else:
            if hashed is None:
                self._leave_out(Trouble(path, "it changed while it was read", "Run the command again later."))
            else:
                self._on_hashed(hashed)
        with self._lock:
            self._done_files += 1
        self._tell(path, 0)

    def _leave_out(self, trouble: Trouble) -> None:
        with self._lock:
            self.troubles.append(trouble)

    def _read(self, path: str) -> HashedFile | None:
        """The file with its digests; None if it changed meanwhile, or is no regular file any more."""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(fd)
            stamp = stamp_of(facts)
            if not stat.S_ISREG(facts.st_mode):
                return None
            algorithms = ("sha256", "git-sha1") if facts.st_size <= MAX_PLAIN_BYTES else ("sha256",)
            hashes = [BlobHash(algorithm, facts.st_size) for algorithm in algorithms]
            first = self._feed(fd, path, facts.st_size, hashes)
            if stamp_of(os.fstat(fd)) != stamp or stamp_of(os.stat(path)) != stamp:  # noqa: PTH116
                return None
        finally:
            os.close(fd)
        is_pointer = facts.st_size <= MAX_POINTER_BYTES and parse_pointer(first) is not None
        digests = () if is_pointer else tuple(map(Digest, algorithms, (one.hexdigest() for one in hashes)))
        return HashedFile(path, stamp, digests)

    def _feed(self, fd: int, path: str, size_bytes: int, hashes: Sequence[BlobHash]) -> bytes:
        """Reads a file into the hashes, and returns its first bytes."""
        first = b""
        buffer = memoryview(bytearray(min(HASH_CHUNK_BYTES, size_bytes)))
        offset = dropped = 0
        while offset < size_bytes:
            check_stop()
            count = os.preadv(fd, [buffer[: size_bytes - offset]], offset)
            if count == 0:
                break
            first = first or bytes(buffer[: min(count, MAX_POINTER_BYTES)])
            for one in hashes:
                one.update(buffer[:count])
            offset += count
            if offset - dropped >= DROP_BYTES or offset == size_bytes:
                drop_pages(fd, dropped, offset - dropped)
                dropped = offset
            self._tell(path, count)
        return first

    def _tell(self, path: str, count: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._done_bytes += count
            if now - self._told_at < TELL_SECONDS:
                return
            self._told_at = now
            numbers = self._done_bytes, self._size_bytes, self._done_files, self._files
        self._on_progress(path, *numbers)
