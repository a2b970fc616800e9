"""A wire between two machines that can be slow, be listened to, and be cut.

    with Relay(first.address, bytes_per_second=4_000_000) as relay:
        second = machines.make("second", peers=[relay.address])
        ...
        relay.cut()

It passes TCP connections on to a target and understands nothing of them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

CHUNK_BYTES = 64 * 1024


class Relay:
    """Listens on loopback and passes on to `target` (`HOST:PORT`). The bytes that come back are paced together."""

    def __init__(self, target: str, bytes_per_second: float | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.bytes_per_second = bytes_per_second
        self.asked = bytearray()
        """All that went to the target."""
        self.given_bytes = 0
        self._changed = threading.Condition()
        self._free_at = 0.0
        self._is_over = False
        self._live: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        return "{}:{}".format(*self._server.getsockname())

    def __enter__(self) -> Relay:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """End every live connection."""
        with self._changed:
            live, self._live = self._live, []
        for connection in live:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for_bytes(self, size_bytes: int, timeout_seconds: float = 30.0) -> None:
        """Return once `size_bytes` have come back. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.given_bytes >= size_bytes, timeout_seconds):
                raise TimeoutError(f"only {self.given_bytes} of {size_bytes} bytes came back")

    def _accept(self) -> None:
        while not self._is_over:
            try:
                caller, _ = self._server.accept()
            except OSError:
                return
            self._begin(self._connect, caller)

    def _connect(self, caller: socket.socket) -> None:
        with caller, suppress(OSError), socket.create_connection(self._target, 5) as target:
            with self._changed:
                self._live += [caller, target]
            asking = self._begin(self._pass_on, caller, target, True)
            self._pass_on(target, caller, False)
            asking.join()
            with self._changed:
                self._live = [one for one in self._live if one not in (caller, target)]

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_asking: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if not is_asking:
                    self._pace(len(data))
                sink.sendall(data)
                with self._changed:
                    if is_asking:
                        self.asked += data
                    else:
                        self.given_bytes += len(data)
                        self._changed.notify_all()
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _pace(self, size_bytes: int) -> None:
        if self.bytes_per_second is None:
            return
        with self._changed:
            began_at = max(time.monotonic(), self._free_at)
            self._free_at = began_at + size_bytes / self.bytes_per_second
        time.sleep(max(0.0, self._free_at - time.monotonic()))

    def _begin(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread
