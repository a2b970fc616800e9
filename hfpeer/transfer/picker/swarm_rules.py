"""The rules while leechers fetch the same blob: the share of each seed, and the pieces expected of leechers. Pure; time
is handed in."""

from __future__ import annotations

from collections.abc import Mapping

from hfpeer.ranges import ByteRange
from hfpeer.transfer.picker.bitfield import bits
from hfpeer.transfer.picker.ledger import Ledger
from hfpeer.transfer.picker.seed_policy import SeedPolicy
from hfpeer.transfer.picker.source_state import LEFT, RangeRequest, SourceState
from hfpeer.transfer.picker.stalls import Stalls
from hfpeer.transfer.picker.tier_rules import TierRules

FORMING_SECONDS = 1.0
"""Seconds after the start in which leechers may not be known yet, so that each request is for one piece."""
LOOK_AGAIN_SECONDS = 0.05
"""At most this often the picker is asked again though nothing has happened."""
FEW_SEEDS = 2
"""At most this many seeds on the LAN are spared, however few leechers there are."""
LEECHERS_OF_A_SEED = 4
"""Seeds are also spared when there are at least this many leechers for each."""
LAG_PIECES = 32
"""If the first missing piece is more than this many pieces behind, it is requested first."""


class SwarmRules:
    """The rules for one blob. Without a seed policy this node requests everything from seeds."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Mapping[str, SourceState],
        stalls: Stalls,
        tier_rules: TierRules,
        seed_policy: SeedPolicy | None,
    ) -> None:
        self._ledger = ledger
        self._sources = sources
        self._stalls = stalls
        self._tier_rules = tier_rules
        self._seed_policy = seed_policy
        self._began_at: float | None = None

    # What leechers announce

    def note_news(self, name: str, added: int, claimed: int) -> bool:
        """Takes the news of a leecher, a bit for each piece: `added` it has now, `claimed` is all that it is getting
        from seeds. Returns whether there may be a request now that there was not before."""
        leecher = self._sources.get(name)
        if leecher is None:
            return False
        if added:
            leecher.readmit()
        dropped = leecher.news.claimed & ~claimed & ~added
        leecher.pieces |= added & self._ledger.all
        leecher.news.claimed = claimed & self._ledger.all
        leecher.news.withheld &= leecher.news.claimed
        is_idle = leecher.in_flight < leecher.allowance
        return bool((dropped | (added | claimed if is_idle else 0)) & self._ledger.free)

    def note_left(self, name: str) -> None:
        """A leecher has left, so the pieces that it claimed may be requested again."""
        leecher = self._sources.get(name)
        if leecher is not None and not leecher.is_seed:
            leecher.news.claimed = 0
            leecher.excluded_because = leecher.excluded_because or LEFT
            if self._seed_policy is not None:
                self._seed_policy.note_left(leecher.pieces)

    def note_first_hand(self, request: RangeRequest, now: float) -> None:
        """A seed has given a piece. A leecher that claimed it long ago and does not have it loses credit: that it came
        shows that the seed was not the cause."""
        claimants = [source for source in self._sources.values() if source.news.claimed]
        if claimants:
            came = bits(self._ledger.grid.pieces_touching(request.start, request.stop))
            seconds = self._claim_seconds(now)
            for leecher in claimants:
                if came & leecher.news.claims.stale(seconds, now) & ~leecher.pieces:
                    leecher.credit.lose(now)

    # What this node announces

    def claims(self) -> int:
        """The pieces that are requested from seeds, or soon will be, a bit each."""
        claimed = self._seed_policy.intents & self._ledger.free if self._seed_policy is not None else 0
        for request in self._from_seeds():
            claimed |= self._ledger.pieces_of(request)
        return claimed

    def is_coming(self, start: int, stop: int) -> bool:
        """Whether all missing bytes of `[start, stop)` are requested from seeds, so that they can be passed on as they
        come."""
        running = self._from_seeds()
        gaps = self._ledger.present.gaps(start, stop)
        return all(
            any(request.position <= gap.start and gap.stop <= request.stop for request in running) for gap in gaps
        )

    def _from_seeds(self) -> list[RangeRequest]:
        requests = self._ledger.requests.values()
        return [request for request in requests if self._sources[request.source].gives_first_hand]

    # What is requested

    @property
    def has_leechers(self) -> bool:
        """Whether another node is known to fetch this blob."""
        return any(source.is_leecher for source in self._sources.values())

    @property
    def is_flash_crowd(self) -> bool:
        return self._seed_policy is not None and self._seed_policy.flash_crowd.is_active

    def update(self, now: float) -> list[SourceState]:
        """The leechers that are sound now; to be called before each decision."""
        if self._began_at is None:
            self._began_at = now
        if self._seed_policy is None:
            return []
        leechers = [source for source in self._sources.values() if source.is_leecher and source.is_sound(now)]
        self._seed_policy.flash_crowd.update({leecher.node_id: leecher.pieces for leecher in leechers}, now)
        return leechers

    def is_forming(self, now: float) -> bool:
        """Whether leechers that begin at this moment may still be unknown. A request that is running when they come to
        be known is not divided among them."""
        assert self._began_at is not None
        return self._seed_policy is not None and now < self._began_at + FORMING_SECONDS

    def look_again_at(self, now: float) -> float | None:
        """When there may be a request though nothing has happened; None if that cannot be."""
        if self._seed_policy is None:
            return None
        if self._seed_policy.flash_crowd.is_active:
            return now + LOOK_AGAIN_SECONDS
        look_again_at = self._seed_policy.look_again_at
        return None if look_again_at is None else max(look_again_at, now + LOOK_AGAIN_SECONDS)

    def is_spared(self, source: SourceState, leechers: list[SourceState]) -> bool:
        """Whether a source is one of few seeds, so that each leecher requests only its share of it."""
        if not leechers or not source.gives_first_hand:
            return False
        if source.tier.is_upstream:
            return True
        seeds = sum(other.gives_first_hand and not other.tier.is_upstream for other in self._sources.values())
        return seeds <= max(FEW_SEEDS, len(leechers) // LEECHERS_OF_A_SEED)

    def share_of(self, seed: SourceState, leechers: list[SourceState], now: float) -> int:
        """The pieces to request from a spared seed."""
        assert self._seed_policy is not None
        unclaimed = self._ledger.free & seed.pieces
        claim_seconds, is_lan_slow = self._claim_seconds(now), self._tier_rules.is_lan_slow(now)
        sound = set()
        for leecher in leechers:
            coming = self._coming_from(leecher, claim_seconds, now)
            if not (seed.tier.is_upstream and is_lan_slow):
                unclaimed &= ~coming
            if self._takes_part(leecher, claim_seconds, now):
                sound.add(leecher.node_id)
        unsound = {source.node_id for source in self._sources.values() if source.node_id} - sound
        share = self._seed_policy.choose(unclaimed, sound, unsound, now, is_far=seed.tier.is_upstream)
        if unclaimed or seed.tier.is_upstream:
            return share
        return self._seed_policy.end_help(self._ledger.free & seed.pieces, len(sound))

    def from_others(self, source: SourceState, pieces: int) -> int:
        """Of `pieces`, which are not empty, those to request from a source that is not spared; 0 to wait."""
        if self._seed_policy is None or not (source.is_leecher or self._seed_policy.flash_crowd.is_active):
            return pieces
        return self._lagging(pieces) or self._seed_policy.of_leecher(pieces, source.node_id)

    def cut_through(self, leecher: SourceState, disputed: int, now: float) -> ByteRange | None:
        """The missing bytes of a piece that a leecher is just getting from a seed."""
        news = leecher.news
        coming = news.claimed & self._ledger.free & ~(leecher.pieces | news.withheld | disputed)
        if not coming or not leecher.is_sound(now):
            return None
        return self._ledger.first_free(coming)

    def _lagging(self, pieces: int) -> int:
        """The first free piece, if it is among these and far behind: nothing after it can be hashed. Not in a flash
        crowd, where all nodes would ask the same few leechers for it."""
        oldest = self._ledger.free & -self._ledger.free
        ahead = (self._ledger.all & ~self._ledger.free).bit_length() - oldest.bit_length()
        return pieces & oldest if ahead > LAG_PIECES and not self.is_flash_crowd else 0

    def _coming_from(self, leecher: SourceState, claim_seconds: float, now: float) -> int:
        """The pieces that a leecher has and gives, or claims since less than `claim_seconds`."""
        leecher.news.claims.update(leecher.news.claimed, now)
        claimed = leecher.news.claims.within(claim_seconds, now)
        return (leecher.pieces | claimed) & ~leecher.avoided.now(now)

    def _takes_part(self, leecher: SourceState, claim_seconds: float, now: float) -> bool:
        """Whether a leecher has a share: it has announced something new, or waits for pieces that it claims. The share
        of an idle leecher goes to others."""
        return bool(leecher.news.claims.within(claim_seconds, now)) or self._tier_rules.has_news_of(leecher, now)

    def _claim_seconds(self, now: float) -> float:
        return self._stalls.claim_seconds(self._ledger.requests.values(), self._sources, now)
