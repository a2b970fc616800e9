"""The two steps of resolving, over one store and one neighbourhood."""

from __future__ import annotations

from hfpeer.cache.store import Store
from hfpeer.names import RepoId
from hfpeer.peers.named import Neighbours
from hfpeer.resolver.commits import CommitResolver
from hfpeer.resolver.manifests import ManifestResolver
from hfpeer.resolver.name_check import check_name
from hfpeer.resolver.other_types import of_other_type
from hfpeer.resolver.peer_queries import PeerQueries
from hfpeer.upstream.upstreams import Upstreams


class Resolver:
    """`commits`: from a revision to a commit; `manifests`: from a commit to its manifest."""

    def __init__(self, store: Store, neighbourhood: Neighbours | None) -> None:
        self._store = store
        self._peers = PeerQueries(neighbourhood)
        self.commits = CommitResolver(store, self._peers)
        self.manifests = ManifestResolver(store, self._peers)

    async def check_name(self, repo: RepoId, upstreams: Upstreams) -> tuple[str, ...]:
        """See `name_check.check_name`."""
        return await check_name(self._store, self._peers, upstreams, repo)

    async def of_other_type(self, repo: RepoId, upstreams: Upstreams) -> RepoId | None:
        """See `other_types.of_other_type`."""
        return await of_other_type(self._store, self._peers, upstreams, repo)
