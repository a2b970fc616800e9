"""Which bytes to ask of which source next: a state machine without input, output or clock.

The picker knows what of a blob is present, what is on order, and what each source can give. Asked for the next
order it answers with a range and a source; told what arrived or failed it keeps account. It never waits, never
moves a byte and never reads a clock: time is handed in, so that a simulation runs the very same decisions.

Rules, in order of weight:
1. A byte comes from the best tier that can give it now: peers, then mirrors, then the origin. A source that has
   failed rests with growing back-off, and while it rests the next tier serves.
2. Inside a tier the least busy source goes first, and ranges go out in file order, so that hashing can follow.
3. A source that falls silent, or far behind the others, loses the rest of its order to them; the bytes it gave
   are kept.
4. When nothing is left to order, an idle source takes over the second half of the largest order of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from hfpeer.ranges import MIB, ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.retry import backoff_seconds
from hfpeer.wire import PieceMap

MAX_ORDER_BYTES = 16 * MIB
SILENCE_SECONDS = 5.0
"""How long an order may bring nothing while another source could carry on."""
SLOW_RATIO = 10
"""A source this many times slower than the best other one of its tier loses its order."""
SLOW_SECONDS = 30.0
"""How long a source that fell behind gets no order that another could take."""
FLOOR_BYTES_PER_SECOND = 64 * 1024
"""Under this rate a tier no longer holds back the next one."""
FLOOR_SECONDS = 10.0
MAX_FAILURES = (4, 12, 12)
"""By tier: failures in a row, with no byte between them, after which a source is out for this blob."""


@dataclass
class Order:
    """Bytes asked of one source. `position` is how far it has come; `stop` may move down while it runs."""

    number: int
    source: str
    start: int
    stop: int
    position: int
    began_at: float
    progressed_at: float

    @property
    def remaining_bytes(self) -> int:
        return self.stop - self.position


@dataclass
class SourceState:
    """What the picker knows of a source. `pieces` is None when it has the whole blob."""

    name: str
    tier: int
    limit: int
    pieces: PieceMap | None = None
    in_flight: int = 0
    failures: int = 0
    failed_at: float = 0.0
    resting_until: float = 0.0
    slow_until: float = 0.0
    out_because: str | None = None
    last_reason: str = ""
    received_bytes: int = 0
    rate: float = 0.0
    _window_start: float = field(default=0.0, repr=False)
    _window_bytes: int = field(default=0, repr=False)
    _busy_since: float = field(default=0.0, repr=False)

    def is_usable(self, now: float) -> bool:
        return self.out_because is None and self.resting_until <= now

    def has(self, piece: int) -> bool:
        return self.pieces is None or self.pieces.has(piece)

    def begin(self, now: float) -> None:
        if self.in_flight == 0:
            self._window_start, self._window_bytes, self._busy_since = now, 0, now
        self.in_flight += 1

    def account(self, size_bytes: int, now: float) -> None:
        self.received_bytes += size_bytes
        self._window_bytes += size_bytes
        elapsed = now - self._window_start
        if elapsed >= 1.0:
            fresh = self._window_bytes / elapsed
            self.rate = fresh if not self.rate else (self.rate + fresh) / 2
            self._window_start, self._window_bytes = now, 0

    def is_below_floor(self, now: float) -> bool:
        """Whether it has been busy for a while and still gives next to nothing."""
        if not self.in_flight or now - self._busy_since < FLOOR_SECONDS:
            return False
        elapsed = max(now - self._window_start, 1.0)
        return max(self.rate if elapsed < 2.0 else 0.0, self._window_bytes / elapsed) < FLOOR_BYTES_PER_SECOND


class Picker:
    """Decides for one blob. Not thread-safe: the fetch holds a lock around every call."""

    def __init__(self, grid: PieceGrid, present: RangeSet) -> None:
        self.grid = grid
        self.present = present.copy()
        self.sources: dict[str, SourceState] = {}
        self.orders: dict[int, Order] = {}
        self._free = RangeSet([(0, grid.size_bytes)])
        for start, stop in present:
            self._free.discard(start, stop)
        self._numbers = count(1)

    # What is known of sources

    def add_source(self, name: str, tier: int, limit: int, pieces: PieceMap | None = None) -> None:
        """A source joins, or says what it has now. `tier` 0 is best; `limit` bounds its orders at a time."""
        known = self.sources.get(name)
        if known is None:
            self.sources[name] = SourceState(name, tier, limit, pieces)
        else:
            known.pieces = pieces

    def remove_source(self, name: str, reason: str) -> None:
        """A source is out for this blob: it left, lied, or never had it. Its running orders may end by themselves."""
        if name in self.sources:
            self.sources[name].out_because = reason

    def pardon(self, name: str) -> None:
        """A source that was suspected turns out to be innocent."""
        self.sources[name].out_because = None

    # Decisions

    def next_order(self, now: float) -> Order | None:
        """The next range to ask of the best source, or None when nothing can be asked now."""
        ready = [
            source for source in self.sources.values() if source.is_usable(now) and source.in_flight < source.limit
        ]
        ready.sort(
            key=lambda source: (source.tier, source.slow_until > now, source.in_flight / source.limit, -source.rate)
        )
        for source in ready:
            span = self._span_for(source, now)
            if span is not None:
                return self._give(source, span, now)
        for source in ready:
            order = self._take_over(source, now)
            if order is not None:
                return order
        return None

    def overdue(self, now: float) -> list[tuple[Order, str]]:
        """The running orders that others should finish, each with the reason. The caller aborts them."""
        late = []
        for order in self.orders.values():
            reason = self._why_overdue(order, now)
            if reason is not None:
                late.append((order, reason))
        return late

    # What happened

    def received(self, order: Order, size_bytes: int, now: float) -> None:
        """The next `size_bytes` of an order are on disk."""
        self.present.add(order.position, order.position + size_bytes)
        order.position += size_bytes
        order.progressed_at = now
        source = self.sources[order.source]
        source.failures = 0
        source.account(size_bytes, now)

    def finished(self, order: Order) -> None:
        """An order has brought all it should."""
        self._release(order)

    def failed(
        self,
        order: Order,
        reason: str,
        now: float,
        *,
        is_permanent: bool = False,
        retry_after_seconds: float | None = None,
        is_overdue: bool = False,
    ) -> None:
        """An order broke off; what it brought is kept, the rest is free again, and the source rests.

        Orders that ran side by side and broke together count as one failure.
        """
        source = self.sources[order.source]
        source.last_reason = reason
        self._release(order)
        if is_overdue:
            source.slow_until = now + SLOW_SECONDS
            return
        if order.began_at >= source.failed_at:
            source.failures += 1
        source.failed_at = now
        if is_permanent or source.failures >= MAX_FAILURES[source.tier]:
            source.out_because = reason
        source.resting_until = now + (
            backoff_seconds(source.failures) if retry_after_seconds is None else retry_after_seconds
        )

    def discard(self, start: int, stop: int) -> None:
        """Bytes that were thought present are wrong: they are to be fetched again."""
        self.present.discard(start, stop)
        self._free.add(start, stop)
        for order in self.orders.values():
            self._free.discard(order.position, order.stop)

    # State

    @property
    def is_complete(self) -> bool:
        return self.present.covers(0, self.grid.size_bytes)

    def wake_at(self, now: float) -> float | None:
        """When a resting source becomes usable again, if one will."""
        return min(
            (s.resting_until for s in self.sources.values() if s.out_because is None and s.resting_until > now),
            default=None,
        )

    def is_stuck(self, now: float) -> bool:
        """Whether bytes are missing, nothing is on order, and no source, rested or not, could bring them."""
        if self.is_complete or self.orders:
            return False
        hopeful = [source for source in self.sources.values() if source.out_because is None]
        return not any(source.has(piece) for source in hopeful for piece in self._free_pieces())

    def _free_pieces(self) -> Iterator[int]:
        for start, stop in self._free:
            yield from self.grid.pieces_touching(start, stop)

    def _span_for(self, source: SourceState, now: float) -> ByteRange | None:
        better = [other for other in self.sources.values() if self._holds_back(other, source, now)]
        if any(other.pieces is None for other in better):
            return None
        limit = self._order_bytes()
        if source.pieces is None and not better:
            first = next(iter(self._free), None)
            return first and ByteRange(first.start, min(first.stop, self._cut(first.start + limit)))
        for start, stop in self._free:
            span = self._allowed(source, better, start, stop, limit)
            if span is not None:
                return span
        return None

    def _allowed(
        self, source: SourceState, better: list[SourceState], start: int, stop: int, limit: int
    ) -> ByteRange | None:
        """The first run of pieces in `[start, stop)` that `source` has and no better source has."""
        run: ByteRange | None = None
        for piece in self.grid.pieces_touching(start, stop):
            low, high = self.grid.range_of(piece)
            if source.has(piece) and not any(other.has(piece) for other in better):
                run = ByteRange(max(low, start) if run is None else run.start, min(high, stop))
                if run.size_bytes >= limit:
                    break
            elif run is not None:
                break
        return run

    def _holds_back(self, other: SourceState, source: SourceState, now: float) -> bool:
        """Whether what `other` has must come from it rather than from `source`."""
        return other.tier < source.tier and other.is_usable(now) and not other.is_below_floor(now)

    def _order_bytes(self) -> int:
        """Large orders while there is much to do, small ones towards the end, so that all finish together."""
        connections = sum(s.limit for s in self.sources.values() if s.out_because is None)
        share = self._free.total // (2 * max(1, connections))
        piece = self.grid.piece_size_bytes
        return max(piece, min(MAX_ORDER_BYTES, share // piece * piece))

    def _cut(self, stop: int) -> int:
        """The piece boundary at or before `stop`, so that orders end where journal records do."""
        piece = self.grid.piece_size_bytes
        return stop // piece * piece

    def _give(self, source: SourceState, span: ByteRange, now: float) -> Order:
        order = Order(next(self._numbers), source.name, span.start, span.stop, span.start, now, now)
        self._free.discard(span.start, span.stop)
        self.orders[order.number] = order
        source.begin(now)
        return order

    def _release(self, order: Order) -> None:
        if self.orders.pop(order.number, None) is not None:
            self._free.add(order.position, order.stop)
            self.sources[order.source].in_flight -= 1

    def _take_over(self, source: SourceState, now: float) -> Order | None:
        """The second half of the largest order of another source, for one that has nothing else to do."""
        if source.slow_until > now:
            return None
        largest = max(
            (order for order in self.orders.values() if self._can_replace(source, order, now)),
            key=lambda order: order.remaining_bytes,
            default=None,
        )
        if largest is None or largest.remaining_bytes < 4 * self.grid.piece_size_bytes:
            return None
        middle = self._cut(largest.position + largest.remaining_bytes // 2)
        stop, largest.stop = largest.stop, middle
        return self._give(source, ByteRange(middle, stop), now)

    def _can_replace(self, source: SourceState, order: Order, now: float) -> bool:
        owner = self.sources[order.source]
        return (
            owner.name != source.name
            and (source.tier <= owner.tier or not self._holds_back(owner, source, now))
            and all(source.has(piece) for piece in self.grid.pieces_touching(order.position, order.stop))
        )

    def _why_overdue(self, order: Order, now: float) -> str | None:
        owner = self.sources[order.source]
        others = [
            other
            for other in self.sources.values()
            if other is not owner
            and other.is_usable(now)
            and other.slow_until <= now
            and all(other.has(piece) for piece in self.grid.pieces_touching(order.position, order.stop))
        ]
        silent_seconds = now - order.progressed_at
        if others and silent_seconds >= SILENCE_SECONDS:
            return f"silent for {silent_seconds:.0f} s"
        best = max((other.rate for other in others if other.tier <= owner.tier), default=0.0)
        if owner.rate and best > owner.rate * SLOW_RATIO and order.remaining_bytes / owner.rate > 3.0:
            return f"{best / owner.rate:.0f} times slower than another source"
        return None
