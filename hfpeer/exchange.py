"""HTTP/1.1 as far as one question and its answer need it, over any stream: no TLS, no redirects, nothing kept.

The stream may be asyncio's, or a blocking one whose coroutines never suspend: a command is over sooner than an event
loop is imported. Nothing here opens, closes or times anything.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Protocol

MAX_HEAD_LINES = 64
MAX_SIZE_LINE_BYTES = 256
"""The line before a chunk has no more: a size, and what others may add to it."""
READ_BYTES = 64 * 1024


class NoAnswer(Exception):
    """Nobody answers, or the answer broke off; the text says how."""


class Silent(NoAnswer):
    """Nothing came in time."""


class BadAnswer(Exception):
    """The other end does not answer as HTTP and this protocol want it; the text says how."""


class Stream(Protocol):
    """What bytes come from: an `asyncio.StreamReader`, or what does as it does.

    It raises OSError for what breaks, EOFError for an early end, ValueError for a line without end.
    """

    async def readline(self) -> bytes: ...

    async def read(self, n: int) -> bytes: ...

    async def readexactly(self, n: int) -> bytes: ...


def question(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """One request, after whose answer the connection is closed."""
    fields = {**headers, "Connection": "close"} | ({"Content-Length": str(len(body))} if body else {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


class PlainAnswer:
    """One answer as it comes. Header names are lower case. Whatever reads raises NoAnswer or BadAnswer."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
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
        """The lines of a body in chunks, none of more than `limit_bytes`. Who does not end a line is silent."""
        if not self.is_chunked:
            raise BadAnswer("does not answer in chunks")
        body = _ChunkedLines(limit_bytes)
        while not body.is_over:
            data = await self._got(self._stream.read(READ_BYTES))
            if not data:
                raise self._broken()
            for line in body.take(data):
                self.put_off()
                yield line

    async def body(self) -> bytes:
        """All of a body whose length was said."""
        length = self.headers.get("content-length", "")
        if not length.isdigit():
            raise BadAnswer("does not say how long its answer is")
        return await self._got(self._stream.readexactly(int(length)))

    def put_off(self) -> None:
        """Something came. Who watches for silence begins anew."""

    async def _line(self) -> bytes:
        line = await self._got(self._stream.readline())
        if not line.endswith(b"\n"):
            raise self._broken()
        return line.strip()

    async def _got(self, reading: Awaitable[bytes]) -> bytes:
        try:
            return await reading
        except TimeoutError as error:
            raise Silent("was silent") from error
        except (OSError, EOFError) as error:
            raise self._broken() from error
        except ValueError as error:
            raise BadAnswer("sends a line that does not end") from error

    def _broken(self) -> NoAnswer:
        return NoAnswer("broke off")


class _ChunkedLines:
    """Takes a body in chunks in whatever portions it comes, and gives its lines, none of more than `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._raw = bytearray()
        self._chunk_bytes: int | None = None
        """How long the next chunk is, once that was said."""
        self._rest = bytearray()
        """What has come of a line that has not ended."""
        self.is_over = False

    def take(self, data: bytes) -> Iterator[bytes]:
        """The lines that end with this portion. Raises BadAnswer, after those that came before the fault."""
        self._raw += data
        while (chunk := self._chunk()) is not None:
            if b"\n" not in chunk:
                self._rest += chunk
                continue
            first, *others = chunk.split(b"\n")
            yield bytes(self._rest + first)
            for other in others[:-1]:
                yield bytes(other)
            self._rest = others[-1]

    def _chunk(self) -> bytearray | None:
        """The next chunk; None if not all of it is here, or it was the last."""
        if self._chunk_bytes is None:
            line, end, _ = self._raw[:MAX_SIZE_LINE_BYTES].partition(b"\n")
            if not end and len(line) < MAX_SIZE_LINE_BYTES:
                return None
            self._chunk_bytes = _size(line)
            del self._raw[: len(line) + 1]
            if self._chunk_bytes > self._limit_bytes - len(self._rest):
                raise BadAnswer(f"sends a line of more than {self._limit_bytes} bytes")
        size_bytes = self._chunk_bytes
        self.is_over = size_bytes == 0
        if self.is_over or len(self._raw) < size_bytes + 2:
            return None
        if self._raw[size_bytes : size_bytes + 2] != b"\r\n":
            raise BadAnswer("sends a chunk of another size than it says")
        chunk = self._raw[:size_bytes]
        del self._raw[: size_bytes + 2]
        self._chunk_bytes = None
        return chunk


_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?\r?")


def _size(line: bytes | bytearray) -> int:
    """The size of a chunk, from the line before it."""
    found = _SIZE_LINE.fullmatch(line)
    if found is None:
        raise BadAnswer("sends a chunk without its size")
    return int(found[1], 16)
