"""How much of what peers send may be under way to this node: a TCP receive window that all of them share. Thread-safe.

Many who each send as much as TCP lets them fill the queue before this node's line, and one another's; of what is lost
then some lose so much more than others that they are slow for seconds, and all of it costs CPU at both ends (TCP
incast). Who receives knows how many they are, and grants each its part: Wu, Feng, Guo and Zhang, "ICTCP: Incast
Congestion Control for TCP", CoNEXT 2010.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FEW_SENDERS = 2
"""So many may send as much as they like."""
QUEUE_SECONDS = 0.01
"""For so long what is under way may stand in queues."""
NEAR_BYTES = 256 * 1024
"""This much all may have under way together however little came of late."""
LEAST_BYTES = 32 * 1024
RATE_SECONDS = 0.2


class SharedWindow:
    """The window of everybody who sends bodies to this node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._senders = 0
        self._came_bytes = 0
        self._counted_since = clock()
        self._bytes_per_second = 0.0

    def join(self) -> None:
        """One more is going to send."""
        with self._lock:
            self._senders += 1

    def leave(self) -> None:
        """One of them has ended."""
        with self._lock:
            self._senders -= 1

    def came(self, size_bytes: int) -> None:
        """So much has come, from whomever."""
        with self._lock:
            self._came_bytes += size_bytes
            seconds = self._clock() - self._counted_since
            if seconds >= RATE_SECONDS:
                self._bytes_per_second = self._came_bytes / seconds
                self._came_bytes, self._counted_since = 0, self._counted_since + seconds

    def part(self, round_trip_seconds: float) -> int | None:
        """The window, in bytes, of one sender that is so far away; None while they are few. The rate can always
        double: twice a round trip fits into it, beside the queues."""
        senders = self._senders
        if senders <= FEW_SENDERS:
            return None
        together = int(self._bytes_per_second * (QUEUE_SECONDS + 2 * round_trip_seconds))
        return max(LEAST_BYTES, max(NEAR_BYTES, together) // senders)
