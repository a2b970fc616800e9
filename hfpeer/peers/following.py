"""The lines of an answer that goes on for as long as a peer fetches a blob, read as they come.

A few lines a second from each of many peers make this the busiest conversation of a swarm, so it is read from a plain
asyncio stream: a small HTTP/1.1 reader for one answer in chunks, which is closed with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from hfpeer.names import Address

MAX_HEAD_LINES = 64


class BadAnswer(Exception):
    """The peer does not answer as HTTP and this protocol want it; the text says how."""


@asynccontextmanager
async def open_answer(
    address: Address, path: str, headers: Mapping[str, str], *, connect_seconds: float, limit_bytes: int
) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """Asks for a path; the answer's status, and its body as a stream that is still to be taken out of its chunks.

    Raises BadAnswer, OSError, asyncio.TimeoutError. No line may have more than `limit_bytes`.
    """
    opening = asyncio.open_connection(address.host, address.port, limit=limit_bytes)
    reader, writer = await asyncio.wait_for(opening, connect_seconds)
    try:
        fields = {"Host": str(address), "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("ascii"))
        yield await asyncio.wait_for(_read_status(reader), connect_seconds), reader
    finally:
        writer.close()


async def lines_of(reader: asyncio.StreamReader, silence_seconds: float, limit_bytes: int) -> AsyncIterator[bytes]:
    """The lines of a chunked body, none of more than `limit_bytes`. Raises BadAnswer, ValueError, asyncio.TimeoutError
    after a silence, OSError."""
    rest = b""
    while size := int((await _line(reader, silence_seconds)).partition(b";")[0], 16):
        if not 0 < size <= limit_bytes - len(rest):
            raise BadAnswer(f"sends a line of more than {limit_bytes} bytes")
        chunk = await asyncio.wait_for(reader.readexactly(size + 2), silence_seconds)
        *lines, rest = (rest + chunk[:-2]).split(b"\n")
        for line in lines:
            yield line


async def _read_status(reader: asyncio.StreamReader) -> int:
    """The status of an answer in chunks; its other headers are of no interest."""
    version, _, rest = (await reader.readline()).partition(b" ")
    if version != b"HTTP/1.1" or not rest[:3].isdigit():
        raise BadAnswer("does not answer in HTTP/1.1")
    is_chunked = False
    for _ in range(MAX_HEAD_LINES):
        line = (await reader.readline()).strip().lower()
        if not line:
            status = int(rest[:3])
            if status == 200 and not is_chunked:
                raise BadAnswer("does not answer in chunks")
            return status
        is_chunked |= line == b"transfer-encoding: chunked"
    raise BadAnswer("sends too many headers")


async def _line(reader: asyncio.StreamReader, silence_seconds: float) -> bytes:
    line = await asyncio.wait_for(reader.readline(), silence_seconds)
    if not line.endswith(b"\n"):
        raise BadAnswer("broke off")
    return line.strip()
