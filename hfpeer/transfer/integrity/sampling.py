"""Reads one range from one source, to compare it with what others gave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hfpeer.net.body import Body, SourceFault
from hfpeer.ranges import ByteRange

LOOK_SECONDS = 0.1
"""Seconds between two looks at whether the bytes are still wanted."""

Ask = Callable[[str, ByteRange], "bytes | None"]
"""Asks the source of this name for a range; None if it does not give all of it."""


def ask_once(
    open_body: Callable[[], Body], size_bytes: int, seconds: float, is_over: Callable[[], bool]
) -> bytes | None:
    """The `size_bytes` of a body; None if its source fails or takes longer than `seconds`, or `is_over` turns true.

    A source that does not answer keeps a thread until it does.
    """
    asking = _Asking(open_body, size_bytes)
    asking.start()
    deadline = time.monotonic() + seconds
    while asking.is_alive() and not is_over() and time.monotonic() < deadline:
        asking.join(LOOK_SECONDS)
    return asking.leave()


class _Asking(threading.Thread):
    """Reads one body."""

    def __init__(self, open_body: Callable[[], Body], size_bytes: int) -> None:
        super().__init__(name="compare", daemon=True)
        self._open_body = open_body
        self._found = bytearray(size_bytes)
        self._filled = 0
        self._lock = threading.Lock()
        self._body: Body | None = None
        self._is_left = False

    def run(self) -> None:
        try:
            body = self._open_body()
        except SourceFault:
            return
        with self._lock:
            self._body = body
            if self._is_left:
                body.abort()
        try:
            view = memoryview(self._found)
            while self._filled < len(view) and (received := body.readinto(view[self._filled :])):
                self._filled += received
        except SourceFault:
            pass
        finally:
            with self._lock:
                self._body = None
            body.close()

    def leave(self) -> bytes | None:
        """Ends a read that still goes on. The bytes, if they are complete."""
        with self._lock:
            self._is_left = True
            if self._body is not None:
                self._body.abort()
            return bytes(self._found) if self._filled == len(self._found) else None
