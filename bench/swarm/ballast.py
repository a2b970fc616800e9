"""Memory that was touched before the clock starts, so that no program under measurement pays for touching it first.

In a virtual machine free memory may be the host's: a process that touches a page of it waits until the host gives it
back, which here costs more than receiving, hashing and writing what goes into it. Memory that is free for a second or
two goes back to the host: so it is freed little by little, as it is needed. Must never be larger than free memory.
"""

from __future__ import annotations

import os
from pathlib import Path

CHUNK_BYTES = 1 << 20
SPARED = 4
"""The part of the free memory that is left alone: every N-th."""


class Ballast:
    """`size_bytes` of memory in a file of `folder`, which lies in memory; less where that much is not free."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._path = folder / "ballast"
        space = os.statvfs(folder)
        free_bytes = min(space.f_bavail * space.f_frsize, _available_bytes()) * (SPARED - 1) // SPARED
        self._full_bytes = min(size_bytes, free_bytes) // CHUNK_BYTES * CHUNK_BYTES
        chunk = bytes(CHUNK_BYTES)
        with self._path.open("wb", buffering=0) as file:
            for _ in range(self._full_bytes // CHUNK_BYTES):
                file.write(chunk)

    def give(self, size_bytes: int) -> None:
        """Gives so much of it free, together with what was before, for the next process that writes."""
        os.truncate(self._path, max(0, self._full_bytes - size_bytes))


def _available_bytes() -> int:
    fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next(int(field[1]) * 1024 for field in fields if field[0] == "MemAvailable:")
