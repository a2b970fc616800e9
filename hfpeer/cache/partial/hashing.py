"""Computes the hash of a blob's bytes, by the algorithm of its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from hfpeer.cache.disk.os_errors import translated
from hfpeer.system.cancellation import check_stop

HASH_CHUNK_BYTES = 1024 * 1024
"""Bytes read at a time."""


class BlobHash:
    """The hash of a digest, fed in order: SHA-256, or git's SHA-1 over `blob <size>\\0` and the bytes."""

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


def hash_of(body: bytes, algorithm: str) -> str:
    """The hex digest of bytes in memory."""
    whole = BlobHash(algorithm, len(body))
    whole.update(body)
    return whole.hexdigest()


def hash_file(
    file: Path | int,
    algorithm: str,
    size_bytes: int,
    on_chunk: Callable[[int], None] | None = None,
) -> str:
    """The hex digest of the first `size_bytes` of a file, or of all of a shorter one.

    `on_chunk` is called with the size of every chunk. Raises BrokenCache if the file cannot be read, and Stopped.
    """
    if isinstance(file, Path):
        with translated("read a blob", file), file.open("rb", buffering=0) as opened:
            return hash_file(opened.fileno(), algorithm, size_bytes, on_chunk)
    digest, offset = BlobHash(algorithm, size_bytes), 0
    buffer = memoryview(bytearray(min(HASH_CHUNK_BYTES, size_bytes)))
    while offset < size_bytes:
        check_stop()
        count = os.preadv(file, [buffer[: size_bytes - offset]], offset)
        if count == 0:
            break
        digest.update(buffer[:count])
        offset += count
        if on_chunk is not None:
            on_chunk(count)
    return digest.hexdigest()
