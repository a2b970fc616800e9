"""One TCP receive window that all peers which send to this node share. Thread-safe.

Many senders that each fill their own window overflow the queue before this node's link (TCP incast): some lose so many
packets that they stall for seconds, and the retransmissions cost CPU at both ends. The receiver knows the number of
senders, so it gives each its share: Wu, Feng, Guo and Zhang, "ICTCP: Incast Congestion Control for TCP", CoNEXT 2010.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

UNBOUNDED_SENDERS = 2
"""Up to this many senders have no bound."""
QUEUE_SECONDS = 0.01
"""Seconds that bytes under way may wait in queues."""
MIN_TOTAL_BYTES = 256 * 1024
"""Least bytes under way from all senders together, at any rate."""
MIN_SENDER_BYTES = 32 * 1024
RATE_SECONDS = 0.2


class SharedWindow:
    """The receive window of all connections that send bodies to this node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._senders = 0
        self._received_bytes = 0
        self._counted_since = clock()
        self._bytes_per_second = 0.0

    def add_sender(self) -> None:
        """Counts one more sender."""
        with self._lock:
            self._senders += 1

    def remove_sender(self) -> None:
        """Counts one sender less."""
        with self._lock:
            self._senders -= 1

    def note_received(self, size_bytes: int) -> None:
        """Counts bytes received from any sender."""
        with self._lock:
            self._received_bytes += size_bytes
            seconds = self._clock() - self._counted_since
            if seconds >= RATE_SECONDS:
                self._bytes_per_second = self._received_bytes / seconds
                self._received_bytes, self._counted_since = 0, self._counted_since + seconds

    def share(self, round_trip_seconds: float) -> int | None:
        """The window in bytes of one sender at this round trip; None while the senders are few. The rate can always
        double: two round trips fit into the window, beside the queues."""
        senders = self._senders
        if senders <= UNBOUNDED_SENDERS:
            return None
        together = int(self._bytes_per_second * (QUEUE_SECONDS + 2 * round_trip_seconds))
        return max(MIN_SENDER_BYTES, max(MIN_TOTAL_BYTES, together) // senders)
