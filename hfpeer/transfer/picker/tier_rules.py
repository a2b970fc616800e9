"""Decides which sources go before others: those of the lower tier, then those with credit. Pure; time is handed in."""

from __future__ import annotations

from collections.abc import Mapping

from hfpeer.transfer.picker.ledger import Ledger
from hfpeer.transfer.picker.source_state import RangeRequest, SourceState
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.sources.tiers import Tier


class TierRules:
    """Compares the sources of one blob, and measures whether its peers together are as fast as a LAN."""

    def __init__(self, ledger: Ledger, sources: Mapping[str, SourceState], limits: StallLimits) -> None:
        self._ledger = ledger
        self._sources = sources
        self._limits = limits
        self._peers = PeerRate()

    def held_back(self, source: SourceState, disputed: int, now: float) -> int:
        """The pieces that must come from other sources rather than from `source`. Leechers give no `disputed` piece."""
        pieces, is_creditless = 0, source.credit.is_lost(now)
        is_lan_slow = source.tier.is_upstream and self.is_lan_slow(now)
        for other in self._sources.values():
            if other.tier < source.tier:
                goes_before = (other.tier.is_upstream or not is_lan_slow) and other.is_sound(now)
            else:
                goes_before = is_creditless and other is not source and other.is_sound(now)
            if goes_before:
                if other.is_seed:
                    return self._ledger.all
                pieces |= other.pieces & ~(other.avoided.now(now) | disputed)
        return pieces

    def holds_back(self, source: SourceState, now: float) -> bool:
        """Whether sources of higher tiers leave to this source what it has."""
        return source.is_sound(now) and (source.tier.is_upstream or not self.is_lan_slow(now))

    def is_lan_slow(self, now: float) -> bool:
        """Whether the peers together give less than a LAN should. Leechers that get pieces load the same links."""
        leechers = (source for source in self._sources.values() if source.is_leecher and source.is_sound(now))
        is_loaded = any(self.has_news_of(leecher, now) for leecher in leechers)
        ratio = self._limits.leechers_floor_ratio if is_loaded else 1.0
        return self._peers.is_below(ratio * self._limits.near_floor_bytes_per_second, now)

    def has_news_of(self, leecher: SourceState, now: float) -> bool:
        """Whether a leecher has lately told of a new piece or a new claim. If not, the others do not wait for its share
        and it does not load the LAN."""
        return leecher.news.seconds_without(leecher.pieces, now) < self._limits.hold_seconds(Tier.PEER)

    # What is measured

    def begin(self, request: RangeRequest, now: float) -> None:
        if self._is_lan_paced(request):
            self._peers.begin(now)

    def advance(self, request: RangeRequest, size_bytes: int, now: float) -> None:
        if self._is_lan_paced(request):
            self._peers.add(size_bytes, now)

    def end(self, request: RangeRequest) -> None:
        if self._is_lan_paced(request):
            self._peers.end()

    def _is_lan_paced(self, request: RangeRequest) -> bool:
        """Whether a request comes as fast as the LAN is. Cut-through comes as fast as its source gets the bytes."""
        return not self._sources[request.source].tier.is_upstream and not request.is_cut_through


class PeerRate:
    """How fast all peers together give, while at least one is asked. A pause between two requests changes nothing."""

    def __init__(self) -> None:
        self._requests = 0
        self._since = 0.0
        self._bytes = 0
        self._rate: float | None = None

    def begin(self, now: float) -> None:
        if not self._requests:
            self._since, self._bytes = now, 0
        self._requests += 1

    def add(self, size_bytes: int, now: float) -> None:
        self._bytes += size_bytes
        if now - self._since >= 1.0:
            self._rate = self._bytes / (now - self._since)
            self._since, self._bytes = now, 0

    def end(self) -> None:
        self._requests -= 1

    def is_below(self, bytes_per_second: float, now: float) -> bool:
        """Whether the rate is known to be lower."""
        if not self._requests:
            return False
        seconds = now - self._since
        rate = self._bytes / seconds if seconds >= 1.0 else self._rate
        return rate is not None and rate < bytes_per_second
