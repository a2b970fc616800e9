"""Which bytes to ask of which source next: a state machine without input, output or clock.

The picker knows what of a blob is present, what is on order, and what each source can give. Asked for the next
order it answers with a range and a source; told what arrived or failed it keeps account. It never waits, never
moves a byte and never reads a clock: time is handed in, so that a simulation runs the very same decisions.

Rules, in order of weight:
1. A byte comes from the best tier that can give it now: peers, then mirrors, then the origin. A source that is
   resting, on probation after a failure, behind, or below the floor holds no other back.
2. Inside a tier the least busy source goes first, and ranges go out in file order, so that hashing can follow;
   what a reader waits for goes out before that.
3. A source that falls silent, or far behind the others, loses the rest of its order to them; the bytes it gave
   are kept. So does one with which a piece is late, but that is held against it only when it happens again and again.
4. When nothing is left to order, an idle source takes over the second half of the largest order of another.
5. While fellows fetch the same blob, each node asks a holder only for its own share of the pieces, one at a time, and
   gets the others from its fellows; so a holder, or the WAN, gives each piece about once. When its share is out, a
   node takes over what no fellow has or has claimed, the pieces of which it is the second owner first. Nobody gets far
   ahead of a slow fellow, in the holder's pieces or in the fellows', because hashing follows the file. At the very end
   a holder at home helps with what only one fellow has, which would take that one long to give to everybody.
6. Who could only wait for a fellow asks it for what that is just getting from a holder, and gets it as it comes
   (cut-through); in a crowd, where a piece is better given to a few who pass it on, it waits.
"""

from __future__ import annotations

from functools import reduce
from itertools import count
from operator import or_

from hfpeer.ranges import MIB, ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.errands import Errands
from hfpeer.transfer.lateness import LATE_IN_A_ROW
from hfpeer.transfer.ledger import Ledger
from hfpeer.transfer.overdue import Watch
from hfpeer.transfer.pieces import bits, lowest
from hfpeer.transfer.retry import backoff_seconds
from hfpeer.transfer.standing import Order, Pace, SourceState
from hfpeer.wire import PieceMap

MAX_ORDER_BYTES = 16 * MIB
URGENT_ORDER_BYTES = 4 * MIB
"""The largest order for what somebody waits for."""
TAKE_OVER_SECONDS = 1.0
"""An order whose rest takes its source less than this is left alone, unless it is large."""

LOOK_AGAIN_SECONDS = 0.05
COMPANY_SECONDS = 1.0
"""How long at the start a node that knows of no fellow asks for a piece at a time."""
HOLDER_ORDERS = {0: 1, 1: 2, 2: 2}
"""By tier: the pieces on order at a holder while there are fellows. Over the WAN two cover its latency."""

LAG_PIECES = 32
"""So far the pieces that are here may be ahead of the first that is not, before that one is asked for first."""

_LEFT = "left"
MAX_DOUBLINGS = 6
"""Of the time for which others go before a source that stays silent."""


class Picker:
    """Decides for one blob. Not thread-safe: the fetch holds a lock around every call."""

    def __init__(
        self, grid: PieceGrid, present: RangeSet, pace: Pace | None = None, errands: Errands | None = None
    ) -> None:
        """`errands` are this node's while others want the blob; without them it asks holders for everything."""
        self.grid = grid
        self._errands = errands
        self._began_at: float | None = None
        self._ledger = Ledger(grid, present)
        self.present = self._ledger.present
        self.sources: dict[str, SourceState] = {}
        self.orders: dict[int, Order] = {}
        self._pace = pace or Pace()
        self._watch = Watch(grid, self._pace)
        self._preferred: dict[int, int] = {}
        """By reader: the pieces it waits for."""
        self._numbers = count(1)

    # What is known of sources

    def add_source(self, name: str, tier: int, limit: int, pieces: PieceMap | None = None, node_id: str = "") -> None:
        """A source joins, or says what it has now (None: everything). `tier` 0 is best; `limit` bounds its orders at
        a time. One that had given up and now has something else is tried again."""
        is_whole = pieces is None or pieces.bits is None
        mine = self._ledger.all
        if pieces is not None and pieces.bits is not None:
            mine &= int.from_bytes(pieces.bits, "little")
        known = self.sources.setdefault(name, SourceState(name, tier, limit, mine, is_whole, node_id, is_whole))
        if (known.pieces != mine or known.out_because == _LEFT) and not known.is_barred:
            known.out_because = None
        known.pieces, known.is_whole = mine, is_whole

    def hear(self, name: str, added: int, claimed: int) -> bool:
        """News of a fellow: the pieces it has got, and all that it is asking holders for now; bits. Whether there may
        be an order now that there was not before."""
        fellow = self.sources.get(name)
        if fellow is None:
            return False
        if added and not fellow.is_barred:
            fellow.out_because = None
        given_up = fellow.claimed & ~claimed & ~added
        fellow.pieces |= added & self._ledger.all
        fellow.claimed = claimed & self._ledger.all
        fellow.kept_back &= fellow.claimed
        is_idle = fellow.in_flight < fellow.allowance
        return bool((given_up | (added | claimed if is_idle else 0)) & self._ledger.free)

    def left(self, name: str) -> None:
        """A fellow is gone; what it claimed is free for others."""
        fellow = self.sources.get(name)
        if fellow is not None and not fellow.is_whole:
            fellow.claimed = 0
            fellow.out_because = fellow.out_because or _LEFT
            if self._errands is not None:
                self._errands.left(fellow.pieces)

    def claims(self) -> int:
        """The pieces that are on order at holders, or soon will be, for the fellows to know."""
        held = (order for order in self.orders.values() if self.sources[order.source].is_holder)
        claimed = self._errands.intents & self._ledger.free if self._errands is not None else 0
        for order in held:
            claimed |= bits(self.grid.pieces_touching(order.position, order.stop))
        return claimed

    def remove_source(self, name: str, reason: str) -> None:
        """A source is out for this blob: it left or lied. Its running orders may end by themselves."""
        if name in self.sources:
            self.sources[name].out_because = reason
            self.sources[name].is_barred = True

    def pardon(self, name: str) -> None:
        """A source that was suspected is asked again."""
        self.sources[name].out_because = None
        self.sources[name].is_barred = False

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """A reader waits for `[start, stop)`: it goes out before everything else. An empty range takes that back.

        Running orders that would come to it only later give it up; where its first byte is neither here nor on its way,
        one that nobody waits for ends early.
        """
        self._preferred.pop(reader, None)
        if start >= stop:
            return
        self._preferred[reader] = bits(self.grid.pieces_touching(start, stop))
        piece = self.grid.piece_size_bytes
        begin = start // piece * piece
        for order in self.orders.values():
            if order.position + 2 * piece < begin < order.stop:
                self._shorten(order, begin)
        self._make_way(start, stop)

    # Decisions

    def next_order(self, now: float) -> Order | None:
        """The next range to ask of the best source, or None when nothing can be asked now."""
        if self._began_at is None:
            self._began_at = now
        fellows = self._fellows(now)
        if self._errands is not None:
            self._errands.crowd.look({fellow.node_id: fellow.pieces for fellow in fellows}, now)
        ready = [source for source in self.sources.values() if self._is_ready(source, fellows, now)]
        is_crowd = self._errands is not None and self._errands.crowd.is_one
        ready.sort(
            key=lambda source: (
                source.tier,
                bool(fellows) and not source.is_whole,
                source.in_flight / source.limit,
                (source.pieces & self._ledger.free).bit_count() if is_crowd else -source.rate,
            )
        )
        for source in ready if self._ledger.free else ():
            span = self._span_for(source, fellows, now)
            if span is not None:
                return self._give(source, span, now)
        for source in ready if self._ledger.free and not is_crowd else ():
            span = self._coming_to(source, now)
            if span is not None:
                return self._give(source, span, now, is_cut_through=True)
        for source in ready if any(self._middle(order) < order.stop for order in self.orders.values()) else ():
            order = self._take_over(source, now)
            if order is not None:
                return order
        return None

    def overdue(self, now: float) -> list[tuple[Order, str]]:
        """The running orders that others should finish, each with the reason. The caller ends them."""
        late = []
        for order in self.orders.values():
            reason = self._watch.why_overdue(order, self.sources.values(), now)
            if reason is not None:
                late.append((order, reason))
        return late

    # What happened

    def paused(self, order: Order) -> None:
        """Not the source but the receiver is what an order waits for now: no silence is held against it."""
        order.is_paused = True

    def resumed(self, order: Order, now: float) -> None:
        """The order waits for its source again."""
        order.is_paused, order.progressed_at = False, now

    def received(self, order: Order, size_bytes: int, now: float) -> None:
        """The next `size_bytes` of an order are on disk."""
        self.present.add(order.position, order.position + size_bytes)
        order.position += size_bytes
        order.is_paused, order.progressed_at = False, now
        source = self.sources[order.source]
        source.failures = 0
        source.account(size_bytes, now)
        if not order.remaining_bytes:
            self._watch.note_duration(order, source, now)

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
    ) -> None:
        """An order broke off; what it brought is kept, the rest is free again, and the source rests.

        Orders that ran side by side and broke together count as one failure.
        """
        source = self.sources[order.source]
        source.last_reason = reason
        self._release(order)
        if order.is_cut_through and not is_permanent:
            source.kept_back |= bits(self.grid.pieces_touching(order.position, order.stop))
            return
        self._count_failure(source, order, now)
        if is_permanent:
            source.out_because = source.out_because or reason
        rest = backoff_seconds(source.failures) if retry_after_seconds is None else retry_after_seconds
        source.resting_until = max(source.resting_until, now + rest)

    def overtaken(self, order: Order, reason: str, now: float) -> None:
        """An order was ended because it was overdue: others go first for a while, the longer the oftener it gave
        nothing at all, which is a failure."""
        source = self.sources[order.source]
        source.last_reason = reason
        self._release(order)
        if order.is_late:
            source.avoided.add(bits(self.grid.pieces_touching(order.position, order.stop)), now)
            if source.avoided.in_a_row < LATE_IN_A_ROW:
                return
        if order.position == order.start:
            self._count_failure(source, order, now)
        source.slow_until = now + self._pace.slow_seconds * 2 ** min(max(source.failures - 1, 0), MAX_DOUBLINGS)

    def discard(self, start: int, stop: int) -> None:
        """Bytes that were thought present are wrong: they are to be fetched again."""
        self._ledger.discard(start, stop, [(order.position, order.stop) for order in self.orders.values()])

    # State

    def is_coming(self, start: int, stop: int) -> bool:
        """Whether all that is missing of `[start, stop)` is on order at holders."""
        held = [order for order in self.orders.values() if self.sources[order.source].is_holder]
        gaps = self.present.gaps(start, stop)
        return all(any(order.position <= gap.start and gap.stop <= order.stop for order in held) for gap in gaps)

    @property
    def is_complete(self) -> bool:
        return self.present.covers(0, self.grid.size_bytes)

    def wake_at(self, now: float) -> float | None:
        """When a resting source becomes usable again, or a share may be taken over, if either will be."""
        times = [s.resting_until for s in self.sources.values() if s.out_because is None and s.resting_until > now]
        if self._errands is not None and self._errands.look_again_at is not None:
            times.append(max(self._errands.look_again_at, now + LOOK_AGAIN_SECONDS))
        if self._errands is not None and self._errands.crowd.is_one:
            times.append(now + LOOK_AGAIN_SECONDS)
        return min(times, default=None)

    def is_stuck(self) -> bool:
        """Whether bytes are missing, nothing is on order, and no source, rested or not, will bring them.

        A source that has not got everything yet is on its way there and may still bring them.
        """
        if self.is_complete or self.orders:
            return False
        hopeful = [source for source in self.sources.values() if source.out_because is None]
        return not any(source.pieces & self._ledger.free or not source.is_whole for source in hopeful)

    # Inside

    def _is_ready(self, source: SourceState, fellows: list[SourceState], now: float) -> bool:
        allowance = source.allowance
        if self._is_spared(source, fellows):
            allowance = min(allowance, HOLDER_ORDERS[source.tier])
        return source.in_flight < allowance and source.is_usable(now)

    def _fellows(self, now: float) -> list[SourceState]:
        """The others that fetch this blob and can be counted on."""
        if self._errands is None:
            return []
        return [s for s in self.sources.values() if s.is_fellow and s.is_sound(now)]

    def has_holder(self, now: float) -> bool:
        """Whether somebody can be asked who has all of the blob."""
        return any(source.is_whole and source.is_usable(now) for source in self.sources.values())

    @property
    def has_fellows(self) -> bool:
        """Whether anybody else is known to fetch this blob."""
        return any(source.is_fellow for source in self.sources.values())

    def _share(self, holder: SourceState, fellows: list[SourceState], now: float) -> int:
        """The pieces to ask a holder for while there are fellows."""
        assert self._errands is not None
        unclaimed = self._ledger.free & holder.pieces
        for fellow in fellows:
            if unclaimed:
                unclaimed &= ~self._coming_from(fellow, now)
        sound = {fellow.node_id for fellow in fellows}
        unsound = {source.node_id for source in self.sources.values() if source.node_id} - sound
        share = self._errands.choose(unclaimed, sound, unsound, now, is_far=holder.tier > 0)
        if unclaimed or holder.tier:
            return share
        return self._errands.last_of(self._ledger.free & holder.pieces, len(sound))

    def _is_spared(self, source: SourceState, fellows: list[SourceState]) -> bool:
        """Whether a source is one of few that must not give everything to everybody: each fellow asks for its share."""
        if not source.is_holder or source.tier:
            return source.is_holder and bool(fellows)
        holders = sum(other.is_holder and not other.tier for other in self.sources.values())
        return bool(fellows) and holders <= max(2, len(fellows) // 4)

    def _span_for(self, source: SourceState, fellows: list[SourceState], now: float) -> ByteRange | None:
        """The first run of free bytes that `source` has and that nobody better could give."""
        mine = source.pieces & self._ledger.free & ~source.avoided.now(now)
        if not mine:
            return None
        if mine and self._is_spared(source, fellows):
            mine &= self._share(source, fellows, now)
        elif self._errands is not None and (source.is_fellow or self._errands.crowd.is_one) and not self._urgent(mine):
            mine = self._oldest(mine) or self._errands.of_fellow(mine, source.node_id)
        if mine:
            mine &= ~self._held_back(source, now)
        if not mine:
            return None
        urgent = self._urgent(mine)
        first = lowest(urgent or mine)
        limit = self.grid.piece_size_bytes if fellows or self._is_company_due(now) else self._order_bytes()
        if urgent:
            limit = min(limit, max(URGENT_ORDER_BYTES, self.grid.piece_size_bytes))
        window = mine >> first & (1 << limit // self.grid.piece_size_bytes) - 1
        low, high = self._ledger.bytes_of(first, first + lowest(~window))
        return next(self._ledger.taken.gaps(low, high))

    def _coming_to(self, fellow: SourceState, now: float) -> ByteRange | None:
        """What is missing of a piece that a fellow is just getting from a holder."""
        coming = fellow.claimed & self._ledger.free & ~fellow.pieces & ~fellow.kept_back
        if not coming or not fellow.is_sound(now):
            return None
        return next(self._ledger.taken.gaps(*self.grid.range_of(lowest(coming))))

    def _oldest(self, pieces: int) -> int:
        """The first piece that is not on its way, if it is among these and many after it are: nothing after it can be
        hashed. In a crowd all would ask the same few for it."""
        assert self._errands is not None
        oldest = self._ledger.free & -self._ledger.free
        ahead = (self._ledger.all & ~self._ledger.free).bit_length() - oldest.bit_length()
        return pieces & oldest if ahead > LAG_PIECES and not self._errands.crowd.is_one else 0

    def _coming_from(self, fellow: SourceState, now: float) -> int:
        """The pieces for which a fellow can be waited for: those that it has and gives, or has just claimed."""
        fellow.claims.hear(fellow.claimed, now)
        claimed = fellow.claims.within(self._watch.claims_last(), now)
        return (fellow.pieces | claimed) & ~fellow.avoided.now(now)

    def _is_company_due(self, now: float) -> bool:
        """Whether fellows that begin just now may not be known yet; what is on order by then is not shared out."""
        assert self._began_at is not None
        return self._errands is not None and now < self._began_at + COMPANY_SECONDS

    def _urgent(self, pieces: int) -> int:
        """Of these, what the reader waits for who needs the least; 0 when nobody waits for any."""
        waited_for = (pieces & preferred for preferred in self._preferred.values())
        return min((wanted for wanted in waited_for if wanted), key=int.bit_count, default=0)

    def _held_back(self, source: SourceState, now: float) -> int:
        """The pieces that must come from others rather than from `source`."""
        pieces = 0
        for other in self.sources.values():
            if self._goes_before(other, source, now):
                if other.is_whole:
                    return self._ledger.all
                pieces |= other.pieces & ~other.avoided.now(now)
        return pieces

    def _goes_before(self, other: SourceState, source: SourceState, now: float) -> bool:
        is_better = other.tier < source.tier or (source.slow_until > now and other is not source)
        return is_better and other.is_sound(now) and not other.is_below_floor(now, self._pace)

    def _order_bytes(self) -> int:
        """Large orders while there is much to do, small ones towards the end, so that all finish together."""
        connections = sum(s.limit for s in self.sources.values() if s.out_because is None)
        share = self._ledger.free_bytes // (2 * max(1, connections))
        piece = self.grid.piece_size_bytes
        return max(piece, min(MAX_ORDER_BYTES, share // piece * piece))

    def _give(self, source: SourceState, span: ByteRange, now: float, *, is_cut_through: bool = False) -> Order:
        order = Order(next(self._numbers), source.name, span.start, span.stop, span.start, now, now)
        order.is_cut_through = is_cut_through
        self._ledger.take_up(*span)
        self.orders[order.number] = order
        source.begin(now)
        return order

    def _release(self, order: Order) -> None:
        if self.orders.pop(order.number, None) is not None:
            self._ledger.free_up(order.position, order.stop)
            self.sources[order.source].in_flight -= 1

    def _make_way(self, start: int, stop: int) -> None:
        """Ends the longest order that nobody waits for after its piece, if `start` is neither here nor on its way."""
        absent = next(self.present.gaps(start, stop), None)
        if absent is None or self._ledger.taken.covers(absent.start, absent.start + 1):
            return
        piece = self.grid.piece_size_bytes
        wanted = 1 << absent.start // piece
        waited_for = reduce(or_, self._preferred.values())
        idle = [
            order
            for order in self.orders.values()
            if order.remaining_bytes > piece
            and self.sources[order.source].pieces & wanted
            and not bits(self.grid.pieces_touching(order.position, order.stop)) & waited_for
        ]
        if idle:
            order = max(idle, key=lambda order: order.remaining_bytes)
            self._shorten(order, (order.position // piece + 1) * piece)

    def _shorten(self, order: Order, stop: int) -> None:
        """The rest of a running order is to be ordered anew."""
        end, order.stop = order.stop, stop
        self._ledger.free_up(stop, end)

    def _count_failure(self, source: SourceState, order: Order, now: float) -> None:
        if order.began_at >= source.failed_at:
            source.failures += 1
        source.failed_at = now

    def _take_over(self, source: SourceState, now: float) -> Order | None:
        """The second half of the largest order of another source, for one that has nothing else to do."""
        if not source.is_sound(now):
            return None
        for order in sorted(self.orders.values(), key=lambda order: -order.remaining_bytes):
            middle = self._middle(order)
            if middle < order.stop and self._can_replace(source, order, middle, now):
                stop, order.stop = order.stop, middle
                return self._give(source, ByteRange(middle, stop), now)
        return None

    def _middle(self, order: Order) -> int:
        """The piece boundary that halves what is left of an order, past the piece that is arriving."""
        piece = self.grid.piece_size_bytes
        return max(order.position + order.remaining_bytes // 2, order.position + piece) // piece * piece

    def _can_replace(self, source: SourceState, order: Order, middle: int, now: float) -> bool:
        owner = self.sources[order.source]
        if owner is source or (source.tier > owner.tier and self._goes_before(owner, source, now)):
            return False
        is_worth_it = order.remaining_bytes >= 4 * self.grid.piece_size_bytes or (
            0 < owner.rate < order.remaining_bytes / TAKE_OVER_SECONDS
        )
        wanted = bits(self.grid.pieces_touching(middle, order.stop))
        return is_worth_it and source.pieces & wanted == wanted
