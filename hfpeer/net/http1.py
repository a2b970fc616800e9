"""One HTTP/1.1 request and its response (RFC 9112) over any stream: no TLS, no redirects, no kept connection.

The stream is asyncio's, or a blocking one whose coroutines never suspend: a command ends sooner than asyncio is
imported. Nothing here opens or closes a connection or measures time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Protocol

from hfpeer.budgets import MIN_BYTES_PER_ITEM

MAX_HEAD_LINES = 64
MAX_SIZE_LINE_BYTES = 256
"""Bytes of the line before a chunk: its size and chunk extensions (RFC 9112 §7.1.1)."""
READ_BYTES = 64 * 1024


_WHOLE = re.compile(r"[0-9]{1,19}")
_SECONDS = re.compile(r"([0-9]+)(\.[0-9]*)?")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)


def whole_number(text: str, most: int = (1 << 63) - 1) -> int | None:
    """The number in a header or a query: 1 to 19 ASCII digits, at most `most`; None for anything else. `int` would also
    accept signs, underscores and the digits of other scripts, which are no numbers in HTTP."""
    found = int(text) if _WHOLE.fullmatch(text) else None
    return found if found is not None and found <= most else None


def parse_delay_seconds(text: str, most: float) -> float | None:
    """The seconds of a `Retry-After` in its form `delay-seconds` (RFC 9110 §10.2.3), at most `most`; None for a date
    and anything else."""
    found = _SECONDS.fullmatch(text.strip())
    if found is None:
        return None
    digits = found[1].lstrip("0")
    return most if len(digits) > 9 else min(float(f"{digits or 0}{(found[2] or '')[:9]}"), most)


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """Start, stop (exclusive) and whole size in bytes (None if it is unknown) of a `Content-Range` (RFC 9110 §14.4), as
    they are written; None for any other unit, and anything else."""
    found = _CONTENT_RANGE.fullmatch(text)
    return (int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3])) if found else None


def has_too_many_items(raw: bytes) -> bool:
    """Whether a JSON document has fewer than MIN_BYTES_PER_ITEM bytes per value. Such a document takes many times its
    size in memory."""
    items = raw.count(b",") + raw.count(b"[") + raw.count(b"{")
    return items * MIN_BYTES_PER_ITEM > len(raw)


class NoResponse(Exception):
    """No response came, or it broke off. The text says how."""


class TimedOut(NoResponse):
    """Nothing came in time."""


class BadResponse(Exception):
    """The response violates HTTP or this protocol. The text says how."""


class Stream(Protocol):
    """The source of the response's bytes: `asyncio.StreamReader`, or a stream with the same methods.

    Raises OSError when the connection breaks, EOFError for an early end, ValueError for a line without end.
    """

    async def readline(self) -> bytes: ...

    async def read(self, n: int) -> bytes: ...

    async def readexactly(self, n: int) -> bytes: ...


def encode_request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of one request. It closes the connection after the response (`Connection: close`, RFC 9112 §9.6)."""
    fields = {**headers, "Connection": "close"} | ({"Content-Length": str(len(body))} if body else {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


class ResponseReader:
    """One response while it arrives. Header names are in lower case. Every read raises NoResponse or BadResponse."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}

    async def read_head(self) -> None:
        """Reads the status line and the headers."""
        self.restart_timer()
        version, _, rest = (await self._line()).partition(b" ")
        status = whole_number(rest[:3].decode("latin-1"))
        if version != b"HTTP/1.1" or status is None:
            raise BadResponse("does not respond in HTTP/1.1")
        for _ in range(MAX_HEAD_LINES):
            line = await self._line()
            if not line:
                break
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        else:
            raise BadResponse("sends too many headers")
        self.status = status

    @property
    def is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    async def lines(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """The lines of a chunked body (RFC 9112 §7.1), each of at most `limit_bytes`. Only whole lines restart the
        silence timer."""
        if not self.is_chunked:
            raise BadResponse("sends no chunked body")
        body = _ChunkedLines(limit_bytes)
        while not body.is_over:
            data = await self._await_bytes(self._stream.read(READ_BYTES))
            if not data:
                raise self._broken()
            for line in body.take(data):
                self.restart_timer()
                yield line

    async def body(self) -> bytes:
        """The whole body of a response with a Content-Length."""
        length = whole_number(self.headers.get("content-length", ""))
        if length is None:
            raise BadResponse("sends no Content-Length")
        return await self._await_bytes(self._stream.readexactly(length))

    def restart_timer(self) -> None:
        """Called when something has arrived. A subclass that limits silence starts its timer anew."""

    async def _line(self) -> bytes:
        line = await self._await_bytes(self._stream.readline())
        if not line.endswith(b"\n"):
            raise self._broken()
        return line.strip()

    async def _await_bytes(self, reading: Awaitable[bytes]) -> bytes:
        try:
            return await reading
        except TimeoutError as error:
            raise TimedOut("was silent") from error
        except (OSError, EOFError) as error:
            raise self._broken() from error
        except ValueError as error:
            raise BadResponse("sends a line without end") from error

    def _broken(self) -> NoResponse:
        return NoResponse("broke off")


class _ChunkedLines:
    """Decodes a chunked body from portions of any size into lines of at most `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._raw = bytearray()
        self._chunk_bytes: int | None = None
        """Size of the current chunk; None until its size line has arrived."""
        self._partial_line = bytearray()
        """The start of a line that has not ended yet."""
        self.is_over = False

    def take(self, data: bytes) -> Iterator[bytes]:
        """The lines that end in this portion. Raises BadResponse, after the lines before the fault."""
        self._raw += data
        while (chunk := self._chunk()) is not None:
            if b"\n" not in chunk:
                self._partial_line += chunk
                continue
            first, *others = chunk.split(b"\n")
            yield bytes(self._partial_line + first)
            for other in others[:-1]:
                yield bytes(other)
            self._partial_line = others[-1]

    def _chunk(self) -> bytearray | None:
        """The next chunk; None if it is incomplete, or was the last."""
        if self._chunk_bytes is None:
            line, end, _ = self._raw[:MAX_SIZE_LINE_BYTES].partition(b"\n")
            if not end and len(line) < MAX_SIZE_LINE_BYTES:
                return None
            self._chunk_bytes = _chunk_size(line)
            del self._raw[: len(line) + 1]
            if self._chunk_bytes > self._limit_bytes - len(self._partial_line):
                raise BadResponse(f"sends a line of more than {self._limit_bytes} bytes")
        size_bytes = self._chunk_bytes
        self.is_over = size_bytes == 0
        if self.is_over or len(self._raw) < size_bytes + 2:
            return None
        if self._raw[size_bytes : size_bytes + 2] != b"\r\n":
            raise BadResponse("sends a chunk of the wrong size")
        chunk = self._raw[:size_bytes]
        del self._raw[: size_bytes + 2]
        self._chunk_bytes = None
        return chunk


_CHUNK_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?\r?")


def _chunk_size(line: bytes | bytearray) -> int:
    """The chunk size in the line before a chunk."""
    found = _CHUNK_SIZE_LINE.fullmatch(line)
    if found is None:
        raise BadResponse("sends a chunk without its size")
    return int(found[1], 16)
