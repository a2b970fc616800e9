"""Reads ranges of blobs from one peer: blocking, for worker threads, from the socket into the caller's buffer.

Range requests as in RFC 9110 §14. Follows no redirect, decodes nothing, keeps no cookie, and checks status, range, size
and length before it returns a byte. The caller checks digests.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence

from hfpeer.budgets import MAX_RETRY_AFTER_SECONDS
from hfpeer.errors import CorruptData
from hfpeer.names import Digest
from hfpeer.net.address import Address
from hfpeer.net.body import Body, SourceFault
from hfpeer.net.http1 import parse_content_range, parse_delay_seconds
from hfpeer.net.limiter import Limiter, limited
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOBS, MAX_BATCH_HEADER_BYTES, batch_path, parse_batch_header
from hfpeer.peers.protocol.paths import (
    NODE_HEADER,
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    WAIT_HEADER,
    blob_path,
    digests_path,
)
from hfpeer.peers.protocol.pieces import PIECE_DIGEST_BYTES
from hfpeer.peers.ranges.connection import Connection, ResponseHead, StaleConnection, round_trip_seconds
from hfpeer.peers.ranges.window import SharedWindow

MAX_IDLE_CONNECTIONS = 4


class RangeClient:
    """Opens blobs at one peer and keeps at most `max_idle_connections` idle connections. Thread-safe.

    `connect_timeout_seconds` bounds making a connection; `silence_timeout_seconds` the wait for the whole head of a
    response, and for each next byte of its body. `limiter` and `window` bound all bodies together, also those of other
    peers whose clients share them.
    """

    def __init__(
        self,
        address: Address,
        own_node_id: str,
        *,
        connect_timeout_seconds: float = 3.0,
        silence_timeout_seconds: float = 10.0,
        max_idle_connections: int = MAX_IDLE_CONNECTIONS,
        limiter: Limiter | None = None,
        window: SharedWindow | None = None,
    ) -> None:
        self._address = address
        self._limiter = limiter
        self._window = window or SharedWindow()
        self._round_trip_seconds: float | None = None
        """Shortest round trip to the peer so far; None while unknown, which counts as 0."""
        self._head = (
            f"Host: {_host_header(address)}\r\nAccept-Encoding: identity\r\n"
            f"{NODE_HEADER}: {own_node_id}\r\n{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\n"
        )
        self._connect_timeout_seconds = connect_timeout_seconds
        self._silence_timeout_seconds = silence_timeout_seconds
        self._max_idle_connections = max_idle_connections
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._is_closed = False

    def open_range(
        self, digest: Digest, start: int, stop: int, *, size_bytes: int | None = None, cut_through: bool = False
    ) -> Body:
        """Bytes `[start, stop)` of a blob. `size_bytes`, the size of the whole blob, is checked if given. With
        `cut_through` the peer may also send bytes that it is still receiving.

        Raises SourceFault: permanent if this peer can never send this blob (404, a redirect, a wrong size, an
        encoding); with `retry_after_seconds` if the peer is busy.
        """
        waiting = f"{WAIT_HEADER}: wait={self._silence_timeout_seconds:.0f}\r\n" if cut_through else ""
        return self._open(blob_path(digest), start, stop, size_bytes, waiting)

    def _open(self, path: str, start: int, stop: int, size_bytes: int | None, extra: str = "") -> Body:
        """A range of a body. `extra` are further headers."""
        if not 0 <= start < stop:
            raise ValueError(f"[{start}, {stop}) is no range to request")
        connection, response = self._request(path, f"Range: bytes={start}-{stop - 1}\r\n{extra}")
        try:
            _check_range(response, start, stop, size_bytes)
        except SourceFault:
            self._release(connection, is_reusable=False)
            raise
        return limited(SocketBody(self, connection, stop - start), self._limiter)

    def open_piece_digests(self, digest: Digest, pieces: range, count: int) -> Body:
        """The digests of these pieces of a blob of `count` pieces, PIECE_DIGEST_BYTES each. The peer reads the blob for
        them, and sends each part as soon as it is computed. Raises SourceFault."""
        start, stop = pieces.start * PIECE_DIGEST_BYTES, pieces.stop * PIECE_DIGEST_BYTES
        return self._open(digests_path(digest), start, stop, count * PIECE_DIGEST_BYTES)

    def open_batch(self, digests: Sequence[Digest]) -> Batch:
        """Many small blobs with one request, in the order of `digests`; None stands for a blob that the peer does not
        send.

        At most MAX_BATCH_BLOBS digests, each once. The bytes are not checked against their digests. Raises SourceFault.
        """
        if not 1 <= len(set(digests)) == len(digests) <= MAX_BATCH_BLOBS:
            raise ValueError(f"A batch has 1 to {MAX_BATCH_BLOBS} different blobs, not {len(digests)}.")
        connection, response = self._request(batch_path(digests), "")
        try:
            length = _check_whole(response)
        except SourceFault:
            self._release(connection, is_reusable=False)
            raise
        return Batch(limited(SocketBody(self, connection, length), self._limiter), digests)

    def note_received(self, size_bytes: int) -> None:
        """Counts bytes of a body that have come."""
        self._window.note_received(size_bytes)

    def measure_round_trip(self, raw: socket.socket) -> None:
        """Updates the round trip to the peer from any connection to it."""
        seconds = round_trip_seconds(raw)
        if seconds is not None:
            self._round_trip_seconds = min(seconds, self._round_trip_seconds or seconds)

    def close(self) -> None:
        """Closes every connection, also those that other threads are reading from."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.abort()

    def _request(self, path: str, extra: str) -> tuple[Connection, ResponseHead]:
        request = f"GET {path} HTTP/1.1\r\n{self._head}{extra}\r\n".encode("ascii")
        connection = self._checkout()
        try:
            return connection, self._request_over(connection, request)
        except StaleConnection:
            connection = self._connect()
        return connection, self._request_over(connection, request)

    def _request_over(self, connection: Connection, request: bytes) -> ResponseHead:
        """The head of the response. If there is none, releases the connection."""
        try:
            return connection.send_request(request, self._window.share(self._round_trip_seconds or 0.0))
        except BaseException:
            self._release(connection, is_reusable=False)
            raise

    def _checkout(self) -> Connection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
                if connection is not None:
                    self._mark_busy(connection)
            if connection is None:
                return self._connect()
            if connection.is_reusable():
                return connection
            self._release(connection, is_reusable=False)

    def _connect(self) -> Connection:
        try:
            raw = _connected(self._address, self._connect_timeout_seconds)
        except (OSError, UnicodeError) as error:
            raise SourceFault(f"no connection to {self._address}: {error}", is_unreachable=True) from error
        if not self._address.is_socket:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.measure_round_trip(raw)
        connection = Connection(raw, self._silence_timeout_seconds)
        with self._lock:
            self._mark_busy(connection)
            is_closed = self._is_closed
        if is_closed:
            self._release(connection, is_reusable=False)
            raise SourceFault(f"{self._address} is closed")
        return connection

    def _mark_busy(self, connection: Connection) -> None:
        """Counts the connection as in use. Call with the lock held."""
        self._busy.add(connection)
        self._window.add_sender()

    def _release(self, connection: Connection, *, is_reusable: bool) -> None:
        self._window.remove_sender()
        with self._lock:
            self._busy.discard(connection)
            is_kept = is_reusable and not self._is_closed and len(self._idle) < self._max_idle_connections
            if is_kept:
                connection.mark_idle()
                self._idle.append(connection)
        if not is_kept:
            connection.close()


class SocketBody:
    """A `Body` on a socket: the next `remaining_bytes` of it."""

    def __init__(self, client: RangeClient, connection: Connection, length: int) -> None:
        self._client = client
        self._connection = connection
        self._lock = threading.Lock()
        self._is_closed = False
        self.remaining_bytes = length

    def readinto(self, view: memoryview) -> int:
        """Fills the front of `view` with bytes that have come; 0 at the end. Raises SourceFault if the peer breaks
        off."""
        wanted = min(len(view), self.remaining_bytes)
        if wanted == 0:
            return 0
        got = self._connection.recv_into(view, wanted)
        if got == 0:
            raise SourceFault(f"the connection ended {self.remaining_bytes} bytes early")
        self.remaining_bytes -= got
        self._client.note_received(got)
        return got

    def pass_over(self, view: memoryview) -> int:
        return 0

    def close(self) -> None:
        """Releases the connection for another request if the body was read to its end, else closes it."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self._client._release(self._connection, is_reusable=self.remaining_bytes == 0)

    def abort(self) -> None:
        """Makes a `readinto` that blocks in another thread fail at once. Thread-safe; `close` is still needed."""
        with self._lock:  # after `close`, the connection may already serve another body
            if not self._is_closed:
                self._connection.abort()


class Batch(Iterator[tuple[Digest, "bytes | None"]]):
    """The blobs of one batch as they come. Closes itself at its end and when it fails."""

    def __init__(self, body: Body, digests: Sequence[Digest]) -> None:
        self._body = body
        self._expected = iter(digests)
        self._buffer = bytearray()

    def __next__(self) -> tuple[Digest, bytes | None]:
        expected = next(self._expected, None)
        try:
            if expected is None:
                raise StopIteration
            size_bytes = parse_batch_header(self._read_line(), expected)
            return expected, None if size_bytes is None else self._read(size_bytes)
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
                raise SourceFault("the batch lacks a header", is_permanent=True)
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


def _connected(address: Address, timeout_seconds: float) -> socket.socket:
    """A new connection. Raises OSError, UnicodeError."""
    if not address.is_socket:
        return socket.create_connection((address.host, address.port), timeout=timeout_seconds)
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        raw.settimeout(timeout_seconds)
        raw.connect(address.host)
    except BaseException:
        raw.close()
        raise
    return raw


def _check_range(response: ResponseHead, start: int, stop: int, size_bytes: int | None) -> None:
    """Raises SourceFault unless the response is exactly `[start, stop)` of a blob of `size_bytes`."""
    _check_status(response, (200, 206))
    _check_encoding(response)
    if response.length != stop - start:
        raise SourceFault(
            f"{response.header('Content-Length') or 'no'} bytes instead of {stop - start}", is_permanent=True
        )
    if response.status == 200:
        total = response.length if start == 0 else None
    else:
        found = parse_content_range(response.header("Content-Range"))
        total = found[2] if found is not None and found[:2] == (start, stop) else None
        total = None if total is not None and total < stop else total
    if total is None:
        raise SourceFault(f"another range than bytes {start} to {stop}", is_permanent=True)
    if size_bytes is not None and total != size_bytes:
        raise SourceFault(f"its blob has {total} bytes instead of {size_bytes}", is_permanent=True)


def _check_whole(response: ResponseHead) -> int:
    """The length of a response that must be 200. Raises SourceFault."""
    _check_status(response, (200,))
    _check_encoding(response)
    if response.length is None:
        raise SourceFault("the response has no length", is_permanent=True)
    return response.length


def _check_status(response: ResponseHead, wanted: tuple[int, ...]) -> None:
    status = response.status
    if status in wanted:
        return
    if status in (404, 410):
        raise SourceFault("does not have it", is_permanent=True)
    if status == 416:
        raise SourceFault("does not have these bytes now")
    if status in (429, 503):
        raise SourceFault("is busy", retry_after_seconds=_retry_after_seconds(response))
    if 300 <= status < 400:
        raise SourceFault(f"redirects ({status}), which is never followed", is_permanent=True)
    raise SourceFault(f"answers with status {status}", is_permanent=status < 500)


def _check_encoding(response: ResponseHead) -> None:
    encoding = response.header("Content-Encoding")
    if encoding.lower() not in ("", "identity") or response.header("Transfer-Encoding"):
        raise SourceFault("sends encoded bytes", is_permanent=True)


def _retry_after_seconds(response: ResponseHead) -> float:
    seconds = parse_delay_seconds(response.header("Retry-After"), MAX_RETRY_AFTER_SECONDS)
    return 1.0 if seconds is None else seconds


def _host_header(address: Address) -> str:
    """The `Host` header: the address without its scope, which is valid on this machine only (RFC 6874 §4)."""
    if address.is_socket:
        return "localhost"
    host, _, scope = address.host.partition("%")
    return str(Address(host, address.port)) if scope else str(address)
