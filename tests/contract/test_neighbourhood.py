"""The peers in motion, over real sockets: when a peer is asked again what it has."""

from __future__ import annotations

import asyncio

from hfpeer.peers.neighbourhood import CATALOGUE_SECONDS, Neighbourhood
from hfpeer.wire import CATALOGUE_PATH
from tests.fakes.peers import GoodPeer

OWN = "f" * 32


def announce(neighbourhood: Neighbourhood, peer: GoodPeer) -> None:
    """Its announcement is heard."""
    neighbourhood.found(peer.node_id, peer.name, [peer.address], peer.generation, frozenset())


async def reads_catalogue(peer: GoodPeer) -> None:
    await asyncio.to_thread(peer.wait_for_request, CATALOGUE_PATH)
    peer.requests.clear()


async def test_an_idle_node_reads_a_new_catalogue_as_soon_as_it_is_announced() -> None:
    neighbourhood = Neighbourhood(OWN, [])
    with GoodPeer() as peer:
        try:
            announce(neighbourhood, peer)
            await neighbourhood.refresh()
            peer.requests.clear()
            peer.generation += 1
            announce(neighbourhood, peer)
            await reads_catalogue(peer)
        finally:
            await neighbourhood.stop()


async def test_a_busy_node_reads_the_new_catalogue_of_a_peer_that_it_knows_later_but_meets_others_at_once() -> None:
    now = 100.0
    neighbourhood = Neighbourhood(OWN, [], clock=lambda: now, is_busy=lambda: True)
    with GoodPeer() as known, GoodPeer() as stranger:
        try:
            announce(neighbourhood, known)
            await neighbourhood.refresh()
            known.requests.clear()
            known.generation += 1
            announce(neighbourhood, known)
            announce(neighbourhood, stranger)
            await reads_catalogue(stranger)
            await neighbourhood.start()
            await neighbourhood.settle(None, 0.0)
            assert known.requests == []
            now += CATALOGUE_SECONDS
            await reads_catalogue(known)
        finally:
            await neighbourhood.stop()


async def test_a_busy_node_that_is_asked_what_its_peers_have_reads_their_catalogues_at_once() -> None:
    neighbourhood = Neighbourhood(OWN, [], is_busy=lambda: True)
    with GoodPeer() as peer:
        try:
            announce(neighbourhood, peer)
            await neighbourhood.refresh()
            peer.generation += 1
            announce(neighbourhood, peer)
            peer.requests.clear()
            await neighbourhood.refresh()
            assert CATALOGUE_PATH in peer.paths
        finally:
            await neighbourhood.stop()
