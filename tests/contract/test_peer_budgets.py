"""What a peer may send, and for how long it is waited for: each bound is reached, from below and from beyond."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from fakes.peers import GoodPeer, Reply, Request, SilentPeer, digest_of
from fakes.waiting import wait_until
from hfpeer import budgets
from hfpeer.budgets import MAX_ADDRESSES, MAX_GOSSIPED_PEERS, MAX_PEERS, MAX_PIECE_MAP_BYTES, SMALL_MESSAGE_BYTES
from hfpeer.errors import PeerUnreachable
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.net.address import Address
from hfpeer.peers import neighbourhood as neighbourhood_module
from hfpeer.peers.asking import address_client as client_module
from hfpeer.peers.asking.address_client import AddressClient, MessageTooLarge
from hfpeer.peers.interfaces import LanInterfaces
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.protocol.messages import NodeMessage, PeersMessage
from hfpeer.peers.protocol.paths import NODE_PATH, PROTOCOL_VERSION
from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.peers.table.table import Peer, PeerTable

REPO, COMMIT = RepoId.parse("org/model"), Commit("1" * 40)
LISTING = Manifest(REPO, COMMIT, (ManifestFile(FilePath("a"), 5, digest_of(b"hello", "git-sha1")),))
DIGEST = digest_of(b"hello")


class Saying(GoodPeer):
    """Gives `body` to whoever asks for anything; its length is announced, or not."""

    body = b""
    announces = True

    def answer(self, request: Request) -> Reply:
        return Reply(body=self.body, length=None if self.announces else -1)


@asynccontextmanager
async def asking(peer: GoodPeer) -> AsyncIterator[AddressClient]:
    client = AddressClient(peer.address, "own")
    try:
        yield client
    finally:
        await client.aclose()


def padded(document: object, size_bytes: int) -> bytes:
    return json.dumps(document).encode().ljust(size_bytes)


@pytest.mark.parametrize("announces", [True, False])
async def test_a_small_message_has_a_largest_size(announces: bool) -> None:
    node = NodeMessage("n" * 32, "ara", "1.0", PROTOCOL_VERSION, 1)
    with Saying() as peer:
        peer.announces = announces
        async with asking(peer) as client:
            peer.body = padded(node.to_json(), SMALL_MESSAGE_BYTES)
            assert await client.node() == node
            peer.body += b" "
            with pytest.raises(MessageTooLarge, match=f"more than {SMALL_MESSAGE_BYTES} bytes"):
                await client.node()


@pytest.mark.parametrize("announces", [True, False])
async def test_a_piece_map_has_a_largest_size(announces: bool) -> None:
    pieces = PieceMap(5, 1, 1, None)
    with Saying() as peer:
        peer.announces = announces
        async with asking(peer) as client:
            peer.body = padded(pieces.to_json(), MAX_PIECE_MAP_BYTES)
            assert await client.pieces(DIGEST) == pieces
            peer.body += b" "
            with pytest.raises(MessageTooLarge, match="more than"):
                await client.pieces(DIGEST)


@pytest.mark.parametrize("in_chunks_of", [1000, 1 << 20])
async def test_a_line_of_news_has_a_largest_size(in_chunks_of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_PIECE_MAP_BYTES", 10_000)

    class Telling(GoodPeer):
        size_bytes = 0

        def answer(self, request: Request) -> Reply:
            line = padded(PieceMap(5, 1, 1, None).to_json(), self.size_bytes - 1) + b"\n"
            chunks = (line[at : at + in_chunks_of] for at in range(0, len(line), in_chunks_of))
            body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
            return Reply(body=body, headers={"Transfer-Encoding": "chunked"}, length=-1)

    with Telling() as peer:
        async with asking(peer) as client:
            peer.size_bytes = 10_000
            assert [line async for line in client.follow(DIGEST)] == [PieceMap(5, 1, 1, None)]
            peer.size_bytes = 10_001
            with pytest.raises(PeerUnreachable, match="more than 10000 bytes"):
                async for _ in client.follow(DIGEST):
                    pass


async def test_a_listing_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(client_module)["MAX_LISTING_BYTES"] == budgets.MAX_LISTING_BYTES
    monkeypatch.setattr(client_module, "MAX_LISTING_BYTES", len(LISTING.to_json()))
    with Saying() as peer:
        async with asking(peer) as client:
            peer.body = LISTING.to_json().encode()
            assert await client.manifest(REPO, COMMIT) == LISTING
            peer.body += b" "
            with pytest.raises(MessageTooLarge, match="more than"):
                await client.manifest(REPO, COMMIT)


async def test_a_large_message_that_trickles_is_waited_for_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with Saying() as peer:
        peer.body, peer.bytes_per_second = LISTING.to_json().encode(), len(LISTING.to_json()) * 2
        async with asking(peer) as client:
            monkeypatch.setattr(client_module, "MESSAGE_SECONDS", 5.0)
            assert await client.manifest(REPO, COMMIT) == LISTING
            monkeypatch.setattr(client_module, "MESSAGE_SECONDS", 0.2)
            with pytest.raises(PeerUnreachable, match="does not answer"):
                await client.manifest(REPO, COMMIT)


def announce(neighbourhood: Neighbourhood, peer: GoodPeer) -> None:
    neighbourhood.found(peer.node_id, peer.name, [peer.address], peer.generation, frozenset())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")
async def test_few_peers_are_probed_at_once_and_the_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbourhood_module, "MAX_PROBES", 3)
    monkeypatch.setattr(client_module, "SMALL_MESSAGE_SECONDS", 2.0)
    with ExitStack() as stack:
        peers = [stack.enter_context(SilentPeer(host=f"127.0.0.{last}")) for last in range(2, 7)]
        neighbourhood = Neighbourhood("f" * 32, [])
        try:
            for peer in peers:
                announce(neighbourhood, peer)
            await asyncio.to_thread(peers[2].wait_for_request)
            await asyncio.sleep(0.1)
            assert [len(peer.requests) for peer in peers] == [1, 1, 1, 0, 0]
            await asyncio.to_thread(peers[4].wait_for_request)
        finally:
            await neighbourhood.stop()


class Late(GoodPeer):
    """Says who it is once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()

    def answer(self, request: Request) -> Reply:
        if request.path == NODE_PATH:
            self.may_answer.wait(10.0)
        return super().answer(request)


async def test_a_peer_that_failed_is_asked_again_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    with Late() as peer:
        neighbourhood = Neighbourhood("f" * 32, [peer.address])
        try:
            neighbourhood.failed(str(peer.address), "does not answer")
            monkeypatch.setattr(neighbourhood_module, "RETURN_SECONDS", 0.1)
            began_at = time.monotonic()
            await neighbourhood.settle(None, 0.0)
            assert time.monotonic() - began_at < 8.0 and not neighbourhood.candidates()
            peer.may_answer.set()
            await asyncio.to_thread(wait_until, neighbourhood.candidates, "the peer has answered")
        finally:
            await neighbourhood.stop()


@pytest.mark.parametrize("bound", ["GREETING_SECONDS", "REFRESH_SECONDS"])
async def test_a_late_peer_is_waited_for_within_the_bound_and_no_longer(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(neighbourhood: Neighbourhood) -> None:
        await (neighbourhood.settle(None, 0.0) if bound == "GREETING_SECONDS" else neighbourhood.refresh())

    def answered(neighbourhood: Neighbourhood) -> bool:
        return any(neighbourhood.is_alive(peer) for peer in neighbourhood.candidates())

    with Late() as peer:
        neighbourhood = Neighbourhood("f" * 32, [])
        try:
            announce(neighbourhood, peer)
            monkeypatch.setattr(neighbourhood_module, bound, 0.1)
            began_at = time.monotonic()
            await look(neighbourhood)
            assert time.monotonic() - began_at < 8.0 and not answered(neighbourhood)
            monkeypatch.setattr(neighbourhood_module, bound, 8.0)
            asyncio.get_running_loop().call_later(0.3, peer.may_answer.set)
            await look(neighbourhood)
            assert answered(neighbourhood)
        finally:
            peer.may_answer.set()
            await neighbourhood.stop()


def test_only_the_first_gossiped_peers_are_read() -> None:
    told = tuple(f"10.0.{number}.1:9437" for number in range(MAX_GOSSIPED_PEERS + 1))
    assert PeersMessage.from_json({"addresses": told[:-1]}).addresses == told[:-1]
    assert PeersMessage.from_json({"addresses": told}).addresses == told[:-1]
    table = PeerTable("own")
    for number, text in enumerate(told):
        table.answered(Address.parse(text), NodeMessage(f"n{number}", "", "1", PROTOCOL_VERSION, 1), number)
    assert len(table.alive_addresses(len(told))) == MAX_GOSSIPED_PEERS - 5, "those that are alive"
    assert len(table.alive_addresses(50)) == MAX_GOSSIPED_PEERS


def test_of_the_addresses_of_a_peer_the_first_are_kept() -> None:
    hosts = [f"10.0.0.{last}" for last in range(1, MAX_ADDRESSES + 3)]
    addresses = [Address(host, 9437) for host in hosts]
    for count, kept in ((MAX_ADDRESSES, MAX_ADDRESSES), (MAX_ADDRESSES + 2, MAX_ADDRESSES)):
        peer = PeerTable("own").announced("n", addresses[:count], 0)
        assert isinstance(peer, Peer) and peer.addresses == tuple(addresses[:kept])
        assert len(LanInterfaces((), (), ()).nearest_first(hosts[:count], 9437)) == kept


async def test_pieces_are_as_many_as_their_bits_whatever_the_map_says() -> None:
    odd = {
        "size_bytes": (1 << 63) - 1,
        "piece_size_bytes": 0,
        "version": 0,
        "bitfield": base64.b64encode(b"\1").decode(),
    }
    with Saying() as peer:
        peer.body = json.dumps(odd).encode()
        async with asking(peer) as client:
            pieces = await client.pieces(DIGEST)
            assert pieces is not None and pieces.has(0) and not pieces.has(1) and not pieces.has(1 << 60)


def test_so_many_peers_are_known_and_no_more() -> None:
    table = PeerTable("own")
    for number in range(MAX_PEERS):
        assert table.announced(f"n{number}", [Address(f"10.0.{number // 250}.{number % 250 + 1}", 9437)], 0) is not None
    assert table.announced("one more", [Address("10.9.9.9", 9437)], 0) is None
    assert len(table) == MAX_PEERS
    table.left("n0", 1)
    assert table.announced("one more", [Address("10.9.9.9", 9437)], 2) is not None, "one that is gone gives way"
    assert len(table) == MAX_PEERS and table.get("n0") is None
