"""Following a peer: what a real door tells arrives, and a peer that breaks the rules costs bounded time and memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast
from unittest import mock

import pytest

from fakes.doors import OpenDoor, eventually, open_door, wire
from fakes.node import MemoryNode
from hfpeer.errors import PeerUnreachable
from hfpeer.names import Digest
from hfpeer.net.address import Address
from hfpeer.net.http1_asyncio import Response
from hfpeer.peers.asking import address_client as client_module
from hfpeer.peers.asking.address_client import AddressClient
from hfpeer.peers.protocol.paths import follow_path
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import MIB, RangeSet
from hfpeer_daemon.app import lan_app
from hfpeer_daemon.lan.upload_slots import UploadSlots

DIGEST = Digest("sha256", "ab" * 32)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MAP = PieceMap(3 * MIB, MIB, 0, b"\1")
Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def line(message: PieceMap | PieceNews) -> bytes:
    return json.dumps(message.to_json()).encode() + b"\n"


@asynccontextmanager
async def asking(address: Address) -> AsyncIterator[AddressClient]:
    client = AddressClient(address, "own-node", connect_timeout_seconds=20.0, silence_timeout_seconds=20.0)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def peer_that(acts: Script) -> AsyncIterator[tuple[AddressClient, asyncio.Event]]:
    """A client of a peer that acts as told once it has been asked; the event says that the client has hung up."""
    has_hung_up = asyncio.Event()
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        acting: asyncio.Future[None] | None = None
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            acting = asyncio.ensure_future(acts(writer))
            while await reader.read(1024):
                pass
        except ConnectionError:
            pass
        finally:
            has_hung_up.set()
            if acting is not None:
                acting.cancel()
                await asyncio.gather(acting, return_exceptions=True)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        async with asking(Address(host, port)) as client:
            yield client, has_hung_up
    finally:
        server.close()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


def says(*parts: bytes, then_closes: bool = False, pause_seconds: float = 0.0) -> Script:
    async def act(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_seconds)
        if then_closes:
            writer.close()

    return act


def says_for_ever(start: bytes, part: bytes) -> Script:
    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(part)
            await writer.drain()

    return act


async def heard(client: AddressClient) -> list[PieceMap | PieceNews]:
    async with aclosing(client.follow(DIGEST)) as lines:
        return [line async for line in lines]


# ---- a real door


@asynccontextmanager
async def door_of(node: MemoryNode, stopping: asyncio.Event | None = None) -> AsyncIterator[OpenDoor]:
    async with open_door(lambda threads: lan_app(node, threads, UploadSlots(2), stopping or asyncio.Event())) as door:
        yield door


def waiting(node: MemoryNode) -> int:
    """How many followers of the node wait for news."""
    return sum(not getter.done() for getter in node.news._getters)  # type: ignore[attr-defined]


@pytest.fixture
def partial(tmp_path: Path) -> tuple[MemoryNode, Digest]:
    """A node that has the first of three pieces."""
    path = tmp_path / "blob"
    path.write_bytes(bytes(3 * MIB))
    node = MemoryNode()
    digest = node.put(path)
    node.partial[digest] = RangeSet([(0, MIB)])
    return node, digest


async def test_news_come_as_they_are_sent_until_the_peer_has_the_whole_blob(partial: tuple[MemoryNode, Digest]) -> None:
    node, digest = partial
    news = [PieceNews((1,), (2,), {1: "ab" * 16}), PieceNews((2,))]
    async with door_of(node) as door, asking(door.address) as client, aclosing(client.follow(digest)) as lines:
        first = await anext(lines)
        assert isinstance(first, PieceMap)
        assert [first.has(piece) for piece in range(3)] == [True, False, False]
        node.news.put_nowait(news[0])
        assert await anext(lines) == news[0]
        del node.partial[digest]
        node.news.put_nowait(news[1])
        assert [line async for line in lines] == [news[1]]


async def test_a_whole_blob_has_one_piece_map_and_an_unknown_one_none(
    partial: tuple[MemoryNode, Digest],
) -> None:
    node, digest = partial
    del node.partial[digest]
    async with door_of(node) as door, asking(door.address) as client:
        (only,) = [line async for line in client.follow(digest)]
        assert isinstance(only, PieceMap)
        assert only.bitfield is None
        assert await heard(client) == []


async def test_a_door_lets_go_of_followers_that_hang_up(partial: tuple[MemoryNode, Digest]) -> None:
    node, digest = partial
    async with door_of(node) as door, asking(door.address) as client:
        for _ in range(3):
            async with aclosing(client.follow(digest)) as lines:
                await anext(lines)
                await eventually(lambda: waiting(node) == 1)
            await eventually(lambda: waiting(node) == 0)


async def test_what_is_followed_comes_in_chunks_of_json_lines(partial: tuple[MemoryNode, Digest]) -> None:
    node, digest = partial
    async with door_of(node) as door, wire(door.address) as connection:
        await connection.say(follow_path(digest))
        answer = await connection.head()
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert answer.headers["transfer-encoding"] == "chunked"
        told = [await node.piece_map(digest), PieceNews((1,)), PieceNews((2,))]
        for message in told[1:]:
            assert isinstance(message, PieceNews)
            node.news.put_nowait(message)
        for message in told:
            assert message is not None
            raw = chunk(message.to_line())
            assert await asyncio.wait_for(connection.reader.readexactly(len(raw)), 20.0) == raw


async def test_head_says_whether_there_is_something_to_follow_and_ends(partial: tuple[MemoryNode, Digest]) -> None:
    node, digest = partial
    async with door_of(node) as door, wire(door.address) as connection:
        there = await connection.ask(follow_path(digest), method="HEAD")
        assert (there.status, there.headers["content-type"], there.body) == (200, "application/x-ndjson", b"")
        assert (await connection.ask(follow_path(DIGEST), method="HEAD")).status == 404
        refused = await connection.ask(follow_path(DIGEST))
        assert (refused.status, refused.headers["content-type"]) == (404, "application/problem+json")
        assert json.loads(refused.body)["facts"] == {"digest": str(DIGEST)}
        assert (await connection.ask("/blobs/nonsense/follow")).status == 400


class Talkative(MemoryNode):
    """Tells everybody the same for ever, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.told = 0
        self.has_ended = asyncio.Event()

    async def follow(
        self, digest: Digest, asked_by: str, until: asyncio.Event
    ) -> AsyncGenerator[PieceMap | PieceNews, None]:
        news = PieceNews(tuple(range(10_000)))
        try:
            yield MAP
            while not until.is_set():
                yield news
                self.told += 1
                await asyncio.sleep(0)
        finally:
            self.has_ended.set()


async def test_who_hangs_up_without_reading_is_let_go() -> None:
    node = Talkative()
    async with door_of(node) as door:
        async with wire(door.address) as connection:
            await connection.say(follow_path(DIGEST))
            await connection.head()
            seen = -1
            while seen != node.told:  # until nothing more goes out
                seen = node.told
                await asyncio.sleep(0.05)
            assert not node.has_ended.is_set()
        await asyncio.wait_for(node.has_ended.wait(), 20.0)


async def test_a_door_that_closes_ends_its_streams_properly() -> None:
    node, stopping = Talkative(), asyncio.Event()
    async with door_of(node, stopping) as door, wire(door.address) as connection:
        await connection.say(follow_path(DIGEST), "Connection: close")
        await connection.head()
        stopping.set()
        assert (await connection.rest()).endswith(b"\r\n0\r\n\r\n")
        assert node.has_ended.is_set()


async def test_an_end_that_nobody_foresaw_is_no_proper_one() -> None:
    class Failing(Talkative):
        async def follow(
            self, digest: Digest, asked_by: str, until: asyncio.Event
        ) -> AsyncGenerator[PieceMap | PieceNews, None]:
            yield MAP
            raise RuntimeError("a bug")

    async with door_of(Failing()) as door, asking(door.address) as client, aclosing(client.follow(DIGEST)) as lines:
        assert await anext(lines) == MAP
        with pytest.raises(PeerUnreachable, match="broke off"):
            await anext(lines)


# ---- peers that break the rules


BAD_ANSWERS = {
    "silence": (says(), "does not answer"),
    "a head that never ends": (says_for_ever(b"HTTP/1.1 200 OK\r\n", b"X-More: more\r\n"), "too many headers"),
    "a head line that never ends": (
        says_for_ever(b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 65536),
        "cannot be understood",
    ),
    "a head that trickles": (says(*[b"H"] * 40, pause_seconds=0.05), "does not answer"),
    "garbage": (says(b"\x16\x03\x01 what?\r\n\r\n"), "HTTP/1.1"),
    "nothing at all": (says(then_closes=True), "broke off"),
    "a head that breaks off": (says(b"HTTP/1.1 200 OK\r\nTransfer-", then_closes=True), "broke off"),
    "no chunks": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + line(MAP)), "chunked"),
    "status 500": (says(b"HTTP/1.1 500 Oops\r\n\r\n"), "status 500"),
    "a redirect": (says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), "status 302"),
}
BAD_BODIES = {
    "silence": (says(HEAD, chunk(line(MAP))), "does not answer"),
    "a break in a chunk": (says(HEAD, chunk(line(MAP)), b"40\r\n{", then_closes=True), "does not answer"),
    "a break between chunks": (says(HEAD, chunk(line(MAP)), then_closes=True), "broke off"),
    "a size that is none": (says(HEAD, chunk(line(MAP)), b"many\r\n"), "cannot be understood"),
    "a size with an underscore": (says(HEAD, chunk(line(MAP)), b"1_0\r\n"), "without its size"),
    "a size that never ends": (says_for_ever(HEAD + chunk(line(MAP)), b"0" * 65536), "without its size"),
    "a chunk that is longer than it says": (says(HEAD, chunk(line(MAP)), b"2\r\n{}}\r\n"), "wrong size"),
    "a line that trickles": (says(HEAD, chunk(line(MAP)), *[chunk(b" ")] * 40, pause_seconds=0.05), "was silent"),
    "a chunk that trickles": (says(HEAD, chunk(line(MAP)), b"40\r\n", *[b" "] * 40, pause_seconds=0.05), "was silent"),
    "a negative size": (says(HEAD, chunk(line(MAP)), b"-2\r\n"), "cannot be understood"),
    "a chunk that never ends": (says_for_ever(HEAD + chunk(line(MAP)) + b"fffffffff\r\n", b"x" * 65536), "more than"),
    "a line that never ends": (says_for_ever(HEAD + chunk(line(MAP)), chunk(b"x" * 65536)), "more than"),
    "no JSON": (says(HEAD, chunk(line(MAP)), chunk(b"{]\n")), "cannot be understood"),
    "too deep JSON": (says(HEAD, chunk(line(MAP)), chunk(b"[" * 100_000 + b"\n")), "cannot be understood"),
    "null": (says(HEAD, chunk(line(MAP)), chunk(b"null\n")), "cannot be understood"),
    "a number": (says(HEAD, chunk(line(MAP)), chunk(b"7\n")), "cannot be understood"),
    "a text": (says(HEAD, chunk(line(MAP)), chunk(b'"bitfield"\n')), "cannot be understood"),
    "no news": (says(HEAD, chunk(line(MAP)), chunk(b'{"added": [-1]}\n')), "cannot be understood"),
}


NO_WHOLE_LINE = ("silence", "a head that trickles", "a line that trickles", "a chunk that trickles")
"""These end only by the patience of who follows."""


def bear_silence(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Who follows a peer gives it up when it is silent for so long."""
    monkeypatch.setattr(client_module, "FOLLOW_SILENCE_SECONDS", seconds)


@pytest.mark.parametrize("what", BAD_ANSWERS)
async def test_a_peer_that_does_not_answer_as_it_should_is_given_up_soon(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bear_silence(monkeypatch, 0.3 if what in NO_WHOLE_LINE else 60.0)
    script, reason = BAD_ANSWERS[what]
    async with peer_that(script) as (client, has_hung_up):
        with pytest.raises(PeerUnreachable, match=reason):
            await asyncio.wait_for(heard(client), 20.0)
        await asyncio.wait_for(has_hung_up.wait(), 20.0)


@pytest.mark.parametrize("what", BAD_BODIES)
async def test_what_a_peer_said_before_it_broke_the_rules_counts(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bear_silence(monkeypatch, 1.0 if what in NO_WHOLE_LINE else 60.0)
    script, reason = BAD_BODIES[what]
    async with peer_that(script) as (client, has_hung_up):
        async with aclosing(client.follow(DIGEST)) as lines:
            assert await asyncio.wait_for(anext(lines), 20.0) == MAP
            with pytest.raises(PeerUnreachable, match=reason):
                await asyncio.wait_for(anext(lines), 20.0)
        await asyncio.wait_for(has_hung_up.wait(), 20.0)


async def test_a_peer_without_the_blob_has_nothing_to_tell() -> None:
    async with peer_that(says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")) as (client, has_hung_up):
        assert await asyncio.wait_for(heard(client), 20.0) == []
        await asyncio.wait_for(has_hung_up.wait(), 20.0)


async def test_lines_may_be_cut_anywhere_and_share_chunks() -> None:
    news = [PieceNews((0,), (1, 2), {0: "00" * 16}), PieceNews(), PieceNews((2, 1))]
    raw = line(MAP) + b"".join(map(line, news))
    parts = [chunk(raw[at : at + 7]) for at in range(0, len(raw), 7)]
    async with peer_that(says(HEAD, *parts, b"0\r\n\r\n")) as (client, _):
        assert await asyncio.wait_for(heard(client), 20.0) == [MAP, *news]


@pytest.mark.parametrize("portion_bytes", [1, 2, 3, 5, 64, 10_000])
async def test_lines_are_the_same_in_whatever_portions_they_come(portion_bytes: int) -> None:
    raw = b"".join(line(PieceNews((number,))) for number in range(40)) + b"\n" + b"x" * 500 + b"\n"
    body = b"".join(chunk(raw[at : at + 37]) for at in range(0, len(raw), 37))
    body = body.replace(b"25\r\n", b"00025 ; a=b\r\n", 1) + b"0\r\n\r\n"
    reader = asyncio.StreamReader()
    answer = Response(reader, cast(asyncio.StreamWriter, mock.Mock()), None)
    answer.headers["transfer-encoding"] = "chunked"

    async def read() -> list[bytes]:
        return [one async for one in answer.lines(1000)]

    reading = asyncio.ensure_future(read())
    for at in range(0, len(body), portion_bytes):
        reader.feed_data(body[at : at + portion_bytes])
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reading, 20.0) == raw.split(b"\n")[:-1]


async def test_who_says_something_now_and_then_is_followed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    bear_silence(monkeypatch, 2.0)
    news = [PieceNews((number,)) for number in range(8)]
    script = says(HEAD, chunk(line(MAP)), *(chunk(line(one)) for one in news), b"0\r\n\r\n", pause_seconds=0.3)
    async with peer_that(script) as (client, _):
        assert await asyncio.wait_for(heard(client), 20.0) == [MAP, *news]


async def test_who_stops_following_hangs_up_at_once() -> None:
    async with peer_that(says(HEAD, chunk(line(MAP)))) as (client, has_hung_up):
        async with aclosing(client.follow(DIGEST)) as lines:
            await anext(lines)
        await asyncio.wait_for(has_hung_up.wait(), 20.0)
