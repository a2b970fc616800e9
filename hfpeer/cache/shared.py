"""What peers may have: the verified blobs of repos that are shared.

Every range of every blob is asked for anew, so what the catalogue said is remembered until anybody has changed it, be
it another process. The owner's word and the files themselves are looked at each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hfpeer.cache.catalog import BlobRow, Catalog
from hfpeer.cache.inventory import BlobFile, Inventory
from hfpeer.cache.sharing import Sharing
from hfpeer.names import Digest, RepoId, Visibility

MAX_REMEMBERED = 4096
"""Of so many digests, and of so many repos, it is remembered what the catalogue said."""


@dataclass(frozen=True)
class _Said:
    """What the catalogue said since it has had this `data_version`, also that it knew nothing."""

    data_version: int
    places: dict[Digest, Sequence[BlobRow]] = field(default_factory=dict)
    is_public: dict[RepoId, bool] = field(default_factory=dict)


class Shared:
    """What of the cache is shared. Thread-safe."""

    def __init__(self, catalog: Catalog, inventory: Inventory, sharing: Sharing) -> None:
        self._catalog = catalog
        self._inventory = inventory
        self._sharing = sharing
        self._said = _Said(-1)

    def is_shared(self, repo: RepoId) -> bool:
        """Whether peers may have the repo: the owner's word if there is one, else only if it is public."""
        return self._is_shared(repo, self._still_said())

    def blobs(self, digests: Iterable[Digest]) -> dict[Digest, BlobFile]:
        """Those of many blobs that peers may have; the catalogue is asked once for all, if at all."""
        said = self._still_said()
        places = self._places(list(digests), said)
        repos = {row.repo for rows in places.values() for row in rows}
        shared = {repo for repo in repos if self._is_shared(RepoId.from_folder(repo), said)}
        found = {
            digest: self._inventory.best(row for row in rows if row.repo in shared) for digest, rows in places.items()
        }
        return {digest: blob for digest, blob in found.items() if blob is not None and blob.is_verified}

    def _still_said(self) -> _Said:
        """What was said and still holds. What is added to it was asked after its `data_version` was: if the catalogue
        changes in between, it is not taken out again."""
        data_version = self._catalog.data_version
        said = self._said
        if said.data_version != data_version or max(len(said.places), len(said.is_public)) > MAX_REMEMBERED:
            said = self._said = _Said(data_version)
        return said

    def _places(self, digests: Sequence[Digest], said: _Said) -> Mapping[Digest, Sequence[BlobRow]]:
        unknown = [digest for digest in digests if digest not in said.places]
        if unknown:
            found = self._inventory.places(unknown)
            said.places.update((digest, found.get(digest, ())) for digest in unknown)
        return {digest: said.places[digest] for digest in digests}

    def _is_shared(self, repo: RepoId, said: _Said) -> bool:
        override = self._sharing.override(repo)
        if override is not None:
            return override
        is_public = said.is_public.get(repo)
        if is_public is None:
            known = self._catalog.visibility(repo.folder)
            is_public = said.is_public[repo] = known is not None and known[0] == Visibility.PUBLIC.value
        return is_public
