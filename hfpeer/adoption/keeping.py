"""Keeps what an adoption learns: the digests of files, recorded as they are hashed, so that a kill loses little."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hfpeer.adoption.candidates import Candidate
from hfpeer.adoption.hashing import HashedFile
from hfpeer.cache.adopted import TakeBy
from hfpeer.cache.index.adopted import AdoptedTable
from hfpeer.cache.index.schema import AdoptedRow

KEPT_TOGETHER = 200
"""At most this many rows are recorded in one transaction."""
KEPT_SECONDS = 2.0
"""Seconds after which hashed files are recorded, however few."""


@dataclass(frozen=True)
class PlacedFile:
    """A candidate by its whole path. `identity` is device and inode."""

    path: str
    candidate: Candidate
    identity: tuple[int, int]


class Keeper:
    """Records hashed files in the table of adopted files, several together. Thread-safe."""

    def __init__(self, table: AdoptedTable, way: TakeBy, files: Mapping[str, PlacedFile]) -> None:
        """`files` are those that will be hashed, by path."""
        self._table = table
        self._way = way
        self._files = files
        self._lock = threading.Lock()
        self._rows: list[AdoptedRow] = []
        self._kept_at = time.monotonic()
        self.kept: set[str] = set()
        """The paths of all files that were kept."""
        self.pointers = 0
        """Files that are LFS pointers, which are not kept."""

    def keep(self, hashed: HashedFile) -> None:
        """Takes a file; its rows are recorded soon."""
        candidate = self._files[hashed.path].candidate
        repo = "" if candidate.repo is None else str(candidate.repo)
        size_bytes, mtime_ns, ctime_ns, inode = hashed.stamp
        facts = (candidate.tool, repo, self._way.value, size_bytes, mtime_ns, ctime_ns, inode)
        with self._lock:
            if not hashed.digests:
                self.pointers += 1
                return
            self.kept.add(hashed.path)
            self._rows += [AdoptedRow(hashed.path, str(digest), *facts) for digest in hashed.digests]
            is_due = len(self._rows) >= KEPT_TOGETHER or time.monotonic() - self._kept_at >= KEPT_SECONDS
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Records what was taken."""
        with self._lock:
            rows, self._rows, self._kept_at = self._rows, [], time.monotonic()
        self._table.put(rows)
