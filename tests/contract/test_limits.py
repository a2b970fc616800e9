"""Limits over real connections: as fast as was set, shared by all, ended at once, and nothing where none is set."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from fakes.doors import OpenDoor, eventually, open_door, wire
from fakes.node import MemoryNode
from hfpeer.names import Digest
from hfpeer.net.address import Address
from hfpeer.net.body import Body, SourceFault
from hfpeer.net.limiter import LimitedBody, Limiter, limited, make_limiter
from hfpeer.net.rates import Schedule, parse_schedule
from hfpeer.peers.protocol.paths import blob_path
from hfpeer.peers.ranges.range_client import RangeClient, SocketBody
from hfpeer_daemon.app import lan_app
from hfpeer_daemon.http.copying import copy_to_socket
from hfpeer_daemon.http.responses import App, Receive, Scope, Send
from hfpeer_daemon.http.zero_copy import EXTENSION, Times
from hfpeer_daemon.lan.upload_slots import UploadSlots

SIZE_BYTES = 20_000_000
RATE = 20e6
TOLERANCE = 0.1
BUSY_RATIO = 3.0
"""A busy machine may take this many times as long as the limit says, in the best of some tries."""
TRIES = 5
CONTENT = os.urandom(1_000_000) * 20


class Blobs:
    """A node with one large blob and some small ones."""

    def __init__(self, folder: Path) -> None:
        self.node = MemoryNode()
        self.large = self._put(folder / "large", CONTENT)
        self.small = [self._put(folder / f"small-{n}", os.urandom(250_000)) for n in range(16)]

    def _put(self, path: Path, content: bytes) -> Digest:
        path.write_bytes(content)
        return self.node.put(path)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


@asynccontextmanager
async def door_of(
    blobs: Blobs,
    limiter: Limiter | None = None,
    line: UploadSlots | None = None,
    *,
    zero_copy: bool = True,
    stall_seconds: float = 30.0,
    grace_seconds: int = 1,
) -> AsyncIterator[OpenDoor]:
    stopping = asyncio.Event()

    def make_app(threads: ThreadPoolExecutor) -> App:
        app = lan_app(blobs.node, threads, line or UploadSlots(), stopping, limiter)
        return app if zero_copy else without_zero_copy(app)

    times = Times(stall_seconds=stall_seconds)
    async with open_door(make_app, threads=8, times=times, grace_seconds=grace_seconds) as door:
        yield door


def without_zero_copy(app: App) -> App:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"].pop(EXTENSION)
        await app(scope, receive, send)

    return plain


def read_all(body: Body, size_bytes: int) -> bytes:
    buffer, got = bytearray(size_bytes), 0
    while size := body.readinto(memoryview(buffer)[got : got + 2**20]):
        got += size
    body.close()
    return bytes(buffer[:got])


def fetch(address: Address, digest: Digest, start: int, stop: int, limiter: Limiter | None = None) -> bytes:
    client = RangeClient(address, f"node-{start}", limiter=limiter)
    try:
        return read_all(client.open_range(digest, start, stop), stop - start)
    finally:
        client.close()


async def seconds_for(*works: Callable[[], object]) -> float:
    """How long it takes to do all of them at once, each in a thread."""
    began_at = time.monotonic()
    await asyncio.gather(*map(asyncio.to_thread, works))
    return time.monotonic() - began_at


async def assert_takes(expected_seconds: float, measure: Callable[[], Awaitable[float]]) -> None:
    """What is measured never takes less, and in one of some tries not much more, as a busy machine makes it longer."""
    seconds: list[float] = []
    for _ in range(TRIES):
        seconds.append(await measure())
        assert seconds[-1] > (1 - TOLERANCE) * expected_seconds
        if seconds[-1] < BUSY_RATIO * expected_seconds:
            return
    pytest.fail(f"it took {min(seconds):.2f} s, not {expected_seconds:.2f} s")


def limiter_of(rate: float) -> Limiter:
    return Limiter(Schedule(default=rate))


@pytest.mark.timed
@pytest.mark.parametrize("zero_copy", [True, False])
async def test_an_upload_takes_as_long_as_its_limit_says(blobs: Blobs, zero_copy: bool) -> None:
    async def measure() -> float:
        found: list[bytes] = []
        async with door_of(blobs, limiter_of(RATE), zero_copy=zero_copy) as door:
            seconds = await seconds_for(lambda: found.append(fetch(door.address, blobs.large, 0, SIZE_BYTES)))
        assert found == [CONTENT]
        return seconds

    await assert_takes(SIZE_BYTES / RATE, measure)


@pytest.mark.timed
async def test_two_uploads_share_the_limit(blobs: Blobs) -> None:
    half = SIZE_BYTES // 2

    async def measure() -> float:
        async with door_of(blobs, limiter_of(RATE)) as door:
            return await seconds_for(
                lambda: fetch(door.address, blobs.large, 0, half),
                lambda: fetch(door.address, blobs.large, half, SIZE_BYTES),
            )

    await assert_takes(SIZE_BYTES / RATE, measure)


@pytest.mark.timed
async def test_batches_keep_to_the_limit_too(blobs: Blobs) -> None:
    async def measure() -> float:
        found: list[tuple[Digest, bytes | None]] = []
        async with door_of(blobs, limiter_of(4e6)) as door:
            client = RangeClient(door.address, "me")
            seconds = await seconds_for(lambda: found.extend(client.open_batch(blobs.small)))
            client.close()
        assert [len(data or b"") for _, data in found] == [250_000] * 16
        return seconds

    await assert_takes(1.0, measure)


@pytest.mark.timed
async def test_downloads_of_ranges_and_batches_share_their_limit(blobs: Blobs) -> None:
    async def measure() -> float:
        limiter = limiter_of(RATE)
        async with door_of(blobs) as door:
            client = RangeClient(door.address, "me", limiter=limiter)
            seconds = await seconds_for(
                lambda: fetch(door.address, blobs.large, 0, SIZE_BYTES - 4_000_000, limiter),
                lambda: list(client.open_batch(blobs.small)),
            )
            client.close()
        return seconds

    await assert_takes(SIZE_BYTES / RATE, measure)


def test_an_upload_whose_client_is_slow_takes_no_more_of_the_limit_than_it_sends(tmp_path: Path) -> None:
    class Counted(Limiter):
        taken_bytes = 0

        def reserve(self, size_bytes: int) -> float:
            self.taken_bytes += size_bytes
            return super().reserve(size_bytes)

        def give_back(self, size_bytes: int) -> None:
            self.taken_bytes -= size_bytes
            super().give_back(size_bytes)

    path = tmp_path / "blob"
    path.write_bytes(CONTENT[:4_000_000])
    limiter = Counted(Schedule(default=400e6))
    client, server = socket.socketpair()
    with client, server, path.open("rb") as file:
        server.setblocking(False)
        sending = threading.Thread(target=copy_to_socket, args=(server, file.fileno(), 0, 4_000_000, 10.0, limiter))
        sending.start()
        got = 0
        while got < 4_000_000:
            got += len(client.recv(50_000))
        sending.join()
    assert limiter.taken_bytes == 4_000_000


async def test_a_limit_that_does_not_hold_at_this_hour_slows_nothing(blobs: Blobs) -> None:
    evening = Limiter(parse_schedule("08:00-18:00=1mbit,none"), minute=lambda: 20 * 60)
    async with door_of(blobs, evening) as door:
        assert await seconds_for(lambda: fetch(door.address, blobs.large, 0, SIZE_BYTES, evening)) < 20.0


@pytest.mark.timed
async def test_a_limit_begins_in_the_middle_of_a_download(blobs: Blobs) -> None:
    async def measure() -> float:
        """How many times as long as the limit says the rest takes."""
        now = [20 * 60]
        limiter = Limiter(parse_schedule("21:00-22:00=80mbit,none"), minute=lambda: now[0])
        async with door_of(blobs) as door:
            client = RangeClient(door.address, "me", limiter=limiter)
            body = await asyncio.to_thread(client.open_range, blobs.large, 0, SIZE_BYTES)
            view = memoryview(bytearray(2**20))
            got = 0
            while got < SIZE_BYTES // 2:
                got += await asyncio.to_thread(body.readinto, view)
            now[0] = 21 * 60
            seconds = await seconds_for(lambda: read_all(body, SIZE_BYTES))
            client.close()
        return seconds / ((SIZE_BYTES - got) / 10e6)

    await assert_takes(1.0, measure)


def test_abort_wakes_a_download_that_waits_for_its_turn() -> None:
    class Endless:
        is_aborted = False

        def readinto(self, view: memoryview) -> int:
            return len(view)

        def pass_over(self, view: memoryview) -> int:
            return 0

        def close(self) -> None: ...

        def abort(self) -> None:
            self.is_aborted = True

    inner, limiter = Endless(), limiter_of(10_000.0)
    body = limited(inner, limiter)
    limiter.reserve(10_000_000)  # by somebody else: the next turn is in a quarter of an hour
    timer = threading.Timer(0.05, body.abort)
    timer.start()
    began_at = time.monotonic()
    with pytest.raises(SourceFault, match="aborted"):
        body.readinto(memoryview(bytearray(100)))
    timer.join()
    assert time.monotonic() - began_at < 60.0
    assert inner.is_aborted


async def test_the_end_of_the_daemon_wakes_an_upload_that_waits_for_its_turn(blobs: Blobs) -> None:
    limiter = limiter_of(10_000.0)
    async with door_of(blobs, limiter, grace_seconds=0) as door, wire(door.address) as connection:
        await connection.say(blob_path(blobs.large))
        await connection.head()
        limiter.reserve(10_000_000)
        began_at = time.monotonic()
        door.close()
        await connection.rest()
        assert await door.threads_are_free()
        assert time.monotonic() - began_at < 60.0


async def test_without_a_limit_nothing_stands_in_the_way(blobs: Blobs) -> None:
    assert make_limiter(parse_schedule("none")) is None
    assert make_limiter(parse_schedule("08:00-18:00=none")) is None
    async with door_of(blobs) as door:
        plain, paced = RangeClient(door.address, "me"), RangeClient(door.address, "me", limiter=limiter_of(RATE))
        bodies = [await asyncio.to_thread(client.open_range, blobs.large, 0, 10) for client in (plain, paced)]
        assert [type(body) for body in bodies] == [SocketBody, LimitedBody]
        for body in bodies:
            body.close()
        plain.close()
        paced.close()


# Few connections, and no place for ever


async def test_one_peer_does_not_take_all_places(blobs: Blobs) -> None:
    line = UploadSlots(max_active=4, max_per_peer=2, max_wait_seconds=30.0)
    with ExitStack() as greedy:
        async with door_of(blobs, line=line, grace_seconds=0) as door:
            for _ in range(4):
                sock = greedy.enter_context(socket.create_connection((door.address.host, door.address.port)))
                request = f"GET {blob_path(blobs.large)} HTTP/1.1\r\nHost: x\r\nHfpeer-Node: greedy\r\n\r\n"
                sock.sendall(request.encode())
            await eventually(lambda: (line.active, line.waiting) == (2, 2))
            async with wire(door.address) as fifth:
                assert (await fifth.ask(blob_path(blobs.large), "Hfpeer-Node: greedy")).status == 503
            async with wire(door.address) as modest:
                answer = await modest.ask(blob_path(blobs.large), "Range: bytes=0-9", "Hfpeer-Node: modest")
                assert answer.body == CONTENT[:10]
            for _ in range(4):
                greedy.close()
    await eventually(lambda: line.active == 0)


async def test_a_place_comes_free_for_a_peer_that_has_too_many(blobs: Blobs) -> None:
    line = UploadSlots(max_active=4, max_per_peer=1, max_wait_seconds=30.0)
    async with door_of(blobs, line=line) as door, wire(door.address) as first, wire(door.address) as second:
        await first.say(blob_path(blobs.large))
        await first.head()
        await second.say(blob_path(blobs.large), "Range: bytes=0-9")
        await eventually(lambda: line.waiting == 1)
        assert await first.reader.readexactly(SIZE_BYTES) == CONTENT
        assert (await second.answer()).body == CONTENT[:10]
    assert not line._uploads and not line._waiters, "nothing is remembered of who has gone"


async def test_who_takes_a_byte_now_and_then_does_not_keep_a_place(blobs: Blobs) -> None:
    line = UploadSlots()
    async with door_of(blobs, line=line, stall_seconds=0.5) as door:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            sock.connect((door.address.host, door.address.port))
            sock.setblocking(False)
            sock.sendall(f"GET {blob_path(blobs.large)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await eventually(lambda: line.active == 1)
            began_at = time.monotonic()
            while line.active and time.monotonic() - began_at < 30:
                await asyncio.sleep(0.05)
                try:
                    sock.recv(600)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    break
            await eventually(lambda: line.active == 0)
            assert await door.threads_are_free()


async def test_who_is_slow_but_takes_what_it_can_keeps_its_place(blobs: Blobs) -> None:
    line, size_bytes = UploadSlots(), 600_000
    async with door_of(blobs, line=line, stall_seconds=1.5) as door:
        slow = limiter_of(200_000.0)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((door.address.host, door.address.port))
            head = f"GET {blob_path(blobs.large)} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-{size_bytes - 1}\r\n\r\n"
            await asyncio.to_thread(sock.sendall, head.encode())

            def drain() -> int:
                got = 0
                while got < size_bytes:
                    time.sleep(slow.reserve(4000))
                    chunk = sock.recv(4000)
                    if not chunk:
                        break
                    got += len(chunk)
                return got

            assert await asyncio.to_thread(drain) >= size_bytes
