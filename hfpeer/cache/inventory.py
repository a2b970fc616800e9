"""The whole blobs of the cache: where they lie, whether their bytes were hashed, and how they get into a repo.

The catalogue says what was seen, the disk decides: every answer is checked against the file's size, mtime and inode,
and what is known of its bytes holds only as long as these do. It never writes to a blob in place.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hfpeer.cache import layout, snapshots
from hfpeer.cache.blobs import hash_file
from hfpeer.cache.catalog import BlobRow, Catalog
from hfpeer.cache.locks import etag_lock
from hfpeer.cache.scan import see_blob
from hfpeer.errors import BrokenCache, CorruptData, Locked
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest, RepoId

LOCK_SECONDS = 2.0
"""How long to wait for a Hub client that works on the same blob."""


@dataclass(frozen=True)
class BlobFile:
    """A whole blob in the cache. `is_verified` says that its bytes were hashed and have not changed since."""

    digest: Digest
    path: Path
    size_bytes: int
    is_verified: bool


class Inventory:
    """The whole blobs of `cache`. Thread-safe."""

    def __init__(self, cache: Path, catalog: Catalog) -> None:
        self._cache = cache
        self._catalog = catalog

    # Finding

    def find(self, digest: Digest, repo: RepoId | None = None) -> BlobFile | None:
        """A blob by its digest; with `repo` also one that somebody put into that repo since the last scan."""
        found = self.best(self._catalog.blobs([str(digest)]))
        if found is not None or repo is None:
            return found
        seen = see_blob(self._cache, layout.blob_path(self._cache, repo, digest), digest)
        if seen is None:
            return None
        self.remember([self._known(seen)])
        return self.best(self._catalog.blobs([str(digest)]))

    def places(self, digests: Iterable[Digest]) -> dict[Digest, list[BlobRow]]:
        """Where blobs lay when they were last seen, by digest."""
        rows: dict[Digest, list[BlobRow]] = defaultdict(list)
        for row in self._catalog.blobs({str(digest) for digest in digests}):
            rows[Digest.parse(row.digest)].append(row)
        return rows

    def best(self, rows: Iterable[BlobRow]) -> BlobFile | None:
        """The best of several places: verified before not, and none that is corrupt or gone."""
        for row in sorted(rows, key=lambda row: row.verified_at is None):
            checked = self._check(row)
            if checked is not None:
                return self._to_file(checked)
        return None

    def has(self, file: ManifestFile, rows: Iterable[BlobRow]) -> bool:
        """Whether a blob of the file's size lies at one of the places."""
        return any(row.size_bytes == file.size_bytes and self._check(row) is not None for row in rows)

    # Verifying

    def unverified(self, limit: int) -> list[BlobFile]:
        """Blobs that nobody has hashed, small ones first."""
        found = (self._check(row) for row in self._catalog.unverified(limit))
        return [self._to_file(row) for row in found if row is not None and row.verified_at is None]

    def verify(self, blob: BlobFile, should_stop: Callable[[], bool] | None = None) -> bool | None:
        """Hashes a blob and writes the verdict down; None if there is none: stopped, gone, or changed meanwhile."""
        row = see_blob(self._cache, blob.path, blob.digest)
        if row is None:
            return None
        try:
            actual = hash_file(blob.path, blob.digest.algorithm, row.size_bytes, should_stop=should_stop)
        except BrokenCache:
            actual = ""
        if actual is None or see_blob(self._cache, blob.path, blob.digest) != row:
            return None
        is_right = actual == blob.digest.hex
        self._catalog.judge_blob(row, time.time() if is_right else None, is_corrupt=not is_right)
        return is_right

    # Writing

    @contextmanager
    def holding(self, repo: RepoId, digest: Digest, timeout_seconds: float | None = None) -> Iterator[None]:
        """The Hub client's lock on a blob; Locked if it is not free within `timeout_seconds`.

        Without a limit it is waited for a while and then done without: a client may hold it for as long as it
        downloads from far away. The lock saves work; what is right rests on renames.
        """
        with ExitStack() as held:
            try:
                limit = LOCK_SECONDS if timeout_seconds is None else timeout_seconds
                held.enter_context(etag_lock(self._cache, repo, digest, limit))
            except Locked:
                if timeout_seconds is not None:
                    raise
            yield

    def in_place(self, blob: Path, digest: Digest, size_bytes: int) -> BlobRow | None:
        """What is known of a blob that lies at `blob` already, unless it is known to be wrong."""
        seen = see_blob(self._cache, blob, digest)
        if seen is None or seen.size_bytes != size_bytes:
            return None
        known = self._known(seen)
        return None if known.is_corrupt else known

    def seen(self, blob: Path, digest: Digest, *, is_verified: bool) -> BlobRow | None:
        """A row for a blob that was just put at `blob`."""
        row = see_blob(self._cache, blob, digest)
        return None if row is None else replace(row, verified_at=time.time() if is_verified else None)

    def remember(self, rows: Iterable[BlobRow | None]) -> None:
        """Writes rows into the catalogue."""
        self._catalog.put_blobs(row for row in rows if row is not None)

    def adopt(self, path: Path, digest: Digest, repo: RepoId) -> Path:
        """Puts the content of a file into `blobs/` of `repo`: a second name for a blob of this cache where possible,
        a copy that is hashed of any other file. Raises CorruptData if that is not `digest`, NoSpace, BrokenCache."""
        row = see_blob(self._cache, path, digest)
        if row is None:
            raise vanished(path)
        if path.is_relative_to(self._cache):
            return self._adopt(self._to_file(self._known(row)), repo)
        return self._adopt(BlobFile(digest, path, row.size_bytes, True), repo, _check_of(digest, row.size_bytes))

    def bring(self, file: ManifestFile, repo: RepoId) -> None:
        """Makes `blobs/<etag>` of `repo` be there, from wherever the blob lies. Raises BrokenCache if it does not."""
        blob = layout.blob_path(self._cache, repo, file.digest)
        source = self.find(file.digest, repo)
        if source is None or source.size_bytes != file.size_bytes:
            raise vanished(blob)
        if source.path != blob:
            self._adopt(source, repo)

    def moved(self, old: Path, new: Path, digest: Digest) -> None:
        """The bytes have moved, and what is known of them with them."""
        for row in self._catalog.blobs([str(digest)]):
            if self._cache / row.path == old:
                self.remember([self.seen(new, digest, is_verified=row.verified_at is not None)])
                self._catalog.drop_blobs([row.path])

    # Inside

    def _check(self, row: BlobRow) -> BlobRow | None:
        """The row as the disk has it now: unverified if the file was changed, None if it is gone or corrupt."""
        now = see_blob(self._cache, self._cache / row.path, Digest.parse(row.digest))
        if now is None:
            self._catalog.drop_blobs([row.path])
            return None
        if _stamp(now) == _stamp(row):
            return None if row.is_corrupt else row
        self._catalog.put_blobs([now])
        return now

    def _known(self, seen: BlobRow) -> BlobRow:
        """What is known about the bytes of a file that was just seen."""
        rows = self._catalog.blobs([seen.digest])
        return next((row for row in rows if row.path == seen.path and _stamp(row) == _stamp(seen)), seen)

    def _to_file(self, row: BlobRow) -> BlobFile:
        is_verified = row.verified_at is not None
        return BlobFile(Digest.parse(row.digest), self._cache / row.path, row.size_bytes, is_verified)

    def _adopt(self, source: BlobFile, repo: RepoId, check: Callable[[Path], None] | None = None) -> Path:
        blob = layout.blob_path(self._cache, repo, source.digest)
        with self.holding(repo, source.digest):
            row = self.in_place(blob, source.digest, source.size_bytes)
            if row is None:
                snapshots.copy_blob(source.path, blob, check)
                row = self.seen(blob, source.digest, is_verified=source.is_verified)
        self.remember([row])
        return blob


def vanished(path: Path) -> BrokenCache:
    return BrokenCache(
        f"A blob is not in the cache any more: {path}.",
        hint="Something deleted it meanwhile. Run the command again.",
        path=str(path),
    )


def _stamp(row: BlobRow) -> tuple[int, int, int]:
    return row.size_bytes, row.mtime_ns, row.inode


def _check_of(digest: Digest, size_bytes: int) -> Callable[[Path], None]:
    """A check that a copy still is what was hashed before: the original may have changed since."""

    def check(copy: Path) -> None:
        if hash_file(copy, digest.algorithm, size_bytes) != digest.hex or copy.stat().st_size != size_bytes:
            raise CorruptData(f"A file changed while it was copied: its hash is not {digest}.", hint="Try again.")

    return check
