"""Decides which range to request next, and from which source. Pure: time is handed in, so that a simulation runs the
same decisions.

Rules, in order of weight:
1. A byte comes from the lowest tier that can give it now: peers, then mirrors, then the origin. A source that rests,
   has just failed or has no credit holds no other back, nor do peers that are slower than a LAN (`tier_rules`).
2. Inside a tier the least busy source goes first. Ranges go out in file order, so that hashing can follow, except
   those that a reader waits for (`readers`).
3. A source that keeps others waiting loses its hold on what it was to give (`stalls`): a request that is silent, slow
   or late, a claim on a piece that does not come, a share that is not requested. It then has no credit for a while,
   for any blob. The bytes that it gave are kept. A late piece costs credit only if it happens several times in a row.
4. When nothing is free, an idle source takes over the second half of the largest request (`endgame`).
5. While leechers fetch the same blob, each node requests only its share of the pieces from a seed, one at a time, and
   the other pieces from leechers, so that each piece leaves the seed about once. A node whose share is out takes over
   pieces that no leecher has or claims. No node gets far ahead of a slow one, because hashing follows the file. At the
   very end a seed on the LAN helps with pieces that only one leecher has (`swarm_rules`, `seed_policy`).
6. A node that could only wait for a leecher requests the piece that this one is just getting from a seed, and gets it
   as it comes (cut-through). In a flash crowd it waits, because few nodes get a new piece first and pass it on.
"""

from __future__ import annotations

from collections.abc import Collection

from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.ranges import MIB, ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.credit import Credit
from hfpeer.transfer.picker.endgame import Endgame
from hfpeer.transfer.picker.ledger import Ledger
from hfpeer.transfer.picker.readers import Readers
from hfpeer.transfer.picker.seed_policy import SeedPolicy
from hfpeer.transfer.picker.source_state import LEFT, RangeRequest, SourceState
from hfpeer.transfer.picker.stalls import LATE_IN_A_ROW, StallLimits, Stalls
from hfpeer.transfer.picker.swarm_rules import SwarmRules
from hfpeer.transfer.picker.tier_rules import TierRules
from hfpeer.transfer.sources.tiers import Tier

MAX_REQUEST_BYTES = 16 * MIB
URGENT_REQUEST_BYTES = 4 * MIB
"""At most this many bytes in a request for what a reader waits for."""


class Picker:
    """Decides for one blob. Not thread-safe: the fetch holds a lock around every call."""

    def __init__(
        self,
        grid: PieceGrid,
        present: RangeSet,
        limits: StallLimits | None = None,
        seed_policy: SeedPolicy | None = None,
    ) -> None:
        """Without a seed policy this node requests everything from seeds, whatever leechers do."""
        limits = limits or StallLimits()
        self.grid = grid
        self.sources: dict[str, SourceState] = {}
        self._ledger = Ledger(grid, present)
        self.present = self._ledger.present
        self.requests = self._ledger.requests
        self.readers = Readers(self._ledger, self.sources)
        self._stalls = Stalls(grid, limits)
        self._tier_rules = TierRules(self._ledger, self.sources, limits)
        self._endgame = Endgame(self._ledger, self.sources, self._tier_rules)
        self.swarm = SwarmRules(self._ledger, self.sources, self._stalls, self._tier_rules, seed_policy)
        self._disputed = 0
        """The pieces that only seeds are asked for, a bit each."""

    # Sources

    def add_source(
        self,
        name: str,
        tier: Tier,
        limit: int,
        pieces: PieceMap | None = None,
        node_id: str = "",
        credit: Credit | None = None,
    ) -> None:
        """A source joins, or says what it has now (None: the whole blob). `limit` bounds its requests at a time,
        `credit` is its account over all blobs. An excluded source that has something new is asked again."""
        is_seed = pieces is None or pieces.bitfield is None
        has = self._ledger.all
        if pieces is not None and pieces.bitfield is not None:
            has &= int.from_bytes(pieces.bitfield, "little")
        if name not in self.sources:
            self.sources[name] = SourceState(name, tier, limit, has, is_seed, node_id, is_seed)
            self.sources[name].credit = credit or Credit()
        known = self.sources[name]
        if known.pieces != has or known.excluded_because == LEFT:
            known.readmit()
        known.pieces, known.is_seed = has, is_seed

    def remove_source(self, name: str, reason: str) -> None:
        """A source left or lied, and is not asked again until it is restored. Its running requests go on."""
        if name in self.sources:
            self.sources[name].excluded_because = reason
            self.sources[name].is_removed = True

    def restore_source(self, name: str) -> None:
        """A source that was removed is asked again."""
        self.sources[name].is_removed = False
        self.sources[name].readmit()

    def reset_source(self, name: str, now: float) -> None:
        """A source is reached at another address now, so its failures do not count."""
        self.sources[name].reset(now)

    def has_seed(self, now: float, *, but: Collection[str] = ()) -> bool:
        """Whether a usable source other than these has the whole blob."""
        seeds = (source for source in self.sources.values() if source.is_seed and source.name not in but)
        return any(source.is_usable(now) for source in seeds)

    def dispute(self, piece: int, parties: Collection[str], until: float) -> None:
        """Two sources differ about a piece. Only seeds are asked for it now, and the two for nothing, until `until` at
        the latest."""
        self._disputed |= 1 << piece
        for name in parties:
            if name in self.sources:
                failures = self.sources[name].failures
                failures.resting_until = max(failures.resting_until, until)

    def settle(self, piece: int, parties: Collection[str], now: float) -> None:
        """The dispute about a piece has ended, decided or not."""
        self._disputed &= ~(1 << piece)
        for name in parties:
            if name in self.sources:
                self.sources[name].failures.resting_until = now

    # Decisions

    def next_request(self, now: float) -> RangeRequest | None:
        """Begins the next request; None when nothing can be requested now."""
        leechers = self.swarm.update(now)
        is_flash_crowd = self.swarm.is_flash_crowd
        ready = [source for source in self.sources.values() if self._is_ready(source, leechers, now)]
        ready.sort(
            key=lambda source: (
                source.tier,
                bool(leechers) and not source.is_seed,
                source.in_flight / source.limit,
                (source.pieces & self._ledger.free).bit_count() if is_flash_crowd else -source.rate.bytes_per_second,
            )
        )
        for source in ready if self._ledger.free else ():
            span = self._span_for(source, leechers, now)
            if span is not None:
                return self._begin(source, span, now)
        for source in ready if self._ledger.free and not is_flash_crowd else ():
            span = self.swarm.cut_through(source, self._disputed, now)
            if span is not None:
                return self._begin(source, span, now, is_cut_through=True)
        for source in ready if self._endgame.is_possible else ():
            span = self._endgame.take_half(source, self._disputed, now)
            if span is not None:
                return self._begin(source, span, now)
        return None

    def overdue(self, now: float) -> list[tuple[RangeRequest, str]]:
        """The stalled requests, each with the reason. The caller ends them."""
        stalled, is_lan_slow = [], self._tier_rules.is_lan_slow(now)
        for request in self.requests.values():
            reason = self._stalls.why_overdue(request, self.sources, now, is_lan_slow=is_lan_slow)
            if reason is not None:
                stalled.append((request, reason))
        return stalled

    def wake_at(self, now: float) -> float | None:
        """When there may be a request though nothing happens: a source has rested, or a share may be taken over."""
        rests = (s.failures.resting_until for s in self.sources.values() if s.excluded_because is None)
        times = [until for until in rests if until > now]
        look_again_at = self.swarm.look_again_at(now)
        return min(times if look_again_at is None else [*times, look_again_at], default=None)

    def holds_back(self, source: SourceState, now: float) -> bool:
        """Whether sources of higher tiers leave to this source what it has."""
        return self._tier_rules.holds_back(source, now)

    # What happens to a request

    def paused(self, request: RangeRequest) -> None:
        """The request waits for this node, not for its source, so its silence timer stops."""
        request.is_paused = True

    def resumed(self, request: RangeRequest, now: float) -> None:
        """The request waits for its source again."""
        request.resume(now)

    def received(self, request: RangeRequest, size_bytes: int, now: float) -> None:
        """The next `size_bytes` of a request are on disk."""
        self._ledger.advance(request, size_bytes, now)
        source, is_done = self.sources[request.source], not request.remaining_bytes
        source.failures.recover(size_bytes, 0 if is_done else self.grid.piece_size_bytes)
        source.rate.add(size_bytes, now)
        self._tier_rules.advance(request, size_bytes, now)
        self._stalls.note_progress(request, source, now)
        if is_done:
            source.credit.earn()
            self._stalls.note_done(request, source, now)
            if source.gives_first_hand:
                self.swarm.note_first_hand(request, now)

    def finished(self, request: RangeRequest) -> None:
        """A request has brought everything."""
        self._end(request)

    def failed(
        self,
        request: RangeRequest,
        reason: str,
        now: float,
        *,
        is_permanent: bool = False,
        retry_after_seconds: float | None = None,
        ignores_ranges: bool = False,
    ) -> None:
        """A request broke off. The bytes that it brought are kept, the rest is free, and the source rests.

        A leecher that does not pass on a piece as it comes has not failed.
        """
        source = self.sources[request.source]
        source.failures.reason = reason
        self._end(request)
        if request.is_cut_through and not is_permanent:
            source.news.withheld |= self._ledger.pieces_of(request)
            return
        if ignores_ranges and source.takes_ranges:
            source.takes_ranges = False
            return
        source.failures.add(request.began_at, now)
        if is_permanent:
            source.excluded_because = source.excluded_because or reason
        source.failures.rest(retry_after_seconds, now)

    def overtaken(self, request: RangeRequest, reason: str, now: float) -> None:
        """A stalled request was ended, and its source loses credit. A late piece costs credit only if the source was
        late several times in a row."""
        source = self.sources[request.source]
        source.failures.reason = reason
        self._end(request)
        if request.is_late:
            source.avoided.add(self._ledger.pieces_of(request), now)
            if source.avoided.in_a_row < LATE_IN_A_ROW:
                return
        if request.position == request.start:
            source.failures.add(request.began_at, now)
        source.credit.lose(now)

    def withdrawn(self, request: RangeRequest) -> None:
        """A request was ended through no fault of its source."""
        self._end(request)

    def discard(self, start: int, stop: int) -> None:
        """Bytes that were present are wrong, and are fetched again."""
        self._ledger.discard(start, stop)

    # State

    @property
    def is_complete(self) -> bool:
        return self.present.covers(0, self.grid.size_bytes)

    def is_stuck(self) -> bool:
        """Whether bytes are missing, nothing is requested, and no source, rested or not, will bring them. A leecher may
        still bring what it does not have yet."""
        if self.is_complete or self.requests:
            return False
        hopeful = [source for source in self.sources.values() if source.excluded_because is None]
        return not any(source.pieces & self._ledger.free or not source.is_seed for source in hopeful)

    def rest_ends_at(self, latest: float) -> float:
        """When the last upstream has rested that asked for a rest until `latest` or before; 0 if there is none.

        A peer's rest counts for nothing: it could make a fetch without other sources wait for long.
        """
        upstreams = (source for source in self.sources.values() if source.tier.is_upstream)
        ends = [source.failures.asked_rest_until for source in upstreams if source.excluded_because is None]
        return max((end for end in ends if end <= latest), default=0.0)

    def rest_seconds(self, now: float) -> float:
        """Seconds until a source can be asked, if nothing is requested and an upstream asked for a rest; else 0."""
        sources = [source for source in self.sources.values() if source.excluded_because is None]
        is_limited = any(source.tier.is_upstream and source.failures.asked_rest_until > now for source in sources)
        if self.requests or not is_limited:
            return 0.0
        return max(0.0, min(source.failures.resting_until for source in sources) - now)

    # Inside

    def _is_ready(self, source: SourceState, leechers: list[SourceState], now: float) -> bool:
        if source.in_flight >= source.allowance or not source.is_usable(now):
            return False
        return source.in_flight < source.tier.swarm_requests or not self.swarm.is_spared(source, leechers)

    def _span_for(self, source: SourceState, leechers: list[SourceState], now: float) -> ByteRange | None:
        """The first run of free bytes to request from `source`, because it has them and goes before the others."""
        pieces = source.pieces & self._ledger.free & ~source.avoided.now(now)
        if not source.gives_first_hand:
            pieces &= ~self._disputed
        if not pieces:
            return None
        if not source.takes_ranges:
            pieces &= ~self._tier_rules.held_back(source, self._disputed, now)
            return self._ledger.first_free(pieces, self.grid.count) if pieces else None
        if self.swarm.is_spared(source, leechers):
            pieces &= (pieces & self._disputed) or self.swarm.share_of(source, leechers, now)
        elif not self.readers.urgent(pieces):
            pieces = self.swarm.from_others(source, pieces)
        if pieces:
            pieces &= ~self._tier_rules.held_back(source, self._disputed, now)
        if not pieces:
            return None
        urgent = self.readers.urgent(pieces)
        size_bytes = self._request_bytes(bool(leechers) or self.swarm.is_forming(now))
        if urgent:
            size_bytes = min(size_bytes, max(URGENT_REQUEST_BYTES, self.grid.piece_size_bytes))
        return self._ledger.first_free(urgent or pieces, size_bytes // self.grid.piece_size_bytes)

    def _request_bytes(self, is_swarm: bool) -> int:
        """A piece in a swarm; else much while much is free, and less towards the end, so that all sources finish
        together."""
        piece = self.grid.piece_size_bytes
        if is_swarm:
            return piece
        connections = sum(source.limit for source in self.sources.values() if source.excluded_because is None)
        share = self._ledger.free_bytes // (2 * max(1, connections))
        return max(piece, min(MAX_REQUEST_BYTES, share // piece * piece))

    def _begin(self, source: SourceState, span: ByteRange, now: float, *, is_cut_through: bool = False) -> RangeRequest:
        request = self._ledger.begin(source.name, span, now, is_cut_through=is_cut_through)
        source.begin_request(now)
        self._tier_rules.begin(request, now)
        return request

    def _end(self, request: RangeRequest) -> None:
        if self._ledger.end(request):
            self.sources[request.source].in_flight -= 1
            self._tier_rules.end(request)
