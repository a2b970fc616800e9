"""The peers in motion, over real sockets: when a peer is asked again what it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.hub_cache import proved_manifest_of
from fakes.peers import GoodPeer, Reply, Request, SilentPeer
from hfpeer.budgets import (
    MAX_CATALOG_BYTES,
    MAX_HOST_CATALOG_BURST_BYTES,
    MAX_HOST_CATALOG_BYTES,
    MAX_HOST_PROBES,
    SMALL_MESSAGE_SECONDS,
)
from hfpeer.cache.store import Store
from hfpeer.config.settings import read_settings
from hfpeer.errors import PeerUnreachable
from hfpeer.names import Commit, RepoId
from hfpeer.node.operations.peers import PeerOperations
from hfpeer.peers import neighbourhood as neighbourhood_module
from hfpeer.peers.asking import address_client as client_module
from hfpeer.peers.neighbourhood import CATALOG_SECONDS, Neighbourhood
from hfpeer.peers.protocol.messages import CatalogMessage, RevisionMessage
from hfpeer.peers.protocol.paths import CATALOG_PATH, NODE_PATH

OWN = "f" * 32


def announce(neighbourhood: Neighbourhood, peer: GoodPeer) -> None:
    """Its announcement is heard."""
    neighbourhood.found(peer.node_id, peer.name, [peer.address], peer.generation, frozenset())


async def reads_catalog(peer: GoodPeer) -> None:
    await asyncio.to_thread(peer.wait_for_request, CATALOG_PATH)


@asynccontextmanager
async def knowing(
    peer: GoodPeer, *, is_busy: bool = False, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Neighbourhood]:
    """A node that has read a catalog of this peer, which then announces another."""
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


async def test_an_idle_node_reads_a_new_catalog_as_soon_as_it_is_announced() -> None:
    with GoodPeer() as peer:
        async with knowing(peer):
            await reads_catalog(peer)


async def test_a_busy_node_reads_the_new_catalog_of_a_peer_that_it_knows_later_but_meets_others_at_once() -> None:
    now = 100.0
    with GoodPeer() as known, GoodPeer() as stranger:
        async with knowing(known, is_busy=True, clock=lambda: now) as neighbourhood:
            announce(neighbourhood, stranger)
            await reads_catalog(stranger)
            await neighbourhood.start()
            await neighbourhood.settle(None, 0.0)
            assert known.requests == []
            now += CATALOG_SECONDS
            await reads_catalog(known)


async def test_a_busy_node_that_is_asked_what_its_peers_have_reads_their_catalogs_at_once() -> None:
    with GoodPeer() as peer:
        async with knowing(peer, is_busy=True) as neighbourhood:
            await neighbourhood.refresh()
            assert CATALOG_PATH in peer.paths


async def test_what_all_peers_have_is_told_as_they_said_it_last_and_nobody_is_asked_again(tmp_path: Path) -> None:
    settings = read_settings({"HOME": str(tmp_path), "HFPEER_HOME": str(tmp_path / "home")})
    with GoodPeer(manifests=[proved_manifest_of({"a.json": b"{}"}, RepoId.parse("acme/set", "dataset"))]) as peer:
        async with knowing(peer) as neighbourhood:
            await neighbourhood.refresh()
            peer.requests.clear()
            store = Store(tmp_path / "cache", tmp_path / "home")
            try:
                found = await PeerOperations(settings, store, neighbourhood, None).search(None)
            finally:
                store.close()
            assert [(one.node_id, one.type, one.repo) for one in found] == [(peer.node_id, "dataset", "acme/set")]
            assert peer.paths == []


async def test_the_bytes_of_a_peer_count_while_they_come(tmp_path: Path) -> None:
    """A fetch of 100 GB takes hours, and the statistics have its bytes at its end."""
    settings = read_settings({"HOME": str(tmp_path), "HFPEER_HOME": str(tmp_path / "home")})
    with GoodPeer() as peer:
        async with knowing(peer) as neighbourhood:
            await neighbourhood.refresh()
            (known,) = neighbourhood.table.all()
            store = Store(tmp_path / "cache", tmp_path / "home")
            try:
                store.traffic.note_received("peer", known.name, 5)
                operations = PeerOperations(settings, store, neighbourhood, None, lambda: {known.name: 7, "other": 1})
                (status,) = await operations.list_peers()
            finally:
                store.close()
            assert status.received_bytes == 12


async def test_an_add_asks_a_peer_that_failed_just_now_if_no_other_has_its_commit() -> None:
    manifest = proved_manifest_of({"a.json": b"{}"}, RepoId.parse("acme/model"))
    with GoodPeer(manifests=[manifest]) as peer:
        async with knowing(peer) as neighbourhood:
            await neighbourhood.refresh()
            for _ in range(5):
                neighbourhood.failed(peer.node_id, "does not answer")
            assert neighbourhood.candidates() == []
            await neighbourhood.settle(Commit("e" * 40), 0.0)
            assert neighbourhood.candidates() == [], "it does not have this commit"
            await neighbourhood.settle(manifest.commit, 0.0)
            assert [one.node_id for one in neighbourhood.candidates(manifest.commit)] == [peer.node_id]


def told_by_neighbourhood(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == neighbourhood_module.__name__]


async def test_a_peer_that_comes_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(neighbourhood_module, "PROBE_LOOP_SECONDS", 0.01)
    came = asyncio.Event()
    with GoodPeer() as peer:
        neighbourhood = Neighbourhood(OWN, [peer.address], on_came=came.set)
        await neighbourhood.start()
        try:
            await asyncio.wait_for(came.wait(), 20)
            shown = f"{peer.name} ({peer.address})"
            assert told_by_neighbourhood(caplog) == [f"peer {shown} has come, found by static"]
        finally:
            await neighbourhood.stop()


class Boaster(GoodPeer):
    """Has a catalog of `count` revisions, and another one at each question."""

    count = 100

    def message(self, request: Request) -> Reply:
        self.generation += 1
        return super().message(request)

    def catalog(self) -> dict[str, Any]:
        repo = RepoId.parse("acme/boast")
        revisions = (RevisionMessage(repo, Commit(f"{n:040x}"), True, 1, 1, {}) for n in range(self.count))
        return CatalogMessage(self.generation, tuple(revisions)).to_json()


async def test_a_peer_with_too_large_a_catalog_is_kept_without_one() -> None:
    with Boaster() as peer:
        peer.count = MAX_CATALOG_BYTES // 120
        neighbourhood = Neighbourhood(OWN, [peer.address])
        try:
            await neighbourhood.refresh()
            (known,) = neighbourhood.candidates()
            assert neighbourhood.is_alive(known) and not known.failures
            assert not neighbourhood.catalog(known)
        finally:
            await neighbourhood.stop()


async def test_a_peer_with_a_new_catalog_at_each_request_is_read_now_and_then() -> None:
    with Boaster() as peer:
        peer.count = MAX_CATALOG_BYTES // 200
        neighbourhood = Neighbourhood(OWN, [peer.address])
        try:
            for _ in range(10):
                await neighbourhood.refresh()
            assert peer.paths.count(NODE_PATH) == 10
            assert peer.paths.count(CATALOG_PATH) <= 1 + MAX_HOST_CATALOG_BURST_BYTES // (peer.count * 140)
        finally:
            await neighbourhood.stop()


@pytest.mark.timed
async def test_many_nodes_of_one_host_take_little_memory_and_hold_nothing_up() -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Boaster()) for _ in range(8)]
        for peer in peers:
            peer.count = 12_000
        neighbourhood = Neighbourhood(OWN, [])
        for peer in peers:
            announce(neighbourhood, peer)
        longest = 0.0
        try:
            probing = asyncio.create_task(neighbourhood.refresh())
            while not probing.done():
                began_at = time.thread_time()  # of the event loop alone: the machine may be busy
                await asyncio.sleep(0.01)
                longest = max(longest, time.thread_time() - began_at)
            await probing
            assert len(neighbourhood.candidates()) == 8
            kept = [catalog for peer in neighbourhood.candidates() if (catalog := neighbourhood.catalog(peer))]
            assert 1 <= len(kept) < 8 and sum(catalog.size_bytes for catalog in kept) <= MAX_HOST_CATALOG_BYTES
            assert longest < 1.0
        finally:
            await neighbourhood.stop()


@pytest.mark.timed
async def test_peers_of_one_host_that_do_not_answer_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbourhood_module, "GREETING_SECONDS", 0.3)
    monkeypatch.setattr(neighbourhood_module, "REFRESH_SECONDS", 0.3)
    with ExitStack() as stack:
        silent = [stack.enter_context(SilentPeer()) for _ in range(MAX_HOST_PROBES + 3)]
        neighbourhood = Neighbourhood(OWN, [])
        for peer in silent:
            announce(neighbourhood, peer)
        began_at = time.monotonic()
        try:
            await neighbourhood.settle(None, 0.0)
            await neighbourhood.refresh()
            assert time.monotonic() - began_at < SMALL_MESSAGE_SECONDS
            assert sum(len(peer.requests) for peer in silent) == MAX_HOST_PROBES
        finally:
            await neighbourhood.stop()


async def test_a_small_message_that_trickles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SMALL_MESSAGE_SECONDS", 0.3)
    with SilentPeer() as peer:
        client = client_module.AddressClient(peer.address, OWN)
        with pytest.raises(PeerUnreachable):
            await client.node()
        await client.aclose()
