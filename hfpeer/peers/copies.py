"""Asks all peers for copies of blobs before this node removes its own, so that the last one on the LAN is not lost.

A blob that a peer is about to remove too is no copy. Of several nodes that remove the same blob at once, the one with
the lowest node id keeps it and withdraws its notice; the others ask again until it has. A node gives its notice before
it asks, and a node that has given notice is not counted. So the nodes that were counted form no circle: one of them
keeps its copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from hfpeer.errors import HfpeerError
from hfpeer.names import Digest
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.notices import Notice, Notices
from hfpeer.peers.protocol.copies import MAX_ASKED_BLOBS, CopiesMessage
from hfpeer.peers.table.table import Peer, State

CONTEST_SECONDS = 10.0
"""Seconds that a node waits for the node that keeps a blob to withdraw its notice. Then it keeps the blob too."""
ASK_AGAIN_SECONDS = 0.1
"""Seconds between two questions in that time."""


@dataclass(frozen=True)
class PeersCopies:
    """The answers of peers. `peers` are known, `answered` of them have answered all questions; `held` are the blobs
    that one of these has and keeps."""

    peers: int = 0
    answered: int = 0
    held: frozenset[Digest] = frozenset()


@dataclass(frozen=True)
class _Answer:
    node_id: str
    copies: CopiesMessage


class CopyQuestions:
    """The questions of one node. Belongs to its event loop."""

    def __init__(self, own_node_id: str, notices: Notices) -> None:
        self._own_node_id = own_node_id
        self._notices = notices

    @asynccontextmanager
    async def asked(
        self, neighbourhood: Neighbourhood | None, digests: Collection[Digest], *, removes: bool
    ) -> AsyncIterator[PeersCopies]:
        """Asks the peers for copies. If the node `removes` blobs in the block, they are under notice until its end."""
        if not removes:
            yield await self._ask(neighbourhood, digests, None)
            return
        with self._notices.given(digests) as notice:
            yield await self._ask(neighbourhood, digests, notice)

    async def _ask(
        self, neighbourhood: Neighbourhood | None, digests: Collection[Digest], notice: Notice | None
    ) -> PeersCopies:
        if neighbourhood is None:
            return PeersCopies()
        peers = [peer for peer in neighbourhood.others() if not peer.lies]
        if not digests or not peers:
            return PeersCopies(len(peers))
        deadline = time.monotonic() + CONTEST_SECONDS
        kept: set[Digest] = set()
        while True:
            answers = await self._answers(neighbourhood, peers, digests)
            held = frozenset(digest for answer in answers for digest in answer.copies.held - answer.copies.leaving)
            # What this node keeps it keeps for good: another node may count on it by now.
            result = PeersCopies(len(peers), len(answers), held - kept if kept else held)
            contested = self._contested(answers, held)
            if notice is None or not contested or time.monotonic() > deadline:
                return result
            # This node keeps what no node with a lower id is about to remove, and waits for the other blobs.
            lowest = {digest for digest, node_ids in contested.items() if self._own_node_id < min(node_ids)}
            notice.withdraw(lowest)
            kept |= lowest
            if lowest == contested.keys():
                return result
            await asyncio.sleep(ASK_AGAIN_SECONDS)

    def _contested(self, answers: Iterable[_Answer], held: Collection[Digest]) -> dict[Digest, set[str]]:
        """By digest of each blob that only nodes have that are about to remove it: the ids of these nodes."""
        found: dict[Digest, set[str]] = {}
        for answer in answers:
            for digest in answer.copies.leaving - set(held):
                found.setdefault(digest, set()).add(answer.node_id)
        return found

    async def _answers(
        self, neighbourhood: Neighbourhood, peers: Iterable[Peer], digests: Collection[Digest]
    ) -> list[_Answer]:
        """The answers of all peers that answer. A peer that is gone is not asked."""
        asked = [peer for peer in peers if neighbourhood.state(peer) is not State.GONE]
        found = await asyncio.gather(*(self._answer(neighbourhood, peer, digests) for peer in asked))
        return [answer for answer in found if answer is not None]

    async def _answer(self, neighbourhood: Neighbourhood, peer: Peer, digests: Collection[Digest]) -> _Answer | None:
        if peer.node_id is None:  # its address never answered: perhaps it does now, and is this node itself
            if not await neighbourhood.probe(peer):
                return None
            known = neighbourhood.get(str(peer.address))
            if known is None or known.node_id is None:
                return None
            peer = known
        client = neighbourhood.client(peer)
        held: set[Digest] = set()
        leaving: set[Digest] = set()
        try:
            for some in _batches(digests):
                copies = await client.copies(some)
                # The digests of the question stay, not their copies in the answer: there may be very many.
                held.update(digest for digest in some if digest in copies.held)
                leaving.update(digest for digest in some if digest in copies.leaving)
        except HfpeerError:
            return None
        return _Answer(peer.node_id or "", CopiesMessage(frozenset(held), frozenset(leaving)))


def _batches(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    iterator = iter(digests)
    while some := list(islice(iterator, MAX_ASKED_BLOBS)):
        yield some
