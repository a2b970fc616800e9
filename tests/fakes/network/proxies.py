"""What stands between a node and the Internet in a company: an HTTP proxy, a SOCKS proxy, TLS signed by an authority of
its own. Each listens on loopback, counts what goes through it, and ends with its `with` block."""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 16
Handle = Callable[[socket.socket], None]


class _Listener:
    """Accepts connections on loopback and hands each to `handle` in a thread."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        """HOST:PORT of everything that was asked for."""
        serve = self._serve

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    serve(self.request)
                except (OSError, ValueError):
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    def __enter__(self) -> _Listener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _connect(self, host: str, port: int) -> socket.socket:
        self.targets.append(f"{host}:{port}")
        return socket.create_connection((host, port), 5)


class HttpProxy(_Listener):
    """An HTTP proxy (RFC 9110 §9.3.6, RFC 9112 §3.2.2). With `password` it wants `user:PASSWORD`."""

    def __init__(self, password: str | None = None) -> None:
        super().__init__()
        self._password = password

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self, client: socket.socket) -> None:
        head = _read_head(client)
        if self._password is not None:
            wanted = base64.b64encode(f"user:{self._password}".encode()).decode()
            if f"proxy-authorization: basic {wanted}".lower() not in head.decode("latin-1").lower():
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                return
        line, _, rest = head.partition(b"\r\n")
        method, target, version = line.decode("latin-1").split(" ")
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            with self._connect(host.strip("[]"), int(port)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _pump(client, server)
            return
        url = urlsplit(target)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = [h for h in rest.split(b"\r\n") if h and not h.lower().startswith((b"connection:", b"proxy-"))]
        with self._connect(url.hostname or "", url.port or 80) as server:
            first = f"{method} {path} {version}".encode("latin-1")
            server.sendall(b"\r\n".join([first, *headers, b"connection: close", b"", b""]))
            _pump(client, server)


class SocksProxy(_Listener):
    """A SOCKS5 proxy without a password (RFC 1928)."""

    @property
    def url(self) -> str:
        return f"socks5://127.0.0.1:{self.port}"

    def _serve(self, client: socket.socket) -> None:
        _, methods = _exactly(client, 2)
        _exactly(client, methods)
        client.sendall(b"\x05\x00")
        _, _, _, kind = _exactly(client, 4)
        if kind == 1:
            host = socket.inet_ntoa(_exactly(client, 4))
        elif kind == 3:
            host = _exactly(client, _exactly(client, 1)[0]).decode()
        else:
            host = socket.inet_ntop(socket.AF_INET6, _exactly(client, 16))
        port = int.from_bytes(_exactly(client, 2), "big")
        with self._connect(host, port) as server:
            client.sendall(b"\x05\x00\x00\x01" + bytes(6))
            _pump(client, server)


class TlsFront(_Listener):
    """TLS in front of a server that speaks plain HTTP."""

    def __init__(self, context: ssl.SSLContext, host: str, port: int) -> None:
        super().__init__()
        self._context = context
        self._address = (host, port)

    def _serve(self, client: socket.socket) -> None:
        with self._context.wrap_socket(client, server_side=True) as inside, self._connect(*self._address) as server:
            _pump(inside, server)


def _read_head(client: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(client, 1)
    return head


def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = client.recv(size - len(data))
        if not chunk:
            raise OSError("the client has gone")
        data += chunk
    return data


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Copies both ways until either side ends."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while chunk := source.recv(CHUNK_BYTES):
                target.sendall(chunk)
        except OSError:
            pass
        finally:
            for end in (source, target):
                try:
                    socket.socket.shutdown(end, socket.SHUT_RDWR)
                except OSError:
                    pass

    back = threading.Thread(target=copy, args=(other, one), daemon=True)
    back.start()
    copy(one, other)
    back.join(5)
