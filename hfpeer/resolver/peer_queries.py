"""The queries of the resolver to peers: their catalogs, refs and manifests.

Peers come from the neighbourhood, likeliest first. Without a neighbourhood there are none, and every list is empty.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from hfpeer.errors import CorruptData, ForgedManifest, Unreachable
from hfpeer.git import proof as gitproof
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.peers.named import Neighbours
from hfpeer.peers.protocol.messages import RefMessage, RevisionMessage
from hfpeer.peers.table.table import Peer
from hfpeer.system.cancellation import in_thread

MAX_PEERS_ASKED = 8
MANIFEST_ANSWER_SECONDS = 10.0
"""Seconds in which a peer has to answer with a manifest."""
REF_ANSWER_SECONDS = 5.0
"""Seconds in which a peer has to say what a revision means."""


class PeerTrust(Enum):
    """The kinds of answers that one request takes from peers."""

    NOTHING = "nothing"
    """No peer is asked."""
    PROOF = "proof"
    """Manifests with a proof, and revisions on which all peers agree."""
    WORD = "word"
    """Also manifests without a proof, and what most peers say of a revision."""

    @classmethod
    def of(cls, *, asks_peers: bool, trusts_peers: bool) -> PeerTrust:
        if not asks_peers:
            return cls.NOTHING
        return cls.WORD if trusts_peers else cls.PROOF

    @property
    def asks_peers(self) -> bool:
        return self is not PeerTrust.NOTHING


class PeerQueries:
    """Asks the peers of one node. Belongs to its event loop."""

    def __init__(self, neighbourhood: Neighbours | None) -> None:
        self._neighbourhood = neighbourhood

    def candidates(self, commit: Commit | None = None) -> list[Peer]:
        """At most MAX_PEERS_ASKED peers to ask, the likeliest to have the commit first."""
        if self._neighbourhood is None:
            return []
        return self._neighbourhood.candidates(commit)[:MAX_PEERS_ASKED]

    def revisions_of(self, repo: RepoId) -> list[tuple[Peer, RevisionMessage]]:
        """The revisions of a repo that the catalogs of peers name."""
        if self._neighbourhood is None:
            return []
        peers = [(peer, self._neighbourhood.catalog(peer)) for peer in self._neighbourhood.candidates()]
        return [(peer, revision) for peer, catalog in peers if catalog for revision in catalog.of_repo(repo)]

    async def ref(self, peer: Peer, repo: RepoId, revision: Revision) -> RefMessage | None:
        """The ref of a revision at a peer; None if it does not know the revision or does not answer in time."""
        assert self._neighbourhood is not None
        try:
            client = self._neighbourhood.client(peer)
            return await asyncio.wait_for(client.ref(repo, revision), REF_ANSWER_SECONDS)
        except (Unreachable, CorruptData, asyncio.TimeoutError):
            return None

    async def manifest(self, peer: Peer, repo: RepoId, commit: Commit) -> Manifest | None:
        """A peer's manifest, with its proof checked if it has one; None if the peer has none or does not answer.

        Raises ForgedManifest for a wrong proof, and records that the peer lied.
        """
        assert self._neighbourhood is not None
        request = self._neighbourhood.client(peer).manifest(repo, commit)
        try:
            manifest = await asyncio.wait_for(request, MANIFEST_ANSWER_SECONDS)
        except (Unreachable, CorruptData, asyncio.TimeoutError) as error:
            self._neighbourhood.failed(peer.key, str(error) or "did not answer in time")
            return None
        if manifest is None or manifest.is_attested:
            return manifest
        try:
            await in_thread(gitproof.prove, manifest)
        except ForgedManifest:
            self._neighbourhood.lied(peer.key)
            raise
        return manifest


def name_of(peer: Peer) -> str:
    """A peer's name, or its address if it has none."""
    return peer.name or str(peer.address)
