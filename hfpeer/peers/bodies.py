"""Blob bytes from one peer: blocking, for worker threads, straight from the socket into the caller's buffer.

Follows no redirect, decodes nothing, keeps no cookie, and checks status, range, size and length before the first byte
is given. What the bytes hash to is for others to judge.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Sequence

from hfpeer.errors import CorruptData
from hfpeer.limits import Limiter, limited
from hfpeer.names import Address, Digest
from hfpeer.peers.connection import Answer, Connection, StaleConnection, round_trip_seconds
from hfpeer.peers.window import SharedWindow
from hfpeer.wire import (
    MAX_BATCH_BLOBS,
    MAX_BATCH_HEADER_BYTES,
    NODE_HEADER,
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    WAIT_HEADER,
    Body,
    SourceFault,
    batch_path,
    blob_path,
    parse_batch_header,
)

MAX_IDLE_CONNECTIONS = 4
MAX_RETRY_AFTER_SECONDS = 300.0

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


class BodyClient:
    """Opens blobs at one peer and keeps its idle connections, at most `max_idle_connections`. Thread-safe.

    `connect_timeout_seconds` bounds making a connection, `silence_timeout_seconds` the wait for the whole head of an
    answer and for each next byte of its body. `limiter` and `window` hold for all bodies together, also those of other
    peers whose clients have the same.
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
        """How far away the peer is; None while nobody knows, as if it were near."""
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
        """Bytes `[start, stop)` of a blob; `size_bytes` is the blob's whole size, checked if it is given. With
        `cut_through` the peer may give what it is just getting itself, as it comes.

        Raises SourceFault: permanent where this peer can never give this blob (404, a redirect, a wrong size, an
        encoding), with `retry_after_seconds` where it asked for rest.
        """
        if not 0 <= start < stop:
            raise ValueError(f"[{start}, {stop}) is no range to ask for")
        waiting = f"{WAIT_HEADER}: wait={self._silence_timeout_seconds:.0f}\r\n" if cut_through else ""
        connection, answer = self._ask(blob_path(digest), f"Range: bytes={start}-{stop - 1}\r\n{waiting}")
        try:
            _check_range(answer, start, stop, size_bytes)
        except SourceFault:
            self._give_back(connection, is_reusable=False)
            raise
        return limited(SocketBody(self, connection, stop - start), self._limiter)

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
        return Batch(limited(SocketBody(self, connection, length), self._limiter), digests)

    def came(self, size_bytes: int) -> None:
        """A body has brought so much."""
        self._window.came(size_bytes)

    def look_how_far(self, raw: socket.socket) -> None:
        """Learns from a connection to the peer, of any kind, how far away it is."""
        seconds = round_trip_seconds(raw)
        if seconds is not None:
            self._round_trip_seconds = min(seconds, self._round_trip_seconds or seconds)

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

    def _ask(self, path: str, extra: str) -> tuple[Connection, Answer]:
        request = f"GET {path} HTTP/1.1\r\n{self._head}{extra}\r\n".encode("ascii")
        connection = self._take()
        try:
            return connection, self._ask_over(connection, request)
        except StaleConnection:
            connection = self._connect()
        return connection, self._ask_over(connection, request)

    def _ask_over(self, connection: Connection, request: bytes) -> Answer:
        """The answer; where there is none, the connection is given back."""
        try:
            return connection.ask(request, self._window.part(self._round_trip_seconds or 0.0))
        except BaseException:
            self._give_back(connection, is_reusable=False)
            raise

    def _take(self) -> Connection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
                if connection is not None:
                    self._begin(connection)
            if connection is None:
                return self._connect()
            if connection.is_fresh():
                return connection
            self._give_back(connection, is_reusable=False)

    def _connect(self) -> Connection:
        target = (self._address.host, self._address.port)
        try:
            raw = socket.create_connection(target, timeout=self._connect_timeout_seconds)
        except (OSError, UnicodeError) as error:
            raise SourceFault(f"no connection to {self._address}: {error}") from error
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.look_how_far(raw)
        connection = Connection(raw, self._silence_timeout_seconds)
        with self._lock:
            self._begin(connection)
            is_closed = self._is_closed
        if is_closed:
            self._give_back(connection, is_reusable=False)
            raise SourceFault(f"{self._address} is not asked any more")
        return connection

    def _begin(self, connection: Connection) -> None:
        """With the lock held: from now on the connection is in use."""
        self._busy.add(connection)
        self._window.join()

    def _give_back(self, connection: Connection, *, is_reusable: bool) -> None:
        self._window.leave()
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

    def __init__(self, client: BodyClient, connection: Connection, length: int) -> None:
        self._client = client
        self._connection = connection
        self._lock = threading.Lock()
        self._is_closed = False
        self.remaining_bytes = length

    def readinto(self, view: memoryview) -> int:
        """Fills the front of `view` with what has come; 0 at the end. Raises SourceFault when the peer breaks off."""
        wanted = min(len(view), self.remaining_bytes)
        if wanted == 0:
            return 0
        got = self._connection.recv_into(view, wanted)
        if got == 0:
            raise SourceFault(f"the connection ended {self.remaining_bytes} bytes early")
        self.remaining_bytes -= got
        self._client.came(got)
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

    def __init__(self, body: Body, digests: Sequence[Digest]) -> None:
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


def _check_range(answer: Answer, start: int, stop: int, size_bytes: int | None) -> None:
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


def _check_whole(answer: Answer) -> int:
    """The length of an answer that must be 200. Raises SourceFault."""
    _check_status(answer, (200,))
    _check_encoding(answer)
    if answer.length is None:
        raise SourceFault("the answer has no length", is_permanent=True)
    return answer.length


def _check_status(answer: Answer, wanted: tuple[int, ...]) -> None:
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


def _check_encoding(answer: Answer) -> None:
    encoding = answer.header("Content-Encoding")
    if encoding.lower() not in ("", "identity") or answer.header("Transfer-Encoding"):
        raise SourceFault("sends the bytes in an encoding", is_permanent=True)


def _retry_after_seconds(answer: Answer) -> float:
    text = answer.header("Retry-After")
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if re.fullmatch("[0-9]{1,9}", text) else 1.0


def _host_header(address: Address) -> str:
    """The address without the scope, which means something on this machine only."""
    host, _, scope = address.host.partition("%")
    return str(Address(host, address.port)) if scope else str(address)
