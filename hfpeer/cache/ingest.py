"""Verified bytes enter the cache: they become blobs of a repo, and files of a snapshot.

The caller has verified the bytes; nothing here hashes them again. Every blob is put in place by a rename, under the Hub
client's lock on it. Only then the catalog learns of it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import OpenFolders
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.inventory import Inventory, vanished
from hfpeer.cache.index.scan.counting import sum_up
from hfpeer.cache.index.scan.reading import linked_blobs
from hfpeer.cache.index.scan.seeing import row_of
from hfpeer.cache.index.schema import BlobRow, FileRow
from hfpeer.cache.index.traffic import Traffic
from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.errors import BrokenCache
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.system.cancellation import check_stop

log = logging.getLogger(__name__)

TRIES = 3
"""Tries to link a blob that other processes delete between finding and linking it."""
INSTALLED_TOGETHER = 2000
"""Files of a snapshot that are linked under one lock."""


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
        given openly. After the last files `sum_up` has to be called."""
        by_digest = _by_digest(files)
        left: list[ManifestFile] = []

        def link(digest: Digest) -> Path | None:
            """Links the files of a blob. Without links the blob is moved to the first of them; the others are installed
            below."""
            moved_to: Path | None = None
            for file in by_digest.get(digest, ()):
                if moved_to is None:
                    moved_to = place(file)
                else:
                    left.append(file)
            return moved_to

        with OpenFolders(self._cache) as folders:
            place = self._placing(snapshots.Links(folders, repo, commit), repo)
            self._ingest_small(folders, repo, bodies, None, link, given)
        if left:
            self.install(repo, commit, left)
        self._catalog.put_files(repo.folder, commit, _rows(files))
        self._note_lists(repo, commit)
        self._catalog.bump()

    def _ingest_small(
        self,
        folders: OpenFolders,
        repo: RepoId,
        bodies: Mapping[Digest, bytes],
        lock_timeout_seconds: float | None,
        link: Callable[[Digest], Path | None] = lambda digest: None,
        given: Collection[Digest] = (),
    ) -> None:
        """`link` is called for each blob under its lock, and returns the path to which it has moved its bytes, if it
        has."""
        if not bodies:
            return
        cache, blobs = str(self._cache), layout.blobs_folder(self._cache, repo)
        found: list[BlobRow | None] = []

        def take(digests: Sequence[Digest]) -> None:
            in_places = self._inventory.in_places(blobs, {digest: len(bodies[digest]) for digest in digests})
            now = time.time()
            for digest in digests:
                row = in_places.get(digest)
                is_given = digest in given if row is None else row.is_given
                if row is None:
                    path = f"{blobs}{os.sep}{digest.hex}"
                    row = row_of(cache, path, str(digest), put(digest), now, is_given=is_given)
                moved_to = link(digest)
                if moved_to is not None:
                    found.append(self._inventory.seen(moved_to, digest, is_verified=True, is_given=is_given))
                else:
                    found.append(row)

        with snapshots.written_aside(self._cache, repo, bodies) as put:
            self._inventory.with_locks(repo, bodies, folders, take, lock_timeout_seconds)
        self._remember(found)

    def _remember(self, rows: Iterable[BlobRow | None]) -> None:
        self._inventory.remember(rows)
        self._traffic.flush_if_due()

    # Files of a snapshot

    def install(
        self,
        repo: RepoId,
        commit: Commit,
        files: Sequence[ManifestFile],
        *,
        right: Collection[Digest] = (),
        replaces_copies: bool = False,
    ) -> Path:
        """Makes files of a commit visible in `snapshots/<commit>/`; returns that folder.

        Each blob may be in any repo of the cache. Those of `right`, which `Inventory.verified_in` has just seen, are
        looked at again only to link them. A right file in the snapshot itself is kept, as on volumes without links,
        unless `replaces_copies`: then it becomes a link. Raises BrokenCache for a blob that is in no repo.
        """
        snapshot = layout.snapshot_path(self._cache, repo, commit)
        with translated("install files", snapshot), OpenFolders(self._cache) as folders:
            links = snapshots.Links(folders, repo, commit)
            corrupt = self._catalog.corrupt_paths(repo.folder)
            is_changed = False
            for start in range(0, len(files), INSTALLED_TOGETHER):
                check_stop()
                some = files[start : start + INSTALLED_TOGETHER]
                unlinked, absent = self._unlinked(folders, links, repo, snapshot, some, corrupt, right, replaces_copies)
                is_changed |= bool(unlinked or absent)
                self._install(folders, links, repo, unlinked, absent)
        self._note_lists(repo, commit)
        if is_changed or not self._is_known_whole(repo, commit):
            known = {row.path: row for row in self._catalog.files(repo.folder, commit)}
            self._catalog.put_files(repo.folder, commit, (row for row in _rows(files) if known.get(row.path) != row))
            self.sum_up(repo, commit)
        return snapshot

    def _is_known_whole(self, repo: RepoId, commit: Commit) -> bool:
        """Whether the catalog knows all files of a commit as here; then it notes that it was used now."""
        rows = self._catalog.revisions(repo.folder, commit, str(self._cache))
        if not (rows and rows[0].is_complete):
            return False
        self._catalog.put_revision(replace(rows[0], used_at=time.time()))
        return True

    def _unlinked(
        self,
        folders: OpenFolders,
        links: snapshots.Links,
        repo: RepoId,
        snapshot: Path,
        files: Sequence[ManifestFile],
        corrupt: Collection[str],
        right: Collection[Digest],
        replaces_copies: bool,
    ) -> tuple[list[ManifestFile], list[ManifestFile]]:
        """Those of these files that are not in the snapshot: with their blob in this repo, and without it."""
        blobs = layout.blobs_folder(self._cache, repo)
        is_here: dict[FilePath, bool] = {}
        odd: list[ManifestFile] = []
        for file in files:
            is_right = file.digest in right
            if not is_right:
                is_right = _size_of(folders, blobs, file.digest) == file.size_bytes
                is_right = is_right and not (corrupt and f"{blobs}{os.sep}{file.digest.hex}" in corrupt)
            found = links.look(file.path, file.digest)
            if not is_right or found is not snapshots.Found.LINK:
                is_here[file.path] = is_right
                if not replaces_copies and found is snapshots.Found.FILE:
                    odd.append(file)
        if odd:
            places = self._inventory.places(file.digest for file in odd)
            for file in odd:
                place = f"{snapshot}{os.sep}{file.path}"
                rows = (row for row in places.get(file.digest, ()) if not row.is_corrupt)
                if any(row.path == place and row.size_bytes == file.size_bytes for row in rows):
                    del is_here[file.path]
        left = [file for file in files if file.path in is_here]
        return [file for file in left if is_here[file.path]], [file for file in left if not is_here[file.path]]

    def _install(
        self,
        folders: OpenFolders,
        links: snapshots.Links,
        repo: RepoId,
        unlinked: Sequence[ManifestFile],
        absent: Sequence[ManifestFile],
    ) -> None:
        """Links files to their blobs, after bringing the blobs of `absent` into this repo."""
        for _ in range(TRIES):
            for file in absent:
                self._inventory.bring(file, repo)
            absent = self._link(folders, links, repo, [*unlinked, *absent])
            unlinked = []
            if not absent:
                return
        raise vanished(layout.blob_path(self._cache, repo, absent[0].digest))

    def _link(
        self, folders: OpenFolders, links: snapshots.Links, repo: RepoId, files: Sequence[ManifestFile]
    ) -> list[ManifestFile]:
        """Links files to the blobs of this repo. Returns those whose blob is not there."""
        blobs = layout.blobs_folder(self._cache, repo)
        by_digest = _by_digest(files)
        place = self._placing(links, repo)
        absent: list[ManifestFile] = []
        moved: list[tuple[Digest, Path]] = []

        def link(digests: Sequence[Digest]) -> None:
            for digest in digests:
                for file in by_digest[digest]:
                    if _size_of(folders, blobs, digest) is None:
                        absent.append(file)
                    elif (moved_to := place(file)) is not None:
                        moved.append((digest, moved_to))

        if files:
            self._inventory.with_locks(repo, by_digest, folders, link)
        for digest, moved_to in moved:
            self._inventory.placed(blobs / digest.hex, moved_to, digest)
        return absent

    def _placing(self, links: snapshots.Links, repo: RepoId) -> Callable[[ManifestFile], Path | None]:
        """What puts a file into a snapshot, under the lock on its blob. It returns the path to which that has brought
        the bytes; None for a link."""
        if self._makes_links:
            return lambda file: links.make(file.path, file.digest)
        linked = linked_blobs(self._cache, repo)[0]
        return lambda file: links.put_file(file.path, file.digest, keeps_blob=file.digest.hex in linked)

    def sum_up(self, repo: RepoId, commit: Commit) -> None:
        """Counts the files of a revision that are here, after `ingest_files`. The time grows with their number."""
        sum_up(self._cache, self._catalog, self._manifests, repo, commit, used_at=time.time())
        self._catalog.bump()

    def _note_lists(self, repo: RepoId, commit: Commit) -> None:
        """Writes what lies beside a snapshot: the list of its files for the Hub client, and the proof."""
        manifest = self._manifests.load(repo, commit)
        if manifest is None:
            return
        try:
            snapshots.write_tree(self._cache, repo, commit, manifest.files)
        except BrokenCache as error:
            if error.facts.get("errno") not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            log.info("The list of %s at %s is not written for the Hub client: %s", repo, commit, error)
        write_proof(self._cache, manifest)


def _rows(files: Iterable[ManifestFile]) -> Iterator[FileRow]:
    return (FileRow(file.path, str(file.digest), file.size_bytes) for file in files)


def _by_digest(files: Iterable[ManifestFile]) -> dict[Digest, list[ManifestFile]]:
    by_digest: dict[Digest, list[ManifestFile]] = {}
    for file in files:
        by_digest.setdefault(file.digest, []).append(file)
    return by_digest


def _size_of(folders: OpenFolders, blobs: Path, digest: Digest) -> int | None:
    """The bytes of a file in `blobs`, or of one in the store that repos share to which a link there leads; None if
    there is none."""
    try:
        facts = os.stat(digest.hex, dir_fd=folders.fd(blobs))
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None
