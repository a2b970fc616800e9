"""Which commits are known here, which can be given without a hub, and the plain files of a commit out of a pack.

Answers from the cache and the catalogs of peers. Must never send a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path

from hfpeer.cache.store import Store
from hfpeer.endpoint.packs.pack_cache import PackCache
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, RepoId
from hfpeer.transfer.sources.lan import Lan

MAX_LEARNT_BYTES = 16 * 1024 * 1024
"""Size of the largest plain file that is taken out of a pack."""
LEARNT_AT_ONCE = 64
"""Number of plain files that are ingested at a time."""


class Commits:
    """Belongs to one event loop, except `learn`."""

    def __init__(self, store: Store, lan: Lan, packs: PackCache) -> None:
        self._store = store
        self._lan = lan
        self._packs = packs

    async def listed(self, repo: RepoId) -> list[Commit]:
        """The commits whose manifests are here, the latest first."""
        return await asyncio.to_thread(self._store.manifests.commits, repo)

    async def obtainable(self, repo: RepoId, blobs: Collection[str] = ()) -> frozenset[Commit]:
        """The commits that can be given without a hub: all plain files are here or among `blobs` (ids in hex), or a
        peer has the commit."""
        listed = await self.listed(repo)
        return self._lan.commits(repo).union(await asyncio.to_thread(self._whole, repo, listed, blobs))

    def is_any_at_peers(self, repo: RepoId, commits: Iterable[str]) -> bool:
        """Whether a peer has one of these commits."""
        return not self._lan.commits(repo).isdisjoint(map(Commit, commits))

    async def missing(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """The files that are not in the cache."""
        return await asyncio.to_thread(self._store.inventory.missing, list(files))

    def learn(self, manifest: Manifest, pack: Path) -> None:
        """Ingests the plain files of a commit that are in a pack, so that peers can fetch them too. Blocking.

        Raises StorageError.
        """
        plain = _plain(manifest)
        wanted = {it.blob_id: it for it in self._store.inventory.missing(plain) if it.size_bytes <= MAX_LEARNT_BYTES}
        found = ((wanted[id].digest, body) for id, body in self._packs.blobs(pack, wanted))
        while batch := list(islice(found, LEARNT_AT_ONCE)):
            self._store.ingester.ingest_many(manifest.repo, dict(batch))
        unfit = {file.digest for file in self._store.inventory.missing(plain)}
        unfit |= {blob.digest for blob in self._store.inventory.unverified_of(plain)}
        self._store.ingester.install(
            manifest.repo, manifest.commit, [file for file in plain if file.digest not in unfit]
        )

    def _whole(self, repo: RepoId, commits: Iterable[Commit], blobs: Collection[str]) -> list[Commit]:
        manifests = filter(None, (self._store.manifests.load(repo, commit) for commit in commits))
        plain = {manifest.commit: _plain(manifest) for manifest in manifests}
        return [commit for commit, files in plain.items() if self._has_all(repo, files, blobs)]

    def _has_all(self, repo: RepoId, files: Iterable[ManifestFile], blobs: Collection[str]) -> bool:
        missing = (file for file in self._store.inventory.missing(files) if file.blob_id not in blobs)
        return all(self._store.inventory.find(file.digest, repo) is not None for file in missing)


def _plain(manifest: Manifest) -> list[ManifestFile]:
    return [file for file in manifest.files if not file.is_lfs]
