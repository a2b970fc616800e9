"""Blob bytes from one peer over plain sockets: blocking, for worker threads, straight into the caller's buffer.

A small HTTP/1.1 client of its own, because three things matter here that the standard one does not give: the
head of an answer has a deadline as a whole, a read returns what has come instead of waiting for a full buffer, and
another thread can end a blocked read at once. It follows no redirect, decodes nothing, keeps no cookie, and checks
status, range, size and length before the first byte is given.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from email.message import Message
from http.client import HTTPException, parse_headers
from io import BytesIO

from hfpeer.errors import CorruptData
from hfpeer.names import Address, Digest
from hfpeer.wire import (
    MAX_BATCH_BLOBS,
    MAX_BATCH_HEADER_BYTES,
    NODE_HEADER,
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    SourceFault,
    batch_path,
    blob_path,
    parse_batch_header,
)

MAX_HEAD_BYTES = 16 * 1024
MAX_IDLE_CONNECTIONS = 4
MAX_IDLE_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 300.0

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r\n")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_LENGTH = re.compile(r"[0-9]{1,19}")


class BodyClient:
    """Opens blobs at one peer and keeps its idle connections, at most `max_idle_connections`. Thread-safe.

    `connect_timeout_seconds` bounds making a connection, `silence_timeout_seconds` the wait for the whole head of an
    answer and for each next byte of its body.
    """

    def __init__(
        self,
        address: Address,
        own_node_id: str,
        *,
        connect_timeout_seconds: float = 3.0,
        silence_timeout_seconds: float = 10.0,
        max_idle_connections: int = MAX_IDLE_CONNECTIONS,
    ) -> None:
        self._address = address
        self._head = (
            f"Host: {_host_header(address)}\r\nAccept-Encoding: identity\r\n"
            f"{NODE_HEADER}: {own_node_id}\r\n{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\n"
        )
        self._connect_timeout_seconds = connect_timeout_seconds
        self._silence_timeout_seconds = silence_timeout_seconds
        self._max_idle_connections = max_idle_connections
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._is_closed = False

    def open_range(self, digest: Digest, start: int, stop: int, *, size_bytes: int | None = None) -> SocketBody:
        """Bytes `[start, stop)` of a blob; `size_bytes` is the blob's whole size, checked if it is given.

        Raises SourceFault: permanent where this peer can never give this blob (404, a redirect, a wrong size, an
        encoding), with `retry_after_seconds` where it asked for rest.
        """
        if not 0 <= start < stop:
            raise ValueError(f"[{start}, {stop}) is no range to ask for")
        connection, answer = self._ask(blob_path(digest), f"Range: bytes={start}-{stop - 1}\r\n")
        try:
            _check_range(answer, start, stop, size_bytes)
        except SourceFault:
            self._give_back(connection, is_reusable=False)
            raise
        return SocketBody(self, connection, stop - start)

    def open_batch(self, digests: Sequence[Digest]) -> Batch:
        """Many small blobs with one request, in the order asked; None stands for one that the peer does not give.

        At most MAX_BATCH_BLOBS digests, each once. The bytes are not checked against their digests. Raises SourceFault.
        """
        if not 1 <= len(set(digests)) == len(digests) <= MAX_BATCH_BLOBS:
            raise ValueError(f"A batch has 1 to {MAX_BATCH_BLOBS} different blobs, not {len(digests)}.")
        connection, answer = self._ask(batch_path(digests), "")
        try:
            length = _check_whole(answer)
        except SourceFault:
            self._give_back(connection, is_reusable=False)
            raise
        return Batch(SocketBody(self, connection, length), digests)

    def close(self) -> None:
        """Ends every connection, also those that other threads are reading from."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.abort()

    def _ask(self, path: str, extra: str) -> tuple[_Connection, _Answer]:
        request = f"GET {path} HTTP/1.1\r\n{self._head}{extra}\r\n".encode("ascii")
        connection = self._take()
        try:
            return connection, connection.ask(request)
        except _StaleConnection:
            self._give_back(connection, is_reusable=False)
        except BaseException:
            self._give_back(connection, is_reusable=False)
            raise
        connection = self._connect()
        try:
            return connection, connection.ask(request)
        except BaseException:
            self._give_back(connection, is_reusable=False)
            raise

    def _take(self) -> _Connection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
                if connection is not None:
                    self._busy.add(connection)
            if connection is None:
                return self._connect()
            if connection.is_fresh():
                return connection
            self._give_back(connection, is_reusable=False)

    def _connect(self) -> _Connection:
        target = (self._address.host, self._address.port)
        try:
            raw = socket.create_connection(target, timeout=self._connect_timeout_seconds)
        except (OSError, UnicodeError) as error:
            raise SourceFault(f"no connection to {self._address}: {error}") from error
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(raw, self._silence_timeout_seconds)
        with self._lock:
            self._busy.add(connection)
            is_closed = self._is_closed
        if is_closed:
            self._give_back(connection, is_reusable=False)
            raise SourceFault(f"{self._address} is not asked any more")
        return connection

    def _give_back(self, connection: _Connection, *, is_reusable: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            is_kept = is_reusable and not self._is_closed and len(self._idle) < self._max_idle_connections
            if is_kept:
                connection.rest()
                self._idle.append(connection)
        if not is_kept:
            connection.close()


class SocketBody:
    """A `Body` on a socket: the next `remaining_bytes` of it."""

    def __init__(self, client: BodyClient, connection: _Connection, length: int) -> None:
        self._client = client
        self._connection = connection
        self._lock = threading.Lock()
        self._is_closed = False
        self.remaining_bytes = length

    def readinto(self, view: memoryview) -> int:
        """Fills the front of `view` with what has come; 0 at the end. Raises SourceFault when the peer breaks off."""
        if self.remaining_bytes == 0 or len(view) == 0:
            return 0
        got = self._connection.recv_into(view[: self.remaining_bytes])
        if got == 0:
            raise SourceFault(f"the connection ended {self.remaining_bytes} bytes early")
        self.remaining_bytes -= got
        return got

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self._client._give_back(self._connection, is_reusable=self.remaining_bytes == 0)

    def abort(self) -> None:
        """Makes a `readinto` that blocks in another thread fail at once. Thread-safe; `close` is still needed."""
        with self._lock:  # once closed, the connection may already serve another body
            if not self._is_closed:
                self._connection.abort()


class Batch(Iterator[tuple[Digest, "bytes | None"]]):
    """The blobs of one batch as they come. Closes itself at its end and when it fails."""

    def __init__(self, body: SocketBody, digests: Sequence[Digest]) -> None:
        self._body = body
        self._expected = iter(digests)
        self._buffer = bytearray()

    def __next__(self) -> tuple[Digest, bytes | None]:
        expected = next(self._expected, None)
        try:
            if expected is None:
                raise StopIteration
            digest, size_bytes = parse_batch_header(self._read_line())
            if digest != expected:
                raise SourceFault(f"the batch has {digest} where {expected} was asked", is_permanent=True)
            return digest, None if size_bytes is None else self._read(size_bytes)
        except CorruptData as error:
            self.close()
            raise SourceFault(error.message, is_permanent=True) from error
        except (SourceFault, StopIteration):
            self.close()
            raise

    def close(self) -> None:
        self._body.close()

    def abort(self) -> None:
        """Makes a `next` that blocks in another thread fail at once. Thread-safe."""
        self._body.abort()

    def _read_line(self) -> bytes:
        while b"\n" not in self._buffer[:MAX_BATCH_HEADER_BYTES]:
            if len(self._buffer) >= MAX_BATCH_HEADER_BYTES:
                raise SourceFault("the batch has no header where one should be", is_permanent=True)
            self._fill()
        return self._cut(self._buffer.index(b"\n") + 1)

    def _read(self, size_bytes: int) -> bytes:
        while len(self._buffer) < size_bytes:
            self._fill()
        return self._cut(size_bytes)

    def _fill(self) -> None:
        chunk = bytearray(64 * 1024)
        got = self._body.readinto(memoryview(chunk))
        if got == 0:
            raise SourceFault("the batch ended early")
        self._buffer += chunk[:got]

    def _cut(self, size_bytes: int) -> bytes:
        front = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return front


class _StaleConnection(Exception):
    """A kept connection turned out to be closed before any byte of an answer came."""


class _Answer:
    """Status and headers of an answer; the body is still on the connection."""

    def __init__(self, status: int, headers: Message) -> None:
        self.status = status
        self._headers = headers

    def header(self, name: str) -> str:
        """The header's value; "" if it is missing. Raises SourceFault if it occurs twice."""
        values: list[str] = self._headers.get_all(name, [])
        if len(values) > 1:
            raise SourceFault(f"the answer has {len(values)} headers {name}", is_permanent=True)
        return values[0].strip() if values else ""

    @property
    def length(self) -> int | None:
        text = self.header("Content-Length")
        return int(text) if _LENGTH.fullmatch(text) else None


class _Connection:
    """One TCP connection: asks, reads the head of the answer, then hands out its body."""

    def __init__(self, raw: socket.socket, silence_timeout_seconds: float) -> None:
        self._socket = raw
        self._silence_timeout_seconds = silence_timeout_seconds
        self._pending = b""
        self._idle_since: float | None = None

    def ask(self, request: bytes) -> _Answer:
        """Sends the request and reads the head of the answer. Raises SourceFault, or _StaleConnection for one that
        was kept and has been closed by the peer meanwhile."""
        was_kept = self._idle_since is not None
        try:
            self._socket.settimeout(self._silence_timeout_seconds)
            self._socket.sendall(request)
            head = self._read_head()
        except TimeoutError as error:
            raise SourceFault(f"no answer within {self._silence_timeout_seconds:g} s") from error
        except OSError as error:
            if was_kept and not self._pending:
                raise _StaleConnection from error
            raise SourceFault(f"the connection broke: {error}") from error
        self._socket.settimeout(self._silence_timeout_seconds)
        return _parse_head(head)

    def recv_into(self, view: memoryview) -> int:
        """What has come, at most the view's size; 0 when the peer has closed. Raises SourceFault."""
        if self._pending:
            size_bytes = min(len(view), len(self._pending))
            view[:size_bytes] = self._pending[:size_bytes]
            self._pending = self._pending[size_bytes:]
            return size_bytes
        try:
            return self._socket.recv_into(view)
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


def _parse_head(head: bytes) -> _Answer:
    line = _STATUS_LINE.match(head)
    if line is None:
        raise SourceFault("the answer is not HTTP/1.1", is_permanent=True)
    try:
        headers = parse_headers(BytesIO(head[line.end() :]))
    except HTTPException as error:
        raise SourceFault(f"the answer's headers are broken: {error}", is_permanent=True) from error
    return _Answer(int(line[1]), headers)


def _check_range(answer: _Answer, start: int, stop: int, size_bytes: int | None) -> None:
    """Raises SourceFault unless the answer is exactly `[start, stop)` of a blob of `size_bytes`."""
    _check_status(answer, (200, 206))
    _check_encoding(answer)
    if answer.length != stop - start:
        raise SourceFault(
            f"{answer.header('Content-Length') or 'no'} bytes instead of {stop - start}", is_permanent=True
        )
    if answer.status == 200:
        total = answer.length if start == 0 else None
    else:
        total = _total_of(answer.header("Content-Range"), start, stop)
    if total is None:
        raise SourceFault(f"another range than bytes {start} to {stop}", is_permanent=True)
    if size_bytes is not None and total != size_bytes:
        raise SourceFault(f"its blob has {total} bytes instead of {size_bytes}", is_permanent=True)


def _total_of(content_range: str, start: int, stop: int) -> int | None:
    """The blob's size in a `Content-Range` that names exactly `[start, stop)`; None for any other."""
    found = _CONTENT_RANGE.fullmatch(content_range)
    if found is None or (int(found[1]), int(found[2]) + 1) != (start, stop):
        return None
    return int(found[3]) if int(found[3]) >= stop else None


def _check_whole(answer: _Answer) -> int:
    """The length of an answer that must be 200. Raises SourceFault."""
    _check_status(answer, (200,))
    _check_encoding(answer)
    if answer.length is None:
        raise SourceFault("the answer has no length", is_permanent=True)
    return answer.length


def _check_status(answer: _Answer, wanted: tuple[int, ...]) -> None:
    status = answer.status
    if status in wanted:
        return
    if status in (404, 410):
        raise SourceFault("does not have it", is_permanent=True)
    if status == 416:
        raise SourceFault("does not have these bytes now")
    if status in (429, 503):
        raise SourceFault("is busy", retry_after_seconds=_retry_after_seconds(answer))
    if 300 <= status < 400:
        raise SourceFault(f"redirects ({status}), which is never followed", is_permanent=True)
    raise SourceFault(f"answers with status {status}", is_permanent=status < 500)


def _check_encoding(answer: _Answer) -> None:
    encoding = answer.header("Content-Encoding")
    if encoding.lower() not in ("", "identity") or answer.header("Transfer-Encoding"):
        raise SourceFault("sends the bytes in an encoding", is_permanent=True)


def _retry_after_seconds(answer: _Answer) -> float:
    text = answer.header("Retry-After")
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if re.fullmatch("[0-9]{1,9}", text) else 1.0


def _host_header(address: Address) -> str:
    """The address without the scope, which means something on this machine only."""
    host, _, scope = address.host.partition("%")
    return str(Address(host, address.port)) if scope else str(address)
