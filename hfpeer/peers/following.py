"""The lines of an answer that goes on for as long as a peer fetches a blob, read as they come.

A few lines a second from each of many peers make this the busiest conversation of a swarm, so it is read from a plain
asyncio stream: a small HTTP/1.1 reader for one answer in chunks, whose connection is closed with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from hfpeer.names import Address

MAX_HEAD_LINES = 64


class BadAnswer(Exception):
    """The peer does not answer as HTTP and this protocol want it; the text says how."""


class Answer:
    """One answer. A silence of `silence_seconds` cuts the connection, so that whatever is being read breaks off.

    That is cheaper than a time limit on each read, and cannot swallow a cancellation.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_seconds: float) -> None:
        self._reader = reader
        self._transport = writer.transport
        self._silence_seconds = silence_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self.status = 0

    async def read_head(self) -> None:
        """Reads the status and the headers, all of which must come within the silence."""
        self.put_off()
        version, _, rest = (await self._reader.readline()).partition(b" ")
        if version != b"HTTP/1.1" or not rest[:3].isdigit():
            raise BadAnswer("does not answer in HTTP/1.1")
        is_chunked = False
        for _ in range(MAX_HEAD_LINES):
            line = (await self._line()).lower()
            if not line:
                break
            is_chunked |= line == b"transfer-encoding: chunked"
        else:
            raise BadAnswer("sends too many headers")
        self.status = int(rest[:3])
        if self.status == 200 and not is_chunked:
            raise BadAnswer("does not answer in chunks")

    async def lines(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """The lines of the body, none of more than `limit_bytes`. Raises BadAnswer, ValueError, OSError and
        asyncio.IncompleteReadError."""
        rest = b""
        while size := int((await self._line()).partition(b";")[0], 16):
            if not 0 < size <= limit_bytes - len(rest):
                raise BadAnswer(f"sends a line of more than {limit_bytes} bytes")
            chunk = await self._reader.readexactly(size + 2)
            self.put_off()
            *lines, rest = (rest + chunk[:-2]).split(b"\n")
            for line in lines:
                yield line

    def put_off(self) -> None:
        """Something came: the silence begins anew."""
        self.close()
        self._deadline = asyncio.get_running_loop().call_later(self._silence_seconds, self._transport.abort)

    def close(self) -> None:
        """Takes the deadline back."""
        if self._deadline is not None:
            self._deadline.cancel()

    async def _line(self) -> bytes:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionAbortedError("broke off, or was silent")
        return line.strip()


@asynccontextmanager
async def open_answer(
    address: Address,
    path: str,
    headers: Mapping[str, str],
    *,
    connect_seconds: float,
    silence_seconds: float,
    limit_bytes: int,
) -> AsyncIterator[Answer]:
    """Asks for a path. No line may have more than `limit_bytes`. Raises BadAnswer, OSError, asyncio.TimeoutError."""
    opening = asyncio.open_connection(address.host, address.port, limit=limit_bytes)
    reader, writer = await asyncio.wait_for(opening, connect_seconds)
    answer = Answer(reader, writer, silence_seconds)
    try:
        fields = {"Host": str(address), "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("ascii"))
        await answer.read_head()
        yield answer
    finally:
        answer.close()
        writer.close()
