"""Streams the pieces of a blob to its followers: a JSON line with the piece map, then one for each news, during its
fetch.

A plain ASGI handler, because in a swarm every node has many followers and a line must cost little. The node decides
what the lines contain and which peers may have them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

from hfpeer.errors import NotFound
from hfpeer.names import Digest
from hfpeer.net.tasks import end_tasks
from hfpeer.peers.protocol.paths import BLOBS_PREFIX, FOLLOW_SUFFIX
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.peers.provider import Provider
from hfpeer_daemon.http.responses import Receive, Scope, Send, header_lines, sender_node_id, until_gone

_HEADERS = header_lines({"Content-Type": "application/x-ndjson"})
_Line: TypeAlias = PieceMap | PieceNews


class FollowApp:
    """Serves GET and HEAD of `/blobs/{digest}/follow`. Errors raised before the response begins go to `problems`.

    A response ends when the node has no more news, when the client goes, or when `stopping` is set.
    """

    def __init__(self, provider: Provider, stopping: asyncio.Event) -> None:
        self._provider = provider
        self._stopping = stopping

    async def follow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follows one blob, or one bundle of small files."""
        digest = Digest.parse(scope["path"].removeprefix(BLOBS_PREFIX).removesuffix(FOLLOW_SUFFIX))
        async with aclosing(self._provider.follow(digest, sender_node_id(scope), self._stopping)) as lines:
            first = await anext(lines, None)
            if first is None:
                raise NotFound(f"This node does not share {digest}.", digest=str(digest))
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
            else:
                await _send_until_gone(first, lines, receive, send)


async def _send_until_gone(first: _Line, rest: AsyncIterator[_Line], receive: Receive, send: Send) -> None:
    """Also waits for the client to go: news may come late, and a client that has gone would keep its subscription."""
    gone = asyncio.ensure_future(until_gone(receive))
    sending = asyncio.ensure_future(_send_lines(first, rest, send))
    try:
        await asyncio.wait((gone, sending), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        await end_tasks((gone, sending))


async def _send_lines(first: _Line, rest: AsyncIterator[_Line], send: Send) -> None:
    await send({"type": "http.response.body", "body": first.to_line(), "more_body": True})
    async for line in rest:
        await send({"type": "http.response.body", "body": line.to_line(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})
