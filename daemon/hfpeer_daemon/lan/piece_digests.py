"""Tells peers the digests of the pieces of a whole blob, so that a peer with a damaged copy fetches only what differs.

A plain ASGI handler. It reads the blob for them, and sends each part as soon as it is computed; nothing is kept.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Executor

from hfpeer.errors import NotFound
from hfpeer.names import Digest
from hfpeer.peers.protocol.paths import BLOBS_PREFIX, DIGESTS_SUFFIX
from hfpeer.peers.protocol.pieces import PIECE_DIGEST_BYTES, piece_digest
from hfpeer.peers.provider import Provider, SharedBlob
from hfpeer.ranges import ByteRange, PieceGrid
from hfpeer_daemon.http.responses import (
    Receive,
    Scope,
    Send,
    Unsatisfiable,
    content_range,
    header,
    header_lines,
    parse_range,
    until_gone,
)
from hfpeer_daemon.http.zero_copy import SendBroken
from hfpeer_daemon.lan.blobs import upload_key
from hfpeer_daemon.lan.upload_slots import UploadSlots

PIECES_AT_ONCE = 16
"""Pieces read between two looks at whether the peer is still there."""


class PieceDigestApp:
    """Serves GET and HEAD of `/blobs/{digest}/digests`. Errors raised before the response begins go to `problems`.

    `slots` bounds the blobs that are read at once. `threads` reads and hashes.
    """

    def __init__(self, provider: Provider, threads: Executor, slots: UploadSlots) -> None:
        self._provider = provider
        self._threads = threads
        self._slots = slots

    async def digests(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the digests of the pieces of a blob, or a range of them."""
        digest = Digest.parse(scope["path"].removeprefix(BLOBS_PREFIX).removesuffix(DIGESTS_SUFFIX))
        async with self._slots.acquire(upload_key(scope)):
            blob = await self._open(digest)
            try:
                await self._respond(blob, scope, receive, send)
            finally:
                self._threads.submit(blob.close)

    async def _open(self, digest: Digest) -> SharedBlob:
        """Raises NotFound unless the whole blob is here and shared."""
        blob = await asyncio.get_running_loop().run_in_executor(self._threads, self._provider.open_shared, digest)
        if blob is not None and blob.present() is None:
            return blob
        if blob is not None:
            self._threads.submit(blob.close)
        raise NotFound(f"This node does not share all of {digest}.", digest=str(digest))

    async def _respond(self, blob: SharedBlob, scope: Scope, receive: Receive, send: Send) -> None:
        grid = PieceGrid(blob.size_bytes)
        size_bytes = grid.count * PIECE_DIGEST_BYTES
        wanted = None if scope["method"] == "HEAD" else parse_range(header(scope, b"range"), size_bytes)
        headers: dict[str, str | int] = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if isinstance(wanted, Unsatisfiable) or (wanted is not None and any(at % PIECE_DIGEST_BYTES for at in wanted)):
            headers |= {"Content-Range": f"bytes */{size_bytes}", "Content-Length": 0}
            await send({"type": "http.response.start", "status": 416, "headers": header_lines(headers)})
            await send({"type": "http.response.body", "body": b""})
            return
        part = wanted or ByteRange(0, size_bytes)
        headers |= {"Content-Length": part.size_bytes}
        if wanted is not None:
            headers |= {"Content-Range": content_range(part, size_bytes)}
        await send(
            {
                "type": "http.response.start",
                "status": 200 if wanted is None else 206,
                "headers": header_lines(headers),
            }
        )
        pieces = range(part.start // PIECE_DIGEST_BYTES, part.stop // PIECE_DIGEST_BYTES)
        if scope["method"] == "HEAD" or not pieces:
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._send(blob, grid, pieces, receive, send)

    async def _send(self, blob: SharedBlob, grid: PieceGrid, pieces: range, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            for first in range(pieces.start, pieces.stop, PIECES_AT_ONCE):
                if gone.done():
                    return
                some = range(first, min(first + PIECES_AT_ONCE, pieces.stop))
                loop = asyncio.get_running_loop()
                body = await loop.run_in_executor(self._threads, _compute, blob.fd, grid, some)
                await send({"type": "http.response.body", "body": body, "more_body": some.stop < pieces.stop})
                self._provider.note_sent(len(body))
        finally:
            gone.cancel()


def _compute(fd: int, grid: PieceGrid, pieces: range) -> bytes:
    """Blocking. Raises SendBroken if the file has become shorter."""
    digests = []
    for piece in pieces:
        start, stop = grid.range_of(piece)
        data = os.pread(fd, stop - start, start)
        if len(data) < stop - start:
            raise SendBroken("was cut off: the file ended early")
        digests.append(bytes.fromhex(piece_digest(data)))
    return b"".join(digests)
