"""Verified bytes enter the cache: they become blobs of a repo, and files of a snapshot.

The caller has verified the bytes; nothing here hashes them again. Every blob is put in place by a rename, under the Hub
client's lock on it. Only then the catalog learns of it.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import OpenFolders
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.inventory import Inventory, vanished
from hfpeer.cache.index.scan import linked_blobs, sum_up
from hfpeer.cache.index.schema import BlobRow, FileRow
from hfpeer.cache.index.traffic import Traffic
from hfpeer.cache.manifests import Manifests
from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.cache.proofs import write_proof
from hfpeer.errors import BrokenCache
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.system.cancellation import check_stop

log = logging.getLogger(__name__)

TRIES = 3
"""Tries to link a blob that other processes delete between finding and linking it."""


class Ingester:
    """Puts blobs and files into `cache`. Blocking and thread-safe.

    Every method raises NoSpace or BrokenCache. Those with `lock_timeout_seconds` raise Locked when the Hub client's
    lock is not free in that time; with None they wait for some seconds and then go on without the lock.
    """

    def __init__(
        self,
        cache: Path,
        catalog: Catalog,
        manifests: Manifests,
        inventory: Inventory,
        traffic: Traffic,
        *,
        makes_links: bool = True,
    ) -> None:
        """Without `makes_links` the files of snapshots are regular files."""
        self._cache = cache
        self._makes_links = makes_links
        self._catalog = catalog
        self._manifests = manifests
        self._inventory = inventory
        self._traffic = traffic

    def with_links(self, makes_links: bool) -> Ingester:
        """This one, or one that makes regular files although this one makes links."""
        if makes_links or not self._makes_links:
            return self
        return Ingester(self._cache, self._catalog, self._manifests, self._inventory, self._traffic, makes_links=False)

    # Blobs

    def ingest_blob(self, partial: PartialBlob, repo: RepoId, lock_timeout_seconds: float | None = None) -> Path:
        """Makes a partial whose bytes the caller has verified a blob of `repo`, and closes it. Records whether all
        bytes were given openly. A blob that another process has put there meanwhile stays.

        After an error the partial is as before.
        """
        blob = layout.blob_path(self._cache, repo, partial.digest)
        with self._inventory.holding(repo, partial.digest, lock_timeout_seconds):
            row = self._inventory.in_place(blob, partial.digest, partial.size_bytes)
            if row is None:
                partial.move_to(blob)
                row = self._inventory.seen(blob, partial.digest, is_verified=True, is_given=partial.is_given)
            else:
                partial.remove()
        self._remember([row])
        return blob

    def ingest_bytes(
        self,
        digest: Digest,
        body: bytes,
        repo: RepoId,
        lock_timeout_seconds: float | None = None,
        *,
        is_given: bool = False,
    ) -> Path:
        """Like `ingest_blob`, for one small blob whose verified bytes are in memory. `is_given`: all of them were given
        openly."""
        with OpenFolders(self._cache) as folders:
            given = {digest} if is_given else ()
            self._ingest_small(folders, repo, {digest: body}, lock_timeout_seconds, given=given)
        return layout.blob_path(self._cache, repo, digest)

    def ingest_many(
        self, repo: RepoId, bodies: Mapping[Digest, bytes], lock_timeout_seconds: float | None = None
    ) -> None:
        """Like `ingest_bytes`, for many small blobs, which are synced together."""
        with OpenFolders(self._cache) as folders:
            self._ingest_small(folders, repo, bodies, lock_timeout_seconds)

    def ingest_files(
        self,
        repo: RepoId,
        commit: Commit,
        files: Sequence[ManifestFile],
        bodies: Mapping[Digest, bytes],
        given: Collection[Digest] = (),
    ) -> None:
        """Like `ingest_many`, and installs the files of these blobs, which is faster together. Those of `given` were
        given openly."""
        by_digest: dict[Digest, list[ManifestFile]] = {}
        for file in files:
            by_digest.setdefault(file.digest, []).append(file)
        left: list[ManifestFile] = []

        linked = _LinkedBlobs(self._cache, repo)

        def link(blob: Path, digest: Digest) -> Path:
            """Links the files of a blob. Without links the blob is moved to the first of them; the others are installed
            below."""
            lies_at = blob
            for file in by_digest.get(digest, ()):
                if lies_at == blob:
                    lies_at = self._place(folders, repo, commit, file, linked)
                else:
                    left.append(file)
            return lies_at

        with OpenFolders(self._cache) as folders:
            self._ingest_small(folders, repo, bodies, None, link, given)
        if left:
            self.install(repo, commit, left)
        self._note_installed(repo, commit, files)

    def _ingest_small(
        self,
        folders: OpenFolders,
        repo: RepoId,
        bodies: Mapping[Digest, bytes],
        lock_timeout_seconds: float | None,
        link: Callable[[Path, Digest], Path] = lambda blob, _: blob,
        given: Collection[Digest] = (),
    ) -> None:
        """`link` is called for each blob under its lock, and returns the path where its bytes are then."""
        paths = {digest: layout.blob_path(self._cache, repo, digest) for digest in bodies}
        found = []
        with snapshots.written_aside(self._cache, repo, bodies) as put:
            for digest, path in paths.items():
                with self._inventory.holding(repo, digest, lock_timeout_seconds, folders):
                    in_place = self._inventory.in_place(path, digest, len(bodies[digest]))
                    if in_place is None:
                        put(digest)
                    is_given = digest in given if in_place is None else in_place.is_given
                    lies_at = link(path, digest)
                    if in_place is None or lies_at != path:
                        in_place = self._inventory.seen(lies_at, digest, is_verified=True, is_given=is_given)
                found.append(in_place)
        self._remember(found)

    def _remember(self, rows: Iterable[BlobRow | None]) -> None:
        self._inventory.remember(rows)
        self._traffic.flush_if_due()

    # Files of a snapshot

    def install(
        self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile], *, replaces_copies: bool = False
    ) -> Path:
        """Makes files of a commit visible in `snapshots/<commit>/`; returns that folder.

        Each blob may be in any repo of the cache. A right file in the snapshot itself is kept, as on volumes without
        links, unless `replaces_copies`: then it becomes a link. Raises BrokenCache for a blob that is in no repo.
        """
        snapshot = layout.snapshot_path(self._cache, repo, commit)
        places = self._inventory.places(file.digest for file in files)
        linked = _LinkedBlobs(self._cache, repo)
        with translated("install files", snapshot), OpenFolders(self._cache) as folders:
            for file in files:
                check_stop()
                rows = places.get(file.digest, ())
                self._install_file(folders, repo, commit, file, rows, linked, replaces_copies=replaces_copies)
        self._note_installed(repo, commit, files)
        return snapshot

    def _install_file(
        self,
        folders: OpenFolders,
        repo: RepoId,
        commit: Commit,
        file: ManifestFile,
        rows: Sequence[BlobRow],
        linked: _LinkedBlobs,
        *,
        replaces_copies: bool,
    ) -> None:
        """Links a file to its blob, after bringing the blob into this repo if it is only in another one."""
        place = layout.snapshot_file(self._cache, repo, commit, file.path)
        blob = layout.blob_path(self._cache, repo, file.digest)
        known = {row.path for row in rows if row.size_bytes == file.size_bytes and not row.is_corrupt}
        if not replaces_copies and str(place) in known and place.is_file() and not place.is_symlink():
            return
        is_known = str(blob) in known
        if is_known and snapshots.is_linked(folders, repo, commit, file.path, file.digest) and blob.is_file():
            return
        for _ in range(TRIES):
            if not is_known or not blob.is_file():
                self._inventory.bring(file, repo)
            with self._inventory.holding(repo, file.digest, None, folders):
                if blob.is_file():
                    lies_at = self._place(folders, repo, commit, file, linked)
                    break
        else:
            raise vanished(blob)
        if lies_at != blob:
            self._inventory.placed(blob, lies_at, file.digest)

    def _place(
        self, folders: OpenFolders, repo: RepoId, commit: Commit, file: ManifestFile, linked: _LinkedBlobs
    ) -> Path:
        """Puts a file into a snapshot, under the lock on its blob. Returns the path where its bytes are then."""
        if self._makes_links:
            return snapshots.link_file(folders, repo, commit, file.path, file.digest)
        keeps_blob = file.digest.hex in linked.names
        return snapshots.place_file_of(folders, repo, commit, file.path, file.digest, keeps_blob=keeps_blob)

    def _note_installed(self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile]) -> None:
        present = [FileRow(file.path, str(file.digest), file.size_bytes) for file in files]
        self._catalog.put_files(repo.folder, commit, present)
        manifest = self._manifests.load(repo, commit)
        if manifest is not None:
            try:
                snapshots.write_tree(self._cache, repo, commit, manifest.files)
            except BrokenCache as error:
                if error.facts.get("errno") not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                log.info("The list of %s at %s is not written for the Hub client: %s", repo, commit, error)
            write_proof(self._cache, manifest)
        sum_up(self._cache, self._catalog, self._manifests, repo, commit, used_at=time.time())
        self._catalog.bump()


class _LinkedBlobs:
    """The blobs of a repo to which links in its snapshots lead. The disk is looked at once, for the first question."""

    def __init__(self, cache: Path, repo: RepoId) -> None:
        self._cache = cache
        self._repo = repo

    @cached_property
    def names(self) -> set[str]:
        return linked_blobs(self._cache, self._repo)[0]
