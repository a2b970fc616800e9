"""Decodes the body of a response (RFC 9110 §8.4) in portions of bounded size.

httpx decodes every encoding, also nested ones, of all bytes that have come: a few hundred bytes can become 60 GB before
the size is known. This module decodes one gzip, the only encoding that requests accept.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

import httpx

ENCODINGS = "gzip"
"""Value of `Accept-Encoding` in requests to hubs."""
PORTION_BYTES = 256 * 1024


class BadEncoding(Exception):
    """A body that cannot be decoded. Its text ends a sentence that starts with the hub's name."""


async def unpacked(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body, at most PORTION_BYTES at a time if it was encoded. Raises BadEncoding, and httpx's errors."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        async for chunk in response.aiter_raw():
            yield chunk
        return
    if encoding not in ("gzip", "x-gzip"):
        raise BadEncoding(f"sends an encoding that was not requested ({encoding[:40]!r})")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        async for chunk in response.aiter_raw():
            portion = b"" if inflater.eof else inflater.decompress(chunk, PORTION_BYTES)
            while portion:
                yield portion
                await asyncio.sleep(0)
                portion = b"" if inflater.eof else inflater.decompress(inflater.unconsumed_tail, PORTION_BYTES)
    except zlib.error as error:
        raise BadEncoding("sends a body that cannot be decoded") from error
    if not inflater.eof:
        raise BadEncoding("sends an encoded body without an end")


async def drain(response: httpx.Response) -> None:
    """Reads a body to its end and ignores it, so that its connection can be used again."""
    async for _ in response.aiter_raw():
        pass
