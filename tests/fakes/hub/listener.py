"""A threaded HTTP/1.1 server on a plain socket, with full control over what goes over the wire.

Owns connections and delivery: keep-alive, zero-copy bodies, cuts, pauses, pacing. It can be closed, so that
clients see `connection refused`, and opened again on the same port. Must never decide what to answer.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from io import BufferedReader

from fakes.network.ports import listen

from .record import RecordedRequest, RequestLog
from .wire import (
    BadRequest,
    Body,
    ConnectionCut,
    FileSlice,
    Receive,
    Request,
    Response,
    body_bytes,
    body_length,
    cut_body,
    read_request,
    text_response,
)

SMALL_BODY_BYTES = 64 * 1024
JOIN_SECONDS = 5
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Answer = Callable[[Request], Response]


class Listener:
    """One origin: a port, the function that answers on it, and its live connections.

    `receive` reads the bodies of uploads, if it is given.
    """

    def __init__(
        self,
        name: str,
        answer: Answer,
        log: RequestLog,
        host: str = "127.0.0.1",
        port: int = 0,
        receive: Receive | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.connections_accepted = 0
        self._answer = answer
        self._receive = receive
        self._log = log
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._server: socket.socket | None = None

    @property
    def endpoint(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def is_open(self) -> bool:
        return self._server is not None

    def open(self) -> None:
        """Listen; the port stays the same for the listener's whole life. Does nothing when open."""
        if self._server is not None:
            return
        server = listen(self.host, self.port, backlog=256)
        self.port = server.getsockname()[1]
        self._server = server
        self._waker, wakened = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept, args=(server, wakened), name=f"hub-{self.name}", daemon=True
        )
        self._acceptor.start()

    def close(self) -> None:
        """Refuse new connections and cut the live ones. Does nothing when closed."""
        if self._server is None:
            return
        self._server = None
        self._waker.close()
        self._acceptor.join(JOIN_SECONDS)
        self.cut_connections()

    def cut_connections(self) -> None:
        """End every live connection now, whatever it is doing."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait, within limits, for the threads of cut connections."""
        with self._lock:
            threads = list(self._connections.values())
        for thread in threads:
            thread.join(JOIN_SECONDS)

    def _accept(self, server: socket.socket, wakened: socket.socket) -> None:
        with server, wakened:
            while True:
                readable, _, _ = select.select([server, wakened], [], [])
                if wakened in readable:
                    return
                connection, _ = server.accept()
                self._start(connection)

    def _start(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=self._serve, args=(connection,), name=f"hub-{self.name}-c", daemon=True)
        with self._lock:
            self.connections_accepted += 1
            self._connections[connection] = thread
        thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as reader:
                with suppress(ConnectionError):
                    self._converse(connection, reader)
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    def _converse(self, connection: socket.socket, reader: BufferedReader) -> None:
        try:
            while request := self._next_request(connection, reader):
                if not self._exchange(connection, request):
                    return
        except BadRequest as problem:
            response = text_response(400, str(problem))
            connection.sendall(response.head(keeps_alive=False) + body_bytes(response.body))
        except ConnectionCut as cut:
            _cut(connection, cut.reset)

    def _next_request(self, connection: socket.socket, reader: BufferedReader) -> Request | None:
        return read_request(reader, self.name, lambda: connection.sendall(CONTINUE), self._receive)

    def _exchange(self, connection: socket.socket, request: Request) -> bool:
        """Answer one request; False when the connection is to be closed."""
        record = self._log.open(request)
        was_cut = True
        try:
            response = self._answer(request)
            self._log.answered(record, response.status)
            Delivery(connection, self._log, record, response).run()
            was_cut = False
        except ConnectionCut as cut:
            _cut(connection, cut.reset)
        finally:
            self._log.finished(record, was_cut)
        return request.keeps_alive and not was_cut


def _cut(connection: socket.socket, reset: bool) -> None:
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        connection.shutdown(socket.SHUT_RDWR)


class Delivery:
    """Sends one answer, running its marks and its pace on the way, and counts what left."""

    def __init__(self, connection: socket.socket, log: RequestLog, record: RecordedRequest, response: Response):
        self._connection = connection
        self._log = log
        self._record = record
        self._response = response

    def run(self) -> None:
        request, response = self._record.request, self._response
        head = response.head(request.keeps_alive)
        if request.method == "HEAD":
            self._connection.sendall(head)
        elif response.stream is not None:
            self._connection.sendall(head)
            self._send_stream(response.stream)
        elif self._is_small():
            self._send_bytes(head, body_bytes(response.body))
        else:
            self._connection.sendall(head)
            self._send_body(response.body)

    def _is_small(self) -> bool:
        response = self._response
        return not response.marks and not response.pace and body_length(response.body) <= SMALL_BODY_BYTES

    def _send_body(self, body: Body) -> None:
        offset = 0
        for stop, action in sorted(self._response.marks, key=lambda mark: mark[0]):
            if stop > body_length(body):
                break
            self._send_pieces(cut_body(body, offset, stop))
            offset = max(offset, stop)
            action()
        self._send_pieces(cut_body(body, offset, body_length(body)))

    def _send_pieces(self, body: Body) -> None:
        for piece in body:
            if isinstance(piece, FileSlice):
                self._send_file(piece)
            else:
                for start in range(0, len(piece), self._response.chunk_bytes):
                    self._send_bytes(b"", piece[start : start + self._response.chunk_bytes])

    def _send_bytes(self, head: bytes, data: bytes) -> None:
        self._pace(len(data))
        with self._counted(len(data)) as count:
            self._connection.sendall(head + data)
            count.sent = len(data)

    def _send_file(self, piece: FileSlice) -> None:
        with piece.path.open("rb") as file:
            offset = piece.start
            while offset < piece.stop:
                size = min(self._response.chunk_bytes, piece.stop - offset)
                self._pace(size)
                with self._counted(size) as count:
                    count.sent = os.sendfile(self._connection.fileno(), file.fileno(), offset, size)
                if not count.sent:
                    raise ConnectionCut
                offset += count.sent

    def _send_stream(self, stream: Generator[bytes, None, None]) -> None:
        with closing(stream):
            for chunk in stream:
                self._connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self._log.sent(self._record, len(chunk))
            self._connection.sendall(b"0\r\n\r\n")

    def _pace(self, size: int) -> None:
        if self._response.pace is not None:
            self._response.pace(size)

    def _counted(self, size: int) -> _Counted:
        return _Counted(self._log, self._record, size)


class _Counted:
    """Counts bytes before they leave, so that no client can know more than the log, and corrects it after."""

    def __init__(self, log: RequestLog, record: RecordedRequest, planned: int) -> None:
        self.sent = 0
        self._log, self._record, self._planned = log, record, planned

    def __enter__(self) -> _Counted:
        self._log.sent(self._record, self._planned)
        return self

    def __exit__(self, *_: object) -> None:
        if self.sent != self._planned:
            self._log.sent(self._record, self.sent - self._planned)
