"""What a stranger can make a door hold, read and wait for, over real connections."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from fakes.doors import OpenDoor, Wire, eventually, open_door, wire
from fakes.node import MemoryNode
from hfpeer.budgets import (
    CONTROL_STALL_SECONDS,
    MAX_BODY_BYTES,
    MAX_GUEST_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_HELD_BYTES,
    MAX_LFS_OBJECTS,
    MAX_PIPELINED_REQUESTS,
    MIB,
    STALL_SECONDS,
)
from hfpeer.errors import HfpeerError, InvalidName, Unreachable
from hfpeer.net import networks
from hfpeer.net.networks import AllowedNetworks
from hfpeer_daemon.app import lan_app
from hfpeer_daemon.endpoint.git.lfs import lfs_request
from hfpeer_daemon.endpoint.requests.held_bodies import HeldBytes
from hfpeer_daemon.endpoint.requests.request import HubRequest, read_json
from hfpeer_daemon.http import acceptor as accepting
from hfpeer_daemon.http import copying
from hfpeer_daemon.http.acceptor import OwnNetworks
from hfpeer_daemon.http.connections import ConnectionLimits, Connections, DoorBudgets
from hfpeer_daemon.http.listeners import listen_unix
from hfpeer_daemon.http.problems import send_problem, with_problems
from hfpeer_daemon.http.responses import App, Receive, Scope, Send, until_gone
from hfpeer_daemon.http.zero_copy import EXTENSION, SendBroken, Times
from hfpeer_daemon.lan.upload_slots import UploadSlots

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Listener:
    """An app that reads all of each request before it answers; it keeps the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.ended = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        try:
            while (message := await receive())["type"] == "http.request" and message["more_body"]:
                pass
            await answer(send, b"ok")
        finally:
            self.ended += 1


async def answer(send: Send, body: bytes, *, is_last: bool = True) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})


@asynccontextmanager
async def door_to(app: App, **settings: Any) -> AsyncIterator[OpenDoor]:
    async with open_door(lambda _threads: app, **settings) as door:
        yield door


async def pour(connection: Wire, portion: bytes, limits: int = 4 * MIB) -> int:
    """Sends the portion again and again until the door ends the connection; how much could be sent."""
    sent = 0
    try:
        while sent < limits:
            connection.writer.write(portion)
            await asyncio.wait_for(connection.writer.drain(), 20.0)
            sent += len(portion)
            await asyncio.sleep(0)
    except ConnectionError:
        return sent
    return sent


# One request


@pytest.mark.parametrize(
    ("beginning", "portion"),
    [
        pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n", b"X-Trailer: " + b"a" * 500 + b"\r\n", id="trailers"),
        pytest.param(CHUNKED + b"0\r\nX-Trailer: ", b"a" * 500, id="one endless trailer"),
        pytest.param(CHUNKED + b"5;", b"a" * 500, id="a chunk's extension"),
        pytest.param(CHUNKED, b"1\r\nx\r\n" * 100, id="chunks of one byte"),
        pytest.param(CHUNKED, b"1;a=" + b"b" * 90 + b"\r\nx\r\n", id="an extension for each byte"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * 500, id="one endless header"),
        pytest.param(b"GET /", b"a" * 500, id="an endless address"),
        pytest.param(b"", b"\r\n" * 250, id="empty lines"),
        pytest.param(CHUNKED, b"0" * 500, id="a size without end"),
    ],
)
async def test_what_is_not_body_ends(beginning: bytes, portion: bytes) -> None:
    app = Listener()
    async with door_to(app) as door, wire(door.address) as connection:
        connection.writer.write(beginning)
        assert await pour(connection, portion) < 4 * MIB
        await eventually(lambda: app.ended == len(app.scopes))
    assert all(len(scope["headers"]) <= 3 for scope in app.scopes)


async def test_head_and_trailers_within_the_bound_are_taken() -> None:
    long_line = b"X-Long: " + b"a" * (MAX_HEAD_BYTES // 2 - 200) + b"\r\n"
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + long_line + b"\r\n"
    async with door_to(Listener()) as door, wire(door.address) as connection:
        for _ in range(3):
            connection.writer.write(head + b"5;extension\r\nhello\r\n0\r\n" + long_line + b"\r\n")
            assert (await connection.answer()).body == b"ok"


async def test_a_body_in_usual_chunks_is_taken_whole() -> None:
    app = Listener()
    async with door_to(app) as door, wire(door.address) as connection:
        connection.writer.write(CHUNKED)
        for _ in range(200):
            connection.writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            await connection.writer.drain()
        connection.writer.write(b"0\r\n\r\n")
        assert (await connection.answer()).body == b"ok"


@pytest.mark.parametrize(("count", "status"), [(MAX_HEADERS, 200), (MAX_HEADERS + 1, 431)])
async def test_headers_are_counted(count: int, status: int) -> None:
    lines = [f"X-{number}: y" for number in range(count - 1)]
    async with door_to(Listener()) as door, wire(door.address) as connection:
        assert (await connection.ask("/", *lines)).status == status


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_a_get_with_a_body_is_refused(line: str) -> None:
    app = Listener()
    async with door_to(app) as door, wire(door.address) as connection:
        assert (await connection.ask("/", line)).status == 400
        assert await connection.rest() == b""
    assert not app.scopes


async def test_requests_that_wait_for_an_answer_are_counted() -> None:
    app = Listener()
    async with door_to(app) as door, wire(door.address) as few, wire(door.address) as many:
        few.writer.write(REQUEST * (MAX_PIPELINED_REQUESTS + 1))
        for _ in range(MAX_PIPELINED_REQUESTS + 1):
            assert (await few.answer()).status == 200
        many.writer.write(REQUEST * 5000)
        await many.rest()
    assert len(app.scopes) <= 2 * (MAX_PIPELINED_REQUESTS + 1)


@pytest.mark.timed
@pytest.mark.parametrize(
    ("name", "beginning", "portion", "end"),
    [
        ("Range", "bytes=", " ", "x"),
        ("Range", "bytes", " ", "x"),
        ("Range", "bytes=0", " ", "x"),
        ("Range", "bytes=", "9", "x"),
        ("Range", "bytes=", "0-1,", ""),
        ("Range", "bytes=", "-", ""),
        ("If-Range", "", '"', ""),
        ("If-None-Match", "", 'W/"', ""),
        ("If-None-Match", "", '"a",', ""),
        ("If-None-Match", "", "W/", ""),
        ("Prefer", "", ", ", "wait=1"),
        ("Prefer", "wait=1", " ", "x"),
        ("Prefer", ",", " ", "x"),
        ("Hfpeer-Node", "", "a", ""),
    ],
)
async def test_a_long_header_costs_no_more_than_its_bytes(
    tmp_path: Path, name: str, beginning: str, portion: str, end: str
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    node = MemoryNode()
    digest = node.put(tmp_path / "file")
    value = beginning + portion * (60_000 // len(portion)) + end
    app = partial(lan_app, node, slots=UploadSlots(), stopping=asyncio.Event())
    async with open_door(lambda threads: app(threads=threads)) as door, wire(door.address) as connection:
        before = time.process_time()
        answer = await connection.ask(f"/blobs/{digest}", f"{name}: {value}", "Range: bytes=0-3")
        assert answer.status in (200, 206)
        assert time.process_time() - before < 5.0


# What stands still


async def test_a_connection_without_a_byte_ends_sooner_than_a_slow_head() -> None:
    times = Times(first_byte_seconds=0.1, head_seconds=0.6)
    async with door_to(Listener(), times=times) as door, wire(door.address) as silent, wire(door.address) as slow:
        slow.writer.write(b"GET /")
        assert await silent.rest() == b""
        slow.writer.write(b" HTTP/1.1\r\n\r\n")
        assert (await slow.answer()).status == 200


@pytest.mark.parametrize("extra", [b"", b"hello"])
async def test_a_body_that_does_not_come_ends_the_connection(extra: bytes) -> None:
    app = Listener()
    async with door_to(app, times=Times(body_seconds=0.1)) as door, wire(door.address) as connection:
        connection.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + extra)
        await connection.rest()
        await eventually(lambda: app.ended == 1)


async def test_a_body_that_comes_steadily_is_waited_for() -> None:
    async with door_to(Listener(), times=Times(body_seconds=0.2)) as door, wire(door.address) as connection:
        connection.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 163840\r\n\r\n")
        for _ in range(10):
            connection.writer.write(bytes(16384))
            await connection.writer.drain()
            await asyncio.sleep(0.08)
        assert (await connection.answer()).status == 200


async def test_a_body_that_nobody_wants_is_not_read_for_ever() -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no")

    async with door_to(refuses, times=Times(head_seconds=0.2)) as door, wire(door.address) as connection:
        connection.writer.write(CHUNKED)
        assert (await connection.answer()).body == b"no"
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                connection.writer.write(b"400\r\n" + bytes(0x400) + b"\r\n")
                await connection.writer.drain()
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("extra", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("size_bytes", [20 * MIB, 6 * MIB])
async def test_who_reads_nothing_loses_the_connection(size_bytes: int, extra: bytes) -> None:
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for last in range(4):
                await send({"type": "http.response.body", "body": bytes(size_bytes // 4), "more_body": last < 3})
        finally:
            ended.set()

    async with door_to(app, times=Times(stall_seconds=0.2), limits=[ConnectionLimits(1, 1, 1)]) as door:
        with socket.create_connection((door.address.host, door.address.port)) as sock:
            sock.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\n" + extra + b"\r\n"))
            await asyncio.wait_for(ended.wait(), 20.0)
            await eventually(lambda: door.connections() == 0)


async def test_who_reads_slowly_but_steadily_gets_all() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(8 * MIB))

    async with door_to(app, times=Times(stall_seconds=0.3)) as door:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (door.address.host, door.address.port))
            await loop.sock_sendall(sock, REQUEST)
            got = 0
            for _ in range(12):
                got += len(await loop.sock_recv(sock, 128 * 1024))
                await asyncio.sleep(0.1)
            while got < 8 * MIB:
                got += len(chunk := await loop.sock_recv(sock, MIB))
                assert chunk


async def test_who_goes_before_the_answer_is_no_failure(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    broken: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive)
        with file.open("rb") as opened:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
                await send({"type": EXTENSION, "file": opened.fileno(), "offset": 0, "count": 7})
            except SendBroken as error:
                broken.append(error)

    async with door_to(app) as door:
        async with wire(door.address) as connection:
            await connection.say("/")
        await eventually(lambda: len(broken) == 1)


class Silent:
    """Callers that ask for much and read nothing, each from a host of its own or several from one."""

    def __init__(self, door: OpenDoor, target: str) -> None:
        self._door = door
        self._request = f"GET {target} HTTP/1.1\r\nHost: x\r\n"
        self._opened = ExitStack()

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def ask(self, host: int) -> socket.socket:
        silent = self._opened.enter_context(socket.socket())
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.bind((f"127.1.0.{host}", 0))
        silent.connect((self._door.address.host, self._door.address.port))
        silent.sendall(f"{self._request}Hfpeer-Node: {host}\r\n\r\n".encode())
        return silent


async def much(node: MemoryNode, folder: Path, what: str) -> tuple[str, str]:
    """What silent readers ask, and what another asks of the same kind."""
    if what == "a blob":
        (folder / "large").write_bytes(os.urandom(20 * MIB))
        return (f"/blobs/{node.put(folder / 'large')}",) * 2
    digests = []
    for number in range(40):
        (folder / str(number)).write_bytes(os.urandom(250_000))
        digests.append(node.put(folder / str(number)))
    return f"/batch?digests={','.join(map(str, digests))}", f"/batch?digests={digests[0]}"


@pytest.mark.parametrize(("what", "places"), [("a blob", 32), ("a batch", 4)])
async def test_silent_readers_give_way_to_who_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, places: int
) -> None:
    """Each from a host of its own, so that none holds more than its part."""
    monkeypatch.setattr(copying, "UPLOAD_STALL_SECONDS", 0.3)
    monkeypatch.setattr(copying, "LOOK_SECONDS", 0.1)
    node, stopping, line = MemoryNode(), asyncio.Event(), UploadSlots()
    asked, other = await much(node, tmp_path, what)
    async with open_door(lambda threads: lan_app(node, threads, line, stopping), threads=places + 4) as door:
        with Silent(door, asked) as silent:
            for host in range(2, 2 + places):
                silent.ask(host)
            await eventually(lambda: what == "a batch" or line.active == places)
            await asyncio.sleep(0.4)
            async with wire(door.address) as one:
                await one.say(other, "Hfpeer-Node: other")
                assert (await one.head()).status == 200
        await eventually(lambda: line.active == 0)
        assert await door.threads_are_free()


async def test_silent_readers_are_left_alone_while_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(copying, "UPLOAD_STALL_SECONDS", 0.1)
    monkeypatch.setattr(copying, "LOOK_SECONDS", 0.05)
    node, stopping, line = MemoryNode(), asyncio.Event(), UploadSlots(4)
    asked, other = await much(node, tmp_path, "a blob")
    async with open_door(lambda threads: lan_app(node, threads, line, stopping), threads=8) as door:
        with Silent(door, asked) as silent:
            for host in range(2, 5):
                silent.ask(host)
            await eventually(lambda: line.active == 3)
            async with wire(door.address) as one:
                assert (await one.ask(other, "Range: bytes=0-9", "Hfpeer-Node: other")).status == 206
            await asyncio.sleep(0.5)
            assert line.active == 3


@pytest.mark.parametrize(("what", "places"), [("a blob", 32), ("a batch", 4)])
async def test_hosts_that_hold_all_places_share_them_with_a_new_one(tmp_path: Path, what: str, places: int) -> None:
    """Also with readers that are slow enough to hold them for ever, and that come again at once."""
    node, stopping = MemoryNode(), asyncio.Event()
    asked, other = await much(node, tmp_path, what)
    hosts = range(2, 6) if what == "a blob" else range(2, 4)
    per_peer = places // len(hosts)
    line = UploadSlots(places, max_wait_seconds=15.0, max_per_peer=per_peer, share_seconds=0.2)
    async with open_door(
        lambda threads: lan_app(node, threads, line, stopping, batches=line), threads=places + 4
    ) as door:
        with Silent(door, asked) as silent:
            for host in hosts:
                for _ in range(2 * per_peer):
                    silent.ask(host)
            await eventually(lambda: (line.active, line.waiting) == (places, places))
            for _ in range(3):
                async with wire(door.address) as one:
                    await one.say(other, "Hfpeer-Node: other")
                    assert (await one.head()).status == 200
                assert line.active >= places - 1, "nobody else has lost a place"
        await eventually(lambda: line.active == 0)
        assert await door.threads_are_free()


# Bodies in memory


class Reader:
    """An app that holds the bodies it reads until it is told to answer."""

    def __init__(self, held: HeldBytes, seconds: float = 30.0) -> None:
        self.held = held
        self.may_answer = asyncio.Event()
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = HubRequest(scope, receive, send, self.held)
        try:
            await asked.body(self._seconds)
            await self.may_answer.wait()
            await answer(send, b"ok")
        except HfpeerError as error:
            await send_problem(send, error)
        finally:
            asked.held.free()


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
ANNOUNCED, IN_CHUNKS = POST + b"Content-Length: 200000\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "held_bytes", "refusals"),
    [(ANNOUNCED, 200_000, 5), (IN_CHUNKS + b"186a0\r\n", 200_000, 4)],
    ids=["announced", "in chunks"],
)
async def test_bodies_in_memory_have_one_budget(request_: bytes, held_bytes: int, refusals: int) -> None:
    app = Reader(HeldBytes(most_bytes=250_000))
    async with door_to(app) as door, AsyncExitStack() as opened:
        wires = [await opened.enter_async_context(wire(door.address)) for _ in range(6)]
        for one in wires:
            one.writer.write(request_ + bytes(100_000))
        refused = [asyncio.ensure_future(one.head()) for one in wires]
        await eventually(lambda: sum(map(asyncio.Future.done, refused)) == refusals)
        await eventually(lambda: app.held.size_bytes == held_bytes)
        answers = [await found for found in refused if found.done()]
        assert [(one.status, one.headers["retry-after"]) for one in answers] == [(503, "2")] * refusals
        for found in refused:
            found.cancel()
    await eventually(lambda: app.held.size_bytes == 0)


@pytest.mark.parametrize(("host", "most_bytes"), [("127.0.0.1", MAX_BODY_BYTES), ("10.1.2.3", MAX_GUEST_BODY_BYTES)])
async def test_a_guest_may_send_less_than_a_local_caller(host: str, most_bytes: int) -> None:
    reader = Reader(HeldBytes())
    reader.may_answer.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reader({**scope, "client": (host, 1)}, receive, send)

    async with door_to(app) as door, wire(door.address) as within, wire(door.address) as beyond:
        within.writer.write(POST + b"Content-Length: %d\r\n\r\n" % most_bytes + bytes(most_bytes))
        assert (await within.answer()).status == 200
        beyond.writer.write(POST + b"Content-Length: %d\r\n\r\n" % (most_bytes + 1))
        assert (await beyond.head()).status == 400, "before a byte of it is sent"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory is read from /proc")
async def test_bodies_that_are_held_take_no_more_memory_than_their_budget_and_give_it_back() -> None:
    app = Reader(HeldBytes())
    before = resident_bytes()
    async with door_to(app) as door:
        for _ in range(2):
            async with AsyncExitStack() as opened:
                wires = [await opened.enter_async_context(wire(door.address)) for _ in range(40)]
                head = POST + b"Content-Length: 7000001\r\n\r\n"
                for one in wires:
                    one.writer.write(head)
                await eventually(lambda: app.held.size_bytes == MAX_HELD_BYTES // 7_000_001 * 7_000_001)
                for one in wires:
                    with suppress(ConnectionError, asyncio.TimeoutError):
                        for _ in range(70):
                            one.writer.write(bytes(100_000))
                            await asyncio.wait_for(one.writer.drain(), 1)
                assert resident_bytes() - before < 1.4 * MAX_HELD_BYTES
            await eventually(lambda: app.held.size_bytes == 0 and door.connections() == 0)
    assert resident_bytes() - before < MAX_HELD_BYTES / 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"objects":[' + b"{}," * 30_000 + b"{}]}",
        b"[" * 100_000,
        b'{"paths":[' + b'"",' * 30_000 + b'""]}',
        b"\xff\xfe",
        b"1" * 5000,
    ],
)
def test_a_document_that_would_swell_or_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidName):
        read_json(body)


@pytest.mark.parametrize(
    "odd",
    [
        *('{"oid":"OID","size":1e400}', '{"oid":"OID","size":"1_0"}', '{"oid":"OID","size":-1}'),
        *('{"oid":"OID","size":NaN}', '{"oid":"OID","size":true}', '{"oid":"OID","size":1.0}'),
        *('{"oid":["OID"],"size":1}', '{"oid":"../../x","size":1}', '{"oid":"OID"}', "[]", "null", '"OID"'),
        '{"oid":"OID","size":' + "9" * 30 + "}",
    ],
)
def test_a_batch_of_git_lfs_is_read_strictly(odd: str) -> None:
    with pytest.raises(InvalidName):
        lfs_request(('{"operation":"download","objects":[' + odd.replace("OID", "a" * 64) + "]}").encode())


@pytest.mark.parametrize("odd", ['"ref":[1]', '"ref":{"name":{"a":1}}', '"operation":1', '"objects":{"a":1}', '"x":1'])
def test_the_rest_of_such_a_batch_too(odd: str) -> None:
    with pytest.raises(InvalidName):
        lfs_request(("{" + odd + "}").encode())


def test_the_objects_of_such_a_batch_are_counted() -> None:
    named = [{"oid": f"{number:064x}", "size": number} for number in range(MAX_LFS_OBJECTS + 1)]
    document: dict[str, Any] = {"operation": "download", "objects": named[:-1]}
    assert len(lfs_request(json.dumps(document).encode())[2]) == MAX_LFS_OBJECTS
    with pytest.raises(InvalidName):
        lfs_request(json.dumps({**document, "objects": named}).encode())


async def test_a_body_has_a_time_for_all_of_it() -> None:
    app = Reader(HeldBytes(), seconds=0.2)
    async with door_to(app, times=Times(head_seconds=0.2)) as door, wire(door.address) as connection:
        connection.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000))
        assert (await connection.answer()).status == 400
        assert await connection.rest() == b"", "the rest of the body is not waited for"
    assert app.held.size_bytes == 0


async def test_a_body_larger_than_any_is_refused() -> None:
    async with door_to(Reader(HeldBytes())) as door, wire(door.address) as connection:
        connection.writer.write(CHUNKED)
        with suppress(ConnectionError):
            for _ in range(MAX_BODY_BYTES // 0x10000 + 1):
                connection.writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                await connection.writer.drain()
        assert (await connection.head()).status == 400


def test_guests_hold_less_than_local_callers() -> None:
    budget = HeldBytes(most_bytes=100, guests_bytes=50, guest_bytes=30)
    one, same, other, local = budget.of("a"), budget.of("a"), budget.of("b"), budget.of(None)
    one.add(20)
    for held, size_bytes in ((same, 11), (other, 31), (local, 81)):
        with pytest.raises(Unreachable):
            held.add(size_bytes)
    other.add(30)
    with pytest.raises(Unreachable):
        budget.of("c").add(1)
    local.add(50)
    for held in (one, same, other, local):
        held.free()
    assert budget.size_bytes == 0
    one.add(30)


async def test_what_is_made_for_a_caller_that_has_gone_ends(caplog: pytest.LogCaptureFixture) -> None:
    made = 0

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
            made += 1
            await asyncio.sleep(0.001)

    async def ask_all(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    async with door_to(with_problems(stream)) as door:
        async with wire(door.address) as connection:
            await connection.say("/")
            await connection.head()
        await eventually(lambda: door.connections() == 0)
        before = made
        await asyncio.sleep(0.05)
        assert made <= before + 1
    async with door_to(with_problems(ask_all)) as door, wire(door.address) as connection:
        await connection.say("/")
        await connection.head()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Many connections


@contextmanager
def connections(door: OpenDoor, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Connections from one address, each of which says nothing of its own."""
    with ExitStack() as opened:
        yield [opened.enter_context(connection(door, source)) for _ in range(count)]


def connection(door: OpenDoor, source: str) -> socket.socket:
    made = socket.create_connection((door.address.host, door.address.port), timeout=5, source_address=(source, 0))
    made.setblocking(False)
    return made


async def hears(sock: socket.socket) -> bytes:
    """What the door says first; b"" at its end."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1000), 20.0)
    except ConnectionError:
        return b""


async def ask(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, REQUEST)
    except ConnectionError:
        return b""
    return await hears(sock)


async def test_one_host_gets_no_more_than_its_part_and_others_get_in() -> None:
    async with door_to(Listener(), limits=[ConnectionLimits(8, 4, 8)]) as door:
        with connections(door, 4, "127.0.0.2") as first, connections(door, 1, "127.0.0.2") as over:
            await eventually(lambda: door.connections() == 4)
            assert b"503" in await hears(over[0])
            with connections(door, 1, "127.0.0.3") as other:
                assert b"200" in await ask(other[0])
            assert b"200" in await ask(first[0])


async def test_an_idle_connection_gives_way_to_a_new_one_of_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer_daemon.http.connections.SETTLED_SECONDS", 0.05)
    async with door_to(Listener(), limits=[ConnectionLimits(8, 2, 8)]) as door:
        with connections(door, 2) as kept:
            assert b"200" in await ask(kept[0])
            await eventually(lambda: door.connections() == 2)
            await asyncio.sleep(0.1)
            with connections(door, 1) as new:
                assert b"200" in await ask(new[0])
                assert await hears(kept[1]) == b"", "the one that never asked goes first"
                assert b"200" in await ask(kept[0])


async def test_a_full_door_lets_a_new_host_in_and_ends_one_of_the_host_that_holds_most() -> None:
    async with door_to(Listener(), limits=[ConnectionLimits(8, 6, 8)]) as door:
        with connections(door, 6, "127.0.0.2") as many, connections(door, 2, "127.0.0.3") as few:
            await eventually(lambda: door.connections() == 8)
            with connections(door, 1, "127.0.0.4") as new:
                assert b"200" in await ask(new[0])
                assert [b"200" in await ask(one) for one in few] == [True, True]
                assert [b"200" in await ask(one) for one in many].count(True) == 5


async def test_hosts_that_keep_all_busy_do_not_keep_a_new_one_out() -> None:
    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope["headers"]).get(b"x-wait"):
            await until_gone(receive)
        else:
            await answer(send, b"ok")

    async with door_to(waits, limits=[ConnectionLimits(16, 8, 16)]) as door:
        with connections(door, 8, "127.0.0.2") as one, connections(door, 8, "127.0.0.3") as two:
            for sock in one + two:
                sock.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nX-Wait: 1\r\n\r\n"))
            await eventually(lambda: door.connections() == 16)
            await asyncio.sleep(0.05)
            with connections(door, 1, "127.0.0.4") as new:
                assert b"200" in await ask(new[0])


async def test_a_caller_outside_the_allowed_networks_is_refused_before_a_byte_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(networks, "PRIVATE", ())
    monkeypatch.setattr(OwnNetworks, "known", lambda self: ())
    app = Listener()
    async with door_to(app, allowed=AllowedNetworks.parse("127.0.0.2/32")) as door:
        with connections(door, 1, "127.0.0.3") as elsewhere, connections(door, 1, "127.0.0.2") as allowed:
            assert await ask(elsewhere[0]) == b""
            assert b"200" in await ask(allowed[0])
    assert len(app.scopes) == 1


def test_this_machines_own_networks_are_known() -> None:
    assert any(str(network).startswith("127.") for network in OwnNetworks().known())


async def test_a_process_without_descriptors_says_so_once_and_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.05)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with door_to(Listener()) as door:
        with connections(door, 30) as opened:
            # They wait in the backlog until the loop runs.
            resource.setrlimit(resource.RLIMIT_NOFILE, (opened[-1].fileno() + 1, before[1]))
            taken: list[int] = []
            try:
                with suppress(OSError):
                    while True:
                        taken.append(os.dup(opened[0].fileno()))
                with caplog.at_level(logging.DEBUG):
                    await asyncio.sleep(0.5)
                lines = [record for record in caplog.records if "accept" in record.getMessage()]
                assert len(lines) == 1
                assert len(caplog.records) < 5
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                for number in taken:
                    os.close(number)
            await eventually(lambda: door.connections() >= 25)
            assert b"200" in await ask(opened[-1])


@pytest.mark.parametrize("max_files", [256, 1024, 4096, 65536])
def test_connections_leave_room_for_files(max_files: int) -> None:
    budgets = DoorBudgets.of(max_files)
    doors = (budgets.lan, budgets.lan_local, budgets.local, budgets.guests, budgets.control)
    assert sum(limits.all for limits in doors) <= max_files * 3 // 4
    for limits in (budgets.lan, budgets.guests):
        assert 2 <= limits.host <= limits.all // 4
        assert limits.prefix <= limits.all // 2
    assert max_files < 65536 or budgets.lan.all == 512


async def test_who_asks_and_leaves_in_one_go_is_not_answered_where_many_ask() -> None:
    began, count = 0, 500

    async def takes_time(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal began
        began += 1
        await asyncio.sleep(0.3)
        await answer(send, b"ok")

    async with door_to(takes_time) as door:
        for _ in range(count):  # they wait in the backlog until the loop runs
            with socket.create_connection((door.address.host, door.address.port)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(REQUEST)
        async with wire(door.address) as other:
            assert (await other.ask("/")).status == 200
        await eventually(lambda: door.connections() == 0)
    assert began < count / 2


@pytest.mark.parametrize("pools", ["host", "prefix"])
async def test_a_network_of_one_machine_gets_no_more_than_its_part(pools: str) -> None:
    """What a machine with all addresses of an IPv6 /64 can have, and what one address can."""
    limits = DoorBudgets.of(65536).lan
    held = Connections(limits)
    count = limits.prefix if pools == "prefix" else limits.host
    for number in range(count):
        host = f"2001:db8::{number:x}" if pools == "prefix" else "2001:db8::1"
        assert held.admit(host)
        held.add(host, Busy())
    assert not held.admit("2001:db8::ffff" if pools == "prefix" else "2001:db8::1")
    assert held.admit("2001:db8:0:1::1")


class Busy:
    """A connection on which something is answered."""

    idle_since = None
    has_received = True

    def abort(self) -> None:
        raise AssertionError("it is busy")


async def test_the_owners_command_may_be_stopped_for_longer_than_a_strangers(tmp_path: Path) -> None:
    """A stranger that reads nothing for STALL_SECONDS is left; at the control door CONTROL_STALL_SECONDS count."""
    assert STALL_SECONDS < CONTROL_STALL_SECONDS

    asked = asyncio.Event()

    async def much(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await answer(send, bytes(8 * MIB))

    for stall_seconds, is_left in ((0.2, True), (0.2 * CONTROL_STALL_SECONDS / STALL_SECONDS, False)):
        listener = listen_unix(tmp_path / f"own{stall_seconds:g}" / "control.sock")
        async with open_door(
            lambda _threads: much, listener=listener, times=Times(stall_seconds=stall_seconds)
        ) as door:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(listener.getsockname())
                sock.sendall(REQUEST)
                await asyncio.wait_for(asked.wait(), 20.0)
                asked.clear()
                if is_left:
                    await eventually(lambda: door.connections() == 0)
                else:
                    await asyncio.sleep(1.0)
                    assert door.connections() == 1
