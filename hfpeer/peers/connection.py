"""One TCP connection that speaks just enough HTTP/1.1 to ask for bytes: blocking, abortable, never waiting forever.

Of its own because three things matter here that the standard client does not give: the head of an answer has a
deadline as a whole, a read returns what has come instead of waiting for a full buffer, and another thread can end a
blocked read at once. Decodes nothing, follows nothing, judges nothing.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
import time
from contextlib import suppress

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from hfpeer.wire import SourceFault

MAX_HEAD_BYTES = 16 * 1024
MAX_IDLE_SECONDS = 60.0
GATHERED_BYTES = 256 * 1024
"""A reader of a body is woken once for so many bytes, where the system can: each waking costs more than the copying."""
GATHERING_SECONDS = 0.25
"""Who takes longer for them is slow: then what has come is taken."""
CAN_GATHER = sys.platform == "linux"
UNBOUNDED_WINDOW_BYTES = 1 << 30

_LENGTH = re.compile(r"[0-9]{1,19}")
_TCP_INFO_BYTES = 152
_MIN_RTT = struct.Struct("=148xI")
"""`tcpi_min_rtt` of linux/tcp.h, in microseconds."""


def round_trip_seconds(raw: socket.socket) -> float | None:
    """The shortest time in which anything that this connection sent was acknowledged, by the kernel of the other side;
    None where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        (microseconds,) = _MIN_RTT.unpack(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES))
    except (OSError, struct.error):
        return None
    return float(microseconds) / 1e6


class StaleConnection(Exception):
    """A kept connection turned out to be closed before any byte of an answer came."""


class Answer:
    """Status and headers of an answer; the body is still on the connection."""

    def __init__(self, head: bytes) -> None:
        """Raises SourceFault for what is no head of HTTP/1.1."""
        self._values: dict[bytes, list[bytes]] = {}
        parser = HttpResponseParser(self)
        try:
            parser.feed_data(head)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise SourceFault(f"the answer is not plain HTTP/1.1: {error}", is_permanent=True) from error
        self.status: int = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._values.setdefault(name.lower(), []).append(value)

    def header(self, name: str) -> str:
        """The header's value; "" if it is missing. Raises SourceFault if it occurs twice."""
        values = self._values.get(name.lower().encode(), [])
        if len(values) > 1:
            raise SourceFault(f"the answer has {len(values)} headers {name}", is_permanent=True)
        return values[0].decode("latin-1").strip() if values else ""

    @property
    def length(self) -> int | None:
        text = self.header("Content-Length")
        return int(text) if _LENGTH.fullmatch(text) else None


class Connection:
    """One TCP connection: asks, reads the head of the answer, then hands out its body."""

    def __init__(self, raw: socket.socket, silence_timeout_seconds: float) -> None:
        self._socket = raw
        self._silence_timeout_seconds = silence_timeout_seconds
        self._pending = b""
        self._idle_since: float | None = None
        self._gathered_bytes = 1
        self._window_bytes = UNBOUNDED_WINDOW_BYTES

    def ask(self, request: bytes, window_bytes: int | None = None) -> Answer:
        """Sends the request and reads the head of the answer. The peer has at most `window_bytes` of it under way,
        where the system can bound that; None is as much as it likes. Raises SourceFault, or StaleConnection for one
        that was kept and has been closed by the peer meanwhile."""
        was_kept = self._idle_since is not None
        try:
            self._socket.settimeout(self._silence_timeout_seconds)
            self._wake_at(1)
            self._bound_window(UNBOUNDED_WINDOW_BYTES if window_bytes is None else window_bytes)
            self._socket.sendall(request)
            head = self._read_head()
        except TimeoutError as error:
            raise SourceFault(f"no answer within {self._silence_timeout_seconds:g} s") from error
        except OSError as error:
            if was_kept and not self._pending:
                raise StaleConnection from error
            raise SourceFault(f"the connection broke: {error}") from error
        self._wait_at_most(self._silence_timeout_seconds)
        return Answer(head)

    def recv_into(self, view: memoryview, limit: int) -> int:
        """What has come of the `limit` bytes, and maybe more, that are to come; 0 when the peer has closed. Raises
        SourceFault."""
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

    def rest(self) -> None:
        """Notes that from now on it waits for its next request."""
        self._idle_since = time.monotonic()

    def is_fresh(self) -> bool:
        """Whether a kept connection may be used again: young, and neither closed nor talking out of turn."""
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
        if CAN_GATHER:
            self._wake_at(min(limit, GATHERED_BYTES))
            self._bound_window(self._window_bytes)
            self._wait_at_most(min(GATHERING_SECONDS, self._silence_timeout_seconds))
            with suppress(TimeoutError):
                return self._socket.recv_into(view, limit)
            self._wake_at(1)
            self._wait_at_most(self._silence_timeout_seconds)
        return self._socket.recv_into(view, limit)

    def _wake_at(self, size_bytes: int) -> None:
        """From now on a read waits for so many bytes; 1 is as they come."""
        if CAN_GATHER and size_bytes != self._gathered_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
            self._gathered_bytes = size_bytes

    def _bound_window(self, size_bytes: int) -> None:
        """Again and again: the system forgets a bound when it makes room for more."""
        was_bounded = self._window_bytes < UNBOUNDED_WINDOW_BYTES
        if CAN_GATHER and (was_bounded or size_bytes < UNBOUNDED_WINDOW_BYTES):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size_bytes)
        self._window_bytes = size_bytes

    def _wait_at_most(self, seconds: float) -> None:
        if seconds != self._socket.gettimeout():
            self._socket.settimeout(seconds)

    def _read_head(self) -> bytes:
        deadline = time.monotonic() + self._silence_timeout_seconds
        while (end := self._pending.find(b"\r\n\r\n")) < 0:
            if len(self._pending) > MAX_HEAD_BYTES:
                raise SourceFault("the head of the answer does not end", is_permanent=True)
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._socket.recv(MAX_HEAD_BYTES)
            if not chunk:
                raise ConnectionResetError("closed before it answered")
            self._pending += chunk
        head, self._pending = self._pending[: end + 4], self._pending[end + 4 :]
        return head
