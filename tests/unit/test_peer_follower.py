"""Which peers a fetch asks again, and when: a peer that had nothing, as soon as it asks for the blob."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from hfpeer.budgets import NEWS_BURST_SECONDS, NEWS_LINES_PER_SECOND, NEWS_NUMBERS_PER_SECOND
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.net.address import Address
from hfpeer.peers.asking.peer_client import PeerClient
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob
from hfpeer.transfer.swarm.follower import FIRST_REST_SECONDS, MAX_UNKNOWN_MEMBERS, PeerFollower, _NewsThrottle

DIGEST = Digest("sha256", "0" * 64)
BLOB = WantedBlob(DIGEST, 8, RepoId.parse("acme/a"), Commit("1" * 40), FilePath("a"))


@dataclass
class Silent:
    """A peer that has nothing to tell, and notes when it is asked."""

    address: Address = field(default_factory=lambda: Address("10.0.0.1"))
    asked: int = 0
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, digest: Digest) -> AsyncGenerator[PieceMap | PieceNews, None]:
        self.asked += 1
        self.was_asked.set()
        return
        yield

    async def is_asked(self, times: int) -> None:
        while self.asked < times:
            self.was_asked.clear()
            await asyncio.wait_for(self.was_asked.wait(), 20.0)


@dataclass
class Neighbours:
    """The peers at `sources`, each known by its node id; notes the questions."""

    sources: list[PeerSource] = field(default_factory=list)
    strangers: list[PeerSource] = field(default_factory=list)
    """Peers that may be looked up by their node ids, but are not asked for blobs."""
    looked_up: list[Collection[str]] = field(default_factory=list)
    gone: list[tuple[str, Address]] = field(default_factory=list)

    def source_peers(self, blob: WantedBlob) -> list[PeerSource]:
        return self.sources

    def peers_with_ids(self, node_ids: Collection[str]) -> list[PeerSource]:
        self.looked_up.append(node_ids)
        return [peer for peer in self.strangers if peer.node_id in node_ids]

    def unanswered(self, node_id: str, address: Address) -> None:
        self.gone.append((node_id, address))


class Wanting:
    """A fetch for which peers are followed; no peer tells it anything."""

    blob = BLOB

    def add_source(self, source: PeerSource, pieces: PieceMap) -> None:
        raise AssertionError

    def hear(self, name: str, news: PieceNews) -> None:
        raise AssertionError

    def leecher_left(self, name: str) -> None:
        raise AssertionError

    def envoys_to_follow(self) -> Collection[str]:
        return ()

    def unanswered(self) -> Collection[str]:
        return ()

    def moved(self, source: PeerSource) -> None:
        raise AssertionError


@asynccontextmanager
async def following_peers(**peers: Silent) -> AsyncIterator[PeerFollower]:
    """These are followed while the block runs, each under its name and the id `id-NAME`."""
    sources = [PeerSource(name, f"id-{name}", cast(PeerClient, peer)) for name, peer in peers.items()]
    follower = PeerFollower(Neighbours(sources), Wanting())
    try:
        yield follower
    finally:
        await follower.stop()


async def test_a_peer_that_had_nothing_is_asked_again_when_it_asks_and_others_are_left_alone() -> None:
    ara, crux = Silent(), Silent()
    async with following_peers(ara=ara, crux=crux) as follower:
        for peer in (ara, crux):
            await peer.is_asked(1)
        follower.heard_of("id-ara")
        await ara.is_asked(2)
        await asyncio.sleep(2 * FIRST_REST_SECONDS)  # in which the other would be asked, too
        assert crux.asked == 1


async def test_a_peer_that_asked_and_has_nothing_to_tell_is_asked_again_after_longer_and_longer_rests() -> None:
    peer = Silent()
    async with following_peers(ara=peer) as follower:
        follower.heard_of("id-ara")
        began_at = asyncio.get_running_loop().time()
        await peer.is_asked(4)
        assert asyncio.get_running_loop().time() - began_at >= 7 * FIRST_REST_SECONDS


async def test_an_unknown_peer_may_ask() -> None:
    peer = Silent()
    async with following_peers(ara=peer) as follower:
        follower.heard_of("id-unknown")
        await peer.is_asked(1)


async def test_members_that_this_node_does_not_know_are_ignored() -> None:
    neighbours = Neighbours(strangers=[PeerSource("crux", "id-crux", cast(PeerClient, Silent()))])
    follower = PeerFollower(neighbours, Wanting())
    try:
        for beat in range(3):
            told = {"id-crux": beat, "id-invented": beat}
            assert follower._known_members(told) == {"id-crux": beat}
        assert len(neighbours.looked_up) == 1, "no member is looked up again and again"
        follower._known_members({f"id-{number}": 1 for number in range(10 * MAX_UNKNOWN_MEMBERS)})
        follower._known_members({"id-one-more": 1})
        assert len(follower._unknown_members) <= MAX_UNKNOWN_MEMBERS
    finally:
        await follower.stop()


@pytest.mark.parametrize("numbers", [0, 1000], ids=["many lines", "long lines"])
async def test_a_peer_that_tells_more_than_it_may_is_read_no_faster(numbers: int) -> None:
    throttle, loop = _NewsThrottle(), asyncio.get_running_loop()
    news = PieceNews(added=tuple(range(numbers)))
    began_at, lines = loop.time(), 0
    while loop.time() < began_at + NEWS_BURST_SECONDS + 0.5:
        await throttle.wait(news, loop.time())
        lines += 1
    seconds = loop.time() - began_at + NEWS_BURST_SECONDS
    assert lines <= 1 + NEWS_LINES_PER_SECOND * seconds
    assert lines * numbers <= 2 * numbers + NEWS_NUMBERS_PER_SECOND * seconds


async def test_news_at_the_rate_of_a_node_is_read_at_once() -> None:
    throttle = _NewsThrottle()
    for tenth in range(50):
        with pytest.raises(StopIteration):  # it ends without having waited
            throttle.wait(PieceNews(added=tuple(range(100))), 100.0 + tenth / 10).send(None)


class Following(Wanting):
    """The same; notes the new addresses of peers."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.silent: tuple[str, ...] = ()

    def unanswered(self) -> Collection[str]:
        return self.silent

    def moved(self, source: PeerSource) -> None:
        self.places.append(source.address)


class At(Silent):
    """A silent peer at an address."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = Address.parse(address)


async def test_a_peer_that_moved_is_followed_at_its_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.transfer.swarm.follower.LOOK_SECONDS", 0.02)
    old, new, following = At("10.0.0.1:1"), At("10.0.0.2:1"), Following()
    neighbours = Neighbours([PeerSource("ara", "id-ara", cast(PeerClient, old))])
    follower = PeerFollower(neighbours, following)
    try:
        await old.is_asked(1)
        following.silent = ("id-ara",)
        for _ in range(200):
            if neighbours.gone:
                break
            await asyncio.sleep(0.01)
        neighbours.sources = [PeerSource("ara@10.0.0.2:1", "id-ara", cast(PeerClient, new))]
        await new.is_asked(1)
        assert following.places == [str(new.address)]
        assert neighbours.gone == [("id-ara", old.address)], "not again and again"
    finally:
        await follower.stop()
