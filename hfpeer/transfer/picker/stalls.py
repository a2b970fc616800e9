"""Finds stalled requests: the source is silent, very slow, or much slower than usual. Pure; time is handed in.

It says why a request should end; the caller ends it, and the picker decides what follows for the source.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hfpeer.budgets import (
    CLAIM_SECONDS,
    FAR_HOLD_SECONDS,
    HOLD_FLOOR_BYTES_PER_SECOND,
    NEAR_FLOOR_BYTES_PER_SECOND,
    NEAR_HOLD_SECONDS,
)
from hfpeer.ranges import PieceGrid
from hfpeer.transfer.picker.bitfield import bits
from hfpeer.transfer.picker.source_state import RangeRequest, SourceState, UsualTime
from hfpeer.transfer.sources.tiers import Tier

LATE_IN_A_ROW = 3
"""A source that was late with this many pieces in a row is slow, and loses credit."""
CLAIM_PATIENCE = 1.5
"""A leecher's claim counts for this many times the time after which a piece of a seed is late."""
HIGHER_TIER_PATIENCE = 2.0
"""A piece may take this many times longer when only sources of a higher tier have it too."""
MIN_SLOW_SECONDS = 3.0
"""A request whose rest takes less than this is not ended because a faster source exists."""


@dataclass(frozen=True)
class StallLimits:
    """When a source counts as silent, slow or useless."""

    silence_seconds: float = NEAR_HOLD_SECONDS
    """Seconds for which a request may bring less than the floor while another source could go on with it."""
    far_ratio: float = FAR_HOLD_SECONDS / NEAR_HOLD_SECONDS
    """An upstream may take this many times longer, because its responses cross the WAN."""
    slow_ratio: float = 10.0
    """A source this many times slower than the best other source of its tier loses its request."""
    floor_bytes_per_second: float = HOLD_FLOOR_BYTES_PER_SECOND
    """Below this rate a source is useless. With several requests at a time, all of them together."""
    near_floor_bytes_per_second: float = NEAR_FLOOR_BYTES_PER_SECOND
    """Peers that together give less hold back no higher tier, and may lose a request to a much faster source."""
    leechers_floor_ratio: float = 0.25
    """With leechers this part of the floor is enough, because all of them load the same links."""
    patience_seconds: float = 60.0
    """Seconds without a byte from any source before a fetch ends."""
    rest_seconds: float = 900.0
    """Seconds without a byte for which a fetch waits for upstreams that limit requests; patience begins after it."""

    @classmethod
    def with_patience(cls, seconds: float, rest_seconds: float = rest_seconds) -> StallLimits:
        """The usual limits for a fetch that ends after `seconds` without a byte. A source is silent well before."""
        silence_seconds = min(cls.silence_seconds, seconds / 3)
        return cls(silence_seconds=silence_seconds, patience_seconds=seconds, rest_seconds=rest_seconds)

    def hold_seconds(self, tier: Tier) -> float:
        """Seconds for which a source of this tier may keep a request and give nothing useful."""
        return self.silence_seconds * (self.far_ratio if tier.is_upstream else 1.0)


class Stalls:
    """Watches the requests of one blob, and learns how long pieces take."""

    def __init__(self, grid: PieceGrid, limits: StallLimits) -> None:
        self._grid = grid
        self._limits = limits
        self._usual = {is_seed: UsualTime() for is_seed in (False, True)}
        """How long a piece takes from a leecher (False) and from a seed (True)."""

    def why_overdue(
        self, request: RangeRequest, sources: Mapping[str, SourceState], now: float, *, is_lan_slow: bool
    ) -> str | None:
        """Why other sources should finish a request; None while it may go on. `is_lan_slow` says that the peers
        together give less than a LAN should."""
        if request.is_paused or not request.remaining_bytes:
            return None
        rest = bits(self._grid.pieces_touching(request.position, request.stop))
        owner = sources[request.source]
        others = [s for s in sources.values() if s is not owner and s.is_sound(now) and s.pieces & rest]
        rate = owner.rate.bytes_per_second
        rates = [other.rate.bytes_per_second for other in others]
        hold_seconds = self._limits.hold_seconds(owner.tier)
        if now - request.floor_met_at >= hold_seconds and any(not other or other > rate for other in rates):
            silent_seconds = now - request.progressed_at
            if silent_seconds >= hold_seconds:
                return f"silent for {silent_seconds:.0f} s"
            return f"gives less than {self._limits.floor_bytes_per_second / 1024:.0f} KiB/s"
        is_long = rate > 0 and request.remaining_bytes / rate > MIN_SLOW_SECONDS
        if others and not owner.credit.keeps_request(now, is_slow=is_long):
            return "its source has kept other requests waiting"
        if any(source.is_leecher for source in sources.values()) and self._is_late(request, owner, others, now):
            request.is_late = True
            return f"has taken {now - request.began_at:.1f} s for a piece"
        rivals = [other for other in others if other.tier <= owner.tier or is_lan_slow]
        best = max((rival.rate.bytes_per_second for rival in rivals), default=0.0)
        if is_long and best > rate * self._limits.slow_ratio:
            return f"{best / rate:.0f} times slower than another source"
        if is_long and is_lan_slow and any(not rival.in_flight and not rival.rate.bytes_per_second for rival in rivals):
            return f"would take {request.remaining_bytes / rate:.0f} s more, and another source is idle"
        return None

    def note_progress(self, request: RangeRequest, source: SourceState, now: float) -> None:
        """More of a request has come. Enough of it restarts the time that the floor allows."""
        hold_bytes = self._limits.floor_bytes_per_second * self._limits.hold_seconds(source.tier) / source.limit
        if request.position - request.floor_met_position >= hold_bytes:
            request.meet_floor(now)

    def note_done(self, request: RangeRequest, source: SourceState, now: float) -> None:
        """A request has brought everything; learns from the time that it took."""
        usual, seconds = self._usual[source.is_seed], (now - request.began_at) / self._pieces_in(request)
        if seconds < usual.late_after():
            source.avoided.in_a_row = 0
        usual.note(seconds)
        source.usual.note(seconds)

    def claim_seconds(
        self, requests: Collection[RangeRequest], sources: Mapping[str, SourceState], now: float
    ) -> float:
        """Seconds for which a leecher's claim counts, from its first mention. A claim does not say which seed is asked,
        so the quickest seed that can be asked sets the time."""
        running: dict[str, float] = {}
        for request in requests:
            seconds = (now - request.began_at) / self._pieces_in(request)
            running[request.source] = max(seconds, running.get(request.source, 0.0))
        seeds = (source for source in sources.values() if source.is_seed and source.is_usable(now))
        bounds = (seed.usual.bound(CLAIM_PATIENCE, CLAIM_SECONDS, running.get(seed.name, 0.0)) for seed in seeds)
        return min(bounds, default=CLAIM_SECONDS)

    def _is_late(self, request: RangeRequest, owner: SourceState, others: list[SourceState], now: float) -> bool:
        """Whether a request takes much longer than usual, and others have what it should bring."""
        if not others:
            return False
        patience = self._pieces_in(request) * (
            1.0 if any(other.tier <= owner.tier for other in others) else HIGHER_TIER_PATIENCE
        )
        return now - request.began_at > self._usual[owner.is_seed].late_after(patience)

    def _pieces_in(self, request: RangeRequest) -> float:
        return max(1.0, (request.stop - request.start) / self._grid.piece_size_bytes)
