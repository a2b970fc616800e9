"""Tells the progress of work on prepared sets as events, a few times a second."""

from __future__ import annotations

import time

from hfpeer.transfer.events import FileProgress, OnEvent, Progressed

EVENT_SECONDS = 0.2
"""Seconds between two events."""


class Telling:
    """The progress of one piece of work of `size_bytes`, named `what`."""

    def __init__(self, on_event: OnEvent, what: str, size_bytes: int) -> None:
        self._on_event = on_event
        self._what = what
        self._size_bytes = max(1, size_bytes)
        self._done_bytes = 0
        self._began = self._told = time.monotonic()

    def add(self, count: int) -> None:
        """Counts bytes that were read or written."""
        self.reached(self._done_bytes + count)

    def reached(self, done_bytes: int) -> None:
        """Notes how many bytes are done in all."""
        self._done_bytes = done_bytes
        now = time.monotonic()
        if now - self._told < EVENT_SECONDS:
            return
        self._told = now
        size_bytes = max(self._size_bytes, done_bytes)
        rate = done_bytes / max(now - self._began, 1e-3)
        file = FileProgress(self._what, done_bytes, size_bytes)
        self._on_event(Progressed(done_bytes, size_bytes, rate, {}, {}, (file,), 0, 1))
