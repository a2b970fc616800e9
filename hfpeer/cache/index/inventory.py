"""The whole blobs of the cache: finding and verifying them, and copying them between repos.

Every row of the catalog is checked against the file on the disk: a row holds only while the file has the same stamp. No
blob is written in place.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hfpeer.cache import snapshots
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.caches import Caches
from hfpeer.cache.disk.directories import OpenFolders, opened
from hfpeer.cache.disk.linking import HardLinks, OnChunk, Way
from hfpeer.cache.disk.locks import etag_lock, folder_lock, locked_ones
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.database import batches
from hfpeer.cache.index.scan.seeing import see_blob, stamp_of
from hfpeer.cache.index.schema import BlobRow
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.errors import BrokenCache, CorruptData, Locked
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, RepoId

_GONE = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV}
"""Errors of a disk that was unplugged, or of a network volume whose server is gone."""
LOOKED_AT_TOGETHER = 2000
"""Files whose rows are in memory at a time."""
LOCK_SECONDS = 2.0
"""Seconds to wait for a Hub client that has locked a blob, before going on without the lock."""


@dataclass(frozen=True)
class BlobFile:
    """A whole blob in the cache. `is_verified`: its bytes were hashed and have not changed since. `is_given`: all of
    them were given openly."""

    digest: Digest
    path: Path
    size_bytes: int
    is_verified: bool
    is_given: bool = False
    stamp: tuple[int, int, int, int] | None = None
    """The stamp of the file for which this holds; see `BlobRow.stamp`."""

    def open(self) -> int:
        """A descriptor of the file. Raises OSError if the file is gone, was replaced, or was written to: nothing is
        known of such bytes."""
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        facts = os.fstat(fd)
        if self.stamp in (None, stamp_of(facts)):
            return fd
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))

    def read(self) -> bytes | None:
        """All bytes of a small blob; None where `open` would raise OSError."""
        try:
            fd = self.open()
        except OSError:
            return None
        try:
            body = os.pread(fd, self.size_bytes, 0)
        except OSError:
            return None
        finally:
            os.close(fd)
        return body if len(body) == self.size_bytes else None


class Inventory:
    """The whole blobs of all `caches`. It writes into the first only. Thread-safe."""

    def __init__(self, caches: Caches, catalog: Catalog) -> None:
        self._caches = caches
        self._cache = caches.first
        self._catalog = catalog

    # Finding

    def find(self, digest: Digest, repo: RepoId | None = None) -> BlobFile | None:
        """A blob by its digest, from any repo; a verified one if there is one.

        With `repo` it also finds a blob that another tool has put into that repo since the last scan.
        """
        found = self.best(self._catalog.blobs([str(digest)]))
        if found is not None or repo is None:
            return found
        seen = [see_blob(cache, layout.blob_path(cache, repo, digest), digest) for cache in self._caches.present]
        if not any(seen):
            return None
        self._catalog.put_found_blobs(row for row in seen if row is not None)
        return self.best(self._catalog.blobs([str(digest)]))

    def places(self, digests: Iterable[Digest]) -> dict[Digest, list[BlobRow]]:
        """By digest: the rows of its files, as they were last seen."""
        wanted = {digest: digest for digest in digests}
        rows: dict[Digest, list[BlobRow]] = defaultdict(list)
        for row in self._catalog.blobs(map(str, wanted)):
            rows[wanted[cast("Digest", row.digest)]].append(row)
        return rows

    def best(self, rows: Iterable[BlobRow]) -> BlobFile | None:
        """The blob of one of these rows, a verified one if there is one, of the first cache folder if it has one; None
        if all files are corrupt or gone."""
        first = str(self._cache)
        for row in sorted(rows, key=lambda row: (row.verified_at is None, row.cache != first)):
            checked = self._check(row)
            if checked is not None:
                return self._to_file(checked)
        return None

    def as_last_seen(self, rows: Iterable[BlobRow]) -> BlobFile | None:
        """The verified blob of one of these rows, if there is one, without a look at the disk."""
        right = (row for row in rows if row.verified_at is not None and not (row.is_corrupt or row.is_in_doubt))
        row = next(right, None)
        return None if row is None else self._to_file(row)

    def whole(self) -> set[Digest]:
        """The digests of all whole blobs of the cache, verified or not, except those that are known to be corrupt."""
        return {Digest.parse(digest) for digest in self._catalog.digests()}

    def missing(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """The files whose blob is in no repo of the cache, each digest once, in order."""
        return self.look(files)[0]

    def look(self, files: Iterable[ManifestFile]) -> tuple[list[ManifestFile], list[BlobFile]]:
        """The `missing` files, and the blobs of the others that were never hashed. Verify these before an install."""
        missing: list[ManifestFile] = []
        unverified: list[BlobFile] = []
        wanted: dict[Digest, ManifestFile] = {}
        for file in files:
            wanted.setdefault(file.digest, file)
        for batch in batches(wanted.values(), LOOKED_AT_TOGETHER):
            places = self.places(file.digest for file in batch)
            for file in batch:
                rows = places.get(file.digest, ())
                blob = self.best(rows) if rows else None
                if blob is None or not (blob.size_bytes == file.size_bytes or self._has(file, rows)):
                    missing.append(file)
                elif not blob.is_verified:
                    unverified.append(blob)
        return missing, unverified

    def verified_in(self, repo: RepoId, files: Iterable[ManifestFile]) -> set[Digest]:
        """The digests of those of these files whose blob is in a repo of the first cache folder, was hashed there, and
        has not changed since. Much faster than `look` for many files; it may leave files out that are here."""
        sizes = {file.digest: file.size_bytes for file in files}
        found: set[Digest] = set()
        blobs = layout.blobs_folder(self._cache, repo)
        start, user = f"{blobs}{os.sep}", os.geteuid()
        with OpenFolders(self._cache) as folders:
            fd: int | None = None
            with suppress(OSError, BrokenCache):  # there may be none, or a link
                fd = folders.fd(blobs)
            for name, path, stamp in self._catalog.verified(repo.folder, sizes):
                digest = cast("Digest", name)
                if sizes.get(digest) != stamp[0]:
                    continue
                place = path if fd is None else path.removeprefix(start)
                try:
                    facts = os.stat(place, dir_fd=fd)  # a Path, or a whole path, for each takes longer
                except (OSError, ValueError):
                    continue
                if not stat.S_ISREG(facts.st_mode) or stamp_of(facts) != stamp:
                    continue
                is_own = facts.st_uid == user and facts.st_mode & stat.S_IRUSR
                if is_own or os.access(path, os.R_OK):
                    found.add(digest)
        return found

    def elsewhere(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """The files whose blob is in other cache folders only, each digest once. `bring` puts it into the first."""
        if len(self._caches.present) == 1:
            return []
        wanted = {file.digest: file for file in files}
        first, found = str(self._cache), []
        for digest, rows in self.places(wanted).items():
            file = wanted[digest]
            if not self._has(file, (row for row in rows if row.cache == first)) and self._has(file, rows):
                found.append(file)
        return found

    def unverified_of(self, files: Iterable[ManifestFile]) -> list[BlobFile]:
        """The blobs of these files that are here and were never hashed. Verify them before an install."""
        return self.look(files)[1]

    def verified_at(self, repo: RepoId, files: Iterable[ManifestFile]) -> dict[Digest, float]:
        """By digest: when the blobs of these files in the folder of `repo` were last hashed and right. Those that have
        changed since are left out."""
        found: dict[Digest, float] = {}
        for digest, rows in self.places(file.digest for file in files).items():
            place = str(layout.blob_path(self._cache, repo, digest))
            row = next((row for row in rows if row.path == place and row.verified_at is not None), None)
            checked = None if row is None else self._check(row)
            if checked is not None and checked.verified_at is not None and not checked.is_in_doubt:
                found[digest] = checked.verified_at
        return found

    def unverified_at(self, repo: RepoId, commit: Commit, files: Iterable[ManifestFile]) -> list[BlobFile]:
        """The files at the very places where an install of `files` would find their blobs, and that were never hashed;
        also those that no scan has seen, because no link leads to them. Verify them before the install."""
        files = list(files)
        places = self.places(file.digest for file in files)
        found: dict[Path, BlobRow] = {}
        for file in files:
            known = {row.path: row for row in places.get(file.digest, ())}
            place = layout.snapshot_file(self._cache, repo, commit, file.path)
            for path in (layout.blob_path(self._cache, repo, file.digest), place):
                row = None if path == place and path.is_symlink() else see_blob(self._cache, path, file.digest)
                if row is None or row.size_bytes != file.size_bytes:
                    continue
                before = known.get(row.path)
                if before is None or before.stamp != row.stamp:
                    found[path] = row
                elif before.verified_at is None and not before.is_corrupt:
                    found[path] = before
        self._catalog.put_found_blobs(found.values())
        return [self._to_file(row) for row in found.values()]

    def _has(self, file: ManifestFile, rows: Iterable[BlobRow]) -> bool:
        """Whether a blob of the file's size is at one of these places."""
        return any(row.size_bytes == file.size_bytes and self._check(row) is not None for row in rows)

    # Verifying

    def unverified(self, limit: int) -> list[BlobFile]:
        """Blobs that were never hashed, or whose verdict is in doubt, and that can be read, small ones first."""
        found: list[BlobFile] = []
        offset = 0
        while len(found) < limit and (rows := self._catalog.unverified(limit, offset)):
            offset += len(rows)
            files = [self._to_file(row) for row in map(self._check, rows) if row is not None]
            found += [file for file in files if not file.is_verified]
        return found[:limit]

    def verify(self, blob: BlobFile) -> bool:
        """Hashes a blob and records the result. Returns whether its bytes have its digest.

        A blob with other bytes, or that cannot be read, counts as missing and is never shared. Its file stays: it is
        the user's.
        """
        return self.verify_all([blob]) == []

    def verify_all(self, blobs: Iterable[BlobFile]) -> list[BlobFile]:
        """Hashes several blobs, of which peers hear together. Returns those whose bytes do not have their digests."""
        verdicts: list[tuple[BlobFile, bool | None]] = []
        try:
            for blob in blobs:
                verdicts.append((blob, self._verify(blob)))  # noqa: PERF401
        finally:  # also after a stop: the results until then are recorded
            if any(is_right is not None for _, is_right in verdicts):
                self._catalog.bump()
        return [blob for blob, is_right in verdicts if is_right is not True]

    def _verify(self, blob: BlobFile) -> bool | None:
        """Hashes a blob and records the result; None if the file is gone, or changed meanwhile."""
        cache = self._caches.of(blob.path) or self._cache
        row = see_blob(cache, blob.path, blob.digest)
        if row is None:
            return None
        try:
            actual = hash_file(blob.path, blob.digest.algorithm, row.size_bytes)
        except BrokenCache as error:
            if self._passes_over(cache, error):
                return None
            actual = ""
        if see_blob(cache, blob.path, blob.digest) != row:
            return None
        is_right = actual == blob.digest.hex
        self._catalog.judge_blob(row, time.time() if is_right else None, is_corrupt=not is_right)
        return is_right

    # Writing

    @contextmanager
    def holding(
        self,
        repo: RepoId,
        digest: Digest,
        timeout_seconds: float | None = None,
        folders: OpenFolders | None = None,
    ) -> Iterator[None]:
        """Holds the Hub client's lock on a blob. Raises Locked if it is not free within `timeout_seconds`.

        With None it waits LOCK_SECONDS and then goes on without the lock, because a client holds it during its whole
        download. The lock only saves work: renames keep readers safe.
        """
        with ExitStack() as held:
            try:
                limit = LOCK_SECONDS if timeout_seconds is None else timeout_seconds
                held.enter_context(etag_lock(self._cache, repo, digest, limit, folders))
            except Locked:
                if timeout_seconds is not None:
                    raise
            yield

    def with_locks(
        self,
        repo: RepoId,
        digests: Iterable[Digest],
        folders: OpenFolders,
        work: Callable[[Sequence[Digest]], None],
        timeout_seconds: float | None = None,
    ) -> None:
        """Calls `work` with groups of blobs, so that each comes once, with removals and Hub clients kept away from it.

        Most are one group, under the lock of the folder `blobs`, which has to exist. A blob that has a lock of its own
        comes alone under that, as `holding` holds it; so does each where a folder cannot be locked.
        """
        alone = list(digests)
        with ExitStack() as held:
            is_held = False
            with suppress(Locked):
                blobs = layout.blobs_folder(self._cache, repo)
                is_held = held.enter_context(folder_lock(folders, blobs, LOCK_SECONDS))
            if is_held:
                with_lock = locked_ones(folders, repo, alone)
                work([digest for digest in alone if digest not in with_lock])
                alone = list(with_lock)
        for digest in alone:
            with self.holding(repo, digest, timeout_seconds, folders):
                work([digest])

    def in_place(self, blob: Path, digest: Digest, size_bytes: int) -> BlobRow | None:
        """The row of the right blob at `blob`; None if there is no such file, or its bytes are wrong. A file that was
        never hashed is hashed now: another tool may have put it there, and no scan has seen it."""
        return self.in_places(blob.parent, {digest: size_bytes}).get(digest)

    def in_places(self, blobs: Path, sizes: Mapping[Digest, int]) -> dict[Digest, BlobRow]:
        """The same for many blobs in one folder, by digest their sizes, with one query."""
        found: dict[Digest, BlobRow] = {}
        for digest, size_bytes in sizes.items():
            path = f"{blobs}{os.sep}{digest.hex}"
            seen = see_blob(self._cache, path, digest)
            if seen is not None and seen.size_bytes == size_bytes and os.access(path, os.R_OK):
                found[digest] = seen
        known = {row.path: row for row in self._catalog.blobs(row.digest for row in found.values())} if found else {}
        judged = ((digest, self._judged(seen, known.get(seen.path), digest)) for digest, seen in found.items())
        return {digest: row for digest, row in judged if row is not None}

    def in_repo(self, repo: RepoId, sizes: Mapping[Digest, int]) -> set[Digest]:
        """Those of these blobs, by digest their sizes, that are right in `blobs/` of a repo. Those that were never
        hashed are hashed now."""
        began_at = time.time()
        found = self.in_places(layout.blobs_folder(self._cache, repo), sizes)
        self.remember(row for row in found.values() if (row.verified_at or 0) >= began_at)
        return set(found)

    def _judged(self, seen: BlobRow, known: BlobRow | None, digest: Digest) -> BlobRow | None:
        """The row of a blob that was just seen, with what is known of its bytes; None if they are wrong."""
        known = known if known is not None and known.stamp == seen.stamp else seen
        if known.is_corrupt or known.verified_at is not None:
            return None if known.is_corrupt else known
        try:
            is_right = hash_file(Path(seen.path), digest.algorithm, seen.size_bytes) == digest.hex
        except BrokenCache:
            return None
        is_right = is_right and see_blob(self._cache, seen.path, digest) == seen
        return known._replace(verified_at=time.time()) if is_right else None

    def seen(self, blob: Path, digest: Digest, *, is_verified: bool, is_given: bool = False) -> BlobRow | None:
        """A row for a blob that was just written to `blob`."""
        row = see_blob(self._cache, blob, digest)
        at = time.time() if is_verified else None
        return None if row is None else row._replace(verified_at=at, is_given=is_given and is_verified)

    def remember(self, rows: Iterable[BlobRow | None]) -> None:
        """Writes rows into the catalog."""
        self._catalog.put_blobs(row for row in rows if row is not None)

    def adopt(
        self,
        path: Path,
        digest: Digest,
        repo: RepoId,
        hard_links: HardLinks = HardLinks.NEVER,
        on_chunk: OnChunk = lambda count: None,
    ) -> Way | None:
        """Puts the content of a file into `blobs/` of `repo`: by a hard link, where possible, for a blob of this cache,
        and for any other file by shared blocks, by a hard link if `hard_links` allows it, or by a copy. What comes from
        outside is hashed before it is visible.

        `on_chunk` is called with the bytes that were copied, and with those that were hashed. Returns the way of the
        bytes; None if the blob was there. Raises CorruptData if the hash differs, NoSpace, BrokenCache.
        """
        row = see_blob(self._cache, path, digest)
        if row is None:
            raise vanished(path)
        if path.is_relative_to(self._cache):
            known = self._to_file(self._known(row))
            return self._adopt(known, repo, hard_links=_links_within(known))
        source = BlobFile(digest, path, row.size_bytes, True)
        return self._adopt(source, repo, _check_of(digest, row.size_bytes, on_chunk), hard_links, on_chunk)

    def bring(
        self,
        file: ManifestFile,
        repo: RepoId,
        on_chunk: OnChunk = lambda count: None,
        hard_links: HardLinks = HardLinks.NEVER,
    ) -> Way | None:
        """Puts a blob of any repo and cache folder into `blobs/` of `repo`, unless it is there. Returns the way of the
        bytes. `on_chunk` and `hard_links` are as in `adopt`; a file of another user is never linked.

        What comes from another cache folder is hashed before it is visible. Raises BrokenCache if no repo has it,
        CorruptData for wrong bytes in another cache folder, which count as missing from then on.
        """
        blob = layout.blob_path(self._cache, repo, file.digest)
        source = self.find(file.digest, repo)
        if source is None or source.size_bytes != file.size_bytes:
            raise vanished(blob)
        if source.path == blob:
            return None
        if self._caches.of(source.path) == self._cache:
            return self._adopt(source, repo, hard_links=_links_within(source))
        try:
            is_own = source.path.stat().st_uid == os.geteuid()
            return self.adopt(source.path, file.digest, repo, hard_links if is_own else HardLinks.NEVER, on_chunk)
        except FileNotFoundError as error:
            raise vanished(source.path) from error
        except CorruptData:
            self._verify(source)
            raise
        except BrokenCache as error:
            self._passes_over(self._caches.of(source.path) or self._cache, error)
            raise

    def placed(self, blob: Path, place: Path, digest: Digest) -> None:
        """Notes that the file of a blob was moved or copied into a snapshot."""
        for row in self._catalog.blobs([str(digest)]):
            if Path(row.path) == blob:
                is_verified = row.verified_at is not None
                self.remember([self.seen(place, digest, is_verified=is_verified, is_given=row.is_given)])
                if not os.path.lexists(blob):
                    self._catalog.drop_blobs([row.path])

    # Inside

    def _check(self, row: BlobRow) -> BlobRow | None:
        """The row for the file on the disk now: unverified if it has changed, None if it is gone, corrupt, or of
        another user who lets nobody read it."""
        now = see_blob(Path(row.cache), Path(row.path), Digest.parse(row.digest))
        if now is None:
            if not self._is_away(row):
                self._catalog.drop_blobs([row.path])
            return None
        if now.stamp == row.stamp:
            return row if not row.is_corrupt and os.access(row.path, os.R_OK) else None
        self._catalog.put_found_blobs([now])
        return now if os.access(now.path, os.R_OK) else None

    def _passes_over(self, cache: Path, error: BrokenCache) -> bool:
        """Passes a cache folder over that is only read, if an error is one of its disk or of the way to it."""
        is_away = cache != self._cache and error.facts.get("errno") in _GONE
        if is_away:
            self._caches.pass_over(cache, f"it cannot be read: {os.strerror(error.facts['errno'])}")
        return is_away

    def _is_away(self, row: BlobRow) -> bool:
        """Whether a blob is not there because its cache folder was unplugged, or does not answer."""
        if row.cache == str(self._cache) or Path(row.cache, row.repo).is_dir():
            return False
        self._caches.look()
        return Path(row.cache) in self._caches.away or os.path.lexists(row.path)

    def _known(self, seen: BlobRow) -> BlobRow:
        """The row that the catalog has for a file that was just seen, or `seen` itself."""
        rows = self._catalog.blobs([seen.digest])
        return next((row for row in rows if row.path == seen.path and row.stamp == seen.stamp), seen)

    def _to_file(self, row: BlobRow) -> BlobFile:
        is_verified = row.verified_at is not None and not row.is_in_doubt
        digest, path = Digest.parse(row.digest), Path(row.path)
        return BlobFile(digest, path, row.size_bytes, is_verified, row.is_given, row.stamp)

    def _adopt(
        self,
        source: BlobFile,
        repo: RepoId,
        check: Callable[[Path], None] = lambda copy: None,
        hard_links: HardLinks = HardLinks.NEVER,
        on_chunk: OnChunk = lambda count: None,
    ) -> Way | None:
        blob = layout.blob_path(self._cache, repo, source.digest)
        way = None
        with self.holding(repo, source.digest):
            row = self.in_place(blob, source.digest, source.size_bytes)
            if row is None:
                with translated("copy a blob", blob), opened(self._cache, blob.parent, makes=True) as folder:
                    way = snapshots.copy_blob(source.path, folder / blob.name, check, hard_links, on_chunk)
                row = self.seen(blob, source.digest, is_verified=source.is_verified, is_given=source.is_given)
        self.remember([row])
        return way


def vanished(path: Path) -> BrokenCache:
    """The error for a blob that another process deleted."""
    return BrokenCache(
        f"Another process deleted a blob from the cache: {path}.",
        hint="Run the command again.",
        path=str(path),
    )


def _links_within(source: BlobFile) -> HardLinks:
    """Whether a file of the cache may get a second name in it: not a regular file in a snapshot, which users edit."""
    return HardLinks.BLOBS if source.path.parent.name == "blobs" else HardLinks.NEVER


def _check_of(digest: Digest, size_bytes: int, on_chunk: OnChunk) -> Callable[[Path], None]:
    """A check for `copy_blob` that hashes the copy: the original may have changed since it was hashed."""

    def check(copy: Path) -> None:
        if hash_file(copy, digest.algorithm, size_bytes, on_chunk) != digest.hex or copy.stat().st_size != size_bytes:
            raise CorruptData(f"A file changed while it was copied: its hash is not {digest}.", hint="Try again.")

    return check
