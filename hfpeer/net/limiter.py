"""Keeps transfers to the rate limits of the settings.

All transfers in one direction over one network (LAN or WAN) share a `Limiter`. Without a limit in the settings there is
no Limiter, and bytes pass freely.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hfpeer.net.body import Body, SourceFault
from hfpeer.net.rates import MINUTES_PER_DAY, Schedule, TokenBucket

QUANTUM_SECONDS = 0.03
"""Seconds' worth of bytes that one transfer may move at once. Short, so that rates are smooth and waits are short."""
MIN_QUANTUM_BYTES = 1024
MAX_QUANTUM_BYTES = 1024 * 1024


def minute_of_day() -> int:
    """The minute of the local day, 0 to 1439."""
    now = time.localtime()
    return (now.tm_hour * 60 + now.tm_min) % MINUTES_PER_DAY


class Limiter:
    """Keeps all transfers that use it, together, to a schedule. Thread-safe; it never waits itself.

    Call `quantum`, `reserve` it, wait for the seconds that returns, move the bytes, and `give_back` the rest.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        clock: Callable[[], float] = time.monotonic,
        minute: Callable[[], int] = minute_of_day,
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._minute = minute
        self._bucket = TokenBucket()
        self._lock = threading.Lock()

    def quantum(self) -> int | None:
        """How many bytes to move at once now; None while there is no limit."""
        rate = self._schedule.rate_at(self._minute())
        if rate is None:
            return None
        return int(min(MAX_QUANTUM_BYTES, max(MIN_QUANTUM_BYTES, rate * QUANTUM_SECONDS)))

    def reserve(self, size_bytes: int) -> float:
        """Reserves `size_bytes`; returns the seconds to wait before they may move."""
        rate = self._schedule.rate_at(self._minute())
        if rate is None:
            return 0.0
        with self._lock:
            return self._bucket.reserve(size_bytes, self._clock(), rate)

    def give_back(self, size_bytes: int) -> None:
        """Cancels the reservation of `size_bytes` that did not move."""
        rate = self._schedule.rate_at(self._minute())
        if rate is not None and size_bytes > 0:
            with self._lock:
                self._bucket.give_back(size_bytes, rate)


def make_limiter(schedule: Schedule) -> Limiter | None:
    """A limiter for a schedule; None if the schedule has no limit at any hour. Transfers that share a limiter share its
    rate."""
    return None if schedule.is_unlimited else Limiter(schedule)


def limited(body: Body, limiter: Limiter | None) -> Body:
    """The body, slowed down by the limiter; the body itself if there is none."""
    return body if limiter is None else LimitedBody(body, limiter)


class LimitedBody:
    """A `Body` that waits for the limiter."""

    def __init__(self, body: Body, limiter: Limiter) -> None:
        self._body = body
        self._limiter = limiter
        self._aborted = threading.Event()

    def readinto(self, view: memoryview) -> int:
        """Like the body's own, at most a quantum at a time. Raises SourceFault also when aborted while it waits."""
        return self._read(self._body.readinto, view)

    def pass_over(self, view: memoryview) -> int:
        return self._read(self._body.pass_over, view)

    def _read(self, read: Callable[[memoryview], int], view: memoryview) -> int:
        quantum = self._limiter.quantum()
        if quantum is None or not len(view):
            return read(view)
        wanted = min(quantum, len(view))
        got = 0
        delay_seconds = self._limiter.reserve(wanted)
        try:
            if delay_seconds and self._aborted.wait(delay_seconds):
                raise SourceFault("was aborted")
            got = read(view[:wanted])
        finally:
            self._limiter.give_back(wanted - got)
        return got

    def close(self) -> None:
        self._body.close()

    def abort(self) -> None:
        self._aborted.set()
        self._body.abort()
