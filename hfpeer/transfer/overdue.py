"""Whose order others should finish: who is silent, gives next to nothing, or takes far longer than usual. Pure.

It looks at what runs and says why it should end; ending it, and what is held against its source, is for the picker.
"""

from __future__ import annotations

from collections.abc import Collection

from hfpeer.ranges import PieceGrid
from hfpeer.transfer.lateness import Usual
from hfpeer.transfer.pieces import bits
from hfpeer.transfer.standing import Order, Pace, SourceState

CLAIM_PATIENCE = 1.5
"""After so many times what makes a piece of a holder late, a fellow's claim on one counts no more."""
WORSE_TIER_PATIENCE = 2.0
"""So much longer a piece is waited for when only a worse tier could give it instead."""


class Watch:
    """Watches the orders of one blob, and learns how long pieces take."""

    def __init__(self, grid: PieceGrid, pace: Pace) -> None:
        self._grid = grid
        self._pace = pace
        self._usual = {is_whole: Usual() for is_whole in (False, True)}
        """How long pieces take: of fellows, and of holders."""

    def why_overdue(self, order: Order, sources: Collection[SourceState], now: float) -> str | None:
        """Why others should finish an order; None while it may go on."""
        if order.is_paused or not order.remaining_bytes:
            return None
        rest = bits(self._grid.pieces_touching(order.position, order.stop))
        owner = next(source for source in sources if source.name == order.source)
        others = [s for s in sources if s is not owner and s.is_sound(now) and s.pieces & rest]
        silent_seconds = now - order.progressed_at
        if others and silent_seconds >= self._pace.silence_seconds:
            return f"silent for {silent_seconds:.0f} s"
        if owner.is_below_floor(now, self._pace) and not all(s.is_below_floor(now, self._pace) for s in others):
            return f"gives less than {self._pace.floor_bytes_per_second / 1024:.0f} KiB/s"
        if any(source.is_fellow for source in sources) and self._is_late(order, owner, others, now):
            order.is_late = True
            return f"has taken {now - order.began_at:.1f} s for a piece"
        best = max((other.rate for other in others if other.tier <= owner.tier), default=0.0)
        if owner.rate and best > owner.rate * self._pace.slow_ratio and order.remaining_bytes / owner.rate > 3.0:
            return f"{best / owner.rate:.0f} times slower than another source"
        return None

    def note_duration(self, order: Order, source: SourceState, now: float) -> None:
        """An order has brought all it should."""
        usual, seconds = self._usual[source.is_whole], (now - order.began_at) / self._pieces_in(order)
        if seconds < usual.late_after():
            source.avoided.in_a_row = 0
        usual.note(seconds)

    def claims_last(self) -> float:
        """For how many seconds a fellow's claim on a piece counts."""
        return self._usual[True].late_after(CLAIM_PATIENCE)

    def _is_late(self, order: Order, owner: SourceState, others: list[SourceState], now: float) -> bool:
        """Whether an order takes much longer than usual, and others have what it should bring."""
        if not others:
            return False
        patience = self._pieces_in(order) * (1.0 if any(s.tier <= owner.tier for s in others) else WORSE_TIER_PATIENCE)
        return now - order.began_at > self._usual[owner.is_whole].late_after(patience)

    def _pieces_in(self, order: Order) -> float:
        return max(1.0, (order.stop - order.start) / self._grid.piece_size_bytes)
