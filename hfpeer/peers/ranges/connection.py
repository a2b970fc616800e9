"""One TCP connection for HTTP/1.1 requests (RFC 9112): blocking, abortable, with a time limit on every wait.

Its own client, because the standard one lacks three things: a deadline for the whole head of a response, a read that
returns the bytes at hand instead of waiting for a full buffer, and a way for another thread to end a blocked read at
once. Decodes nothing and follows no redirect.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
import time
from contextlib import suppress

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from hfpeer.net.body import SourceFault

MAX_HEAD_BYTES = 16 * 1024
MAX_IDLE_SECONDS = 60.0
LOW_WATER_MARK_BYTES = 256 * 1024
"""SO_RCVLOWAT: a read of a body returns when this many bytes have come, because each wake-up costs more CPU than
copying."""
LOW_WATER_WAIT_SECONDS = 0.25
"""Seconds that a read waits for LOW_WATER_MARK_BYTES. Then it returns the bytes at hand."""
HAS_LOW_WATER_MARK = sys.platform == "linux"
UNBOUNDED_WINDOW_BYTES = 1 << 30

_LENGTH = re.compile(r"[0-9]{1,19}")
_TCP_INFO_BYTES = 152
_MIN_RTT = struct.Struct("=148xI")
"""`tcpi_min_rtt` of linux/tcp.h, in microseconds."""


def round_trip_seconds(raw: socket.socket) -> float | None:
    """The shortest round trip of this connection so far, as the kernel measured it; None where the system does not tell
    it."""
    if sys.platform != "linux" or raw.family == socket.AF_UNIX:
        return None
    try:
        (microseconds,) = _MIN_RTT.unpack(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES))
    except (OSError, struct.error):
        return None
    return float(microseconds) / 1e6


class StaleConnection(Exception):
    """A kept connection was closed by the peer before the first byte of a response."""


class ResponseHead:
    """Status and headers of a response; its body is still on the connection."""

    def __init__(self, head: bytes) -> None:
        """Raises SourceFault if `head` is no head of HTTP/1.1."""
        self._values: dict[bytes, list[bytes]] = {}
        parser = HttpResponseParser(self)
        try:
            parser.feed_data(head)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise SourceFault(f"the response is not HTTP/1.1: {error}", is_permanent=True) from error
        self.status: int = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._values.setdefault(name.lower(), []).append(value)

    def header(self, name: str) -> str:
        """The value of a header; "" if it is missing. Raises SourceFault if it occurs twice."""
        values = self._values.get(name.lower().encode(), [])
        if len(values) > 1:
            raise SourceFault(f"the response has {len(values)} headers {name}", is_permanent=True)
        return values[0].decode("latin-1").strip() if values else ""

    @property
    def length(self) -> int | None:
        text = self.header("Content-Length")
        return int(text) if _LENGTH.fullmatch(text) else None


class Connection:
    """One TCP connection: sends a request, reads the head of the response, then its body."""

    def __init__(self, raw: socket.socket, silence_timeout_seconds: float) -> None:
        self._socket = raw
        self._silence_timeout_seconds = silence_timeout_seconds
        self._pending = b""
        self._idle_since: float | None = None
        self._low_water_mark_bytes = 1
        self._window_bytes = UNBOUNDED_WINDOW_BYTES

    def send_request(self, request: bytes, window_bytes: int | None = None) -> ResponseHead:
        """Sends a request and returns the head of its response. `window_bytes` bounds the bytes under way from the
        peer, where the system can (TCP_WINDOW_CLAMP); None sets no bound. Raises SourceFault, or StaleConnection for a
        kept connection that the peer has closed."""
        was_kept = self._idle_since is not None
        try:
            self._socket.settimeout(self._silence_timeout_seconds)
            self._set_low_water_mark(1)
            self._clamp_window(UNBOUNDED_WINDOW_BYTES if window_bytes is None else window_bytes)
            self._socket.sendall(request)
            head = self._read_head()
        except TimeoutError as error:
            raise SourceFault(f"no response within {self._silence_timeout_seconds:g} s") from error
        except OSError as error:
            if was_kept and not self._pending:
                raise StaleConnection from error
            raise SourceFault(f"the connection broke: {error}") from error
        self._set_timeout(self._silence_timeout_seconds)
        return ResponseHead(head)

    def recv_into(self, view: memoryview, limit: int) -> int:
        """Reads up to `limit` bytes into `view`; `limit` is at most the bytes still to come. Returns their number; 0
        when the peer has closed. Raises SourceFault."""
        if self._pending:
            size_bytes = min(limit, len(self._pending))
            view[:size_bytes] = self._pending[:size_bytes]
            self._pending = self._pending[size_bytes:]
            return size_bytes
        try:
            return self._recv(view, limit)
        except TimeoutError as error:
            raise SourceFault(f"silent for {self._silence_timeout_seconds:g} s") from error
        except OSError as error:
            raise SourceFault(f"the connection broke: {error}") from error

    def mark_idle(self) -> None:
        """Starts the idle time: the connection waits for its next request."""
        self._idle_since = time.monotonic()

    def is_reusable(self) -> bool:
        """Whether a kept connection can take another request: not idle for too long, not closed, and without unexpected
        bytes."""
        if self._pending or time.monotonic() - (self._idle_since or 0.0) > MAX_IDLE_SECONDS:
            return False
        try:
            self._socket.setblocking(False)
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def abort(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _recv(self, view: memoryview, limit: int) -> int:
        if HAS_LOW_WATER_MARK:
            self._set_low_water_mark(min(limit, LOW_WATER_MARK_BYTES))
            self._clamp_window(self._window_bytes)
            self._set_timeout(min(LOW_WATER_WAIT_SECONDS, self._silence_timeout_seconds))
            with suppress(TimeoutError):
                return self._socket.recv_into(view, limit)
            self._set_low_water_mark(1)
            self._set_timeout(self._silence_timeout_seconds)
        return self._socket.recv_into(view, limit)

    def _set_low_water_mark(self, size_bytes: int) -> None:
        """A read returns once this many bytes have come; 1 means at once."""
        if HAS_LOW_WATER_MARK and size_bytes != self._low_water_mark_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
            self._low_water_mark_bytes = size_bytes

    def _clamp_window(self, size_bytes: int) -> None:
        """Sets the clamp before every read: Linux forgets it when it enlarges the receive buffer."""
        was_bounded = self._window_bytes < UNBOUNDED_WINDOW_BYTES
        is_tcp = self._socket.family != socket.AF_UNIX
        if HAS_LOW_WATER_MARK and is_tcp and (was_bounded or size_bytes < UNBOUNDED_WINDOW_BYTES):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size_bytes)
        self._window_bytes = size_bytes

    def _set_timeout(self, seconds: float) -> None:
        if seconds != self._socket.gettimeout():
            self._socket.settimeout(seconds)

    def _read_head(self) -> bytes:
        deadline = time.monotonic() + self._silence_timeout_seconds
        while (end := self._pending.find(b"\r\n\r\n")) < 0:
            if len(self._pending) > MAX_HEAD_BYTES:
                raise SourceFault("the head of the response does not end", is_permanent=True)
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._socket.recv(MAX_HEAD_BYTES)
            if not chunk:
                raise ConnectionResetError("closed before a response")
            self._pending += chunk
        head, self._pending = self._pending[: end + 4], self._pending[end + 4 :]
        return head
