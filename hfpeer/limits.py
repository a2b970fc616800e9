"""The limits in force: what may move between this node and others, and how one who is over a limit waits.

A `Limiter` is shared by everything that moves one way over one road. Where the settings have no limit there is none,
and nothing is in the way of the bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hfpeer.rates import MINUTES_PER_DAY, Schedule, TokenBucket
from hfpeer.wire import Body, SourceFault

QUANTUM_SECONDS = 0.03
"""How much of the road one may take in a turn: little, so that rates are smooth and turns come soon."""
LEAST_QUANTUM_BYTES = 1024
MOST_QUANTUM_BYTES = 1024 * 1024


def minute_of_day() -> int:
    """The minute of the local day, 0 to 1439."""
    now = time.localtime()
    return (now.tm_hour * 60 + now.tm_min) % MINUTES_PER_DAY


class Limiter:
    """Keeps all who move bytes through it, together, to a schedule. Thread-safe; it never waits itself.

    Ask for a `quantum`, `reserve` it, wait as long as that says, move the bytes, and `give_back` what was left.
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
        """How many bytes to move in one turn now; None while there is no limit."""
        rate = self._schedule.rate_at(self._minute())
        if rate is None:
            return None
        return int(min(MOST_QUANTUM_BYTES, max(LEAST_QUANTUM_BYTES, rate * QUANTUM_SECONDS)))

    def reserve(self, size_bytes: int) -> float:
        """Takes a turn of `size_bytes`; seconds to wait before they may move."""
        rate = self._schedule.rate_at(self._minute())
        if rate is None:
            return 0.0
        with self._lock:
            return self._bucket.reserve(size_bytes, self._clock(), rate)

    def give_back(self, size_bytes: int) -> None:
        """`size_bytes` of a turn did not move."""
        rate = self._schedule.rate_at(self._minute())
        if rate is not None and size_bytes > 0:
            with self._lock:
                self._bucket.give_back(size_bytes, rate)


def make_limiter(schedule: Schedule) -> Limiter | None:
    """What keeps to a schedule, None if it has no limit at any hour. Whoever shares a limiter shares the rate."""
    return None if schedule.is_unlimited else Limiter(schedule)


def limited(body: Body, limiter: Limiter | None) -> Body:
    """The body, slowed down to the limiter; the body itself where there is none."""
    return body if limiter is None else LimitedBody(body, limiter)


class LimitedBody:
    """A `Body` that waits for its turns."""

    def __init__(self, body: Body, limiter: Limiter) -> None:
        self._body = body
        self._limiter = limiter
        self._aborted = threading.Event()

    def readinto(self, view: memoryview) -> int:
        """Like the body's own, a quantum at a time at most. Raises SourceFault also when aborted while it waits."""
        quantum = self._limiter.quantum()
        if quantum is None or not len(view):
            return self._body.readinto(view)
        wanted = min(quantum, len(view))
        got = 0
        delay_seconds = self._limiter.reserve(wanted)
        try:
            if delay_seconds and self._aborted.wait(delay_seconds):
                raise SourceFault("was aborted")
            got = self._body.readinto(view[:wanted])
        finally:
            self._limiter.give_back(wanted - got)
        return got

    def close(self) -> None:
        self._body.close()

    def abort(self) -> None:
        self._aborted.set()
        self._body.abort()
