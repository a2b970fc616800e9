"""The ways to one peer: its addresses, and how fast it gives at each.

A peer may be on a slow link and on a fast one, and only the bytes tell which. So the second request goes another way
than the first; after a moment the requests on a much slower way end, and go on along the faster one. A way that fails
is left out for a while, and one that sends nothing as long as that lasts. The bytes of a request that ends so are kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from hfpeer.names import Digest
from hfpeer.net.body import Body, SourceFault
from hfpeer.peers.ranges.range_client import Batch, RangeClient
from hfpeer.ranges import MIB

Opened = TypeVar("Opened", Body, Batch)

FASTER_RATIO = 1.5
"""A way is left for another that gives this many times as much."""
MEASURE_SECONDS = 0.3
"""Seconds of bytes after which the rate of a way is known."""
MEASURE_BYTES = MIB // 4
"""A body that ends before has to bring this much."""
SILENT_SECONDS = 1.0
"""Seconds without a byte after which a way that a thread waits for is silent: others are used meanwhile. A body that is
ended after such a time speaks against its way."""
TRY_AGAIN_SECONDS = 60.0
"""Seconds after which the rate of a way that is not used is unknown again, or one that failed is tried again."""


@dataclass
class _Way:
    """One address, and the bytes that came from it lately. A spare one is not tried for its rate."""

    client: RangeClient
    is_spare: bool = False
    rate: float = 0.0
    """Bytes per second, all bodies together; 0 while unknown."""
    tried_at: float | None = None
    failed_at: float | None = None
    bodies: int = 0
    waits: list[float] = field(default_factory=list)
    """Since when each thread waits for a response or for bytes of one."""
    came_at: float = float("-inf")
    _since: float = 0.0
    _bytes: int = 0

    def begin(self, now: float) -> None:
        self.tried_at = now
        if not self.bodies:
            self.begin_measuring(now)
        self.bodies += 1

    def begin_measuring(self, now: float) -> None:
        self._since, self._bytes = now, 0

    def add(self, size_bytes: int, now: float) -> None:
        self.came_at = now
        self._bytes += size_bytes
        if now - self._since >= MEASURE_SECONDS:
            self._measure(now)

    def end(self, now: float) -> None:
        self.bodies -= 1
        if self._bytes >= MEASURE_BYTES:
            self._measure(now)
        elif not self.bodies and not self.rate:
            self.tried_at = None

    def _measure(self, now: float) -> None:
        self.rate = self._bytes / max(now - self._since, 1e-3)
        self._since, self._bytes, self.tried_at = now, 0, now

    def is_usable(self, now: float) -> bool:
        return self.failed_at is None or now - self.failed_at >= TRY_AGAIN_SECONDS

    def is_silent(self, now: float) -> bool:
        """Whether a thread waits for it and nothing has come for SILENT_SECONDS."""
        return bool(self.waits) and now - max(min(self.waits), self.came_at) >= SILENT_SECONDS

    def is_known(self, now: float) -> bool:
        """Whether it is in use, or was lately."""
        return bool(self.bodies) or (self.tried_at is not None and now - self.tried_at < TRY_AGAIN_SECONDS)


class Ways:
    """Opens ranges at one peer, each on one of its ways. Thread-safe. `clients` are at least one, in the order in which
    they are used while nothing is known; `spare` ones are used when none of these gives anything."""

    def __init__(
        self,
        clients: Sequence[RangeClient],
        spare: Sequence[RangeClient] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ways: list[_Way] = []
        self._clock = clock
        self._lock = threading.Lock()
        self.use(clients, spare)

    def use(self, clients: Sequence[RangeClient], spare: Sequence[RangeClient] = ()) -> None:
        """Replaces the ways. A way that stays keeps its rate and its failures. A request that runs may go on along a
        new way."""
        now = self._clock()
        with self._lock:
            known = {id(way.client): way for way in self._ways}
            ways = [known.get(id(client)) or _Way(client) for client in (*clients, *spare)]
            for way in ways:
                way.is_spare = way.client not in clients
                if not self.is_choice:  # a single way is not measured
                    way.begin_measuring(now)
            self._ways = ways

    @property
    def is_choice(self) -> bool:
        """Whether there are several ways, so that their rates matter."""
        return len(self._ways) > 1

    def open_range(
        self, digest: Digest, start: int, stop: int, *, size_bytes: int | None = None, cut_through: bool = False
    ) -> Body:
        """See `RangeClient.open_range`. The body raises a SourceFault that is no failure when another way is faster."""

        def open_at(client: RangeClient) -> Body:
            return client.open_range(digest, start, stop, size_bytes=size_bytes, cut_through=cut_through)

        way, body = self._open(open_at, tries_others=not cut_through)
        return body if cut_through else _WayBody(body, way, self)

    def open_batch(self, digests: Sequence[Digest]) -> Batch:
        """See `RangeClient.open_batch`."""
        return self._open(lambda client: client.open_batch(digests), tries_others=False)[1]

    def open_piece_digests(self, digest: Digest, pieces: range, count: int) -> Body:
        """See `RangeClient.open_piece_digests`."""
        return self._open(lambda client: client.open_piece_digests(digest, pieces, count), tries_others=False)[1]

    @property
    def fastest(self) -> RangeClient | None:
        """The client of the way that has proved fastest; None if no rate is known."""
        with self._lock:
            best = self._best(self._clock())
            return best.client if best.rate else None

    def has_just_given(self, client: RangeClient) -> bool:
        """Whether bytes came on the way of this client in the last SILENT_SECONDS."""
        now = self._clock()
        with self._lock:
            return any(way.client is client and now - way.came_at < SILENT_SECONDS for way in self._ways)

    def leave(self, client: RangeClient) -> None:
        """The peer sent nothing on this way when it was asked for something else."""
        for way in self._ways:
            if way.client is client:
                self.failed(way)

    def _open(self, open_at: Callable[[RangeClient], Opened], *, tries_others: bool) -> tuple[_Way, Opened]:
        """Opens at the chosen way; at the next one if that fails. A busy peer has not failed."""
        fault: SourceFault | None = None
        for _ in self._ways:
            way = self._choose(tries_others=tries_others and fault is None)
            try:
                with self.waiting(way):
                    return way, open_at(way.client)
            except SourceFault as error:
                if error.retry_after_seconds is not None or error.is_permanent:
                    raise
                fault = fault or error
                self.failed(way)
        assert fault is not None
        raise fault

    def _choose(self, *, tries_others: bool) -> _Way:
        now = self._clock()
        with self._lock:
            best = self._best(now)
            if tries_others and best.is_known(now):
                untried = (way for way in self._sound(now) if not way.is_known(now))
                best = next(untried, best)
            best.tried_at = now
            return best

    def _best(self, now: float) -> _Way:
        """The first of the fastest ways."""
        sound = self._sound(now)
        known = [way for way in sound if way.is_known(now)]
        return max(known or sound[:1], key=lambda way: way.rate)

    def _sound(self, now: float) -> list[_Way]:
        """The ways to choose from. Without a sound one: spare ones, silent ones, those that failed."""
        usable = [way for way in self._ways if way.is_usable(now)]
        sound = [way for way in usable if not way.is_silent(now)]
        return [way for way in sound if not way.is_spare] or sound or usable or self._ways

    # For bodies

    @contextmanager
    def waiting(self, way: _Way) -> Iterator[None]:
        """The current thread waits for the peer on this way."""
        began_at = self._clock()
        with self._lock:
            way.waits.append(began_at)
        try:
            yield
        finally:
            with self._lock:
                way.waits.remove(began_at)

    def begin(self, way: _Way) -> None:
        with self._lock:
            way.begin(self._clock())

    def came(self, way: _Way, size_bytes: int) -> None:
        with self._lock:
            way.add(size_bytes, self._clock())

    def end(self, way: _Way) -> None:
        with self._lock:
            way.end(self._clock())

    def failed(self, way: _Way) -> None:
        """A body broke off, or nothing came."""
        with self._lock:
            way.failed_at = self._clock()

    def has_faster(self, way: _Way) -> bool:
        """Whether another way gives much more, or is to be tried, now that the rate of this one is known."""
        now = self._clock()
        with self._lock:
            if not way.rate:
                return False
            others = [other for other in self._sound(now) if other is not way]
            return any(not one.is_known(now) or one.rate > FASTER_RATIO * way.rate for one in others)


class _WayBody:
    """A `Body` that counts what comes, and ends when another way is faster."""

    def __init__(self, body: Body, way: _Way, ways: Ways) -> None:
        self._body = body
        self._way = way
        self._ways = ways
        self._is_closed = False
        self._is_aborted = False
        self._came_at = time.monotonic()
        ways.begin(way)

    def readinto(self, view: memoryview) -> int:
        if not self._ways.is_choice:
            size_bytes = self._body.readinto(view)
            self._came_at = time.monotonic()
            return size_bytes
        if len(view) and self._ways.has_faster(self._way):
            raise SourceFault("another way to this peer is faster", is_no_failure=True)
        try:
            with self._ways.waiting(self._way):
                size_bytes = self._body.readinto(view)
        except SourceFault:
            if not self._is_aborted or time.monotonic() - self._came_at >= SILENT_SECONDS:
                self._ways.failed(self._way)
            raise
        self._came_at = time.monotonic()
        self._ways.came(self._way, size_bytes)
        return size_bytes

    def pass_over(self, view: memoryview) -> int:
        return self._body.pass_over(view)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._ways.end(self._way)
        self._body.close()

    def abort(self) -> None:
        self._is_aborted = True
        self._body.abort()
