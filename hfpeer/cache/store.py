"""The one door to the cache for the node and its transfers: find, write, publish, install, share, remove.

Every method blocks and may be called from any thread. Bytes are believed only when the caller has verified them or
`verify` has; nothing else becomes visible or is given to peers. Where the disk and the catalogue disagree, the disk
is right.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfpeer.cache import blobs, evict, layout, snapshots
from hfpeer.cache.catalog import BlobRow, Catalog, FileRow, RefRow
from hfpeer.cache.history import History
from hfpeer.cache.inventory import BlobFile as BlobFile
from hfpeer.cache.inventory import Inventory, vanished
from hfpeer.cache.manifests import Manifests
from hfpeer.cache.records import CachedRevision, FetchRecord, Provenance, Removed
from hfpeer.cache.scan import Scanner, ScanResult, sum_up
from hfpeer.cache.shared import Shared
from hfpeer.cache.sharing import Sharing
from hfpeer.cache.shelf import Shelf
from hfpeer.cache.tally import Tally
from hfpeer.errors import StorageError
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision, Visibility
from hfpeer.ranges import RangeSet

TRIES = 3
"""Somebody may delete a blob between finding and linking it."""


class Store:
    """The cache at `cache`, with what hfpeer knows about it below `home`."""

    def __init__(self, cache: Path, home: Path) -> None:
        self.cache = cache
        self.home = home
        self._catalog = Catalog(home / "catalog.sqlite")
        self._manifests = Manifests(home / "manifests")
        self._sharing = Sharing(home / "shares.json")
        self._inventory = Inventory(cache, self._catalog)
        self._shared = Shared(self._catalog, self._inventory, self._sharing)
        self._shelf = Shelf(cache, self._catalog, self._manifests, self._sharing)
        self._tally = Tally(self._catalog)
        self._history = History(cache, self._catalog)
        self._lock = threading.Lock()
        self._partials: dict[Digest, blobs.PartialBlob] = {}
        self._removals = 0

    def close(self) -> None:
        """Writes what is left to write. Partials stay open: they are their holders'."""
        self._tally.flush()
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
        return self._inventory.find(digest, repo)

    def missing(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """The files whose blob is nowhere in the cache, each digest once, in order."""
        wanted: dict[Digest, ManifestFile] = {}
        for file in files:
            wanted.setdefault(file.digest, file)
        places = self._inventory.places(wanted)
        return [file for digest, file in wanted.items() if not self._inventory.has(file, places.get(digest, ()))]

    def unverified_of(self, files: Iterable[ManifestFile]) -> list[BlobFile]:
        """The blobs of these files that are here and that nobody has hashed: to be verified before an install."""
        found = map(self._inventory.best, self._inventory.places(file.digest for file in files).values())
        return [blob for blob in found if blob is not None and not blob.is_verified]

    def shared_blob(self, digest: Digest) -> BlobFile | None:
        """A blob that peers may have: verified, and in a repo that is shared."""
        return self.shared_blobs([digest]).get(digest)

    def shared_blobs(self, digests: Iterable[Digest]) -> dict[Digest, BlobFile]:
        """Those of many blobs that peers may have; the catalogue is asked once for all, if it has changed since the
        last time."""
        return self._shared.blobs(digests)

    def is_blob_shared(self, digest: Digest) -> bool:
        """Whether the blob lies in a repo that is shared, verified or not."""
        rows = self._catalog.blobs([str(digest)])
        return any(self._shared.is_shared(RepoId.from_folder(row.repo)) for row in rows)

    def unverified(self, limit: int) -> list[BlobFile]:
        """Blobs that others put into the cache and nobody has hashed, small ones first."""
        return self._inventory.unverified(limit)

    def verify(self, blob: BlobFile, should_stop: Callable[[], bool] | None = None) -> bool:
        """Hashes a blob and remembers the result. Whether it is what its name says.

        One that is not, or that cannot be read, is never shared and counts as missing, but its file is left alone: it
        is the user's.
        """
        return self.verify_all([blob], should_stop) == []

    def verify_all(self, blobs: Iterable[BlobFile], should_stop: Callable[[], bool] | None = None) -> list[BlobFile]:
        """The same for several, of which peers hear at once; gives those that are not what their names say."""
        verdicts = [(blob, self._inventory.verify(blob, should_stop)) for blob in blobs]
        if any(is_right is not None for _, is_right in verdicts):
            self._catalog.bump()
        return [blob for blob, is_right in verdicts if is_right is not True]

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
        with self._inventory.holding(repo, partial.digest, lock_timeout_seconds):
            row = self._inventory.in_place(blob, partial.digest, partial.size_bytes)
            if row is None:
                partial.publish_to(blob)
                row = self._inventory.seen(blob, partial.digest, is_verified=True)
            else:
                partial.remove()
        self._inventory.remember([row])
        self._tally.flush_if_due()
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
        self._publish_small(repo, dict(small), lock_timeout_seconds)

    def publish_files(
        self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile], bodies: Mapping[Digest, bytes]
    ) -> None:
        """Publishes the small blobs of files and installs these, in one go because that is quicker."""
        by_digest: dict[Digest, list[ManifestFile]] = {}
        for file in files:
            by_digest.setdefault(file.digest, []).append(file)
        left: list[ManifestFile] = []

        def link(blob: Path, digest: Digest) -> Path:
            """Links the blob's files while it is held; where it was moved instead, what it leaves is done below."""
            lies_at = blob
            for file in by_digest.get(digest, ()):
                if lies_at == blob:
                    lies_at = snapshots.link_file(self.cache, repo, commit, file.path, digest)
                else:
                    left.append(file)
            return lies_at

        self._publish_small(repo, bodies, None, link)
        if left:
            self.install(repo, commit, left)
        self._note_installed(repo, commit, files)

    def _publish_small(
        self,
        repo: RepoId,
        bodies: Mapping[Digest, bytes],
        lock_timeout_seconds: float | None,
        link: Callable[[Path, Digest], Path] = lambda blob, _: blob,
    ) -> None:
        """`link` is called for each while it is held, and says where its bytes are then."""
        paths = {digest: layout.blob_path(self.cache, repo, digest) for digest in bodies}
        found = []
        with snapshots.written_aside({paths[digest]: body for digest, body in bodies.items()}) as fresh:
            for digest, path in paths.items():
                with self._inventory.holding(repo, digest, lock_timeout_seconds):
                    in_place = self._inventory.in_place(path, digest, len(bodies[digest]))
                    if in_place is None:
                        fresh[path].replace(path)
                    lies_at = link(path, digest)
                    if in_place is None or lies_at != path:
                        in_place = self._inventory.seen(lies_at, digest, is_verified=True)
                found.append(in_place)
        self._inventory.remember(found)
        self._tally.flush_if_due()

    def adopt_blob(self, path: Path, digest: Digest, repo: RepoId) -> Path:
        """Puts the content of a file into `blobs/` of `repo`.

        A blob of this cache becomes one file with two names where possible; any other file is copied and the copy
        hashed. Raises CorruptData if that is not `digest`, NoSpace, BrokenCache.
        """
        return self._inventory.adopt(path, digest, repo)

    # Snapshots, refs, manifests

    def install(self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile]) -> Path:
        """Makes files of a commit visible in `snapshots/<commit>/`; returns that folder.

        Every blob must be in the cache already, in whichever repo. Raises BrokenCache for one that is not.
        """
        places = self._inventory.places(file.digest for file in files)
        for file in files:
            self._install_file(repo, commit, file, places.get(file.digest, ()))
        self._note_installed(repo, commit, files)
        return self.snapshot_path(repo, commit)

    def _note_installed(self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile]) -> None:
        present = [FileRow(file.path, str(file.digest), file.size_bytes) for file in files]
        self._catalog.put_files(repo.folder, commit, present)
        manifest = self._manifests.load(repo, commit)
        if manifest is not None:
            snapshots.write_tree(self.cache, repo, commit, manifest.files)
        self._sum_up(repo, commit, used_at=time.time())
        self._catalog.bump()

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

    def forget_manifest(self, repo: RepoId, commit: Commit) -> None:
        """Drops a manifest that turned out to be wrong."""
        self._manifests.remove(repo, commit)
        self._catalog.bump()

    def load_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        return self._manifests.load(repo, commit)

    def listed(self, repo: RepoId) -> list[Commit]:
        """The commits of a repo whose manifest is here, the latest first."""
        return self._manifests.commits(repo)

    def snapshot_path(self, repo: RepoId, commit: Commit) -> Path:
        """Where the snapshot is, or would be."""
        return layout.snapshot_path(self.cache, repo, commit)

    def snapshot_file(self, repo: RepoId, commit: Commit, path: FilePath) -> Path | None:
        """A file of a snapshot, if it is there."""
        place = layout.snapshot_file(self.cache, repo, commit, path)
        return place if place.is_file() else None

    def revisions(self, repo: RepoId | None = None) -> list[CachedRevision]:
        """The revisions of a repo or of all, most recently used first, without their listings."""
        return self._shelf.revisions(repo)

    def revision(self, repo: RepoId, commit: Commit) -> CachedRevision | None:
        """One revision with its listing: all files of the commit if that is known, else those that are here."""
        return self._shelf.revision(repo, commit)

    def remove(self, repo: RepoId, commit: Commit | None = None, files: Iterable[FilePath] = ()) -> Removed:
        """Takes a repo, a revision or files of a revision out of the cache, with the blobs nothing else needs.

        What is not there is not an error: the result counts what was. Raises BrokenCache.
        """
        wanted = frozenset(files)
        self._count_removal()
        removed = evict.remove(self.cache, self._catalog, repo, commit, wanted)
        self._count_removal()
        for gone in removed.commits:
            self._manifests.remove(repo, Commit(gone))
        if wanted and commit is not None:
            self._sum_up(repo, commit)
        self._catalog.bump()
        return removed

    # Sharing

    def visibility(self, repo: RepoId) -> Visibility:
        """Who may see the repo at its hub, as far as anybody was asked."""
        return self._shelf.visibility(repo)

    def set_visibility(self, repo: RepoId, visibility: Visibility) -> None:
        self._catalog.set_repo(repo.folder, visibility=visibility.value, asked_at=time.time())
        self._catalog.bump()

    def set_share(self, repo: RepoId, is_shared: bool | None) -> None:
        """Keeps the owner's word on whether peers may have the repo; None takes it back."""
        self._sharing.set_override(repo, is_shared)
        self._catalog.bump()

    def is_shared(self, repo: RepoId) -> bool:
        """Whether peers may have the repo: the owner's word if there is one, else only if it is public."""
        return self._shared.is_shared(repo)

    def is_withheld(self, repo: RepoId) -> bool:
        """Whether the owner said that peers may not have the repo, whatever a hub says."""
        return self._sharing.override(repo) is False

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
        self._tally.flush()
        return self._scanner().scan_all(on_batch)

    def scan_repo(self, repo: RepoId) -> ScanResult:
        """The same for one repo: cheap enough to do before asking what is missing."""
        return self._scanner().scan_one(repo)

    def sweep_partials(self, max_age_seconds: float) -> int:
        """Deletes partials that nobody has touched for so long; how many bytes that gave back."""
        return blobs.sweep(self.cache, time.time() - max_age_seconds)

    # How it came

    def note_fetches(self, records: Sequence[FetchRecord]) -> None:
        """Remembers how blobs came; forgotten with them. What cannot be written now is not: it is no reason to fail."""
        with contextlib.suppress(StorageError):
            self._history.note(records)

    def fetch_record(self, digest: Digest) -> FetchRecord | None:
        """How a blob came, as far as that is known."""
        return self._history.find(digest)

    def provenance(self, repo: RepoId, commit: Commit, paths: Iterable[FilePath] = ()) -> list[Provenance]:
        """Where the files of a revision come from, with `paths` only those; nothing for a revision that is not here."""
        revision = self.revision(repo, commit)
        return [] if revision is None else self._history.of(revision, paths, lambda: self.is_published(repo))

    # Statistics

    def note_received(self, kind: str, source: str, size_bytes: int) -> None:
        """Counts bytes from a source; `kind` is peer, mirror or origin. Returns at once."""
        self._tally.note_received(kind, source, size_bytes)

    def note_sent(self, size_bytes: int) -> None:
        """Counts bytes that went to peers. Returns at once."""
        self._tally.note_sent(size_bytes)

    def totals(self) -> dict[str, Any]:
        """`revisions`, `files`, `size_bytes`, `unverified_files`, and what `Tally.totals` says."""
        names = ("revisions", "files", "size_bytes", "unverified_files")
        return {**dict(zip(names, self._catalog.totals(), strict=True)), **self._tally.totals()}

    # Inside

    def _scanner(self) -> Scanner:
        return Scanner(self.cache, self._catalog, self._manifests, lambda: self._removals)

    def _forget_partial(self, partial: blobs.PartialBlob) -> None:
        with self._lock:
            if self._partials.get(partial.digest) is partial:
                del self._partials[partial.digest]

    def _install_file(self, repo: RepoId, commit: Commit, file: ManifestFile, rows: Sequence[BlobRow]) -> None:
        """Brings the blob into the repo if it is another's, then links it; each step only if it is needed."""
        place = layout.snapshot_file(self.cache, repo, commit, file.path)
        blob = layout.blob_path(self.cache, repo, file.digest)
        known = {row.path for row in rows if row.size_bytes == file.size_bytes and not row.is_corrupt}
        if str(place.relative_to(self.cache)) in known and place.is_file() and not place.is_symlink():
            return
        for _ in range(TRIES):
            if str(blob.relative_to(self.cache)) not in known or not blob.is_file():
                self._inventory.bring(file, repo)
            with self._inventory.holding(repo, file.digest):
                if blob.is_file():
                    lies_at = snapshots.link_file(self.cache, repo, commit, file.path, file.digest)
                    break
        else:
            raise vanished(blob)
        if lies_at != blob:
            self._inventory.moved(blob, lies_at, file.digest)

    def _count_removal(self) -> None:
        with self._lock:
            self._removals += 1

    def _sum_up(self, repo: RepoId, commit: Commit, used_at: float | None = None) -> None:
        sum_up(self.cache, self._catalog, self._manifests, repo, commit, used_at)
