"""The cache of a node as the target of an import: blobs enter the catalog, answers on refs and visibility are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from hfpeer.archive.importing import Import, ImportOptions, OnProgress
from hfpeer.archive.index import ArchivedRef
from hfpeer.archive.sources import Source, SourceRevision
from hfpeer.cache import snapshots
from hfpeer.cache.index.schema import AdoptedRow
from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.cache.store import Store
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, RepoId, Visibility
from hfpeer.trust.visibility import Fact

FROM_ARCHIVE = " (archive)"
"""The end of the name of the hub whose answer on a ref came with an archive."""


def import_into(
    store: Store, source: Source, options: ImportOptions, on_progress: OnProgress = lambda *facts: None
) -> Import:
    """An import into the cache of a node; its `run` does it."""
    return Import(StoreTarget(store, options.hubs), source, options, on_progress)


class StoreTarget:
    """Implements `Target`. `hubs` are the URLs of the configured hubs."""

    def __init__(self, store: Store, hubs: Collection[str]) -> None:
        self._store = store
        self._hubs = hubs

    @property
    def cache(self) -> Path:
        return self._store.cache

    def verify(self, revisions: Sequence[SourceRevision]) -> None:
        inventory = self._store.inventory
        for revision in revisions:
            manifest = revision.manifest
            inventory.verify_all(inventory.unverified_at(manifest.repo, manifest.commit, revision.files))
        inventory.verify_all(inventory.unverified_of(file for revision in revisions for file in revision.files))

    def missing(self, files: Collection[ManifestFile]) -> list[ManifestFile]:
        return self._store.inventory.missing(files)

    def open_partial(self, digest: Digest, size_bytes: int) -> PartialBlob:
        return self._store.open_partial(digest, size_bytes)

    def ingest_blob(self, partial: PartialBlob, repo: RepoId) -> None:
        self._store.ingester.ingest_blob(partial, repo)

    def ingest_many(self, repo: RepoId, bodies: Mapping[Digest, bytes]) -> None:
        self._store.ingester.ingest_many(repo, bodies)

    def bring(self, file: ManifestFile, repo: RepoId, row: AdoptedRow, on_chunk: Callable[[int], None]) -> bool:
        return self._store.adopted.bring(file, repo, [row], on_chunk) is not None

    def install(self, revision: SourceRevision, files: Sequence[ManifestFile]) -> None:
        repo, commit = revision.manifest.repo, revision.manifest.commit
        self._save_manifest(revision.manifest)
        self._store.ingester.install(repo, commit, files)
        snapshots.note_absent(self._store.cache, repo, commit, revision.absent)

    def _save_manifest(self, manifest: Manifest) -> None:
        """Keeps a manifest, unless a proved one of the commit is here. Only now: the small files that came with it show
        whether it passes pointers off as files."""
        known = self._store.manifests.load(manifest.repo, manifest.commit)
        if known is None or known.is_attested:
            self._store.save_manifest(manifest)

    def write_ref(self, manifest: Manifest, ref: ArchivedRef) -> Commit | None:
        repo, commit, refs = manifest.repo, manifest.commit, self._store.refs
        if not ref.answered_by:
            refs.show(repo, ref.name, commit)
            return None
        known = refs.read(repo, ref.name) or refs.read_published(repo, ref.name)
        if known is not None and known[0] != commit:
            is_older = known[2].endswith(FROM_ARCHIVE) and known[1] < ref.answered_at
            if not is_older:
                return known[0]
        if (known is None or known[0] != commit) and ref.answered_at == 0:
            refs.show_told(repo, ref.name, commit)
        elif known is None or known[0] != commit:
            by = ref.answered_by.removesuffix(FROM_ARCHIVE) + FROM_ARCHIVE
            refs.write(repo, ref.name, commit, by, float(min(ref.answered_at, time.time())))
        elif snapshots.read_ref(self._store.cache, repo, ref.name) is None:
            refs.show(repo, ref.name, commit)
        return None

    def learn(self, revision: SourceRevision) -> None:
        repo, commit = revision.manifest.repo, revision.manifest.commit
        if revision.visibility is Visibility.UNKNOWN or not revision.said_by or self._store.facts(repo):
            return
        fact = Fact(commit, revision.said_by, True, revision.visibility, float(min(revision.asked_at, time.time())))
        self._store.learn(repo, [fact], {*self._hubs, revision.said_by})

    def is_shared(self, repo: RepoId, commit: Commit) -> bool:
        return self._store.shared.is_commit_shared(repo, commit)
