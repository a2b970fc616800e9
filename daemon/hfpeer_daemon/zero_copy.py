"""A uvicorn protocol that sends files from the page cache to the socket, in a worker thread.

Owns the ASGI extension `http.response.zerocopysend` on plain HTTP/1.1 connections, on asyncio and uvloop alike, and
the limits on a request's head. It must never decide what is sent. It rests on uvicorn's internals (the cycle behind
`send`), so the range of uvicorn versions is pinned and a contract test guards it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hfpeer.limits import Limiter
from hfpeer_daemon.copying import Readable, copy_to_socket
from hfpeer_daemon.copying import SendBroken as SendBroken

EXTENSION = "http.response.zerocopysend"
MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_SECONDS = 30.0
STALL_TIMEOUT_SECONDS = 60.0
CAN_SENDFILE = hasattr(os, "sendfile")

_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


class ZeroCopyProtocol(HttpToolsProtocol):
    """uvicorn's protocol plus zero copy; `zero_copy_protocol` makes the class that `uvicorn.Config(http=…)` takes."""

    threads: ClassVar[Executor]
    stall_timeout_seconds: ClassVar[float]
    head_timeout_seconds: ClassVar[float]

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._inner: Any = self.app
        self.app = self._offer
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    async def _offer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and CAN_SENDFILE and self.scheme == "http":
            scope.setdefault("extensions", {})[EXTENSION] = {}
            send = _FileSender(send.__self__, self.loop, self.threads, self.stall_timeout_seconds).send
        await self._inner(scope, receive, send)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._end_head()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_timeout_seconds, self._give_up_on_head)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up_on_head(self) -> None:
        if self._is_answering():
            self._expect_head()  # it came early, and nothing more is read until the answer is out
        else:
            self.transport.abort()

    def _refuse_head(self) -> None:
        self._end_head()
        if self._is_answering():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


def zero_copy_protocol(
    threads: Executor,
    *,
    stall_timeout_seconds: float = STALL_TIMEOUT_SECONDS,
    head_timeout_seconds: float = HEAD_TIMEOUT_SECONDS,
) -> type[ZeroCopyProtocol]:
    """The protocol class that sends in `threads`: one thread is busy for as long as one body is sent.

    A client that takes next to nothing for `stall_timeout_seconds`, or does not end a request's head within
    `head_timeout_seconds`, loses its connection.
    """
    settings = {
        "threads": threads,
        "stall_timeout_seconds": stall_timeout_seconds,
        "head_timeout_seconds": head_timeout_seconds,
    }
    return type("BoundZeroCopyProtocol", (ZeroCopyProtocol,), settings)


class _FileSender:
    """`send` of one request, which also takes `http.response.zerocopysend`. A message of ours may have a `limiter`, and
    where the file still grows it has `readable`: see `copying`."""

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
            return
        await self._send_file(message)
        if not message.get("more_body", False):
            await self._cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_file(self, message: Message) -> None:
        """Raises SendBroken, after which the connection is gone."""
        file_fd, offset, count = _slice(message)
        cycle = self._cycle
        if not cycle.response_started or cycle.response_complete or cycle.chunked_encoding:
            raise RuntimeError(f"{EXTENSION} wants a started response with a Content-Length")
        if cycle.scope["method"] == "HEAD":
            return
        if count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        if count:
            await self._flush()
            await self._copy(file_fd, offset, count, message.get("limiter"), message.get("readable"))
            cycle.expected_content_length -= count

    async def _flush(self) -> None:
        """Waits until the loop has written all it holds, so that the thread's bytes come after them."""
        cycle = self._cycle
        # While a thread writes, the loop must not: with reading paused no parse error can make it answer.
        cycle.flow.pause_reading()
        cycle.transport.set_write_buffer_limits(high=0)
        try:
            if cycle.transport.get_write_buffer_size():
                await asyncio.wait_for(cycle.flow.drain(), self._timeout_seconds)
        except asyncio.TimeoutError as error:
            raise self._broken("took no byte of the head") from error
        finally:
            cycle.transport.set_write_buffer_limits()
        if cycle.disconnected or cycle.transport.is_closing():
            raise self._broken("left before the body")

    async def _copy(
        self, file_fd: int, offset: int, count: int, limiter: Limiter | None, readable: Readable | None
    ) -> None:
        sock = self._duplicate_socket()
        what = (sock, file_fd, offset, count, self._timeout_seconds, limiter, readable)
        copied = self._loop.run_in_executor(self._threads, copy_to_socket, *what)
        try:
            await asyncio.shield(copied)
        except SendBroken as error:
            raise self._broken(str(error), error.sent_bytes) from error
        except asyncio.CancelledError as error:
            # The server ends. The file may only be closed once the thread is out of it. Said as SendBroken, because
            # for the app the connection is gone, and a cancelled app is an error in uvicorn's log.
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
    """Ends the thread that writes to `sock`, waits for it, and gives the bytes it had sent."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    try:
        return await copied
    except SendBroken as error:
        return error.sent_bytes


def _slice(message: Message) -> tuple[int, int, int]:
    """Descriptor, offset and count of a message, by default from where the file stands to its end."""
    file = message["file"]
    file_fd = file if isinstance(file, int) else file.fileno()
    offset = message.get("offset")
    offset = os.lseek(file_fd, 0, os.SEEK_CUR) if offset is None else offset
    count = message.get("count")
    return file_fd, offset, max(0, os.fstat(file_fd).st_size - offset) if count is None else count
