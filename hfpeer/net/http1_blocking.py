"""One HTTP/1.1 request to a Unix socket without an event loop, in coroutines that block and never suspend.

A command sends the daemon one request and ends; importing asyncio would take longer than all the rest. The code that
encodes and parses is shared with the event loop, so it is written as coroutines: see `control`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from hfpeer.net.http1 import NoResponse, ResponseReader, TimedOut
from hfpeer.system.ownership import check_peer, check_socket

T = TypeVar("T")
MAX_LINE_BYTES = 64 * 1024
_RETRY_SECONDS = 0.01


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that only blocks and never waits for an event loop, and returns its result. Ctrl-C raises
    KeyboardInterrupt inside it."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("This coroutine needs an event loop.")


@asynccontextmanager
async def send_unix_request(
    socket_path: Path,
    request: bytes,
    *,
    connect_seconds: float,
    silence_seconds: float | None,
) -> AsyncIterator[ResponseReader]:
    """Sends one request over a Unix socket. Each read waits at most `silence_seconds`.

    Raises NoResponse or BadResponse; BrokenCache, before a byte is sent, if another user owns the socket or
    listens on it.
    """
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as file:
        try:
            check_socket(socket_path)
            _connect(connection, socket_path, connect_seconds)
            check_peer(connection, socket_path)
            connection.settimeout(silence_seconds)
            connection.sendall(request)
        except TimeoutError as error:
            raise TimedOut("does not accept a connection in time") from error
        except OSError as error:
            raise NoResponse(str(error)) from error
        response = ResponseReader(_BlockingStream(file))
        await response.read_head()
        yield response


def _connect(connection: socket.socket, path: Path, timeout_seconds: float) -> None:
    connection.settimeout(timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:  # its backlog is full: a Unix socket fails at once instead of waiting
            if time.monotonic() > deadline:
                raise TimeoutError from None
        time.sleep(_RETRY_SECONDS)


class _BlockingStream:
    """A `Stream` that blocks."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file

    async def readline(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES)
        if len(line) == MAX_LINE_BYTES:
            raise ValueError("a line is too long")
        return line

    async def read(self, n: int) -> bytes:
        return self._file.read1(n)

    async def readexactly(self, n: int) -> bytes:
        data = self._file.read(n)
        if len(data) < n:
            raise EOFError
        return data
