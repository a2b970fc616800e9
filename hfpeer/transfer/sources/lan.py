"""The LAN for the other parts of a node: peers to fetch from, commits that peers have, liars to report.

Without a neighbourhood there are no peers, and nothing waits for them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from hfpeer.names import Commit, RepoId
from hfpeer.net.address import Address
from hfpeer.peers.named import NamedFirst, Neighbours
from hfpeer.peers.table.table import Peer
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob

MAX_SOURCE_PEERS = 16
"""At most this many peers are asked for one blob, unless others are named by their ids."""
FIRST_PEERS_SECONDS = 2.5
"""Seconds after its start for which a node waits for peers before it asks upstreams."""


class Lan:
    """Belongs to the node's event loop; `source_peers` and `report_liar` may be called from any thread."""

    def __init__(self, neighbourhood: Neighbours | None, *, waits_for_peers: bool) -> None:
        self._neighbourhood = neighbourhood
        self._settled_at = time.monotonic() + (FIRST_PEERS_SECONDS if waits_for_peers else 0.0)

    def with_named(self, neighbourhood: NamedFirst) -> Lan:
        """The LAN for a request that names peers."""
        lan = Lan(neighbourhood, waits_for_peers=False)
        lan._settled_at = self._settled_at
        return lan

    async def wait_for_peers(self, commit: Commit | None) -> None:
        """Returns when a peer is known to have the commit, or when the time for finding peers is over. Without the wait
        a node that has just started would fetch over the WAN what peers have."""
        if self._neighbourhood is not None:
            await self._neighbourhood.settle(commit, max(0.0, self._settled_at - time.monotonic()))

    def source_peers(self, blob: WantedBlob | None) -> Sequence[PeerSource]:
        """The peers to ask for a blob, those first that seem to have it."""
        if self._neighbourhood is None:
            return ()
        commit = blob.commit if blob else None
        return self._sources(self._neighbourhood.candidates(commit)[:MAX_SOURCE_PEERS], commit)

    def peers_with_ids(self, node_ids: Collection[str]) -> Sequence[PeerSource]:
        """The known peers with these node ids that can be asked."""
        if self._neighbourhood is None or not node_ids:
            return ()
        return self._sources([peer for peer in self._neighbourhood.candidates() if peer.node_id in node_ids])

    def unanswered(self, node_id: str, address: Address) -> None:
        """A node does not respond at the address where it was asked."""
        if self._neighbourhood is not None:
            self._neighbourhood.unanswered(node_id, address)

    async def has_commit(self, repo: RepoId, commit: Commit | None = None) -> bool:
        """Whether the catalog of a peer names the commit, or, without one, any commit of the repo."""
        await self.wait_for_peers(commit)
        commits = self.commits(repo)
        return bool(commits) if commit is None else commit in commits

    def commits(self, repo: RepoId) -> frozenset[Commit]:
        """The commits of the repo that the catalogs of peers name."""
        if self._neighbourhood is None:
            return frozenset()
        catalogs = (self._neighbourhood.catalog(peer) for peer in self._neighbourhood.candidates())
        return frozenset(held.commit for catalog in catalogs if catalog for held in catalog.of_repo(repo))

    def publisher(self, repo: RepoId, commit: Commit | None = None) -> str | None:
        """The name of a peer whose catalog says that the commit, or any commit of the repo, was published on the LAN;
        None if there is none."""
        if self._neighbourhood is None:
            return None
        for peer in self._neighbourhood.candidates():
            catalog = self._neighbourhood.catalog(peer)
            for held in catalog.of_repo(repo) if catalog else ():
                if held.is_published and commit in (None, held.commit):
                    return peer.name or str(peer.address)
        return None

    def report_liar(self, name: str) -> None:
        """The source of this name gave wrong bytes. Ignored if it is no peer."""
        peers = self._neighbourhood.candidates() if self._neighbourhood is not None else []
        for peer in self._sources(peers[:MAX_SOURCE_PEERS]) + self._sources(peers[MAX_SOURCE_PEERS:]):
            if peer.name == name:
                self.report_liar_node(peer.node_id)

    def _sources(self, peers: Sequence[Peer], commit: Commit | None = None) -> list[PeerSource]:
        if self._neighbourhood is None:
            return []
        names = [peer.name for peer in peers]
        return [
            PeerSource(
                _unique_name(peer, names),
                peer.key,
                self._neighbourhood.client(peer),
                is_likely=commit is not None and peer.may_have(commit),
                is_named=self._neighbourhood.is_named(peer),
            )
            for peer in peers
        ]

    def report_liar_node(self, node_id: str) -> None:
        """A node gave a wrong listing or wrong bytes."""
        if self._neighbourhood is not None:
            self._neighbourhood.lied(node_id)


def _unique_name(peer: Peer, names: Sequence[str]) -> str:
    if peer.name and names.count(peer.name) == 1:
        return peer.name
    return f"{peer.name}@{peer.address}" if peer.name else str(peer.address)
