"""Sends blobs to peers: one range of a shared blob, whole or still being fetched, and batches of small blobs.

A plain ASGI handler, because bodies must not pass through middleware. Sends only bytes that the node has and shares,
and changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs

from hfpeer.errors import NotFound
from hfpeer.names import Digest
from hfpeer.net.limiter import Limiter
from hfpeer.peers.protocol.batch import (
    MAX_BATCH_BLOB_BYTES,
    MAX_BATCH_BYTES,
    encode_batch_header,
    parse_batch_digests,
)
from hfpeer.peers.protocol.paths import BLOBS_PREFIX, WAIT_HEADER
from hfpeer.peers.provider import Provider, SharedBlob
from hfpeer.ranges import MIB, ByteRange
from hfpeer_daemon.http.copying import Readable
from hfpeer_daemon.http.responses import (
    UNSATISFIABLE,
    Receive,
    Scope,
    Send,
    Unsatisfiable,
    allows_range,
    content_range,
    header,
    header_lines,
    names_etag,
    parse_range,
    sender_node_id,
    until_gone,
)
from hfpeer_daemon.http.zero_copy import EXTENSION, SendBroken
from hfpeer_daemon.lan.upload_slots import UploadSlots

READ_BYTES = MIB
MESSAGE_BYTES = 64 * MIB
"""Bytes sent, and counted, in one message."""

MAX_WAIT_SECONDS = 30.0

_NOTHING = ByteRange(0, 0)
_WAIT = re.compile(r"(?:^|,)\s*wait=([0-9]{1,4})\s*(?:[,;]|$)", re.IGNORECASE)

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
Read = Callable[[int, int], Awaitable[bytes]]
Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class _Response:
    """The response to send: status, headers, and the range of bytes that follows (empty for 304 and 416).
    `wait_seconds` bounds the wait for each next byte; None if all are present."""

    status: int
    headers: dict[str, str | int]
    part: ByteRange = _NOTHING
    wait_seconds: float | None = None


class BlobApp:
    """Serves GET and HEAD of `/blobs/{digest}` and `/batch`. Errors raised before the response begins go to `problems`.

    `threads` opens, reads and (through the zero-copy protocol) sends; it needs a few more threads than there are slots.
    `slots` bounds the uploads, `batches` the batches, which are assembled first (16 MiB at most), and `limiter` the
    rate of all together.
    """

    def __init__(
        self,
        provider: Provider,
        threads: Executor,
        slots: UploadSlots,
        batches: UploadSlots,
        limiter: Limiter | None = None,
    ) -> None:
        self._provider = provider
        self._threads = threads
        self._slots = slots
        self._batches = batches
        self._limiter = limiter

    async def blob(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends one blob, or one range of it."""
        digest = Digest.parse(scope["path"].removeprefix(BLOBS_PREFIX))
        if scope["method"] == "HEAD" or header(scope, b"if-none-match") is not None:
            responded = await self._respond_without_bytes(digest, scope, send)
            if responded:
                return
        async with self._slots.acquire(upload_key(scope)):
            await self._respond_with_bytes(digest, scope, receive, send)

    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends many small blobs in one response, each after a line with its digest."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        digests = parse_batch_digests(",".join(query.get("digests", [])))
        async with self._batches.acquire(upload_key(scope)):
            fd, size_bytes = await self._run(_read_batch, self._provider, digests)
            try:
                headers: dict[str, str | int] = {"Content-Type": "application/octet-stream"}
                await _start(send, _Response(200, {**headers, "Content-Length": size_bytes}))
                if scope["method"] == "HEAD" or not size_bytes:
                    await send({"type": "http.response.body", "body": b""})
                else:
                    part = ByteRange(0, size_bytes)
                    await self._send(fd, part, None, self._batches, scope, receive, send)
            except SendBroken as error:
                self._note_broken("a batch", error, scope)
            finally:
                self._threads.submit(os.close, fd)

    async def _respond_without_bytes(self, digest: Digest, scope: Scope, send: Send) -> bool:
        """Handles HEAD, and GET of an unchanged blob; returns False if a body must follow."""
        blob = await self._open(digest)
        try:
            response = _response_to(digest, blob, scope)
        finally:
            self._close(blob)
        if scope["method"] == "GET" and response.status != 304:
            return False
        await _start(send, response)
        await send({"type": "http.response.body", "body": b""})
        return True

    async def _respond_with_bytes(self, digest: Digest, scope: Scope, receive: Receive, send: Send) -> None:
        blob = await self._open(digest)
        try:
            response = _response_to(digest, blob, scope)
            await _start(send, response)
            await self._send_part(digest, blob, response, scope, receive, send)
        except SendBroken as error:
            self._note_broken(str(digest), error, scope)
        finally:
            self._close(blob)

    def _note_broken(self, what: str, error: SendBroken, scope: Scope) -> None:
        self._provider.note_sent(error.sent_bytes)
        _log.debug("%s of %s: the peer %s", scope["client"], what, error)

    async def _send_part(
        self, digest: Digest, blob: SharedBlob, response: _Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        seconds = response.wait_seconds
        readable = None if seconds is None else partial(blob.await_readable, seconds=seconds)
        if not response.part.size_bytes:
            await send({"type": "http.response.body", "body": b""})
        else:
            check_shared = partial(self._check_shared, digest)
            await self._send(blob.fd, response.part, readable, self._slots, scope, receive, send, check_shared)

    async def _send(
        self,
        fd: int,
        part: ByteRange,
        readable: Readable | None,
        slots: UploadSlots,
        scope: Scope,
        receive: Receive,
        send: Send,
        check_shared: Check | None = None,
    ) -> None:
        """Sends `part` of a file. A client that accepts almost nothing soon loses its slot in `slots` if others wait.
        After each MESSAGE_BYTES, `check_shared` raises SendBroken if the blob is not shared any more."""
        if EXTENSION in scope.get("extensions", {}):
            await self._send_file(fd, part, readable, slots, send, check_shared)
        else:
            await self._send_reads(fd, part, readable, receive, send, check_shared)

    async def _send_file(
        self,
        fd: int,
        part: ByteRange,
        readable: Readable | None,
        slots: UploadSlots,
        send: Send,
        check_shared: Check | None,
    ) -> None:
        for start in range(part.start, part.stop, MESSAGE_BYTES):
            if check_shared is not None and start > part.start:
                await check_shared()
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
                    "is_wanted": slots.is_wanted,
                }
            )
            self._provider.note_sent(stop - start)

    async def _send_reads(
        self,
        fd: int,
        part: ByteRange,
        readable: Readable | None,
        receive: Receive,
        send: Send,
        check_shared: Check | None,
    ) -> None:
        checked = part.start

        async def read(start: int, stop: int) -> bytes:
            nonlocal checked
            if check_shared is not None and start - checked >= MESSAGE_BYTES:
                await check_shared()
                checked = start
            if readable is not None:
                await self._run(_wait_for_all, readable, start, stop)
            chunk = await self._run(os.pread, fd, stop - start, start)
            if len(chunk) < stop - start:
                raise SendBroken("was cut off: the file ended early")
            return chunk

        await self._send_portions(part, read, receive, send)

    async def _send_portions(self, part: ByteRange, read: Read, receive: Receive, send: Send) -> None:
        """Sends `part` at the limiter's rate, while the client is connected."""
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
                self._provider.note_sent(len(chunk))
                start = stop
        finally:
            gone.cancel()

    async def _open(self, digest: Digest) -> SharedBlob:
        """Raises NotFound unless the node shares it, without telling whether it exists."""
        blob = await self._run(self._provider.open_shared, digest)
        if blob is None:
            raise NotFound(f"This node does not share {digest}.", digest=str(digest))
        return blob

    async def _check_shared(self, digest: Digest) -> None:
        """Raises SendBroken if the node no longer shares it."""
        blob = await self._run(self._provider.open_shared, digest)
        if blob is None:
            raise SendBroken("is not allowed to have it any more")
        self._close(blob)

    def _close(self, blob: SharedBlob) -> None:
        """In a thread and without waiting: closing the last descriptor of a large removed file takes time."""
        self._threads.submit(blob.close)

    async def _run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _response_to(digest: Digest, blob: SharedBlob, scope: Scope) -> _Response:
    """The response to a GET or HEAD of an open blob. Raises NotFound if the whole is requested and only parts are
    present."""
    etag = f'"{digest.hex}"'
    headers: dict[str, str | int] = {"ETag": etag, "Accept-Ranges": "bytes"}
    if names_etag(header(scope, b"if-none-match"), etag):
        return _Response(304, headers)
    wanted = _wanted_part(scope, etag, blob.size_bytes)
    wait_seconds = _wait_seconds(blob, wanted, scope)
    part = wanted if isinstance(wanted, ByteRange) and wait_seconds is not None else _present_part(blob, wanted)
    if isinstance(part, Unsatisfiable):
        return _Response(416, {**headers, "Content-Range": f"bytes */{blob.size_bytes}", "Content-Length": 0})
    headers |= {"Content-Type": "application/octet-stream", "Content-Length": part.size_bytes}
    if wanted is None:
        return _Response(200, headers, part)
    return _Response(206, {**headers, "Content-Range": content_range(part, blob.size_bytes)}, part, wait_seconds)


def _wanted_part(scope: Scope, etag: str, size_bytes: int) -> ByteRange | Unsatisfiable | None:
    if scope["method"] == "HEAD" or not allows_range(header(scope, b"if-range"), etag):
        return None
    return parse_range(header(scope, b"range"), size_bytes)


def _wait_seconds(blob: SharedBlob, wanted: ByteRange | Unsatisfiable | None, scope: Scope) -> float | None:
    """Seconds to wait for each next byte of the range (cut-through); None without `Prefer: wait` (RFC 7240 §4.3), or if
    the bytes are not on their way."""
    preferred = _WAIT.search(header(scope, WAIT_HEADER.lower().encode()) or "")
    if preferred is None or not isinstance(wanted, ByteRange) or not blob.is_coming(*wanted):
        return None
    return min(float(preferred[1]), MAX_WAIT_SECONDS)


def _present_part(blob: SharedBlob, wanted: ByteRange | Unsatisfiable | None) -> ByteRange | Unsatisfiable:
    """The part of the range that can be sent now: from its start up to the first gap."""
    if isinstance(wanted, Unsatisfiable):
        return wanted
    start, stop = wanted or (0, blob.size_bytes)
    present = blob.present()
    gap = None if present is None else next(present.gaps(start, stop), None)
    if gap is None:
        return ByteRange(start, stop)
    if wanted is None:
        raise NotFound("This node has only parts of this blob.", hint="Request ranges; /pieces shows which it has.")
    return UNSATISFIABLE if gap.start == start else ByteRange(start, gap.start)


def upload_key(scope: Scope) -> str:
    """The key under which uploads are counted: the host; for a node on this machine also its node id."""
    host = scope["client"][0] if scope.get("client") else ""
    is_own_machine = host.startswith("127.") or host in ("", "::1", "::ffff:127.0.0.1")
    return f"{host} {sender_node_id(scope)}" if is_own_machine else host


async def _start(send: Send, response: _Response) -> None:
    await send({"type": "http.response.start", "status": response.status, "headers": header_lines(response.headers)})


def _wait_for_all(readable: Readable, start: int, stop: int) -> None:
    """Blocking. Raises SendBroken if the bytes do not come."""
    while start < stop:
        end = readable(start, stop)
        if end == start:
            raise SendBroken("waited in vain for bytes")
        start = end


def _read_batch(provider: Provider, digests: Sequence[Digest]) -> tuple[int, int]:
    """Blocking: an unnamed file, in memory if the system can, and the size of the batch in it."""
    fd = _nameless_file()
    try:
        size_bytes, unwritten = 0, bytearray()
        for digest, content in zip(digests, provider.read_shared(digests, MAX_BATCH_BLOB_BYTES), strict=True):
            if size_bytes + len(unwritten) > MAX_BATCH_BYTES:
                content = None
            unwritten += encode_batch_header(digest, None if content is None else len(content))
            unwritten += content or b""
            if len(unwritten) >= READ_BYTES:
                size_bytes += _write(fd, unwritten)
                unwritten = bytearray()
        size_bytes += _write(fd, unwritten)
    except BaseException:
        os.close(fd)
        raise
    return fd, size_bytes


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hfpeer-batch")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(fd: int, content: bytes | bytearray) -> int:
    """Writes all of it; returns its size."""
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]
    return len(content)
