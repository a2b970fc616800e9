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
from hfpeer.cache.index.scan.seeing import see_blob
from hfpeer.cache.index.schema import BlobRow
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.cache.verify.inspection import Blob
from hfpeer.errors import BrokenCache
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer
from hfpeer.names import Digest
from hfpeer.system.background import DROP_BYTES, be_nice, cores, drop_pages
from hfpeer.system.cancellation import in_threads

TELL_SECONDS = 0.2
"""Seconds between two reports of progress."""
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
    is_known: bool = False
    reason: str = ""


class Verdicts:
    """The verdicts that the catalog keeps: each holds for a file of the same stamp."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def right(self, repo: str, cache: str) -> dict[str, BlobRow]:
        """By path: the files of a repo in one cache folder whose bytes are known to be right."""
        rows = self._catalog.blobs_of_repo(repo, cache)
        return {row.path: row for row in rows if row.verified_at and not row.is_corrupt}

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
) -> list[Checked]:
    """Hashes files, and records the verdicts on those with one digest.

    A file that `verdicts` know as right is not hashed, if `trusts_verdicts`. Blocking. Raises Stopped; the verdicts
    until then are recorded.
    """
    return _Check(cache, verdicts, on_progress, trusts_verdicts).run(list(blobs))


class _Check:
    def __init__(
        self, cache: Path, verdicts: Verdicts | None, on_progress: Callable[[Progress], None], trusts_verdicts: bool
    ) -> None:
        self._cache = cache
        self._verdicts = verdicts
        self._on_progress = on_progress
        self._trusts_verdicts = trusts_verdicts
        self._right: dict[str, dict[str, BlobRow]] = {}
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[int, int]] = {}
        self._done_files = self._done_bytes = self._files = self._size_bytes = 0
        self._told_at = 0.0
        self._fresh: list[BlobRow] = []

    def run(self, blobs: list[Blob]) -> list[Checked]:
        known = [Checked(blob, RIGHT, blob.digest, is_known=True) for blob in blobs if self._is_known(blob)]
        done = {id(one.blob) for one in known}
        rest = sorted((blob for blob in blobs if id(blob) not in done), key=lambda blob: -blob.size_bytes)
        self._files, self._size_bytes = len(rest), sum(blob.size_bytes for blob in rest)
        threads = max(1, min(cores(), len(rest)))
        try:
            checked = in_threads(self._check, rest, threads, "verify") if rest else []
        finally:
            self._flush()
        return known + checked

    def _is_known(self, blob: Blob) -> bool:
        if self._verdicts is None or not self._trusts_verdicts or blob.digest is None:
            return False
        row = see_blob(self._cache, blob.path, blob.digest)
        if row is None:
            return False
        if row.repo not in self._right:
            self._right[row.repo] = self._verdicts.right(row.repo, row.cache)
        known = self._right[row.repo].get(row.path)
        return known is not None and known._replace(verified_at=None, is_given=False) == row

    def _check(self, blob: Blob) -> Checked:
        be_nice()
        wanted = (blob.digest,) if blob.digest else blob.may_be
        name = blob.used_by[0][1] if blob.used_by else blob.path.name
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
        return checked

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
