"""Which pieces a node asks a holder for itself, while others want the same blob: its errands. Pure; time is handed in.

An envoy asks for its own share, and when that is out, after a while, for what is left of others'. Who is no envoy asks
for nothing, as long as new pieces come round; so each piece leaves a holder about once, and no death stops it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from operator import or_

from hfpeer.transfer.company import MAX_ENVOYS, MAX_MEMBERS, SETTLING_SECONDS, Company
from hfpeer.transfer.crowd import Crowd
from hfpeer.transfer.pieces import bits_of, lowest
from hfpeer.transfer.shares import Shares, one_of, place_of

TAKE_OVER_SHARE_SECONDS = 0.15
"""How long an envoy whose own share is out leaves the others' to them; news of claims takes a part of that."""
OWNER_LEFT_PIECES = 1
"""So many are left to an owner that has more."""
LAST_PIECES = 8
"""A holder at home helps each of `HELPED_FELLOWS` or more with so many at the end, and with fewer, one in `LAST_SHARE`,
of a small blob."""
LAST_SHARE = 64
HELPED_FELLOWS = 4
AHEAD_PIECES = 2 * MAX_ENVOYS
"""So far an owner gets ahead of the others before it helps them."""
INTENT_SECONDS = 0.2
"""How long before a node takes over a piece it says so; news take half of that."""
MAX_INTENTS = 2
"""One for now, and one for when that has come."""
RUMOUR_SECONDS = 2.0
"""How long the pieces of a fellow that left, which nobody near has, are thought to be on their way from others."""
PROMOTED_SECONDS = 1.0
"""How long one that becomes an envoy late lets pass without anything new before it believes that it is needed."""
OUTSIDER_SECONDS = 20.0
"""The same for one that is no envoy: all envoys are believed alive, and none of them gives anything."""
SAFE_PIECES = 32
"""If there are so many for each, nodes that take any at the same time hardly ever take the same one."""
NEXT_SECONDS = 0.1
"""The same for the next piece, once it was right to ask and while nothing comes from others."""


class Errands:
    """The errands of one fetch. Without a `company` all fellows count as envoys."""

    def __init__(self, shares: Shares, company: Company | None = None) -> None:
        self._shares = shares
        self._company = company
        self.crowd = Crowd(shares.own_id, shares.count, company)
        self._patience = place_of(shares.own_id, 0, shares.count) / max(1, shares.count)
        self._is_proven = False
        """Whether this node was an envoy from the start, or has found that it is needed."""
        self._was_settled = False
        self._out_at: float | None = None
        self._intents: dict[int, float] = {}
        self._unclaimed = self._own = 0
        self._moved_at: float | None = None
        self._has_stepped_in = False
        self._turns = 0
        self._known_envoys: Collection[str] = ()
        self._left: list[int] = []
        self._rumours: list[tuple[int, float]] = []
        self.look_again_at: float | None = None
        """When there may be an errand though nothing has happened."""

    def left(self, pieces: int) -> None:
        """A fellow that had these pieces has left."""
        self._left.append(pieces)

    def choose(
        self, unclaimed: int, sound: Collection[str], unsound: Collection[str], now: float, *, is_far: bool = False
    ) -> int:
        """Of the pieces that no fellow has or claims, those to ask a holder for now. `sound` are the node ids of the
        fellows that can be counted on, `unsound` those of the peers that cannot. From one that `is_far`, over the WAN,
        a piece may come twice only if nothing else helps; at home a little time is worth a piece now and then."""
        unclaimed &= ~self._rumoured(len(sound), now)
        self._watch(unclaimed, now)
        self.look_again_at = None
        if not unclaimed:
            self._out_at, self._intents = None, {}
            return 0
        self._known_envoys = envoys = self._envoys(sound, unsound, now)
        if not self._may_ask(envoys, now):
            if self._was_settled:
                return self._step_in(unclaimed, envoys, now)
            return 0 if is_far else self._begin(unclaimed, len(sound))
        own = unclaimed & self._shares.within(envoys, 1)
        if own:
            self._out_at, self._intents = None, {}
            return own if is_far else (self._late(unclaimed, own, envoys) or own)
        spare = 0 if is_far else self._spare(unclaimed, envoys)
        return spare or self._take_over(unclaimed, envoys, now)

    def last_of(self, pieces: int, fellows: int) -> int:
        """One of the pieces that this node still lacks when nothing is left to share out, to ask a holder for which has
        nothing else to do then; 0 if there are too many, or enough fellows to get them from."""
        is_end = pieces.bit_count() <= min(LAST_PIECES, self._shares.count // LAST_SHARE)
        is_helped = fellows >= HELPED_FELLOWS and not self.crowd.is_one
        return self._one_of(pieces & self.crowd.rare) if is_end and is_helped else 0

    def of_fellow(self, pieces: int, fellow: str) -> int:
        """Of these pieces that a fellow has, those to ask it for now; 0 when it is better to wait. Of few nodes, each
        takes first what nobody else has, so that no piece waits at the end for one link alone; and other pieces than
        the rest: those of which it is the first owner, or the next after that fellow."""
        if self.crowd.is_one:
            return self.crowd.choose(pieces, fellow)
        rare = pieces & self.crowd.rare
        if not rare:
            return pieces
        envoys = self._known_envoys
        ranks = range(2, len(envoys) + 2)
        theirs = self._shares.by_owner(envoys).get(fellow, 0)
        own = rare & (self._shares.within(envoys, 1) | self._shares.within(envoys, 2) & theirs)
        return own or next(filter(None, (rare & self._shares.within(envoys, rank) for rank in ranks)), rare)

    # Inside

    def _begin(self, unclaimed: int, fellows: int) -> int:
        """Before it is known who shares the pieces out: any piece, where it is unlikely that another takes the same."""
        is_safe = fellows < MAX_MEMBERS and unclaimed.bit_count() >= SAFE_PIECES * (fellows + 1)
        return self._one_of(unclaimed) if is_safe else 0

    def _envoys(self, sound: Collection[str], unsound: Collection[str], now: float) -> Collection[str]:
        if self._company is None:
            return sound
        self._company.stand(True)
        return [envoy for envoy in self._company.envoys(now) if envoy not in unsound]

    def _may_ask(self, envoys: Collection[str], now: float) -> bool:
        if self._company is None:
            return True
        if not self._was_settled:
            if not self._company.is_settled(now):
                self.look_again_at = now + SETTLING_SECONDS / 3
                return False
            self._was_settled = True
            self._is_proven = self._company.own_id in envoys
        return self._is_proven and self._company.own_id in envoys

    def _take_over(self, unclaimed: int, envoys: Collection[str], now: float) -> int:
        """One piece of another's share, announced long enough ago for its owner to have heard of it, or to have been
        heard of; and the intent to take the next."""
        if self._out_at is None:
            self._out_at = now
        self._intents = {piece: at for piece, at in self._intents.items() if unclaimed >> piece & 1}
        due = [piece for piece, at in self._intents.items() if now - at >= INTENT_SECONDS]
        if due:
            del self._intents[due[0]]
        rank = 1 + int((now - self._out_at) / TAKE_OVER_SHARE_SECONDS)
        if rank > 1:
            self._intend(unclaimed & self._shares.within(envoys, rank) & ~(1 << due[0] if due else 0), now)
        next_due = (at + INTENT_SECONDS for at in self._intents.values())
        self.look_again_at = min(next_due, default=now + TAKE_OVER_SHARE_SECONDS)
        return 1 << due[0] if due else 0

    def _late(self, unclaimed: int, own: int, envoys: Collection[str]) -> int:
        """One piece of an owner that is far behind this one: nothing after it can be hashed, anywhere."""
        if lowest(own) - lowest(unclaimed) <= AHEAD_PIECES:
            return 0
        spare = self._spare(unclaimed, envoys)
        return spare if spare and lowest(own) - lowest(spare) > AHEAD_PIECES else 0

    def _spare(self, unclaimed: int, envoys: Collection[str]) -> int:
        """The first piece of another, this node its second owner, which that one will not come to soon: owners go from
        first to last, so it needs no word from them. 0 if there is none."""
        soon = 0
        for share in self._shares.by_owner(envoys).values():
            left = share & unclaimed
            for _ in range(OWNER_LEFT_PIECES):
                soon |= left & -left
                left &= left - 1
        spare = unclaimed & self._shares.within(envoys, 2) & ~soon
        return spare & -spare

    def _intend(self, pieces: int, now: float) -> None:
        while len(self._intents) < MAX_INTENTS and (piece := self._one_of(pieces & ~self.intents)):
            self._intents[piece.bit_length() - 1] = now

    @property
    def intents(self) -> int:
        """The pieces of others that this node is about to ask a holder for, so that they can leave them to it."""
        return bits_of(self._intents)

    def _step_in(self, unclaimed: int, envoys: Collection[str], now: float) -> int:
        """For one that was no envoy so far. Each waits for another time, so that the first can tell the others."""
        assert self._company is not None and self._moved_at is not None
        is_envoy = self._company.own_id in envoys
        wait = NEXT_SECONDS if self._has_stepped_in else PROMOTED_SECONDS if is_envoy else OUTSIDER_SECONDS
        due = self._moved_at + wait * (1 + 2 * self._patience)
        if now < due:
            self.look_again_at = due
            return 0
        self._is_proven = is_envoy
        self._has_stepped_in = True
        self._moved_at = now
        self._own = self._one_of(unclaimed)
        return self._own

    def _one_of(self, pieces: int) -> int:
        """One piece, another than others would choose; 0 of none."""
        self._turns += 1
        return one_of(pieces, self._shares.own_id, self._turns, self._shares.count)

    def _watch(self, unclaimed: int, now: float) -> None:
        """Notes when pieces came round by the work of others."""
        if self._moved_at is None or self._unclaimed & ~unclaimed & ~self._own:
            self._moved_at, self._has_stepped_in = now, False
        self._unclaimed = unclaimed

    def _rumoured(self, fellows: int, now: float) -> int:
        """What fellows had that have left, for the time in which it comes round if others got it from them. Of a small
        company everything is known anyway."""
        if fellows > MAX_ENVOYS:
            self._rumours += [(pieces, now + RUMOUR_SECONDS) for pieces in self._left]
        self._left = []
        self._rumours = [(pieces, until) for pieces, until in self._rumours if until > now]
        return reduce(or_, (pieces for pieces, _ in self._rumours), 0)
