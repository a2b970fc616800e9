"""One HTTP/1.1 request in an event loop, without a client library.

A node follows many peers, and each sends a few lines a second. An HTTP client library costs too much CPU for that, so
plain asyncio streams read them, and each connection ends with its response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeAlias

from hfpeer.net.http1 import NoResponse, ResponseReader, TimedOut

Connection: TypeAlias = "tuple[asyncio.StreamReader, asyncio.StreamWriter]"


class Response(ResponseReader):
    """One response. The connection is cut after `silence_seconds` without data; the pending read then fails.

    One timer is cheaper than a time limit on each read, and cannot swallow a cancellation.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_seconds: float | None
    ) -> None:
        super().__init__(reader)
        self._transport = writer.transport
        self._silence_seconds = silence_seconds
        self._loop = asyncio.get_running_loop()
        self._received_at = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._was_silent = False

    def restart_timer(self) -> None:
        """Starts the silence timer anew."""
        self._received_at = self._loop.time()
        if self._deadline is None and self._silence_seconds is not None:
            self._deadline = self._loop.call_at(self._received_at + self._silence_seconds, self._check_silence)

    def close(self) -> None:
        """Cancels the silence timer."""
        if self._deadline is not None:
            self._deadline.cancel()

    def _check_silence(self) -> None:
        """Cuts the connection after a silence. One timer that looks at the last arrival costs less than one timer per
        arrival."""
        silence_ends_at = self._received_at + (self._silence_seconds or 0.0)
        if self._loop.time() < silence_ends_at:
            self._deadline = self._loop.call_at(silence_ends_at, self._check_silence)
        else:
            self._was_silent = True
            self._transport.abort()

    def _broken(self) -> NoResponse:
        return TimedOut("was silent") if self._was_silent else super()._broken()


@asynccontextmanager
async def send_request(
    connecting: Awaitable[Connection],
    request: bytes,
    *,
    connect_seconds: float,
    silence_seconds: float | None,
) -> AsyncIterator[Response]:
    """Sends a request (`http1.encode_request`) over a connection that is being opened. Raises NoResponse or
    BadResponse."""
    try:
        reader, writer = await asyncio.wait_for(connecting, connect_seconds)
    except asyncio.TimeoutError as error:
        raise TimedOut("does not accept a connection in time") from error
    except OSError as error:
        raise NoResponse(str(error)) from error
    response = Response(reader, writer, silence_seconds)
    try:
        writer.write(request)
        await response.read_head()
        yield response
    finally:
        response.close()
        writer.close()
