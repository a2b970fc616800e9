"""Doors of the daemon on loopback, inside the test's own event loop, and raw clients that break the rules."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hfpeer.control.ports import listen_tcp
from hfpeer.net.address import Address
from hfpeer.net.networks import AllowedNetworks
from hfpeer_daemon.http.connections import ConnectionLimits
from hfpeer_daemon.http.door import Door
from hfpeer_daemon.http.listeners import bound_address
from hfpeer_daemon.http.responses import App
from hfpeer_daemon.http.zero_copy import Times, zero_copy_protocol

PATIENCE_SECONDS = 30.0


@dataclass
class OpenDoor:
    """A door that answers; `threads` are those it sends in."""

    address: Address
    threads: ThreadPoolExecutor
    close: Callable[[], None]
    connections: Callable[[], int]
    """How many the door counts."""

    async def threads_are_free(self) -> bool:
        """Whether every sending thread comes back: each takes a job and gives it back."""
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self.threads, lambda: None) for _ in range(self.threads._max_workers)]
        await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE_SECONDS)
        return True


@asynccontextmanager
async def open_door(
    make_app: Callable[[ThreadPoolExecutor], App],
    *,
    listener: socket.socket | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    threads: int = 2,
    times: Times | None = None,
    limits: Sequence[ConnectionLimits] = (ConnectionLimits(512, 512, 512),),
    allowed: AllowedNetworks | None = None,
    grace_seconds: int = 1,
) -> AsyncIterator[OpenDoor]:
    """The app behind a real server on `listener`, else an ephemeral port; closed, with all its threads, at the end."""
    pool = ThreadPoolExecutor(threads)
    listener = listener or listen_tcp(Address("127.0.0.1", 0), "lan.listen")
    address = Address("127.0.0.1", 0) if listener.family == socket.AF_UNIX else bound_address(listener)
    protocol = zero_copy_protocol(pool, times or Times(30.0, 30.0, 30.0, 30.0))
    door = Door(make_app(pool), listener, protocol, headers, grace_seconds, limits=limits, allowed=allowed)
    serving = asyncio.ensure_future(door.serve_door())
    try:
        await asyncio.wait_for(door.is_open.wait(), PATIENCE_SECONDS)
        yield OpenDoor(address, pool, door.close, lambda: door.connections)
    finally:
        door.close()
        await asyncio.wait_for(serving, PATIENCE_SECONDS)
        await asyncio.wait_for(asyncio.to_thread(pool.shutdown), PATIENCE_SECONDS)


@dataclass
class Answer:
    """An HTTP answer, as it came."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Wire:
    """A raw connection: says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, path: str, *lines: str, method: str = "GET") -> Answer:
        """One request and its answer, on this connection."""
        await self.say(path, *lines, method=method)
        return await self.answer(method)

    async def say(self, path: str, *lines: str, method: str = "GET") -> None:
        head = [f"{method} {path} HTTP/1.1", *lines, "", ""]
        if not any(line.lower().startswith("host:") for line in lines):
            head.insert(1, "Host: test")
        self.writer.write("\r\n".join(head).encode("latin-1"))
        await self.writer.drain()

    async def head(self) -> Answer:
        """Status and headers of the next answer. Raises IncompleteReadError if the connection ends before."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        first, *lines = raw.decode("latin-1").split("\r\n")
        found = re.match(r"HTTP/1\.1 (\d{3})", first)
        assert found, first
        pairs = (line.partition(":") for line in lines if line)
        return Answer(int(found[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def answer(self, method: str = "GET") -> Answer:
        answer = await self.head()
        size_bytes = 0 if method == "HEAD" else int(answer.headers.get("content-length", "0"))
        answer.body = await asyncio.wait_for(self.reader.readexactly(size_bytes), PATIENCE_SECONDS)
        return answer

    async def rest(self) -> bytes:
        """Everything until the connection ends, however it ends."""
        raw = bytearray()
        try:
            while chunk := await asyncio.wait_for(self.reader.read(1 << 20), PATIENCE_SECONDS):
                raw += chunk
        except ConnectionError:
            pass
        return bytes(raw)


@asynccontextmanager
async def wire(address: Address) -> AsyncIterator[Wire]:
    """A connection to the door."""
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=1 << 20)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


async def eventually(is_so: Callable[[], bool]) -> None:
    """Waits until something that no event tells of is so. Raises AssertionError if it takes too long."""
    for _ in range(int(PATIENCE_SECONDS / 0.01)):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")
