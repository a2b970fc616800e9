"""Decides which pieces this node requests from a seed while other nodes fetch the same blob. Pure; time is handed in.

An envoy requests its own share and, when that is out, the rest of others' after a while. A node that is not an envoy
asks seeds for nothing while new pieces keep arriving from leechers. So each piece leaves a seed about once, and the
swarm survives the death of any node.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from operator import or_

from hfpeer.transfer.picker.assignment import Assignment, one_of, place_of
from hfpeer.transfer.picker.bitfield import bits_of, lowest
from hfpeer.transfer.picker.flash_crowd import FlashCrowd
from hfpeer.transfer.picker.membership import MAX_ENVOYS, MAX_MEMBERS, SETTLING_SECONDS, Membership

TAKE_OVER_SHARE_SECONDS = 0.15
"""Seconds for which an envoy without a share leaves others' shares to them. News of claims takes part of that."""
OWNER_LEFT_PIECES = 1
"""An owner that is behind is left this many of its next pieces."""
AHEAD_PIECES = 2 * MAX_ENVOYS
"""An owner that is more than this many pieces ahead of another helps it."""
END_HELP_PIECES = 8
"""At the end each node may request at most this many pieces from a seed on the LAN though a leecher has them."""
END_HELP_DIVISOR = 64
"""Of a small blob at most one in this many pieces."""
END_HELP_LEECHERS = 4
"""With fewer leechers than this no seed helps at the end."""
RANDOM_START_PIECES = 32
"""A node may begin with a random piece if this many are free for each node: two rarely choose the same one."""

INTENT_SECONDS = 0.2
"""Seconds between announcing an intent and acting on it. News take half of that."""
MAX_INTENTS = 2
"""At most this many intents at a time: one to act on now, and the next."""

PROMOTED_SECONDS = 1.0
"""Seconds without a new piece before a newly promoted envoy starts to request pieces."""
STANDBY_SECONDS = 20.0
"""The same for a node that is not an envoy: all envoys seem to live, and none gives anything."""
STANDBY_NEXT_SECONDS = 0.1
"""The same for the next piece, while nothing arrives from others."""

DEPARTED_SECONDS = 2.0
"""Seconds for which the pieces of a leecher that left are expected from the nodes that got them from it."""


class SeedPolicy:
    """The policy of one fetch. Without a membership all leechers count as envoys."""

    def __init__(self, assignment: Assignment, membership: Membership | None = None) -> None:
        self._assignment = assignment
        self._membership = membership
        self.flash_crowd = FlashCrowd(assignment.own_id, assignment.count, membership)
        self._departed = Departed()
        self._intents = Intents()
        self._standby = Standby(place_of(assignment.own_id, 0, assignment.count) / max(1, assignment.count))
        self._is_proven = False
        """Whether this node was an envoy from the start, or has found that the swarm needs it."""
        self._was_settled = False
        self._turns = 0
        self._known_envoys: Collection[str] = ()
        self.look_again_at: float | None = None
        """When there may be something to request though nothing has happened."""

    def note_left(self, pieces: int) -> None:
        """A leecher that had these pieces has left."""
        self._departed.add(pieces)

    @property
    def intents(self) -> int:
        """The pieces of others that this node is about to request from a seed, for the others to leave them to it."""
        return self._intents.pieces

    def choose(
        self, unclaimed: int, sound: Collection[str], unsound: Collection[str], now: float, *, is_far: bool = False
    ) -> int:
        """Of the pieces that no leecher has or claims, those to request from a seed now.

        `sound` are the node ids of the sound leechers, `unsound` those of all other peers. From a seed that `is_far`,
        over the WAN, a piece comes twice only if nothing else helps; on the LAN a piece now and then costs less than
        waiting.
        """
        unclaimed &= ~self._departed.expected(len(sound), now)
        self._standby.watch(unclaimed, now)
        self.look_again_at = None
        if not unclaimed:
            self._intents.clear()
            return 0
        self._known_envoys = envoys = self._envoys(sound, unsound, now)
        if not self._may_ask(envoys, now):
            if self._was_settled:
                return self._step_in(unclaimed, envoys, now)
            return 0 if is_far else self._begin(unclaimed, len(sound))
        own = unclaimed & self._assignment.within(envoys, 1)
        if own:
            self._intents.clear()
            return own if is_far else (self._help_laggard(unclaimed, own, envoys) or own)
        spare = 0 if is_far else self._spare(unclaimed, envoys)
        return spare or self._take_over(unclaimed, envoys, now)

    def end_help(self, pieces: int, leechers: int) -> int:
        """A missing piece, when all pieces are claimed, to request from a seed on the LAN, which is idle
        then. 0 if many are missing, or the leechers are too few or too many."""
        is_end = pieces.bit_count() <= min(END_HELP_PIECES, self._assignment.count // END_HELP_DIVISOR)
        is_helped = leechers >= END_HELP_LEECHERS and not self.flash_crowd.is_active
        return self._one_of(pieces & self.flash_crowd.rare) if is_end and is_helped else 0

    def of_leecher(self, pieces: int, leecher: str) -> int:
        """The part of `pieces`, which a leecher has, to request from it now; 0 to wait. In a small swarm each node
        takes the pieces that no other leecher has first, so that none waits for one link at the end. It begins with
        those of which it is the first owner, or the next after that leecher, so that nodes take different ones."""
        if self.flash_crowd.is_active:
            return self.flash_crowd.choose(pieces, leecher)
        rare = pieces & self.flash_crowd.rare
        if not rare:
            return pieces
        envoys, within = self._known_envoys, self._assignment.within
        theirs = self._assignment.by_owner(envoys).get(leecher, 0)
        own = rare & (within(envoys, 1) | within(envoys, 2) & theirs)
        return own or next(filter(None, (rare & within(envoys, rank) for rank in range(2, len(envoys) + 2))), rare)

    # Inside

    def _begin(self, unclaimed: int, leechers: int) -> int:
        """Any piece, before the envoys are known, if other nodes are unlikely to take the same."""
        is_safe = leechers < MAX_MEMBERS and unclaimed.bit_count() >= RANDOM_START_PIECES * (leechers + 1)
        return self._one_of(unclaimed) if is_safe else 0

    def _envoys(self, sound: Collection[str], unsound: Collection[str], now: float) -> Collection[str]:
        if self._membership is None:
            return sound
        self._membership.set_candidate(True)
        return [envoy for envoy in self._membership.envoys(now) if envoy not in unsound]

    def _may_ask(self, envoys: Collection[str], now: float) -> bool:
        if self._membership is None:
            return True
        if not self._was_settled:
            if not self._membership.is_settled(now):
                self.look_again_at = now + SETTLING_SECONDS / 3
                return False
            self._was_settled = True
            self._is_proven = self._membership.own_id in envoys
        return self._is_proven and self._membership.own_id in envoys

    def _take_over(self, unclaimed: int, envoys: Collection[str], now: float) -> int:
        """One piece of another's share whose intent is old enough: its owner has heard of it, or this node of its
        claim. Announces the next intents."""
        rank = 1 + int(self._intents.waited_seconds(now) / TAKE_OVER_SHARE_SECONDS)
        due = self._intents.take_due(unclaimed, now)
        if rank > 1:
            pieces = unclaimed & self._assignment.within(envoys, rank) & ~due
            while self._intents.has_room and (piece := self._one_of(pieces & ~self._intents.pieces)):
                self._intents.add(piece, now)
        next_due_at = self._intents.next_due_at
        self.look_again_at = now + TAKE_OVER_SHARE_SECONDS if next_due_at is None else next_due_at
        return due

    def _help_laggard(self, unclaimed: int, own: int, envoys: Collection[str]) -> int:
        """One piece of an owner that is far behind this node: no node can hash what follows it."""
        if lowest(own) - lowest(unclaimed) <= AHEAD_PIECES:
            return 0
        spare = self._spare(unclaimed, envoys)
        return spare if spare and lowest(own) - lowest(spare) > AHEAD_PIECES else 0

    def _spare(self, unclaimed: int, envoys: Collection[str]) -> int:
        """The first piece of which this node is the second owner and which the first owner will not come to soon. No
        intent is needed, because owners go from first to last. 0 if there is none."""
        soon = 0
        for share in self._assignment.by_owner(envoys).values():
            left = share & unclaimed
            for _ in range(OWNER_LEFT_PIECES):
                soon |= left & -left
                left &= left - 1
        spare = unclaimed & self._assignment.within(envoys, 2) & ~soon
        return spare & -spare

    def _step_in(self, unclaimed: int, envoys: Collection[str], now: float) -> int:
        """One piece, if this node was no envoy and has waited too long for pieces from others."""
        assert self._membership is not None
        is_envoy = self._membership.own_id in envoys
        due_at = self._standby.due_at(PROMOTED_SECONDS if is_envoy else STANDBY_SECONDS)
        if now < due_at:
            self.look_again_at = due_at
            return 0
        self._is_proven = is_envoy
        piece = self._one_of(unclaimed)
        self._standby.step_in(piece, now)
        return piece

    def _one_of(self, pieces: int) -> int:
        """One piece, mostly another than other nodes choose; 0 if there are none."""
        self._turns += 1
        return one_of(pieces, self._assignment.own_id, self._turns, self._assignment.count)


class Intents:
    """The pieces of others that this node is about to take over."""

    def __init__(self) -> None:
        self._announced: dict[int, float] = {}
        self._waiting_since: float | None = None

    def clear(self) -> None:
        """This node has a share again, or nothing is left."""
        self._waiting_since, self._announced = None, {}

    def waited_seconds(self, now: float) -> float:
        """Seconds since the share of this node was out."""
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since

    def take_due(self, unclaimed: int, now: float) -> int:
        """Drops the intents of pieces that others claim meanwhile. Returns one that was announced long enough ago, and
        drops it; 0 if there is none."""
        self._announced = {piece: at for piece, at in self._announced.items() if unclaimed >> piece & 1}
        due = next((piece for piece, at in self._announced.items() if now - at >= INTENT_SECONDS), None)
        if due is None:
            return 0
        del self._announced[due]
        return 1 << due

    def add(self, piece: int, now: float) -> None:
        """Announces the intent of a piece, given as its bit."""
        self._announced[lowest(piece)] = now

    @property
    def has_room(self) -> bool:
        return len(self._announced) < MAX_INTENTS

    @property
    def pieces(self) -> int:
        return bits_of(self._announced)

    @property
    def next_due_at(self) -> float | None:
        return min((at + INTENT_SECONDS for at in self._announced.values()), default=None)


class Standby:
    """When a node that was no envoy from the start requests pieces after all. `spread`, from 0 to 1, differs between
    nodes: the first that steps in can tell the others."""

    def __init__(self, spread: float) -> None:
        self._spread = spread
        self._unclaimed = self._own = 0
        self._arrived_at: float | None = None
        self._has_stepped_in = False

    def watch(self, unclaimed: int, now: float) -> None:
        """Notes when the work of others brought a piece."""
        if self._arrived_at is None or self._unclaimed & ~unclaimed & ~self._own:
            self._arrived_at, self._has_stepped_in = now, False
        self._unclaimed = unclaimed

    def due_at(self, wait_seconds: float) -> float:
        """When this node steps in, after `wait_seconds` or more without a piece, and sooner if it did before."""
        assert self._arrived_at is not None
        seconds = STANDBY_NEXT_SECONDS if self._has_stepped_in else wait_seconds
        return self._arrived_at + seconds * (1 + 2 * self._spread)

    def step_in(self, piece: int, now: float) -> None:
        """This node requests a piece, given as its bit."""
        self._has_stepped_in, self._arrived_at, self._own = True, now, piece


class Departed:
    """The pieces of leechers that left. In a large swarm they may be with nodes that this one does not follow."""

    def __init__(self) -> None:
        self._new: list[int] = []
        self._until: list[tuple[int, float]] = []

    def add(self, pieces: int) -> None:
        self._new.append(pieces)

    def expected(self, leechers: int, now: float) -> int:
        """The pieces that are still expected from others. In a small swarm none: this node follows all others."""
        if leechers > MAX_ENVOYS:
            self._until += [(pieces, now + DEPARTED_SECONDS) for pieces in self._new]
        self._new = []
        self._until = [(pieces, until) for pieces, until in self._until if until > now]
        return reduce(or_, (pieces for pieces, _ in self._until), 0)
