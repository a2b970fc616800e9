"""One question over HTTP/1.1 to a Unix socket where no event loop runs, by coroutines that block and never suspend.

A command asks the daemon and is over; asyncio alone takes longer to import than all else that it does. What is asked
and understood is the same in an event loop, so it is written once, as coroutines: see `control`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from hfpeer.exchange import NoAnswer, PlainAnswer, Silent

T = TypeVar("T")
MAX_LINE_BYTES = 64 * 1024
_RETRY_SECONDS = 0.01


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing but what blocks. Ctrl-C raises KeyboardInterrupt inside it."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("What waits for an event loop was run without one.")


@asynccontextmanager
async def ask_unix(
    socket_path: Path,
    request: bytes,
    *,
    connect_seconds: float,
    silence_seconds: float | None,
) -> AsyncIterator[PlainAnswer]:
    """Asks a `question` of who listens on the socket. Whatever is read may be silent for `silence_seconds`. Raises
    NoAnswer or BadAnswer."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as file:
        try:
            _connect(connection, socket_path, connect_seconds)
            connection.settimeout(silence_seconds)
            connection.sendall(request)
        except TimeoutError as error:
            raise Silent("takes no connection in time") from error
        except OSError as error:
            raise NoAnswer(str(error)) from error
        answer = PlainAnswer(_BlockingStream(file))
        await answer.read_head()
        yield answer


def _connect(connection: socket.socket, path: Path, timeout_seconds: float) -> None:
    connection.settimeout(timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:  # its queue is full: a Unix socket says so at once instead of waiting
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
