"""One question over HTTP/1.1, and its answer read as it comes: for short ways, where a client library costs too much.

A command asks the daemon on the same machine, and is over sooner than a library is imported. A node follows many
peers, each of which tells something a few times a second. So both are read from a plain asyncio stream, whose
connection is closed with the answer. No TLS, no redirects, nothing kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

MAX_HEAD_LINES = 64
Connection: TypeAlias = "tuple[asyncio.StreamReader, asyncio.StreamWriter]"


class NoAnswer(Exception):
    """Nobody answers, or the answer broke off; the text says how."""


class Silent(NoAnswer):
    """Nothing came in time."""


class BadAnswer(Exception):
    """The other end does not answer as HTTP and this protocol want it; the text says how."""


class Answer:
    """One answer. A silence of `silence_seconds` cuts the connection, so that whatever is being read breaks off.

    That is cheaper than a time limit on each read, and cannot swallow a cancellation. Header names are lower case.
    Whatever reads raises NoAnswer or BadAnswer.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_seconds: float | None
    ) -> None:
        self._reader = reader
        self._transport = writer.transport
        self._silence_seconds = silence_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._was_silent = False
        self.status = 0
        self.headers: dict[str, str] = {}

    async def read_head(self) -> None:
        """Reads the status and the headers, all of which must come within the silence."""
        self.put_off()
        version, _, rest = (await self._line()).partition(b" ")
        if version != b"HTTP/1.1" or not rest[:3].isdigit():
            raise BadAnswer("does not answer in HTTP/1.1")
        for _ in range(MAX_HEAD_LINES):
            line = await self._line()
            if not line:
                break
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        else:
            raise BadAnswer("sends too many headers")
        self.status = int(rest[:3])

    @property
    def is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    async def lines(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """The lines of a body in chunks, none of more than `limit_bytes`."""
        if not self.is_chunked:
            raise BadAnswer("does not answer in chunks")
        rest = b""
        while size := _size(await self._line()):
            if not 0 < size <= limit_bytes - len(rest):
                raise BadAnswer(f"sends a line of more than {limit_bytes} bytes")
            chunk = await self._got(self._reader.readexactly(size + 2))
            self.put_off()
            *lines, rest = (rest + chunk[:-2]).split(b"\n")
            for line in lines:
                yield line

    async def body(self) -> bytes:
        """All of a body whose length was said."""
        length = self.headers.get("content-length", "")
        if not length.isdigit():
            raise BadAnswer("does not say how long its answer is")
        return await self._got(self._reader.readexactly(int(length)))

    def put_off(self) -> None:
        """Something came: the silence begins anew."""
        self.close()
        if self._silence_seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(self._silence_seconds, self._cut)

    def close(self) -> None:
        """Takes the deadline back."""
        if self._deadline is not None:
            self._deadline.cancel()

    def _cut(self) -> None:
        self._was_silent = True
        self._transport.abort()

    async def _line(self) -> bytes:
        line = await self._got(self._reader.readline())
        if not line.endswith(b"\n"):
            raise Silent("was silent") if self._was_silent else NoAnswer("broke off")
        return line.strip()

    async def _got(self, reading: Awaitable[bytes]) -> bytes:
        try:
            return await reading
        except (OSError, asyncio.IncompleteReadError) as error:
            raise (Silent("was silent") if self._was_silent else NoAnswer("broke off")) from error
        except ValueError as error:
            raise BadAnswer("sends a line that does not end") from error


def _size(line: bytes) -> int:
    """The size of a chunk, from the line before it."""
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as error:
        raise BadAnswer("sends a chunk without its size") from error


@asynccontextmanager
async def ask(
    connecting: Awaitable[Connection],
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    connect_seconds: float,
    silence_seconds: float | None,
) -> AsyncIterator[Answer]:
    """Asks over the connection that is being opened. Raises NoAnswer or BadAnswer."""
    try:
        reader, writer = await asyncio.wait_for(connecting, connect_seconds)
    except asyncio.TimeoutError as error:
        raise Silent("takes no connection in time") from error
    except OSError as error:
        raise NoAnswer(str(error)) from error
    answer = Answer(reader, writer, silence_seconds)
    try:
        fields = {**headers, "Connection": "close"} | ({"Content-Length": str(len(body))} if body else {})
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body)
        await answer.read_head()
        yield answer
    finally:
        answer.close()
        writer.close()
