"""A uvicorn protocol that sends files from the page cache to the socket, in a worker thread.

Implements the ASGI extension `http.response.zerocopysend` on plain HTTP/1.1 connections, with asyncio and uvloop, and
the limits of one connection: the size of a request beside its body, and the seconds without progress. It uses uvicorn's
internals (the cycle behind `send`), so the range of uvicorn versions is pinned, and a contract test guards it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hfpeer.budgets import (
    BODY_STALL_SECONDS,
    FIRST_BYTE_SECONDS,
    HEAD_SECONDS,
    LEAST_BODY_BYTES,
    LEAST_TAKEN_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED_REQUESTS,
    STALL_SECONDS,
)
from hfpeer.net.limiter import Limiter
from hfpeer_daemon.http.copying import IsWanted, Readable, copy_to_socket, unacknowledged_bytes
from hfpeer_daemon.http.copying import SendBroken as SendBroken

EXTENSION = "http.response.zerocopysend"
CAN_SENDFILE = hasattr(os, "sendfile")
SLICE_BYTES = 16 * 1024
BUSY_REQUESTS = 64
"""With more requests under way at a door, a new one runs only if its client is still connected."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


class ZeroCopyProtocol(HttpToolsProtocol):
    """uvicorn's protocol with zero copy and limits; `zero_copy_protocol` makes the class for `uvicorn.Config(http=…)`.
    `on_lost` is called when the connection has ended."""

    threads: ClassVar[Executor]
    times: ClassVar[Times]

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._inner: Any = self.app
        self.app = self._run_app
        self.on_lost: Callable[[], None] = _nothing
        self.has_received = False
        self._idle_since = time.monotonic()
        self._is_ended = False
        self._request = _Request()
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    async def _run_app(self, scope: Any, receive: Any, send: Any) -> None:
        cycle: RequestResponseCycle = send.__self__
        if scope["type"] == "http" and CAN_SENDFILE and self.scheme == "http":
            scope.setdefault("extensions", {})[EXTENSION] = {}
            send = _FileSender(cycle, self.loop, self.threads, self.times.stall_seconds).send
        send = _with_own_headers(cycle, send)
        if len(self.tasks) > BUSY_REQUESTS:
            await asyncio.sleep(0)  # lets the loop read a disconnect first: a client that has left gets no response
            if cycle.disconnected or self.transport.is_closing():
                cycle.disconnected = True
                return
        try:
            await self._inner(scope, receive, send)
        except SendBroken:
            pass  # the connection is closed; there is nothing left to send
        except asyncio.CancelledError:
            # The server is stopping. The client's connection ends here: uvicorn would log a cancelled app as an error,
            # and a response sent now could land in the middle of another.
            cycle.disconnected = True
            cycle.transport.abort()
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            # The app broke the response off on purpose. Bytes that still wait for the client are dropped.
            cycle.disconnected = True
            self.abort()

    # The connection

    @property
    def idle_since(self) -> float | None:
        """When the connection became idle; None while a request or a response is under way, and after its end."""
        is_resting = not self._is_ended and not self._is_responding() and not self._request.is_coming
        return self._idle_since if is_resting else None

    def abort(self) -> None:
        """Ends the connection at once, also for a thread that writes to it."""
        self._is_ended = True
        if self.transport is None:
            return
        try:
            with socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed already, or no descriptor is left: the transport ends it
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_ended:
            transport.abort()
        else:
            self._expect_head(self.times.first_byte_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ended = True
        self._end_head()
        self._end_body()
        super().connection_lost(exc)
        self._end_watching()
        self.on_lost()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.abort()  # an orderly close would wait for a client that does not read the last response
        else:
            super().timeout_keep_alive_handler()

    # Receiving

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if not self.has_received:
            self.has_received = True
            self._expect_head(self.times.head_seconds)
        if len(data) <= SLICE_BYTES:
            self._feed(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            # Counted after each slice: one read may contain many bytes that are no body.
            self._feed(view[start : start + SLICE_BYTES])
            if self._is_ended:
                return

    def _feed(self, data: bytes | memoryview) -> None:
        request = self._request
        request.begin_slice()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # handled as any request; the bytes after it are no HTTP
        except httptools.HttpParserError:
            self._refuse(_TOO_LARGE if request.is_too_large else _BAD_REQUEST)
            return
        if request.end_slice(len(data)):
            self._refuse(_TOO_LARGE)
        elif not request.is_coming and self._head_timer is None and not self._is_responding():
            # The bytes were too few to begin a request, and stopped the timer that waits for one.
            self._expect_head(self.times.head_seconds)

    def on_message_begin(self) -> None:
        self._request.begin()
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head(self.times.head_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.count_header()
        if not self._request.has_head:  # trailers are ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        self._request.end_head()
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise httptools.HttpParserError("too many requests at once")
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 "))
            for name, value in self.headers
        )
        if has_body and self.parser.get_method() in (b"GET", b"HEAD"):
            raise httptools.HttpParserError("GET and HEAD have no body")
        super().on_headers_complete()
        if has_body:
            self._expect_body()

    def on_body(self, body: bytes) -> None:
        self._request.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._request.is_coming = False
        self._end_body()
        super().on_message_complete()
        self._idle_since = time.monotonic()

    def on_response_complete(self) -> None:
        self._idle_since = time.monotonic()
        super().on_response_complete()
        self._end_watching()
        self._watch_sending()
        if self.cycle.response_complete and self.cycle.body:
            self.cycle.body = bytearray()  # frees memory: it is not read any more, and the next request may come late
        if self._request.is_coming and self._request.has_head and not self._is_responding():
            # The rest of the request body is not read. Either it ends soon, or the connection does.
            self._end_body()
            self._body_timer = self.loop.call_later(self.times.head_seconds, self.abort)

    # Time limits on receiving

    def _expect_head(self, seconds: float) -> None:
        self._end_head()
        self._head_timer = self.loop.call_later(seconds, self._head_is_late)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self._is_responding():
            # The next request came early; it is read after the current response.
            self._expect_head(self.times.head_seconds)
        else:
            self.abort()

    def _expect_body(self) -> None:
        """Checks that the request body arrives: at least LEAST_BODY_BYTES in each `body_seconds`, or its end."""
        self._end_body()
        self._body_timer = self.loop.call_later(
            self.times.body_seconds, self._check_body, self._request, self._request.body_bytes
        )

    def _check_body(self, request: _Request, body_bytes: int) -> None:
        is_read = not self.flow.read_paused  # else this node is the cause of the wait
        if is_read and request.body_bytes - body_bytes < LEAST_BODY_BYTES:
            self.abort()
        else:
            self._expect_body()

    def _end_body(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    # Time limits on sending

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_watching()
        if not self._is_ended:
            self._watch_sending()

    def _watch_sending(self) -> None:
        """Checks that the client accepts the waiting bytes, until there are none."""
        if self._send_timer is None and self.transport.get_write_buffer_size():
            self._send_timer = self.loop.call_later(
                self.times.stall_seconds, self._check_sending, self.cycle, self._unsent_bytes()
            )

    def _end_watching(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _check_sending(self, cycle: RequestResponseCycle | None, before: int) -> None:
        self._send_timer = None
        if not self.transport.get_write_buffer_size():
            return
        # Only then is nothing added to the waiting bytes, so a smaller number means that the client accepted some.
        is_comparable = self.flow.write_paused or (self.cycle is cycle and not self._is_responding())
        if is_comparable and before - self._unsent_bytes() < LEAST_TAKEN_BYTES:
            self.abort()
        else:
            self._watch_sending()

    def _unsent_bytes(self) -> int:
        """Bytes that the client has not accepted, here and in the kernel."""
        in_system = unacknowledged_bytes(self.transport.get_extra_info("socket").fileno())
        return self.transport.get_write_buffer_size() + in_system

    def _refuse(self, response: bytes) -> None:
        self._end_head()
        self._end_body()
        self._is_ended = True
        if self._is_responding():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(response)
            self.transport.close()

    def _is_responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


def _with_own_headers(cycle: RequestResponseCycle, send: Any) -> Any:
    """`send` for responses whose own headers replace those of the door with the same name."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            cycle.default_headers = [pair for pair in cycle.default_headers if pair[0].lower() not in own]
        await send(message)

    return sending


class _Request:
    """Counts the bytes of one request beside its body: head, chunk lines, trailers."""

    def __init__(self) -> None:
        self.is_coming = False
        self.has_head = False
        self.is_too_large = False
        self.body_bytes = 0
        self._headers = 0
        self._other_bytes = 0
        """Since the head began, without the body."""
        self._idle_bytes = 0
        """Since the last byte of the body."""
        self._begun = 0
        self._was_coming = False
        self._before_bytes = 0

    def begin_slice(self) -> None:
        self._was_coming, self._begun, self._before_bytes = self.is_coming, 0, self.body_bytes

    def end_slice(self, size_bytes: int) -> bool:
        """Counts a slice of `size_bytes`. Returns whether a limit is exceeded."""
        body_bytes = max(0, self.body_bytes - self._before_bytes)
        if self._begun > 1 or (self._begun and self._was_coming):
            # The current request began somewhere in this slice: its bytes are counted from the next slice on.
            self._other_bytes = self._idle_bytes = 0
        else:
            self._other_bytes += max(0, size_bytes - body_bytes)
            self._idle_bytes = 0 if body_bytes else self._idle_bytes + size_bytes
        # Chunk lines may grow with the body they carry. Trailers come after the body.
        self.is_too_large |= self._other_bytes > MAX_HEAD_BYTES + self.body_bytes or self._idle_bytes > MAX_HEAD_BYTES
        return self.is_too_large

    def begin(self) -> None:
        self._begun += 1
        self.is_coming, self.has_head = True, False
        self.body_bytes = self._before_bytes = self._headers = self._other_bytes = self._idle_bytes = 0

    def count_header(self) -> None:
        """Raises HttpParserError for one header too many."""
        self._headers += 1
        if self._headers > MAX_HEADERS:
            self.is_too_large = True
            raise httptools.HttpParserError("too many headers")

    def end_head(self) -> None:
        self.has_head = True


@dataclass(frozen=True)
class Times:
    """Time limits of one connection without progress, in seconds: see `budgets`."""

    first_byte_seconds: float = FIRST_BYTE_SECONDS
    head_seconds: float = HEAD_SECONDS
    body_seconds: float = BODY_STALL_SECONDS
    stall_seconds: float = STALL_SECONDS


def zero_copy_protocol(threads: Executor, times: Times | None = None) -> type[ZeroCopyProtocol]:
    """The protocol class that sends bodies in `threads`, one thread per body.

    A client without progress for longer than `times` allows loses its connection.
    """
    return type("BoundZeroCopyProtocol", (ZeroCopyProtocol,), {"threads": threads, "times": times or Times()})


def _nothing() -> None:
    """The default of `on_lost`."""


class _FileSender:
    """`send` of one request, extended by `http.response.zerocopysend`. Such a message may have `limiter`, `is_wanted`,
    and for a growing file `readable`: see `copying`."""

    def __init__(
        self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop, threads: Executor, timeout_seconds: float
    ) -> None:
        self._cycle = cycle
        self._loop = loop
        self._threads = threads
        self._timeout_seconds = timeout_seconds

    async def send(self, message: Message) -> None:
        if message["type"] != EXTENSION:
            await self._cycle.send(message)  # type: ignore[arg-type]
            if self._cycle.disconnected:
                # uvicorn drops the message silently; without an error the app would go on to fetch for a client that
                # has left.
                raise self._broken("left")
            return
        await self._send_file(message)
        if not message.get("more_body", False):
            await self._cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_file(self, message: Message) -> None:
        """Raises SendBroken after the connection is closed."""
        file_fd, offset, count = _slice(message)
        cycle = self._cycle
        if cycle.disconnected:
            raise self._broken("left before the response")  # uvicorn's `send` raised nothing
        if not cycle.response_started or cycle.response_complete or cycle.chunked_encoding:
            raise RuntimeError(f"{EXTENSION} wants a started response with a Content-Length")
        if cycle.scope["method"] == "HEAD":
            return
        if count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        if count:
            await self._flush()
            await self._copy(file_fd, offset, count, *map(message.get, ("limiter", "readable", "is_wanted")))
            cycle.expected_content_length -= count

    async def _flush(self) -> None:
        """Waits until the loop has written its buffer, so that the thread's bytes come after it."""
        cycle = self._cycle
        # While a thread writes, the loop must not. With reading paused, no parse error can make it send a response.
        cycle.flow.pause_reading()
        cycle.transport.set_write_buffer_limits(high=0)
        try:
            if cycle.transport.get_write_buffer_size():
                await asyncio.wait_for(cycle.flow.drain(), self._timeout_seconds)
        except asyncio.TimeoutError as error:
            raise self._broken("accepted no byte of the head") from error
        finally:
            cycle.transport.set_write_buffer_limits()
        if cycle.disconnected or cycle.transport.is_closing():
            raise self._broken("left before the body")

    async def _copy(
        self,
        file_fd: int,
        offset: int,
        count: int,
        limiter: Limiter | None,
        readable: Readable | None,
        is_wanted: IsWanted | None,
    ) -> None:
        sock = self._duplicate_socket()
        what = (sock, file_fd, offset, count, self._timeout_seconds, limiter, readable, is_wanted)
        copied = self._loop.run_in_executor(self._threads, copy_to_socket, *what)
        try:
            await asyncio.shield(copied)
        except SendBroken as error:
            raise self._broken(str(error), error.sent_bytes) from error
        except asyncio.CancelledError as error:
            # The server is stopping. The file may be closed only after the thread has ended. Raised as SendBroken,
            # because uvicorn would log a cancelled app as an error.
            sent_bytes = await _interrupt(sock, copied)
            raise self._broken("was cut off", sent_bytes) from error
        finally:
            sock.close()

    def _duplicate_socket(self) -> socket.socket:
        """A second descriptor: the loop may close its own while the thread still writes."""
        try:
            return socket.socket(fileno=os.dup(self._cycle.transport.get_extra_info("socket").fileno()))
        except OSError as error:
            raise self._broken("left before the body") from error

    def _broken(self, reason: str, sent_bytes: int = 0) -> SendBroken:
        self._cycle.disconnected = True
        self._cycle.transport.abort()
        return SendBroken(reason, sent_bytes)


async def _interrupt(sock: socket.socket, copied: asyncio.Future[int]) -> int:
    """Ends the thread that writes to `sock`, waits for it, and returns the number of bytes it sent."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    try:
        return await copied
    except SendBroken as error:
        return error.sent_bytes


def _slice(message: Message) -> tuple[int, int, int]:
    """Descriptor, offset and count of a message; by default from the file's position to its end."""
    file = message["file"]
    file_fd = file if isinstance(file, int) else file.fileno()
    offset = message.get("offset")
    offset = os.lseek(file_fd, 0, os.SEEK_CUR) if offset is None else offset
    count = message.get("count")
    return file_fd, offset, max(0, os.fstat(file_fd).st_size - offset) if count is None else count
