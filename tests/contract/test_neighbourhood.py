"""The peers in motion, over real sockets: when a peer is asked again what it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hfpeer.peers.neighbourhood import CATALOGUE_SECONDS, Neighbourhood
from hfpeer.wire import CATALOGUE_PATH
from tests.fakes.peers import GoodPeer

OWN = "f" * 32


def announce(neighbourhood: Neighbourhood, peer: GoodPeer) -> None:
    """Its announcement is heard."""
    neighbourhood.found(peer.node_id, peer.name, [peer.address], peer.generation, frozenset())


async def reads_catalogue(peer: GoodPeer) -> None:
    await asyncio.to_thread(peer.wait_for_request, CATALOGUE_PATH)


@asynccontextmanager
async def knowing(
    peer: GoodPeer, *, is_busy: bool = False, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Neighbourhood]:
    """A node that has read a catalogue of this peer, which then announces another."""
    neighbourhood = Neighbourhood(OWN, [], clock=clock, is_busy=lambda: is_busy)
    try:
        announce(neighbourhood, peer)
        await neighbourhood.refresh()
        peer.requests.clear()
        peer.generation += 1
        announce(neighbourhood, peer)
        yield neighbourhood
    finally:
        await neighbourhood.stop()


async def test_an_idle_node_reads_a_new_catalogue_as_soon_as_it_is_announced() -> None:
    with GoodPeer() as peer:
        async with knowing(peer):
            await reads_catalogue(peer)


async def test_a_busy_node_reads_the_new_catalogue_of_a_peer_that_it_knows_later_but_meets_others_at_once() -> None:
    now = 100.0
    with GoodPeer() as known, GoodPeer() as stranger:
        async with knowing(known, is_busy=True, clock=lambda: now) as neighbourhood:
            announce(neighbourhood, stranger)
            await reads_catalogue(stranger)
            await neighbourhood.start()
            await neighbourhood.settle(None, 0.0)
            assert known.requests == []
            now += CATALOGUE_SECONDS
            await reads_catalogue(known)


async def test_a_busy_node_that_is_asked_what_its_peers_have_reads_their_catalogues_at_once() -> None:
    with GoodPeer() as peer:
        async with knowing(peer, is_busy=True) as neighbourhood:
            await neighbourhood.refresh()
            assert CATALOGUE_PATH in peer.paths
