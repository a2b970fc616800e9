"""The one door to the cache for the node and its transfers: find, write, publish, install, share, remove.

Every method blocks and may be called from any thread. Bytes are believed only when the caller has verified them or
`verify` has; nothing else becomes visible or is given to peers. Where the disk and the catalogue disagree, the disk
is right.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfpeer.cache import blobs, evict, layout, snapshots
from hfpeer.cache.catalog import BlobRow, Catalog, FileRow, RefRow, RevisionRow
from hfpeer.cache.locks import etag_lock
from hfpeer.cache.manifests import Manifests
from hfpeer.cache.records import CachedFile, CachedRevision, Removed
from hfpeer.cache.scan import Scanner, ScanResult, listing, see_blob, sum_up
from hfpeer.cache.sharing import Sharing
from hfpeer.errors import BrokenCache, CorruptData, Locked
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision, Visibility
from hfpeer.ranges import RangeSet

LOCK_SECONDS = 2.0
"""How long to wait for a Hub client that works on the same blob."""
TRIES = 3
"""Somebody may delete a blob between finding and linking it."""
FLUSH_SECONDS = 1.0
"""Statistics are written at most this often."""


@dataclass(frozen=True)
class BlobFile:
    """A whole blob in the cache. `is_verified` says that its bytes were hashed and have not changed since."""

    digest: Digest
    path: Path
    size_bytes: int
    is_verified: bool


class Store:
    """The cache at `cache`, with what hfpeer knows about it below `home`."""

    def __init__(self, cache: Path, home: Path) -> None:
        self.cache = cache
        self.home = home
        self._catalog = Catalog(home / "catalog.sqlite")
        self._manifests = Manifests(home / "manifests")
        self._sharing = Sharing(home / "shares.json")
        self._lock = threading.Lock()
        self._partials: dict[Digest, blobs.PartialBlob] = {}
        self._received: dict[tuple[str, str], int] = defaultdict(int)
        self._sent_bytes = 0
        self._flushed_at = time.monotonic()
        self._removals = 0

    def close(self) -> None:
        """Writes what is left to write. Partials stay open: they are their holders'."""
        self._flush()
        self._catalog.close()

    @property
    def generation(self) -> int:
        """Grows with every change that peers should hear of, over restarts too."""
        return self._catalog.generation

    # Whole blobs

    def find_blob(self, digest: Digest, repo: RepoId | None = None) -> BlobFile | None:
        """A blob by its digest, whichever repo it came with; a verified one if there is one.

        With `repo` also one that somebody has put into that repo since the last scan.
        """
        found = self._best(self._catalog.blobs([str(digest)]))
        if found is not None or repo is None:
            return found
        self._remember(self._see(layout.blob_path(self.cache, repo, digest), digest))
        return self._best(self._catalog.blobs([str(digest)]))

    def missing(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """The files whose blob is nowhere in the cache, each digest once, in order."""
        wanted = {file.digest: file for file in reversed(list(files))}
        rows = self._rows_by_digest(wanted)
        return [file for digest, file in reversed(wanted.items()) if not self._has(file, rows.get(digest, ()))]

    def unverified_of(self, files: Iterable[ManifestFile]) -> list[BlobFile]:
        """The blobs of these files that are in the cache and that nobody has hashed: to be verified before they are
        installed."""
        rows = self._rows_by_digest(file.digest for file in files)
        found = (self._best(places) for places in rows.values())
        return [blob for blob in found if blob is not None and not blob.is_verified]

    def shared_blob(self, digest: Digest) -> BlobFile | None:
        """A blob that peers may have: verified, and in a repo that is shared."""
        rows = [row for row in self._catalog.blobs([str(digest)]) if self._is_shared(row.repo)]
        found = self._best(rows)
        return found if found is not None and found.is_verified else None

    def is_blob_shared(self, digest: Digest) -> bool:
        """Whether the blob lies in a repo that is shared, verified or not."""
        return any(self._is_shared(row.repo) for row in self._catalog.blobs([str(digest)]))

    def unverified(self, limit: int) -> list[BlobFile]:
        """Blobs that others put into the cache and nobody has hashed, small ones first."""
        found = (self._check(row) for row in self._catalog.unverified(limit))
        return [self._to_blob_file(row) for row in found if row is not None]

    def verify(self, blob: BlobFile, should_stop: Callable[[], bool] | None = None) -> bool:
        """Hashes a blob and remembers the result. Whether it is what its name says.

        One that is not, or that cannot be read, is never shared and counts as missing, but its file is left alone: it
        is the user's.
        """
        row = self._see(blob.path, blob.digest)
        if row is None:
            return False
        try:
            actual = blobs.hash_file(blob.path, blob.digest.algorithm, row.size_bytes, should_stop=should_stop)
        except BrokenCache:
            actual = ""
        if actual is None or self._see(blob.path, blob.digest) != row:
            return False
        is_right = actual == blob.digest.hex
        self._catalog.judge_blob(row, time.time() if is_right else None, is_corrupt=not is_right)
        self._catalog.bump()
        return is_right

    # Blobs on their way in

    def open_partial(self, digest: Digest, size_bytes: int) -> blobs.PartialBlob:
        """Opens the partial of a blob for writing; see `blobs.open_partial`. Raises Locked, NoSpace, BrokenCache."""
        partial = blobs.open_partial(self.cache, digest, size_bytes, on_close=self._forget_partial)
        with self._lock:
            self._partials[digest] = partial
        return partial

    def find_partial(self, digest: Digest) -> tuple[Path, int, RangeSet] | None:
        """Path, size and present bytes of a partial that is open in this process."""
        with self._lock:
            partial = self._partials.get(digest)
        return None if partial is None else (partial.path, partial.size_bytes, partial.present)

    def publish_blob(self, partial: blobs.PartialBlob, repo: RepoId, lock_timeout_seconds: float | None = None) -> Path:
        """Makes a partial whose bytes the caller has verified a blob of `repo`, and closes it.

        If another process was faster, its blob stays. Raises NoSpace or BrokenCache, and Locked when the Hub client's
        lock is not free in time (None: waits for some seconds, then goes on); then the partial is as before.
        """
        blob = layout.blob_path(self.cache, repo, partial.digest)
        with self._holding(repo, partial.digest, lock_timeout_seconds):
            row = self._in_place(blob, partial.digest, partial.size_bytes)
            if row is None:
                partial.publish_to(blob)
                row = self._seen(blob, partial.digest, verified_at=time.time())
            else:
                partial.remove()
        self._remember(row)
        return blob

    def publish_bytes(
        self, digest: Digest, body: bytes, repo: RepoId, lock_timeout_seconds: float | None = None
    ) -> Path:
        """Like `publish_blob`, for one small blob whose verified bytes are in memory."""
        self.publish_small(repo, [(digest, body)], lock_timeout_seconds)
        return layout.blob_path(self.cache, repo, digest)

    def publish_small(
        self, repo: RepoId, small: Iterable[tuple[Digest, bytes]], lock_timeout_seconds: float | None = None
    ) -> None:
        """Like `publish_blob`, for many small blobs whose verified bytes are in memory: synced together."""
        wanted = {layout.blob_path(self.cache, repo, digest): (digest, body) for digest, body in small}
        found = []
        with snapshots.written_aside({path: body for path, (_, body) in wanted.items()}) as fresh:
            for path, (digest, body) in wanted.items():
                with self._holding(repo, digest, lock_timeout_seconds):
                    in_place = self._in_place(path, digest, len(body))
                    if in_place is None:
                        fresh[path].replace(path)
                        in_place = self._seen(path, digest, verified_at=time.time())
                found.append(in_place)
        self._catalog.put_blobs(row for row in found if row is not None)

    def adopt_blob(self, path: Path, digest: Digest, repo: RepoId) -> Path:
        """Puts the content of a file into `blobs/` of `repo`.

        A blob of this cache becomes one file with two names where possible; any other file is copied and the copy
        hashed. Raises CorruptData if that is not `digest`, NoSpace, BrokenCache.
        """
        row = self._see(path, digest)
        if row is None:
            raise _vanished(path)
        if not path.is_relative_to(self.cache):
            copied = BlobFile(digest, path, row.size_bytes, is_verified=True)
            return self._adopt(copied, repo, _check_of(digest, row.size_bytes))
        return self._adopt(self._to_blob_file(self._known(row)), repo)

    # Snapshots, refs, manifests

    def install(self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile]) -> Path:
        """Makes files of a commit visible in `snapshots/<commit>/`; returns that folder.

        Every blob must be in the cache already, in whichever repo. Raises BrokenCache for one that is not.
        """
        rows = self._rows_by_digest(file.digest for file in files)
        for file in files:
            self._install_file(repo, commit, file, rows.get(file.digest, ()))
        present = [FileRow(file.path, str(file.digest), file.size_bytes) for file in files]
        self._catalog.put_files(repo.folder, commit, present)
        manifest = self._manifests.load(repo, commit)
        if manifest is not None:
            snapshots.write_tree(self.cache, repo, commit, manifest.files)
        self._sum_up(repo, commit, used_at=time.time())
        self._catalog.bump()
        return self.snapshot_path(repo, commit)

    def write_ref(self, repo: RepoId, revision: Revision, commit: Commit, answered_by: str) -> None:
        """Remembers what a revision is now. To be called last, when the snapshot is there.

        Without a snapshot no file is written: the Hub client takes a ref to nothing for a corrupt repo.
        """
        if revision.is_commit:
            return
        known = snapshots.read_ref(self.cache, repo, revision)
        is_new = known is None or known[0] != commit
        if is_new and self.snapshot_path(repo, commit).is_dir():
            snapshots.write_ref(self.cache, repo, revision, commit)
        self._catalog.put_refs([RefRow(repo.folder, revision, commit, time.time(), answered_by)])
        self._catalog.bump()

    def read_ref(self, repo: RepoId, revision: Revision) -> tuple[Commit, float, str] | None:
        """What a revision was when somebody was last asked: commit, when (seconds since the epoch), who answered.

        A ref file that another tool wrote since then is newer and wins; it was answered by "cache".
        """
        rows = self._catalog.refs(repo.folder, revision)
        written = snapshots.read_ref(self.cache, repo, revision)
        if written is not None and (not rows or (rows[0].commit != written[0] and rows[0].resolved_at < written[1])):
            return (*written, "cache")
        return (Commit(rows[0].commit), rows[0].resolved_at, rows[0].answered_by) if rows else None

    def save_manifest(self, manifest: Manifest) -> None:
        """Keeps a manifest; one without proof never replaces one with."""
        self._manifests.save(manifest)
        if self._catalog.revisions(manifest.repo.folder, manifest.commit):
            self._sum_up(manifest.repo, manifest.commit)
            self._catalog.bump()

    def load_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        return self._manifests.load(repo, commit)

    def snapshot_path(self, repo: RepoId, commit: Commit) -> Path:
        """Where the snapshot is, or would be."""
        return layout.snapshot_path(self.cache, repo, commit)

    def snapshot_file(self, repo: RepoId, commit: Commit, path: FilePath) -> Path | None:
        """A file of a snapshot, if it is there."""
        place = layout.snapshot_file(self.cache, repo, commit, path)
        return place if place.is_file() else None

    def revisions(self, repo: RepoId | None = None) -> list[CachedRevision]:
        """The revisions of a repo or of all, most recently used first, without their listings."""
        folder = None if repo is None else repo.folder
        refs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for ref in self._catalog.refs(folder):
            refs[ref.repo, ref.commit].append(ref.name)
        visibilities = {folder: visibility for folder, (visibility, _) in self._catalog.repos().items()}
        return [
            self._to_revision(row, refs[row.repo, row.commit], visibilities.get(row.repo))
            for row in self._catalog.revisions(folder)
        ]

    def revision(self, repo: RepoId, commit: Commit) -> CachedRevision | None:
        """One revision with its listing: all files of the commit if that is known, else those that are here."""
        found = next((one for one in self.revisions(repo) if one.commit == commit), None)
        if found is None:
            return None
        here = {row.path: row for row in self._catalog.files(repo.folder, commit)}
        listing = [CachedFile(row.path, row.size_bytes, row.digest or "", True) for row in here.values()]
        for path, (digest, size_bytes) in (self._listing(repo, commit) or {}).items():
            if path not in here:
                listing.append(CachedFile(path, size_bytes, str(digest), False))
        return replace(found, listing=tuple(sorted(listing, key=lambda file: file.path)))

    def note_used(self, repo: RepoId, commit: Commit) -> None:
        """Remembers that a revision was used now."""
        self._catalog.use_revision(repo.folder, commit, time.time())

    def remove(self, repo: RepoId, commit: Commit | None = None, files: Iterable[FilePath] = ()) -> Removed:
        """Takes a repo, a revision or files of a revision out of the cache, with the blobs nothing else needs.

        What is not there is not an error: the result counts what was. Raises BrokenCache.
        """
        self._removals += 1
        removed = evict.remove(self.cache, self._catalog, repo, commit, frozenset(files))
        for gone in removed.commits if not files else ():
            self._manifests.remove(repo, Commit(gone))
        if files and commit is not None:
            self._sum_up(repo, commit)
        self._removals += 1
        self._catalog.bump()
        return removed

    # Sharing

    def visibility(self, repo: RepoId) -> Visibility:
        """Who may see the repo at its hub, as far as anybody was asked."""
        known = self._catalog.visibility(repo.folder)
        return Visibility.UNKNOWN if known is None else Visibility(known[0])

    def set_visibility(self, repo: RepoId, visibility: Visibility) -> None:
        self._catalog.set_repo(repo.folder, visibility=visibility.value, asked_at=time.time())
        self._catalog.bump()

    def set_share(self, repo: RepoId, is_shared: bool | None) -> None:
        """Keeps the owner's word on whether peers may have the repo; None takes it back."""
        self._sharing.set_override(repo, is_shared)
        self._catalog.bump()

    def is_shared(self, repo: RepoId) -> bool:
        """Whether peers may have the repo: the owner's word if there is one, else only if it is public."""
        return self._is_shared(repo.folder)

    def note_published(self, repo: RepoId) -> None:
        """Remembers that the repo was made here, so that no hub need be asked about it."""
        self._sharing.set_published(repo)

    def is_published(self, repo: RepoId) -> bool:
        return self._sharing.is_published(repo)

    # What others did to the cache

    def scan(self, on_batch: Callable[[int], None] | None = None) -> ScanResult:
        """Brings the catalogue up to date with what others put into the cache or took out of it. Hashes nothing.

        Cheap where no folder has changed since the last time. `on_batch` is told the files seen so far.
        """
        return self._scanner().scan_all(on_batch)

    def scan_repo(self, repo: RepoId) -> ScanResult:
        """The same for one repo: cheap enough to do before asking what is missing."""
        return self._scanner().scan_one(repo)

    def sweep_partials(self, max_age_seconds: float) -> int:
        """Deletes partials that nobody has touched for so long; how many bytes that gave back."""
        return blobs.sweep(self.cache, time.time() - max_age_seconds)

    # Statistics

    def note_received(self, kind: str, source: str, size_bytes: int) -> None:
        """Counts bytes from a source; `kind` is peer, mirror or origin. Cheap: written once a second."""
        with self._lock:
            self._received[kind, source] += size_bytes
        self._flush_if_due()

    def note_sent(self, size_bytes: int) -> None:
        """Counts bytes that went to peers. Cheap: written once a second."""
        with self._lock:
            self._sent_bytes += size_bytes
        self._flush_if_due()

    def totals(self) -> dict[str, Any]:
        """`revisions`, `files`, `size_bytes`, `unverified_files`, `sent_bytes`, and since the catalogue was made
        `received_bytes` by kind and `received_by_source` by source. With everything noted so far."""
        self._flush()
        by_kind: dict[str, int] = defaultdict(int)
        by_source: dict[str, int] = defaultdict(int)
        for (kind, source), size_bytes in self._catalog.received().items():
            by_kind[kind] += size_bytes
            by_source[source] += size_bytes
        names = ("revisions", "files", "size_bytes", "unverified_files")
        return {
            **dict(zip(names, self._catalog.totals(), strict=True)),
            "sent_bytes": self._catalog.sent_bytes,
            "received_bytes": dict(by_kind),
            "received_by_source": dict(by_source),
        }

    # Inside

    def _scanner(self) -> Scanner:
        return Scanner(self.cache, self._catalog, self._manifests, lambda: self._removals)

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            received, self._received = self._received, defaultdict(int)
            sent_bytes, self._sent_bytes = self._sent_bytes, 0
            self._flushed_at = time.monotonic()
        if received:
            self._catalog.add_received(received)
        if sent_bytes:
            self._catalog.add_sent(sent_bytes)

    @contextmanager
    def _holding(self, repo: RepoId, digest: Digest, timeout_seconds: float | None = None) -> Iterator[None]:
        """The Hub client's lock on a blob; Locked if it is not free within `timeout_seconds`.

        Without a limit it is waited for a while and then done without: a client may hold it for as long as it
        downloads from far away. The lock saves work; what is right rests on renames.
        """
        with ExitStack() as held:
            try:
                limit = LOCK_SECONDS if timeout_seconds is None else timeout_seconds
                held.enter_context(etag_lock(self.cache, repo, digest, limit))
            except Locked:
                if timeout_seconds is not None:
                    raise
            yield

    def _forget_partial(self, partial: blobs.PartialBlob) -> None:
        with self._lock:
            if self._partials.get(partial.digest) is partial:
                del self._partials[partial.digest]

    def _rows_by_digest(self, digests: Iterable[Digest]) -> dict[Digest, list[BlobRow]]:
        rows: dict[Digest, list[BlobRow]] = defaultdict(list)
        for row in self._catalog.blobs({str(digest) for digest in digests}):
            rows[Digest.parse(row.digest)].append(row)
        return rows

    def _best(self, rows: Iterable[BlobRow]) -> BlobFile | None:
        """The best of several places: verified before not, and none that is corrupt or gone."""
        for row in sorted(rows, key=lambda row: row.verified_at is None):
            checked = self._check(row)
            if checked is not None:
                return self._to_blob_file(checked)
        return None

    def _has(self, file: ManifestFile, rows: Iterable[BlobRow]) -> bool:
        return any(row.size_bytes == file.size_bytes and self._check(row) is not None for row in rows)

    def _check(self, row: BlobRow) -> BlobRow | None:
        """The row as the disk has it now: unverified if the file was changed, None if it is gone or corrupt."""
        now = self._see(self.cache / row.path, Digest.parse(row.digest))
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

    def _see(self, path: Path, digest: Digest) -> BlobRow | None:
        """A row for a blob of the cache as it lies there now, with nothing known about its bytes."""
        return see_blob(self.cache, path, digest)

    def _to_blob_file(self, row: BlobRow) -> BlobFile:
        is_verified = row.verified_at is not None
        return BlobFile(Digest.parse(row.digest), self.cache / row.path, row.size_bytes, is_verified)

    def _in_place(self, blob: Path, digest: Digest, size_bytes: int) -> BlobRow | None:
        """What is known of a blob that is there already, unless it is known to be wrong."""
        seen = self._see(blob, digest)
        if seen is None or seen.size_bytes != size_bytes:
            return None
        known = self._known(seen)
        return None if known.is_corrupt else known

    def _seen(self, blob: Path, digest: Digest, verified_at: float | None) -> BlobRow | None:
        row = self._see(blob, digest)
        return None if row is None else replace(row, verified_at=verified_at)

    def _remember(self, row: BlobRow | None) -> None:
        if row is not None:
            self._catalog.put_blobs([row])

    def _adopt(self, source: BlobFile, repo: RepoId, check: Callable[[Path], None] | None = None) -> Path:
        blob = layout.blob_path(self.cache, repo, source.digest)
        with self._holding(repo, source.digest):
            row = self._in_place(blob, source.digest, source.size_bytes)
            if row is None:
                snapshots.copy_blob(source.path, blob, check)
                row = self._seen(blob, source.digest, time.time() if source.is_verified else None)
        self._remember(row)
        return blob

    def _install_file(self, repo: RepoId, commit: Commit, file: ManifestFile, rows: Sequence[BlobRow]) -> None:
        """Brings the blob into the repo if it is another's, then links it; each step only if it is needed."""
        place = layout.snapshot_file(self.cache, repo, commit, file.path)
        blob = layout.blob_path(self.cache, repo, file.digest)
        known = {row.path for row in rows if row.size_bytes == file.size_bytes and not row.is_corrupt}
        if str(place.relative_to(self.cache)) in known and place.is_file() and not place.is_symlink():
            return
        for _ in range(TRIES):
            if str(blob.relative_to(self.cache)) not in known or not blob.is_file():
                self._bring(file, repo, blob)
            with self._holding(repo, file.digest):
                if blob.is_file():
                    lies_at = snapshots.link_file(self.cache, repo, commit, file.path, file.digest)
                    break
        else:
            raise _vanished(blob)
        if lies_at != blob:
            self._move_row(blob, lies_at, file.digest)

    def _bring(self, file: ManifestFile, repo: RepoId, blob: Path) -> None:
        """Puts a blob of another repo, or of another place in this one, at `blob`."""
        source = self.find_blob(file.digest, repo)
        if source is None or source.size_bytes != file.size_bytes:
            raise _vanished(blob)
        if source.path != blob:
            self._adopt(source, repo)

    def _move_row(self, old: Path, new: Path, digest: Digest) -> None:
        """The bytes have moved into a snapshot because there are no links; what is known of them has too."""
        for row in self._catalog.blobs([str(digest)]):
            if self.cache / row.path == old:
                self._remember(self._seen(new, digest, row.verified_at))
                self._catalog.drop_blobs([row.path])

    def _listing(self, repo: RepoId, commit: Commit) -> dict[FilePath, tuple[Digest, int]] | None:
        return listing(self.cache, self._manifests, repo, commit)[0]

    def _sum_up(self, repo: RepoId, commit: Commit, used_at: float | None = None) -> None:
        sum_up(self.cache, self._catalog, self._manifests, repo, commit, used_at)

    def _is_shared(self, folder: str) -> bool:
        repo = RepoId.from_folder(folder)
        override = self._sharing.override(repo)
        return self.visibility(repo) is Visibility.PUBLIC if override is None else override

    def _to_revision(self, row: RevisionRow, refs: Sequence[str], visibility: str | None) -> CachedRevision:
        repo = RepoId.from_folder(row.repo)
        override = self._sharing.override(repo)
        return CachedRevision(
            repo=repo.full_name,
            type=repo.type.value,
            commit=row.commit,
            refs=tuple(refs),
            files=row.files,
            size_bytes=row.size_bytes,
            is_complete=row.is_complete,
            is_proved=row.is_proved,
            visibility=visibility or Visibility.UNKNOWN.value,
            is_shared=visibility == Visibility.PUBLIC.value if override is None else override,
            used_at=row.used_at,
            snapshot=str(self.snapshot_path(repo, Commit(row.commit))),
        )


def _stamp(row: BlobRow) -> tuple[int, int, int]:
    return row.size_bytes, row.mtime_ns, row.inode


def _vanished(path: Path) -> BrokenCache:
    return BrokenCache(
        f"A blob is not in the cache any more: {path}.",
        hint="Something deleted it meanwhile. Run the command again.",
        path=str(path),
    )


def _check_of(digest: Digest, size_bytes: int) -> Callable[[Path], None]:
    """A check that a copy still is what was hashed before: the original may have changed since."""

    def check(copy: Path) -> None:
        if blobs.hash_file(copy, digest.algorithm, size_bytes) != digest.hex or copy.stat().st_size != size_bytes:
            raise CorruptData(f"A file changed while it was copied: its hash is not {digest}.", hint="Try again.")

    return check
