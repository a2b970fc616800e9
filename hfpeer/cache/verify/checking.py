"""Hashes the bytes that an inspection found: one thread a core, the largest files first, so that all end together.

The bytes are dropped from the page cache after reading: a verification must not push out those of other programs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.database import batches
from hfpeer.cache.index.scan.seeing import see_blob
from hfpeer.cache.index.schema import BlobRow
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.cache.verify.blobs import Blob
from hfpeer.errors import BrokenCache
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer
from hfpeer.names import Digest
from hfpeer.system.background import DROP_BYTES, be_nice, cores, drop_pages
from hfpeer.system.cancellation import in_threads

TELL_SECONDS = 0.2
"""Seconds between two reports of progress."""
COMPARED_TOGETHER = 2000
"""Files whose earlier verdicts are looked up together."""
RECORDED_TOGETHER = 500
"""At most this many verdicts are recorded in one transaction."""

RIGHT, WRONG, POINTER, CHANGING, UNREADABLE = "right", "wrong", "pointer", "changing", "unreadable"


@dataclass(frozen=True)
class Progress:
    """Files and bytes hashed until now, those to hash, and the files under way: name, bytes hashed, size in bytes."""

    files_done: int
    files: int
    done_bytes: int
    size_bytes: int
    under_way: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Checked:
    """The verdict on one file. `digest` is that of its bytes, if it is one of those it may have."""

    blob: Blob
    verdict: str
    digest: Digest | None
    reason: str = ""


@dataclass(frozen=True)
class Hashed:
    """How many files were hashed now, and how many were known, with their bytes. `notable` has the verdicts on those
    that are not right, and on those that may be copies: of very many files that are right nothing stays in memory."""

    files: int = 0
    size_bytes: int = 0
    known_files: int = 0
    known_bytes: int = 0
    notable: tuple[Checked, ...] = ()


class Verdicts:
    """The verdicts that the catalog keeps: each holds for a file of the same stamp."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def right(self, paths: Iterable[str]) -> dict[str, tuple[str, tuple[int, int, int, int]]]:
        """By path: digest and stamp of the files at these paths whose bytes are known to be right."""
        return self._catalog.right_at(paths)

    def record(self, rows: Sequence[BlobRow]) -> None:
        """Keeps verdicts, and whether the bytes of the same file were given openly."""
        given = {row for row in self._catalog.blobs({row.digest for row in rows}) if row.is_given}
        stamps = {(row.path, row.stamp) for row in given}
        self._catalog.put_blobs(row._replace(is_given=(row.path, row.stamp) in stamps) for row in rows)
        self._catalog.bump()


def check(
    cache: Path,
    blobs: Iterable[Blob],
    verdicts: Verdicts | None,
    on_progress: Callable[[Progress], None],
    *,
    trusts_verdicts: bool = True,
) -> Hashed:
    """Hashes files, and records the verdicts on those with one digest.

    A file that `verdicts` know as right is not hashed, if `trusts_verdicts`. Blocking. Raises Stopped; the verdicts
    until then are recorded.
    """
    return _Check(cache, verdicts, on_progress, trusts_verdicts).run(blobs)


class _Check:
    def __init__(
        self, cache: Path, verdicts: Verdicts | None, on_progress: Callable[[Progress], None], trusts_verdicts: bool
    ) -> None:
        self._cache = cache
        self._verdicts = verdicts
        self._on_progress = on_progress
        self._trusts_verdicts = trusts_verdicts
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[int, int]] = {}
        self._done_files = self._done_bytes = self._files = self._size_bytes = 0
        self._told_at = 0.0
        self._fresh: list[BlobRow] = []

    def run(self, blobs: Iterable[Blob]) -> Hashed:
        rest: list[Blob] = []
        notable: list[Checked] = []
        files = size_bytes = 0
        for batch in batches(blobs, COMPARED_TOGETHER):
            known = self._known(batch)
            for blob, is_known in zip(batch, known, strict=True):
                if not is_known:
                    rest.append(blob)
                    continue
                files, size_bytes = files + 1, size_bytes + blob.size_bytes
                if blob.may_be:
                    notable.append(Checked(blob, RIGHT, blob.digest))
        rest.sort(key=lambda blob: -blob.size_bytes)
        self._files, self._size_bytes = len(rest), sum(blob.size_bytes for blob in rest)
        threads = max(1, min(cores(), len(rest)))
        try:
            checked = in_threads(self._check, rest, threads, "verify") if rest else []
        finally:
            self._flush()
        notable += (one for one in checked if one is not None)
        return Hashed(self._files, self._size_bytes, files, size_bytes, tuple(notable))

    def _known(self, blobs: Sequence[Blob]) -> list[bool]:
        """Of each file: whether it has not changed since its bytes were found right."""
        if self._verdicts is None or not self._trusts_verdicts:
            return [False] * len(blobs)
        right = self._verdicts.right(blob.name for blob in blobs if blob.digest is not None)
        return [blob.name in right and self._is_same(blob, *right[blob.name]) for blob in blobs]

    def _is_same(self, blob: Blob, digest: str, stamp: tuple[int, int, int, int]) -> bool:
        row = None if blob.digest != digest else see_blob(self._cache, blob.name, blob.digest)
        return row is not None and row.stamp == stamp

    def _check(self, blob: Blob) -> Checked | None:
        """The verdict on a file, if it is notable."""
        be_nice()
        wanted = (blob.digest,) if blob.digest else blob.may_be
        name = blob.used_as or blob.file
        row = see_blob(self._cache, blob.path, wanted[0])
        checked = self._hash(blob, name, row, wanted) if row is not None else Checked(blob, CHANGING, None)
        with self._lock:
            self._under_way.pop(name, None)
            self._done_files += 1
            if blob.digest is not None and row is not None and checked.verdict in (RIGHT, WRONG, POINTER):
                is_right = checked.verdict == RIGHT
                self._fresh.append(row._replace(verified_at=time.time() if is_right else None, is_corrupt=not is_right))
            is_full = len(self._fresh) >= RECORDED_TOGETHER
        if is_full:
            self._flush()
        self._tell()
        return checked if checked.verdict != RIGHT or blob.may_be else None

    def _hash(self, blob: Blob, name: str, row: BlobRow, wanted: Sequence[Digest]) -> Checked:
        found = None
        try:
            for algorithm in dict.fromkeys(digest.algorithm for digest in wanted):
                actual = self._hash_once(blob.path, name, algorithm, row.size_bytes)
                found = found or next((digest for digest in wanted if digest == Digest(algorithm, actual)), None)
        except (OSError, BrokenCache) as error:
            return Checked(blob, UNREADABLE, None, reason=str(error))
        if see_blob(self._cache, blob.path, wanted[0]) != row:
            return Checked(blob, CHANGING, None)
        if found is None:
            return Checked(blob, POINTER if _is_pointer(blob.path, row.size_bytes) else WRONG, None)
        if found.algorithm == "git-sha1" and _is_pointer(blob.path, row.size_bytes):
            return Checked(blob, POINTER, found)
        return Checked(blob, RIGHT, found)

    def _hash_once(self, path: Path, name: str, algorithm: str, size_bytes: int) -> str:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        dropped = offset = 0

        def on_chunk(count: int) -> None:
            nonlocal dropped, offset
            offset += count
            self._note(name, offset, size_bytes, count)
            if offset - dropped >= DROP_BYTES or offset == size_bytes:
                drop_pages(fd, dropped, offset - dropped)
                dropped = offset

        try:
            return hash_file(fd, algorithm, size_bytes, on_chunk)
        finally:
            os.close(fd)

    def _note(self, name: str, offset: int, size_bytes: int, count: int) -> None:
        with self._lock:
            self._under_way[name] = (offset, size_bytes)
            self._done_bytes += count
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._told_at < TELL_SECONDS:
                return
            self._told_at = now
            under_way = tuple((name, *sizes) for name, sizes in self._under_way.items())
            progress = Progress(self._done_files, self._files, self._done_bytes, self._size_bytes, under_way)
        self._on_progress(progress)

    def _flush(self) -> None:
        with self._lock:
            rows, self._fresh = self._fresh, []
        if rows and self._verdicts is not None:
            self._verdicts.record(rows)


def _is_pointer(path: Path, size_bytes: int) -> bool:
    if size_bytes > MAX_POINTER_BYTES:
        return False
    try:
        return parse_pointer(path.read_bytes()) is not None
    except OSError:
        return False
