"""The LAN as the node's parts ask of it: whom to fetch from, who shares what, whom to blame.

Without a neighbourhood there is nobody, and nothing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from hfpeer.names import Commit, RepoId
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.table import Peer
from hfpeer.transfer.sources import PeerSource, WantedBlob

MAX_SOURCE_PEERS = 16
GREETING_SECONDS = 2.5
"""How long after its start a node waits for peers to be found before it goes to the WAN."""


class Lan:
    """Belongs to the node's event loop; `source_peers` and `blame` may be called from any thread."""

    def __init__(self, neighbourhood: Neighbourhood | None, *, waits_for_peers: bool) -> None:
        self._neighbourhood = neighbourhood
        self._settled_at = time.monotonic() + (GREETING_SECONDS if waits_for_peers else 0.0)

    async def greet(self, commit: Commit | None) -> None:
        """Right after the start peers may not have been found yet; a commit they have need not cross the WAN."""
        if self._neighbourhood is not None:
            await self._neighbourhood.settle(commit, max(0.0, self._settled_at - time.monotonic()))

    def source_peers(self, blob: WantedBlob | None) -> Sequence[PeerSource]:
        """The peers to ask for a blob, the likeliest first."""
        if self._neighbourhood is None:
            return ()
        commit = blob.commit if blob else None
        return self._sources(self._neighbourhood.candidates(commit)[:MAX_SOURCE_PEERS], commit)

    def peers_called(self, node_ids: Collection[str]) -> Sequence[PeerSource]:
        """Those of the nodes with these ids that are known and can be asked."""
        if self._neighbourhood is None or not node_ids:
            return ()
        return self._sources([peer for peer in self._neighbourhood.candidates() if peer.node_id in node_ids])

    async def shares(self, repo: RepoId) -> bool:
        """Whether a peer's catalogue names the repo."""
        await self.greet(None)
        return bool(self.commits(repo))

    def commits(self, repo: RepoId) -> frozenset[Commit]:
        """The commits of the repo that the catalogues of peers name."""
        if self._neighbourhood is None:
            return frozenset()
        catalogues = (self._neighbourhood.catalogue(peer) for peer in self._neighbourhood.candidates())
        held = (revision for catalogue in catalogues if catalogue for revision in catalogue.revisions)
        return frozenset(revision.commit for revision in held if revision.repo == repo)

    def blame(self, name: str) -> None:
        """A source of this name gave wrong bytes."""
        peers = self._neighbourhood.candidates() if self._neighbourhood is not None else []
        for peer in self._sources(peers[:MAX_SOURCE_PEERS]) + self._sources(peers[MAX_SOURCE_PEERS:]):
            if peer.name == name:
                self.blame_node(peer.node_id)

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
            )
            for peer in peers
        ]

    def blame_node(self, node_id: str) -> None:
        """A node gave a listing or bytes that are not what they claim to be."""
        if self._neighbourhood is not None:
            self._neighbourhood.lied(node_id)


def _unique_name(peer: Peer, names: Sequence[str]) -> str:
    if peer.name and names.count(peer.name) == 1:
        return peer.name
    return f"{peer.name}@{peer.address}" if peer.name else str(peer.address)
