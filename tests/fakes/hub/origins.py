"""The origins of a simulated site, each a listener of its own, with the faults of their answers and one log.

Every simulator is made of them. Owns their life, and what a test asks of them. Must never answer a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .faults import Fault
from .injection import Faults, InjectedFault
from .listener import Listener
from .record import RecordedRequest, RequestLog


class Origins:
    """The base of a simulator, which fills `_listeners`: by name, in the order in which they open."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.log = RequestLog()
        self._listeners: dict[str, Listener] = {}

    # --- life ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Removes all faults, and ends every connection and every thread."""
        self.faults.clear()
        self.go_down()
        for listener in self._listeners.values():
            listener.join()

    def go_down(self, *names: str) -> None:
        """Refuse connections from now on and cut the live ones, on these origins (all)."""
        for name in names or self._listeners:
            self._listeners[name].close()

    def come_back(self, *names: str) -> None:
        """Listen again, on the same ports."""
        for name in names or self._listeners:
            self._listeners[name].open()

    @contextmanager
    def down(self, *names: str) -> Iterator[None]:
        """Down while the block runs."""
        self.go_down(*names)
        try:
            yield
        finally:
            self.come_back(*names)

    def cut_connections(self) -> None:
        """End every live connection; new ones are accepted."""
        for listener in self._listeners.values():
            listener.cut_connections()

    @property
    def connections_accepted(self) -> int:
        """TCP connections since the start, all origins."""
        return sum(listener.connections_accepted for listener in self._listeners.values())

    # --- faults -------------------------------------------------------------------------------------------------

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "*",
        listener: str | None = None,
        times: int | None = None,
    ) -> InjectedFault:
        """Break answers to matching requests: `times` of them, or all until removed.

        `path` is a glob over the encoded or decoded path, `listener` the name of an origin.
        """
        return self.faults.inject(InjectedFault(fault, method, path, listener, times))

    # --- what was asked -----------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[RecordedRequest]:
        """All recorded requests, in order of arrival."""
        return self.log.select()

    def requests_for(
        self, path: str = "*", method: str | None = None, listener: str | None = None
    ) -> list[RecordedRequest]:
        """Those that match."""
        return self.log.select(method, path, listener)

    def requests_with_token(self, token: str | None = None) -> list[RecordedRequest]:
        """Those that carry any Authorization, or this token anywhere in their head."""
        if token is None:
            return [record for record in self.requests if record.authorization is not None]
        return [record for record in self.requests if token in f"{record.request.target} {record.request.headers}"]

    def body_bytes_sent(self, path: str = "*", method: str | None = "GET", listener: str | None = None) -> int:
        """Bytes of bodies that left, of matching requests."""
        return sum(record.body_bytes_sent for record in self.log.select(method, path, listener))

    def wait_for_request(
        self, path: str = "*", method: str | None = None, *, count: int = 1, timeout_seconds: float = 30
    ) -> list[RecordedRequest]:
        """Return once `count` matching requests have come. Raises TimeoutError with those that did."""
        self.log.wait_until(lambda: len(self.log.select(method, path)) >= count, timeout_seconds)
        return self.log.select(method, path)

    def wait_for_body_bytes(self, size_bytes: int, path: str = "*", timeout_seconds: float = 30) -> None:
        """Return once `size_bytes` of matching GET bodies have left. Raises TimeoutError."""
        self.log.wait_until(lambda: self.body_bytes_sent(path) >= size_bytes, timeout_seconds)

    def wait_until_quiet(self, timeout_seconds: float = 30) -> None:
        """Return once every earlier request is finished, sent whole or cut. Raises TimeoutError."""
        self.log.wait_until(lambda: all(record.is_finished for record in self.requests), timeout_seconds)

    def clear(self) -> None:
        """Forget all earlier requests."""
        self.log.clear()
