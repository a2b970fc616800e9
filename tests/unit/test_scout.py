"""Whom a fetch asks again, and when: a peer that had nothing, as soon as it asks for the blob itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.peers.client import PeerClient
from hfpeer.transfer.scout import FIRST_REST_SECONDS, Watch
from hfpeer.transfer.sources import PeerSource, WantedBlob
from hfpeer.wire import PieceMap, PieceNews

DIGEST = Digest("sha256", "0" * 64)
BLOB = WantedBlob(DIGEST, 8, RepoId.parse("acme/a"), Commit("1" * 40), FilePath("a"))


@dataclass
class Silent:
    """A peer that has nothing to tell, and notes when it is asked."""

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
            await asyncio.wait_for(self.was_asked.wait(), 2.0)


class Wanting:
    """What peers are followed for; nobody tells it anything."""

    blob = BLOB

    def add_source(self, source: PeerSource, pieces: PieceMap) -> None:
        raise AssertionError

    def hear(self, name: str, news: PieceNews) -> None:
        raise AssertionError

    def fellow_left(self, name: str) -> None:
        raise AssertionError

    def envoys_to_follow(self) -> Collection[str]:
        return ()


@asynccontextmanager
async def watching(**peers: Silent) -> AsyncIterator[Watch]:
    """These are followed while the block runs, each under its name and the id `id-NAME`."""
    sources = [PeerSource(name, f"id-{name}", cast(PeerClient, peer)) for name, peer in peers.items()]
    watch = Watch(lambda blob: sources, Wanting(), lambda node_ids: ())
    try:
        yield watch
    finally:
        await watch.stop()


async def test_a_peer_that_had_nothing_is_asked_again_when_it_asks_and_others_are_left_alone() -> None:
    ara, crux = Silent(), Silent()
    async with watching(ara=ara, crux=crux) as watch:
        for peer in (ara, crux):
            await peer.is_asked(1)
        watch.heard_of("id-ara")
        await ara.is_asked(2)
        await asyncio.sleep(2 * FIRST_REST_SECONDS)  # in which the other would be asked, too
        assert crux.asked == 1


async def test_one_that_asked_and_has_nothing_to_tell_yet_is_asked_again_and_again_ever_more_seldom() -> None:
    peer = Silent()
    async with watching(ara=peer) as watch:
        watch.heard_of("id-ara")
        began_at = asyncio.get_running_loop().time()
        await peer.is_asked(4)
        assert asyncio.get_running_loop().time() - began_at >= 7 * FIRST_REST_SECONDS


async def test_who_is_not_known_may_ask() -> None:
    peer = Silent()
    async with watching(ara=peer) as watch:
        watch.heard_of("id-nobody")
        await peer.is_asked(1)
