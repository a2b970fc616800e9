"""One question over HTTP/1.1 in an event loop, for short ways, where a client library costs too much.

A node follows many peers, each of which tells something a few times a second. So they are read from plain asyncio
streams, whose connection is closed with the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeAlias

from hfpeer.exchange import BadAnswer as BadAnswer
from hfpeer.exchange import NoAnswer as NoAnswer
from hfpeer.exchange import PlainAnswer
from hfpeer.exchange import Silent as Silent
from hfpeer.exchange import question as question

Connection: TypeAlias = "tuple[asyncio.StreamReader, asyncio.StreamWriter]"


class Answer(PlainAnswer):
    """One answer. A silence of `silence_seconds` cuts the connection, so that whatever is being read breaks off.

    That is cheaper than a time limit on each read, and cannot swallow a cancellation.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_seconds: float | None
    ) -> None:
        super().__init__(reader)
        self._transport = writer.transport
        self._silence_seconds = silence_seconds
        self._loop = asyncio.get_running_loop()
        self._heard_at = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._was_silent = False

    def put_off(self) -> None:
        """Something came: the silence begins anew."""
        self._heard_at = self._loop.time()
        if self._deadline is None and self._silence_seconds is not None:
            self._deadline = self._loop.call_at(self._heard_at + self._silence_seconds, self._look_at_silence)

    def close(self) -> None:
        """Takes the deadline back."""
        if self._deadline is not None:
            self._deadline.cancel()

    def _look_at_silence(self) -> None:
        """Cuts after a silence. One timer that looks what has come since costs less than one for all that comes."""
        silence_ends_at = self._heard_at + (self._silence_seconds or 0.0)
        if self._loop.time() < silence_ends_at:
            self._deadline = self._loop.call_at(silence_ends_at, self._look_at_silence)
        else:
            self._was_silent = True
            self._transport.abort()

    def _broken(self) -> NoAnswer:
        return Silent("was silent") if self._was_silent else super()._broken()


@asynccontextmanager
async def ask(
    connecting: Awaitable[Connection],
    request: bytes,
    *,
    connect_seconds: float,
    silence_seconds: float | None,
) -> AsyncIterator[Answer]:
    """Asks a `question` over the connection that is being opened. Raises NoAnswer or BadAnswer."""
    try:
        reader, writer = await asyncio.wait_for(connecting, connect_seconds)
    except asyncio.TimeoutError as error:
        raise Silent("takes no connection in time") from error
    except OSError as error:
        raise NoAnswer(str(error)) from error
    answer = Answer(reader, writer, silence_seconds)
    try:
        writer.write(request)
        await answer.read_head()
        yield answer
    finally:
        answer.close()
        writer.close()
