"""Decodes the body of a response (RFC 9110 §8.4) in portions of bounded size.

httpx decodes every encoding, also nested ones, of all bytes that have come: a few hundred bytes can become 60 GB before
the size is known. This module decodes one gzip, the only encoding that requests accept.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

import httpx

ENCODINGS = "gzip"
"""Value of `Accept-Encoding` in requests to hubs."""
PORTION_BYTES = 256 * 1024


class BadEncoding(Exception):
    """A body that cannot be decoded. Its text ends a sentence that starts with the hub's name."""


def is_encoded(response: httpx.Response) -> bool:
    """Whether the body has an encoding, of whatever kind."""
    return _encoding(response) not in ("", "identity")


def _encoding(response: httpx.Response) -> str:
    return str(response.headers.get("content-encoding", "")).strip().lower()


class Inflater:
    """Decodes one body, at most PORTION_BYTES at a time."""

    def __init__(self, response: httpx.Response) -> None:
        """Raises BadEncoding for another encoding than gzip."""
        encoding = _encoding(response)
        if encoding not in ("gzip", "x-gzip"):
            raise BadEncoding(f"sends an encoding that was not requested ({encoding[:40]!r})")
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def portions(self, chunk: bytes) -> Iterator[bytes]:
        """The decoded bytes of the next chunk. Raises BadEncoding."""
        try:
            while not self._inflater.eof and (portion := self._inflater.decompress(chunk, PORTION_BYTES)):
                yield portion
                chunk = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise BadEncoding("sends a body that cannot be decoded") from error

    def end(self) -> None:
        """Raises BadEncoding if the body has no end."""
        if not self._inflater.eof:
            raise BadEncoding("sends an encoded body without an end")


async def unpacked(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body, at most PORTION_BYTES at a time if it was encoded. Raises BadEncoding, and httpx's errors."""
    if not is_encoded(response):
        async for chunk in response.aiter_raw():
            yield chunk
        return
    inflater = Inflater(response)
    async for chunk in response.aiter_raw():
        for portion in inflater.portions(chunk):
            yield portion
            await asyncio.sleep(0)
    inflater.end()


def unpacked_portions(inflater: Inflater, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same for an encoded body that is read by blocking calls."""
    for chunk in chunks:
        yield from inflater.portions(chunk)
    inflater.end()


async def drain(response: httpx.Response) -> None:
    """Reads a body to its end and ignores it, so that its connection can be used again."""
    async for _ in response.aiter_raw():
        pass
