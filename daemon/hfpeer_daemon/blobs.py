"""Blob bytes for peers: single ranges of shared blobs, whole or still being fetched, and batches of small ones.

A pure ASGI handler, because a body must pass no middleware. Owns what is answered to GET and HEAD of a blob; never
sends a byte that the node does not hold and share, and never changes anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs

from hfpeer.errors import NotFound
from hfpeer.limits import Limiter
from hfpeer.names import Digest
from hfpeer.operations import Holdings, SharedBlob
from hfpeer.ranges import MIB, ByteRange
from hfpeer.wire import BLOBS_PREFIX, MAX_BATCH_BLOB_BYTES, WAIT_HEADER, encode_batch_header, parse_batch_digests
from hfpeer_daemon.copying import Readable
from hfpeer_daemon.responses import (
    UNSATISFIABLE,
    Receive,
    Scope,
    Send,
    Unsatisfiable,
    allows_range,
    asker,
    content_range,
    header,
    header_lines,
    names_etag,
    parse_range,
    until_gone,
)
from hfpeer_daemon.uploads import UploadLine
from hfpeer_daemon.zero_copy import EXTENSION, SendBroken

READ_BYTES = MIB
MESSAGE_BYTES = 64 * MIB
"""At most this much is sent, and counted, in one message."""

MAX_WAIT_SECONDS = 30.0

_NOTHING = ByteRange(0, 0)
_WAIT = re.compile(r"(?:^|,)\s*wait=([0-9]{1,4})\s*(?:[,;]|$)", re.IGNORECASE)

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
Read = Callable[[int, int], Awaitable[bytes]]


@dataclass(frozen=True)
class _Answer:
    """What to answer: the status, the headers, and which bytes follow (none for 304 and 416). `wait_seconds` is how
    long each next one of these is waited for; None where all are here."""

    status: int
    headers: dict[str, str | int]
    part: ByteRange = _NOTHING
    wait_seconds: float | None = None


class BlobDoor:
    """Answers GET and HEAD of `/v1/blobs/{digest}` and `/v1/batch`. Raises errors for `problems` before it answers.

    `threads` opens, reads and (through the zero-copy protocol) sends; it wants a few more threads than the lines have
    places. `line` bounds the uploads, `batches` the batches, which are built in memory (16 MiB at most), and `limiter`
    the rate of them all together.
    """

    def __init__(
        self,
        holdings: Holdings,
        threads: Executor,
        line: UploadLine,
        batches: UploadLine,
        limiter: Limiter | None = None,
    ) -> None:
        self._holdings = holdings
        self._threads = threads
        self._line = line
        self._batches = batches
        self._limiter = limiter

    async def blob(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One blob, or one range of it."""
        digest = Digest.parse(scope["path"].removeprefix(BLOBS_PREFIX))
        if scope["method"] == "HEAD" or header(scope, b"if-none-match") is not None:
            answered = await self._answer_without_bytes(digest, scope, send)
            if answered:
                return
        async with self._line.turn(_peer_of(scope)):
            await self._answer_with_bytes(digest, scope, receive, send)

    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Many small blobs in one answer, each behind a line that names it."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        digests = parse_batch_digests(",".join(query.get("digests", [])))
        async with self._batches.turn(_peer_of(scope)):
            body = await self._run(_read_batch, self._holdings, digests)
            headers: dict[str, str | int] = {"Content-Type": "application/octet-stream", "Content-Length": len(body)}
            await _start(send, _Answer(200, headers))
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
            else:
                await self._send_memory(body, receive, send)

    async def _answer_without_bytes(self, digest: Digest, scope: Scope, send: Send) -> bool:
        """Answers HEAD, and GET where nothing has changed; False when bytes must follow."""
        blob = await self._open(digest)
        try:
            answer = _decide(digest, blob, scope)
        finally:
            self._close(blob)
        if scope["method"] == "GET" and answer.status != 304:
            return False
        await _start(send, answer)
        await send({"type": "http.response.body", "body": b""})
        return True

    async def _answer_with_bytes(self, digest: Digest, scope: Scope, receive: Receive, send: Send) -> None:
        blob = await self._open(digest)
        try:
            answer = _decide(digest, blob, scope)
            await _start(send, answer)
            await self._send_part(blob, answer, scope, receive, send)
        except SendBroken as error:
            self._holdings.note_sent(error.sent_bytes)
            _log.debug("%s of %s: the peer %s", scope["client"], digest, error)
        finally:
            self._close(blob)

    async def _send_part(self, blob: SharedBlob, answer: _Answer, scope: Scope, receive: Receive, send: Send) -> None:
        seconds = answer.wait_seconds
        readable = None if seconds is None else partial(blob.await_readable, seconds=seconds)
        if not answer.part.size_bytes:
            await send({"type": "http.response.body", "body": b""})
        elif EXTENSION in scope.get("extensions", {}):
            await self._send_file(blob.fd, answer.part, readable, send)
        else:
            await self._send_reads(blob.fd, answer.part, readable, receive, send)

    async def _send_file(self, fd: int, part: ByteRange, readable: Readable | None, send: Send) -> None:
        for start in range(part.start, part.stop, MESSAGE_BYTES):
            stop = min(part.stop, start + MESSAGE_BYTES)
            await send(
                {
                    "type": EXTENSION,
                    "file": fd,
                    "offset": start,
                    "count": stop - start,
                    "more_body": stop < part.stop,
                    "limiter": self._limiter,
                    "readable": readable,
                }
            )
            self._holdings.note_sent(stop - start)

    async def _send_reads(
        self, fd: int, part: ByteRange, readable: Readable | None, receive: Receive, send: Send
    ) -> None:
        async def read(start: int, stop: int) -> bytes:
            if readable is not None:
                await self._run(_wait_for_all, readable, start, stop)
            chunk = await self._run(os.pread, fd, stop - start, start)
            if len(chunk) < stop - start:
                raise SendBroken("was cut off: the file ended early")
            return chunk

        await self._send_portions(part, read, receive, send)

    async def _send_memory(self, body: bytes, receive: Receive, send: Send) -> None:
        async def read(start: int, stop: int) -> bytes:
            return body[start:stop]

        await self._send_portions(ByteRange(0, len(body)), read, receive, send)

    async def _send_portions(self, part: ByteRange, read: Read, receive: Receive, send: Send) -> None:
        """Sends `part` at the rate that the limiter allows, as long as the client is there."""
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            start = part.start
            while start < part.stop and not gone.done():
                stop = min(part.stop, start + READ_BYTES)
                if self._limiter is not None:
                    stop = min(stop, start + (self._limiter.quantum() or READ_BYTES))
                    await asyncio.wait([gone], timeout=self._limiter.reserve(stop - start))
                chunk = await read(start, stop)
                await send({"type": "http.response.body", "body": chunk, "more_body": stop < part.stop})
                self._holdings.note_sent(len(chunk))
                start = stop
        finally:
            gone.cancel()

    async def _open(self, digest: Digest) -> SharedBlob:
        """Raises NotFound unless the node shares it; who asks learns no more than that."""
        blob = await self._run(self._holdings.open_shared, digest)
        if blob is None:
            raise NotFound(f"This node does not share {digest}.", digest=str(digest))
        return blob

    def _close(self, blob: SharedBlob) -> None:
        """In a thread, and nobody waits: closing the last descriptor of a large removed file takes its time."""
        self._threads.submit(blob.close)

    async def _run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _decide(digest: Digest, blob: SharedBlob, scope: Scope) -> _Answer:
    """The answer to a GET or HEAD of an open blob. Raises NotFound where the bytes asked for are not here."""
    etag = f'"{digest.hex}"'
    headers: dict[str, str | int] = {"ETag": etag, "Accept-Ranges": "bytes"}
    if names_etag(header(scope, b"if-none-match"), etag):
        return _Answer(304, headers)
    asked = _asked_part(scope, etag, blob.size_bytes)
    wait_seconds = _wait_seconds(blob, asked, scope)
    part = asked if isinstance(asked, ByteRange) and wait_seconds is not None else _present_part(blob, asked)
    if isinstance(part, Unsatisfiable):
        return _Answer(416, {**headers, "Content-Range": f"bytes */{blob.size_bytes}", "Content-Length": 0})
    headers |= {"Content-Type": "application/octet-stream", "Content-Length": part.size_bytes}
    if asked is None:
        return _Answer(200, headers, part)
    return _Answer(206, {**headers, "Content-Range": content_range(part, blob.size_bytes)}, part, wait_seconds)


def _asked_part(scope: Scope, etag: str, size_bytes: int) -> ByteRange | Unsatisfiable | None:
    if scope["method"] == "HEAD" or not allows_range(header(scope, b"if-range"), etag):
        return None
    return parse_range(header(scope, b"range"), size_bytes)


def _wait_seconds(blob: SharedBlob, asked: ByteRange | Unsatisfiable | None, scope: Scope) -> float | None:
    """How long each next byte of what is asked may be waited for; None where nobody wants to wait, or in vain."""
    preferred = _WAIT.search(header(scope, WAIT_HEADER.lower().encode()) or "")
    if preferred is None or not isinstance(asked, ByteRange) or not blob.is_coming(*asked):
        return None
    return min(float(preferred[1]), MAX_WAIT_SECONDS)


def _present_part(blob: SharedBlob, asked: ByteRange | Unsatisfiable | None) -> ByteRange | Unsatisfiable:
    """What of the range can be sent now: from its start as far as the bytes are here without a gap."""
    if isinstance(asked, Unsatisfiable):
        return asked
    start, stop = asked or (0, blob.size_bytes)
    present = blob.present()
    gap = None if present is None else next(present.gaps(start, stop), None)
    if gap is None:
        return ByteRange(start, stop)
    if asked is None:
        raise NotFound("This node has only parts of this blob.", hint="Ask for ranges; /pieces says which.")
    return UNSATISFIABLE if gap.start == start else ByteRange(start, gap.start)


def _peer_of(scope: Scope) -> str:
    """Who asks: a host, and among the nodes of this very machine, which share one, the node it says it is."""
    host = scope["client"][0] if scope.get("client") else ""
    is_own_machine = host.startswith("127.") or host in ("", "::1", "::ffff:127.0.0.1")
    return f"{host} {asker(scope)}" if is_own_machine else host


async def _start(send: Send, answer: _Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": header_lines(answer.headers)})


def _wait_for_all(readable: Readable, start: int, stop: int) -> None:
    """Blocking. Raises SendBroken when the bytes do not come."""
    while start < stop:
        end = readable(start, stop)
        if end == start:
            raise SendBroken("waited for bytes that did not come")
        start = end


def _read_batch(holdings: Holdings, digests: Sequence[Digest]) -> bytes:
    """Blocking: the body of a batch."""
    body = bytearray()
    for digest, blob in zip(digests, holdings.open_all_shared(digests), strict=True):
        content = None if blob is None else _read_small(blob)
        body += encode_batch_header(digest, None if content is None else len(content))
        body += content or b""
    return bytes(body)


def _read_small(blob: SharedBlob) -> bytes | None:
    """A shared blob, which is closed; None if it is not whole, or too large for a batch."""
    try:
        if blob.present() is not None or blob.size_bytes > MAX_BATCH_BLOB_BYTES:
            return None
        content = os.pread(blob.fd, blob.size_bytes, 0)
        return content if len(content) == blob.size_bytes else None
    finally:
        blob.close()
