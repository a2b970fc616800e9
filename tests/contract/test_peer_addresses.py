"""A peer with several addresses is asked at another one when one does not answer, whatever it is asked for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fakes.peers import GoodPeer, Reply, Request, SilentPeer, UnreachablePeer, digest_of
from fakes.waiting import wait_until
from hfpeer.errors import PeerUnreachable
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.peers.asking import peer_client as peer_client_module
from hfpeer.peers.asking.peer_client import PeerClient, PeerClients
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.protocol.messages import RefMessage

OWN = "f" * 32
DATA = os.urandom(100_000)
DIGEST = digest_of(DATA)
REPO, COMMIT, MAIN = RepoId.parse("org/model"), Commit("1" * 40), Revision("main")
MANIFEST = Manifest(
    REPO, COMMIT, (ManifestFile(FilePath("config.json"), 5, digest_of(b"hello", "git-sha1")),), commit_object=b"tree x"
)
DEAD = [UnreachablePeer, SilentPeer]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_client_module, "NEXT_ADDRESS_SECONDS", 0.05)
    monkeypatch.setattr(peer_client_module, "CHECK_SECONDS", 0.2)


def a_good_peer() -> GoodPeer:
    refs = {(REPO, MAIN): RefMessage(COMMIT, 17.5, "origin")}
    return GoodPeer([DATA], manifests=[MANIFEST], refs=refs, peers=["10.0.0.2:9437"])


@asynccontextmanager
async def at_both(first: GoodPeer, second: GoodPeer) -> AsyncIterator[PeerClient]:
    clients = PeerClients(OWN, None, asyncio.get_running_loop().time)
    try:
        yield clients.of("peer", [first.address, second.address])
    finally:
        await clients.aclose()


async def followed(client: PeerClient) -> list[Any]:
    return [line async for line in client.follow(DIGEST)]


async def ranges(client: PeerClient) -> bytes:
    def read() -> bytes:
        body = client.open_range(DIGEST, 0, 10, size_bytes=len(DATA))
        view = bytearray(10)
        body.readinto(memoryview(view))
        body.close()
        return bytes(view)

    return await asyncio.to_thread(read)


async def batch(client: PeerClient) -> list[Any]:
    return await asyncio.to_thread(lambda: list(client.open_batch([DIGEST])))


REQUESTS: dict[str, Callable[[PeerClient], Awaitable[Any]]] = {
    "hello": lambda client: client.node(),
    "catalog": lambda client: client.catalog(),
    "peers": lambda client: client.peers(),
    "manifest": lambda client: client.manifest(REPO, COMMIT),
    "ref": lambda client: client.ref(REPO, MAIN),
    "copies": lambda client: client.copies([DIGEST]),
    "pieces": lambda client: client.pieces(DIGEST),
    "follow": followed,
}


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("dead", DEAD)
async def test_each_kind_of_message_goes_to_the_next_address(kind: str, dead: type[GoodPeer]) -> None:
    with dead() as silent, a_good_peer() as peer:
        async with at_both(silent, peer) as client:
            assert await asyncio.wait_for(REQUESTS[kind](client), 20)
            await wait_until_used(client, peer)


@pytest.mark.parametrize("ask", [ranges, batch])
async def test_bytes_come_from_the_next_address(ask: Callable[[PeerClient], Awaitable[Any]]) -> None:
    with UnreachablePeer() as silent, a_good_peer() as peer:
        async with at_both(silent, peer) as client:
            assert await ask(client)


async def test_what_a_peer_is_asked_for_goes_to_an_address_that_became_known_later() -> None:
    with UnreachablePeer() as silent, a_good_peer() as peer:
        clients = PeerClients(OWN, None, asyncio.get_running_loop().time)
        try:
            client = clients.of(peer.node_id, [silent.address])
            assert clients.of(peer.node_id, [silent.address, peer.address]) is client
            assert await ranges(client)
            assert await client.peers()
        finally:
            await clients.aclose()


async def wait_until_used(client: PeerClient, peer: GoodPeer) -> None:
    """The address that does not answer is found out."""
    await asyncio.to_thread(wait_until, lambda: client.address == peer.address, "the address that answers is used")


@pytest.mark.parametrize("dead", DEAD)
async def test_a_peer_is_silent_only_if_no_address_answers(dead: type[GoodPeer]) -> None:
    with dead() as one, UnreachablePeer() as other:
        async with at_both(one, other) as client:
            with pytest.raises(PeerUnreachable):
                await asyncio.wait_for(client.peers(), 20)


class SlowToSay(GoodPeer):
    """Answers only when the test says so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.may_answer = threading.Event()

    def message(self, request: Request) -> Reply:
        self.may_answer.wait(20)
        return super().message(request)


async def test_an_address_that_is_only_slow_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_client_module, "CHECK_SECONDS", 20.0)
    with SlowToSay() as slow, a_good_peer() as peer:
        async with at_both(slow, peer) as client:
            await client.peers()
            slow.may_answer.set()
            (doubted,) = [one for one in client._addresses if one.is_doubted]
            await asyncio.to_thread(wait_until, lambda: not doubted.is_doubted, "the check ends")
            assert client.address == slow.address


@pytest.mark.parametrize("dead", DEAD)
async def test_a_peer_is_found_although_its_first_address_is_dead(dead: type[GoodPeer]) -> None:
    with dead() as silent, a_good_peer() as peer:
        neighbourhood = Neighbourhood(OWN, [])
        try:
            neighbourhood.found(peer.node_id, peer.name, [silent.address, peer.address], peer.generation, frozenset())
            await neighbourhood.settle(COMMIT, 20.0)
            (known,) = neighbourhood.candidates(COMMIT)
            assert neighbourhood.is_alive(known) and not known.failures
            assert neighbourhood.alive_addresses() == [peer.address], "what others are told is what answered"
        finally:
            await neighbourhood.stop()
