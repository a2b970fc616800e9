"""Follows the peers that have a blob or are fetching it, from before a fetch starts until it ends.

A seed tells once that it has the whole blob; a leecher is followed and tells its pieces as they come. The request also
tells the peer that this node wants the blob, so that the peer follows this node in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Protocol

from hfpeer.budgets import NEWS_BURST_SECONDS, NEWS_LINES_PER_SECOND, NEWS_NUMBERS_PER_SECOND
from hfpeer.errors import HfpeerError
from hfpeer.net.address import Address
from hfpeer.net.tasks import end_tasks
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob

FIRST_ANSWERS_SECONDS = 1.0
"""A fetch waits at most this long for the first answers of its peers before it asks upstreams."""
SEED_GRACE_SECONDS = 0.1
"""Seconds that it waits for the other peers as soon as one is a seed."""
LEECHER_GRACE_SECONDS = 0.15
"""Seconds that it waits, after all answered that they have nothing, for peers that start to fetch just now."""
ASK_AGAIN_SECONDS = 3.0
"""Seconds between two requests to a peer that has nothing to tell."""
FIRST_REST_SECONDS = 0.05
"""Seconds before the second request to a peer that wants the blob and had nothing to tell; doubles each time."""
LOOK_SECONDS = 1.0
"""Seconds between two looks for new peers and for peers at new addresses."""
UNKNOWN_MEMBER_SECONDS = 1.0
"""Seconds before a member that this node does not know is looked up again."""
MAX_UNKNOWN_MEMBERS = 256
"""At most this many such members are remembered."""


class Neighbours(Protocol):
    """The peers of this node; see `Lan`."""

    def source_peers(self, blob: WantedBlob) -> Sequence[PeerSource]:
        """A bounded number of peers that can be asked for a blob now, the likeliest first."""
        ...

    def peers_with_ids(self, node_ids: Collection[str]) -> Sequence[PeerSource]:
        """The peers with these node ids that can be asked."""
        ...

    def unanswered(self, node_id: str, address: Address) -> None:
        """A peer gives nothing at the address where it was asked."""
        ...


class FollowedFetch(Protocol):
    """A fetch for which peers are followed: of a blob, or of a bundle."""

    @property
    def blob(self) -> WantedBlob: ...

    def add_source(self, source: PeerSource, pieces: PieceMap) -> None:
        """A peer has the pieces of a map."""
        ...

    def hear(self, name: str, news: PieceNews) -> None:
        """A leecher tells news."""
        ...

    def leecher_left(self, name: str) -> None:
        """A leecher does not answer any more, or has stopped fetching."""
        ...

    def envoys_to_follow(self) -> Collection[str]:
        """The node ids of the envoys that are followed beside the neighbours."""
        ...

    def unanswered(self) -> Collection[str]:
        """The node ids of the sources that give nothing where they are asked."""
        ...

    def moved(self, source: PeerSource) -> None:
        """The source of this name is asked at another address from now on."""
        ...


class PeerFollower:
    """Of one fetch. Belongs to the event loop in which it was made."""

    def __init__(self, neighbours: Neighbours, fetch: FollowedFetch, credits: Credits | None = None) -> None:
        """Starts to follow the peers that are known now. `credits` are this node's accounts of sources."""
        self._neighbours = neighbours
        self._fetch = fetch
        self._credits = credits or Credits()
        self._sources: dict[str, PeerSource] = {}
        """By node id."""
        self._asked_at: dict[str, Address] = {}
        """By node id: the address where each peer is asked now."""
        self._names: dict[str, str] = {}
        """By name: the node id of each peer."""
        self._following: dict[str, asyncio.Task[None]] = {}
        """By name."""
        self._retired: list[asyncio.Task[None]] = []
        """Cancelled tasks of peers that have another address now."""
        self._has_asked: dict[str, asyncio.Event] = {}
        """By node id: whether the peer has asked this node for the blob."""
        self._answered: dict[str, asyncio.Event] = {}
        """By name: whether the peer has answered."""
        self._has_seed = asyncio.Event()
        self._members: set[str] = set()
        """The members that leechers named and that this node knows."""
        self._unknown_members: dict[str, float] = {}
        """The other members that leechers named, and when each was looked up last."""
        self._reported_at: dict[str, float] = {}
        """By node id: when the neighbours were last told that the peer gives nothing."""
        self._follow_new()
        self._looking = asyncio.create_task(self._look_for_new())

    def heard_of(self, node_id: str) -> None:
        """A peer has asked for the blob: it is asked again soon, also if it had nothing so far."""
        if node_id in self._has_asked:
            self._has_asked[node_id].set()
        self._follow_new()

    async def answers(self, seconds: float) -> None:
        """Waits until all known peers have answered, at most `seconds`."""
        waiting = [asyncio.ensure_future(event.wait()) for event in self._answered.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
            await end_tasks(waiting)

    async def settle(self) -> None:
        """Waits for answers before upstreams are asked; at most as long as the constants of this module say.

        Does not wait for a peer without credit, nor for one that did not answer in time the last time.
        """
        waited_for = {
            node_id: self._answered[name]
            for name, node_id in self._names.items()
            if not (self._credits.of(node_id).is_mute or self._credits.of(node_id).is_lost(time.monotonic()))
        }
        if not waited_for:
            return
        answering = asyncio.gather(*(event.wait() for event in waited_for.values()))
        finding_seed = asyncio.create_task(self._has_seed.wait())
        both = (answering, finding_seed)
        try:
            await asyncio.wait(both, timeout=FIRST_ANSWERS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if finding_seed.done():
                await asyncio.wait((answering,), timeout=SEED_GRACE_SECONDS)
            else:
                await asyncio.wait((finding_seed,), timeout=LEECHER_GRACE_SECONDS)
        finally:
            finding_seed.cancel()
            answering.cancel()
            await asyncio.gather(finding_seed, answering, return_exceptions=True)
        if not self._has_seed.is_set():
            for node_id, answered in waited_for.items():
                self._credits.of(node_id).is_mute = not answered.is_set()

    async def stop(self) -> None:
        await end_tasks([self._looking, *self._following.values(), *self._retired])

    async def _look_for_new(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for node_id in self._fetch.unanswered():
                self._report(node_id)
            self._follow_new()

    def _report(self, node_id: str) -> None:
        """Tells the neighbours, not too often, that a peer gives nothing where it is asked: it may have moved."""
        now = time.monotonic()
        if now - self._reported_at.get(node_id, -ASK_AGAIN_SECONDS) >= ASK_AGAIN_SECONDS:
            self._reported_at[node_id] = now
            self._neighbours.unanswered(node_id, self._asked_at[node_id])

    def _follow_new(self) -> None:
        self._follow_these(self._neighbours.source_peers(self._fetch.blob))

    def _follow_envoys(self) -> None:
        """Follows the other envoys, so that the nodes that ask seeds know each other in a swarm of any size."""
        new = set(self._fetch.envoys_to_follow()) - self._has_asked.keys()
        if new:
            self._follow_these(self._neighbours.peers_with_ids(new))

    def _follow_these(self, peers: Sequence[PeerSource]) -> None:
        for peer in peers:
            known, address = self._sources.setdefault(peer.node_id, peer), peer.client.address
            if self._asked_at.setdefault(peer.node_id, address) != address:
                self._asked_at[peer.node_id] = address
                self._move(replace(peer, name=known.name))
            if peer.name not in self._following and peer.node_id not in self._has_asked:
                self._has_asked[peer.node_id] = asyncio.Event()
                self._answered[peer.name] = asyncio.Event()
                self._names[peer.name] = peer.node_id
                self._following[peer.name] = asyncio.create_task(self._follow(peer), name=f"follow {peer.name}")

    def _move(self, peer: PeerSource) -> None:
        """A peer has another address now: it is followed and asked there."""
        self._sources[peer.node_id] = peer
        self._fetch.moved(peer)
        if peer.name in self._following:
            self._following[peer.name].cancel()
            self._retired = [task for task in self._retired if not task.done()] + [self._following[peer.name]]
            self._following[peer.name] = asyncio.create_task(self._follow(peer), name=f"follow {peer.name}")

    async def _follow(self, peer: PeerSource) -> None:
        """Asks the peer again and again until it has the whole blob, or this is cancelled.

        A peer that has asked for the blob has something to tell in moments, when its partial is open or it has learnt
        that it may share the blob. But two nodes with nothing to tell must not ask each other for ever, so the rest
        doubles each time.
        """
        has_asked = self._has_asked[peer.node_id]
        rest_seconds = FIRST_REST_SECONDS
        while True:
            asked_at = time.monotonic()
            if await self._read(peer):
                return
            self._answered[peer.name].set()
            has_told = time.monotonic() - asked_at > ASK_AGAIN_SECONDS
            if has_told:
                rest_seconds = FIRST_REST_SECONDS
            if has_asked.is_set():
                await asyncio.sleep(rest_seconds)
                rest_seconds = min(2 * rest_seconds, ASK_AGAIN_SECONDS)
            else:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(has_asked.wait(), ASK_AGAIN_SECONDS)

    async def _read(self, peer: PeerSource) -> bool:
        """Reads the lines of a peer to their end. Whether the peer has the whole blob now."""
        is_leecher = False
        throttle = _NewsThrottle()
        try:
            async with aclosing(peer.client.follow(self._fetch.blob.digest)) as lines:
                async for line in lines:
                    if not isinstance(line, PieceMap):
                        self._fetch.hear(peer.name, replace(line, members=self._known_members(line.members)))
                        if line.members:
                            self._follow_envoys()
                        await throttle.wait(line, time.monotonic())
                        continue
                    self._credits.of(peer.node_id).is_mute = False
                    await throttle.wait(PieceNews(), time.monotonic())
                    self._fetch.add_source(peer, line)
                    is_leecher = line.bitfield is not None
                    if not is_leecher:
                        self._has_seed.set()
                    self._answered[peer.name].set()
                    if not is_leecher:
                        return True
        except HfpeerError:
            self._report(peer.node_id)
        if is_leecher:
            self._fetch.leecher_left(peer.name)
        return False

    def _known_members(self, members: Mapping[str, int]) -> Mapping[str, int]:
        """The members that this node knows to exist. It would wait for ever for one that a leecher has invented."""
        now = time.monotonic()
        unknown = {
            node_id
            for node_id in members.keys() - self._members
            if now - self._unknown_members.get(node_id, -UNKNOWN_MEMBER_SECONDS) >= UNKNOWN_MEMBER_SECONDS
        }
        if unknown:
            found = {peer.node_id for peer in self._neighbours.peers_with_ids(unknown)}
            self._members |= found
            if len(self._unknown_members) > MAX_UNKNOWN_MEMBERS:
                self._unknown_members.clear()
            self._unknown_members |= dict.fromkeys(unknown - found, now)
        return {node_id: beat for node_id, beat in members.items() if node_id in self._members}


class _NewsThrottle:
    """Limits how fast the news of one peer is read; a peer that tells more has to wait."""

    def __init__(self) -> None:
        self._due = 0.0

    async def wait(self, news: PieceNews, now: float) -> None:
        """Waits as long as this news, with the news before, exceeds what a peer may tell."""
        numbers = len(news.added) + len(news.claimed) + len(news.firsthand) + len(news.members)
        cost_seconds = 1 / NEWS_LINES_PER_SECOND + numbers / NEWS_NUMBERS_PER_SECOND
        self._due = max(self._due, now) + cost_seconds
        if self._due > now + NEWS_BURST_SECONDS:
            await asyncio.sleep(self._due - now - NEWS_BURST_SECONDS)
