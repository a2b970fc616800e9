"""The responses that the threads of a bundle fetch are reading, each with its deadline. Its owner holds a lock."""

from __future__ import annotations

from typing import Protocol

REQUEST_SECONDS = 20.0
"""Seconds that a request may take: at most 2 MiB from a peer on the LAN, or one small file from an upstream."""
LEECHER_SECONDS = 3.0
"""Seconds that a request to a leecher may take."""
SLOWEST_DECAY = 0.9
"""The seconds of the slowest request are multiplied by this with each further request."""


class Abortable(Protocol):
    """A response that another thread is reading."""

    def abort(self) -> None: ...


class OpenRequests:
    """The open requests of one fetch. Time is handed in."""

    def __init__(self) -> None:
        self._open: dict[Abortable, tuple[float, float]] = {}
        """Of each response when it was asked for, and its deadline."""
        self.slowest_seconds = 0.0
        """Roughly the seconds of the slowest of the last requests."""

    def begin(self, response: Abortable, seconds: float, now: float) -> None:
        self._open[response] = now, now + seconds

    def end(self, response: Abortable, now: float) -> None:
        began_at, _ = self._open.pop(response)
        self.slowest_seconds = max(SLOWEST_DECAY * self.slowest_seconds, now - began_at)

    def abort_overdue(self, now: float) -> None:
        for response, (_, deadline) in self._open.items():
            if deadline < now:
                response.abort()

    def abort_all(self) -> None:
        for response in self._open:
            response.abort()
