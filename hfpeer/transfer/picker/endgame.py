"""The endgame: when nothing is free, an idle source takes over the second half of another's request. Pure; time is
handed in."""

from __future__ import annotations

from collections.abc import Mapping

from hfpeer.ranges import ByteRange
from hfpeer.transfer.picker.bitfield import bits
from hfpeer.transfer.picker.ledger import Ledger
from hfpeer.transfer.picker.source_state import RangeRequest, SourceState
from hfpeer.transfer.picker.tier_rules import TierRules

MIN_REST_SECONDS = 1.0
"""A request whose rest takes its source less than this is not halved, unless the rest is large."""
LARGE_REST_PIECES = 4
"""A rest of at least this many pieces is halved, however fast its source is."""


class Endgame:
    """Halves the running requests of one blob."""

    def __init__(self, ledger: Ledger, sources: Mapping[str, SourceState], tier_rules: TierRules) -> None:
        self._ledger = ledger
        self._sources = sources
        self._tier_rules = tier_rules

    @property
    def is_possible(self) -> bool:
        """Whether a request is long enough to be halved."""
        return any(self._middle(request) < request.stop for request in self._ledger.requests.values())

    def take_half(self, source: SourceState, disputed: int, now: float) -> ByteRange | None:
        """Cuts the largest request that `source` can replace in half. Returns the second half, which is free now; None
        when there is no such request."""
        if not (source.is_sound(now) and source.takes_ranges) or (disputed and not source.gives_first_hand):
            return None
        for request in sorted(self._ledger.requests.values(), key=lambda request: -request.remaining_bytes):
            middle, stop = self._middle(request), request.stop
            if middle < stop and self._can_replace(source, request, middle, now):
                self._ledger.shorten(request, middle)
                return ByteRange(middle, stop)
        return None

    def _middle(self, request: RangeRequest) -> int:
        """The piece boundary that halves the rest of a request, behind the piece that is arriving."""
        piece = self._ledger.grid.piece_size_bytes
        return max(request.position + request.remaining_bytes // 2, request.position + piece) // piece * piece

    def _can_replace(self, source: SourceState, request: RangeRequest, middle: int, now: float) -> bool:
        owner = self._sources[request.source]
        if owner is source or (source.tier > owner.tier and self._tier_rules.holds_back(owner, now)):
            return False
        rate = owner.rate.bytes_per_second
        is_worth_it = request.remaining_bytes >= LARGE_REST_PIECES * self._ledger.grid.piece_size_bytes or (
            0 < rate < request.remaining_bytes / MIN_REST_SECONDS
        )
        wanted = bits(self._ledger.grid.pieces_touching(middle, request.stop))
        return is_worth_it and source.pieces & wanted == wanted
