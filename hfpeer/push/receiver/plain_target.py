"""A cache as the target of an import, with nothing but the disk: no catalog, no home, standard library only.

A blob that is there counts by its name and size, unless the push asks to hash it. The mtime of a ref file is that of
the answer that it holds.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfpeer.archive.have import Have
from hfpeer.archive.importing import OnProgress
from hfpeer.archive.index import ArchivedRef
from hfpeer.archive.sources import SourceRevision
from hfpeer.cache import snapshots
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import OpenFolders, opened
from hfpeer.cache.disk.kinds import repos_in
from hfpeer.cache.disk.linking import HardLinks
from hfpeer.cache.disk.locks import etag_lock
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.partial.blob import PartialBlob, open_partial
from hfpeer.cache.partial.files import kept_prefixes
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.errors import BrokenCache, Locked
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, RepoId

if TYPE_CHECKING:
    from hfpeer.cache.index.schema import AdoptedRow

LOCK_SECONDS = 2.0
"""Seconds to wait for a Hub client that has locked a blob, before going on without the lock."""


class PlainTarget:
    """Implements `Target` over the cache at `cache`. For one thread."""

    def __init__(self, cache: Path, *, checks_present: bool = False) -> None:
        """`checks_present`: hash also the blobs that are there already."""
        self._cache = cache
        self._checks_present = checks_present
        self._places: dict[str, list[Path]] = {}
        """By hex digest: the files in `blobs/` of all repos, and in snapshots of a cache without links."""
        self._wrong: set[Path] = set()
        """Files that do not have the bytes that their names say."""
        self._look()

    @property
    def cache(self) -> Path:
        return self._cache

    def have(self, sizes: Mapping[Digest, int], on_progress: OnProgress = lambda *facts: None) -> Have:
        """Which of these blobs are here, whole or in part. Hashes them if it `checks_present`."""
        if self._checks_present:
            self._check(sizes, on_progress)
        whole = frozenset(digest for digest, size_bytes in sizes.items() if self._find(digest, size_bytes))
        prefixes = {one.digest: one.kept_bytes for one in kept_prefixes(self._cache) if one.kept_bytes}
        return Have(whole, {digest: count for digest, count in prefixes.items() if digest not in whole}).of(sizes)

    # What is there

    def _look(self) -> None:
        for repo in repos_in(self._cache):
            with contextlib.suppress(OSError):
                for entry in os.scandir(layout.blobs_folder(self._cache, repo)):
                    self._places.setdefault(entry.name, []).append(Path(entry.path))

    def _find(self, digest: Digest, size_bytes: int) -> Path | None:
        """A file that should have the bytes of a blob."""
        places = (path for path in self._places.get(digest.hex, ()) if path not in self._wrong)
        return next((path for path in places if _size(path) == size_bytes), None)

    def verify(self, revisions: Sequence[SourceRevision]) -> None:
        for revision in revisions:
            self._look_without_links(revision)

    def _check(self, sizes: Mapping[Digest, int], on_progress: OnProgress) -> None:
        """Hashes the blobs that are here."""
        found = [
            (digest, path)
            for digest, size_bytes in sizes.items()
            for path in self._places.get(digest.hex, ())
            if _size(path) == size_bytes
        ]
        total_bytes, done_bytes = sum(sizes[digest] for digest, _ in found), 0
        for digest, path in found:
            on_progress(path.name, done_bytes, total_bytes)
            if hash_file(path, digest.algorithm, sizes[digest]) != digest.hex:
                self._wrong.add(path)
            done_bytes += sizes[digest]

    def _look_without_links(self, revision: SourceRevision) -> None:
        """On a volume without links the bytes lie in the snapshot itself."""
        repo, commit = revision.manifest.repo, revision.manifest.commit
        for file in revision.files:
            place = layout.snapshot_file(self._cache, repo, commit, file.path)
            with contextlib.suppress(OSError):
                if stat.S_ISREG(place.lstat().st_mode):
                    self._places.setdefault(file.digest.hex, []).append(place)

    def missing(self, files: Collection[ManifestFile]) -> list[ManifestFile]:
        wanted: dict[Digest, ManifestFile] = {}
        for file in files:
            wanted.setdefault(file.digest, file)
        return [file for file in wanted.values() if self._find(file.digest, file.size_bytes) is None]

    # Blobs

    def open_partial(self, digest: Digest, size_bytes: int) -> PartialBlob:
        return open_partial(self._cache, digest, size_bytes)

    def ingest_blob(self, partial: PartialBlob, repo: RepoId) -> None:
        blob = layout.blob_path(self._cache, repo, partial.digest)
        with self._holding(repo, partial.digest):
            if self._is_in_place(blob, partial.size_bytes):
                partial.remove()
            else:
                partial.move_to(blob)
        self._put(blob, partial.digest)

    def ingest_many(self, repo: RepoId, bodies: Mapping[Digest, bytes]) -> None:
        with snapshots.written_aside(self._cache, repo, bodies) as put:
            for digest, body in bodies.items():
                blob = layout.blob_path(self._cache, repo, digest)
                with self._holding(repo, digest):
                    if not self._is_in_place(blob, len(body)):
                        put(digest)
                self._put(blob, digest)

    def bring(self, file: ManifestFile, repo: RepoId, row: AdoptedRow, on_chunk: Callable[[int], None]) -> bool:
        raise NotImplementedError("an archive has no files to take as a whole")

    def _is_in_place(self, blob: Path, size_bytes: int) -> bool:
        return blob not in self._wrong and _size(blob) == size_bytes

    def _put(self, blob: Path, digest: Digest) -> None:
        self._wrong.discard(blob)
        self._places.setdefault(digest.hex, []).insert(0, blob)

    @contextlib.contextmanager
    def _holding(self, repo: RepoId, digest: Digest, folders: OpenFolders | None = None) -> Iterator[None]:
        """Holds the Hub client's lock on a blob, if it is free in time."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(Locked):
                held.enter_context(etag_lock(self._cache, repo, digest, LOCK_SECONDS, folders))
            yield

    # Snapshots and refs

    def install(self, revision: SourceRevision, files: Sequence[ManifestFile]) -> None:
        manifest = revision.manifest
        repo, commit = manifest.repo, manifest.commit
        place = layout.snapshot_path(self._cache, repo, commit)
        with translated("install files", place), OpenFolders(self._cache) as folders:
            links = snapshots.Links(folders, repo, commit)
            for file in files:
                self._install_file(folders, links, repo, commit, file)
        snapshots.write_tree(self._cache, repo, commit, manifest.files)
        snapshots.note_absent(self._cache, repo, commit, revision.absent)
        write_proof(self._cache, manifest)

    def _install_file(
        self, folders: OpenFolders, links: snapshots.Links, repo: RepoId, commit: Commit, file: ManifestFile
    ) -> None:
        blob = layout.blob_path(self._cache, repo, file.digest)
        place = layout.snapshot_file(self._cache, repo, commit, file.path)
        is_here = self._is_in_place(blob, file.size_bytes)
        if is_here and links.look(file.path, file.digest) is snapshots.Found.LINK:
            return
        source = self._find(file.digest, file.size_bytes)
        if source is None:
            raise BrokenCache(
                f"Another process removed {blob} while it was installed.", hint="Push again.", path=str(blob)
            )
        if source == place:
            return
        with self._holding(repo, file.digest, folders):
            if not is_here:
                snapshots.copy_blob(source, blob, hard_links=HardLinks.BLOBS)
            moved_to = links.make(file.path, file.digest)
        self._put(moved_to or blob, file.digest)

    def write_ref(self, manifest: Manifest, ref: ArchivedRef) -> Commit | None:
        repo, commit = manifest.repo, manifest.commit
        known = snapshots.read_ref(self._cache, repo, ref.name)
        if known is not None and known[0] != commit and known[1] > ref.answered_at:
            return known[0]
        if known is None or known[0] != commit:
            snapshots.write_ref(self._cache, repo, ref.name, commit)
            if ref.answered_at and not ref.name.is_commit:
                path, at = layout.ref_path(self._cache, repo, ref.name), min(ref.answered_at, time.time())
                with translated("write a file", path), opened(self._cache, path.parent) as folder:
                    os.utime(folder / path.name, (at, at), follow_symlinks=False)
        return None

    def learn(self, revision: SourceRevision) -> None:
        pass

    def is_shared(self, repo: RepoId, commit: Commit) -> bool:
        return False


def _size(path: Path) -> int | None:
    """The bytes of a regular file; a link, such as into the store that repos share, is followed to its end."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None
