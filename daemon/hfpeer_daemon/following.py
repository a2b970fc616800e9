"""Who follows a blob: a line of JSON for what a node has of it, and one for all that comes, as long as it is fetched.

A pure ASGI handler, because a swarm follows every node many times, and a line must cost next to nothing. Owns how
lines go out and when they end; what is told, and to whom it may be, is the node's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

from hfpeer.errors import NotFound
from hfpeer.names import Digest
from hfpeer.operations import Holdings
from hfpeer.tasks import end_tasks
from hfpeer.wire import BLOBS_PREFIX, FOLLOW_SUFFIX, PieceMap, PieceNews
from hfpeer_daemon.responses import Receive, Scope, Send, asker, header_lines, until_gone

_HEADERS = header_lines({"Content-Type": "application/x-ndjson"})
_Line: TypeAlias = PieceMap | PieceNews


class FollowDoor:
    """Answers GET and HEAD of `/v1/blobs/{digest}/follow`. Raises errors for `problems` before it answers.

    An answer ends with what the node has to tell, when the client goes, or when `stopping` is set.
    """

    def __init__(self, holdings: Holdings, stopping: asyncio.Event) -> None:
        self._holdings = holdings
        self._stopping = stopping

    async def follow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One blob, or lot of small ones."""
        digest = Digest.parse(scope["path"].removeprefix(BLOBS_PREFIX).removesuffix(FOLLOW_SUFFIX))
        async with aclosing(self._holdings.follow(digest, asker(scope), self._stopping)) as lines:
            first = await anext(lines, None)
            if first is None:
                raise NotFound(f"This node does not share {digest}.", digest=str(digest))
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
            else:
                await _tell_until_gone(first, lines, receive, send)


async def _tell_until_gone(first: _Line, rest: AsyncIterator[_Line], receive: Receive, send: Send) -> None:
    """Both ends are waited for at once: news may be long in coming, and who has gone holds what it followed."""
    gone = asyncio.ensure_future(until_gone(receive))
    telling = asyncio.ensure_future(_tell(first, rest, send))
    try:
        await asyncio.wait((gone, telling), return_when=asyncio.FIRST_COMPLETED)
        if telling.done():
            telling.result()
    finally:
        await end_tasks((gone, telling))


async def _tell(first: _Line, rest: AsyncIterator[_Line], send: Send) -> None:
    await send({"type": "http.response.body", "body": first.to_line(), "more_body": True})
    async for line in rest:
        await send({"type": "http.response.body", "body": line.to_line(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})
