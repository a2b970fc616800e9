"""Which of the nodes that want a blob ask a holder for it: the envoys, of whom there are few. Pure.

Nodes in their hundreds cannot all know what each of them is asking a holder for; some can. So a hash that all compute
alike ranks the nodes for each blob, and the first of them, the envoys, share its pieces out; everybody else gets them
from fellows. Each node passes on the best that it has heard of, so that all come to know the same ones within a few
words, however many they are. A member counts only while its beat, a number that it alone raises, still grows: the dead
are forgotten everywhere, whoever repeats their names. Who invents members delays the others, and no more than that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_ENVOYS = 12
MAX_MEMBERS = 2 * MAX_ENVOYS
"""How many are known and told of: the envoys, and who would be next."""
BEAT_SECONDS = 1.0
LIFETIME_SECONDS = 5.0
"""How long a member counts without a new beat."""
MAX_REMEMBERED = 8 * MAX_MEMBERS
"""How many are remembered, those with a beat that has stopped included, so that old news of them is known to be old."""
SETTLING_SECONDS = 0.15
"""How long no other envoys must have become known before a newcomer takes itself for one."""
MAX_SETTLING_SECONDS = 1.0


@dataclass
class _Member:
    score: bytes
    beat: int
    heard_at: float


class Company:
    """The members of the company that fetches one blob, as far as the node `own_id` knows them.

    `salt` is the same for all who want the blob. `first_beat` must be larger than any that this node used before: the
    seconds since the epoch.
    """

    def __init__(self, own_id: str, salt: str, first_beat: int) -> None:
        self.own_id = own_id
        self._salt = salt
        self._beat = first_beat
        self._beats_at: float | None = None
        self._is_standing = False
        self._members: dict[str, _Member] = {}
        self._own_score = self._score(own_id)
        self._gone: set[str] = set()
        self._envoys: tuple[str, ...] = ()
        self._ranked_until = 0.0
        self._began_at: float | None = None
        self._changed_at = 0.0
        self._is_settled = False

    # What is learnt

    def hear(self, members: Mapping[str, int], now: float) -> None:
        """What a fellow tells: node ids and their beats."""
        for node_id, beat in members.items():
            known = self._members.get(node_id)
            if node_id == self.own_id or (known is not None and beat <= known.beat + (node_id in self._gone)):
                continue
            if known is None:
                self._members[node_id] = _Member(self._score(node_id), beat, now)
                self._ranked_until = 0.0
            else:
                self._revive(known, beat, now)
            self._come_back(node_id)
        self._forget(now)

    def meet(self, node_id: str, now: float) -> None:
        """A fellow was met, which may say of itself later that it is a member."""
        self._come_back(node_id)
        if node_id not in self._members:
            self.hear({node_id: 0}, now)

    def left(self, node_id: str) -> None:
        """A fellow does not answer any more: it counts no longer, unless it is heard of again. Others may have heard
        one more beat of it than this node."""
        self._gone.add(node_id)
        self._ranked_until = 0.0

    def stand(self, is_standing: bool) -> None:
        """Whether this node can ask a holder now."""
        if is_standing != self._is_standing:
            self._is_standing = is_standing
            self._ranked_until = 0.0

    # What follows

    def envoys(self, now: float) -> tuple[str, ...]:
        """The node ids of those who ask holders, this one perhaps among them; the first in rank first."""
        if now >= self._ranked_until:
            self._rank(now)
        return self._envoys

    def is_settled(self, now: float) -> bool:
        """Whether what is known of the envoys has been the same for long enough to act on it."""
        if not self._is_settled:
            self.envoys(now)
            assert self._began_at is not None
            is_late = now - self._began_at >= MAX_SETTLING_SECONDS
            self._is_settled = is_late or now - self._changed_at >= SETTLING_SECONDS
        return self._is_settled

    def to_follow(self, now: float) -> tuple[str, ...]:
        """The fellows that this node should follow whoever else it follows: envoys follow each other."""
        envoys = self.envoys(now)
        return tuple(node_id for node_id in envoys if node_id != self.own_id) if self.own_id in envoys else ()

    def told(self, now: float) -> dict[str, int]:
        """The best members and their beats, for the fellows to know."""
        if self._beats_at is None or now - self._beats_at >= BEAT_SECONDS:
            self._beat, self._beats_at = self._beat + 1, now
        return {node_id: self._beat_of(node_id) for node_id in self._best(now, MAX_MEMBERS) if self._beat_of(node_id)}

    # Inside

    def _score(self, node_id: str) -> bytes:
        return hashlib.sha256(f"{self._salt} {node_id}".encode()).digest()

    def _come_back(self, node_id: str) -> None:
        if node_id in self._gone:
            self._gone.discard(node_id)
            self._ranked_until = 0.0

    def _revive(self, member: _Member, beat: int, now: float) -> None:
        if now - member.heard_at >= LIFETIME_SECONDS:
            self._ranked_until = 0.0
        member.beat, member.heard_at = beat, now

    def _beat_of(self, node_id: str) -> int:
        return self._beat if node_id == self.own_id else self._members[node_id].beat

    def _best(self, now: float, count: int) -> list[str]:
        scores = {
            node_id: member.score
            for node_id, member in self._members.items()
            if now - member.heard_at < LIFETIME_SECONDS and node_id not in self._gone
        }
        if self._is_standing:
            scores[self.own_id] = self._own_score
        return sorted(scores, key=scores.__getitem__)[:count]

    def _rank(self, now: float) -> None:
        envoys = tuple(self._best(now, MAX_ENVOYS))
        if self._began_at is None:
            self._began_at = self._changed_at = now
        if envoys != self._envoys:
            self._envoys, self._changed_at = envoys, now
        ends = (member.heard_at + LIFETIME_SECONDS for member in self._members.values())
        self._ranked_until = min((end for end in ends if end > now), default=now + LIFETIME_SECONDS)

    def _forget(self, now: float) -> None:
        """The last in rank are not needed; of those whose beat has stopped, the latest are remembered."""
        if len(self._members) <= MAX_MEMBERS:
            return
        best = set(self._best(now, MAX_MEMBERS))
        stopped = sorted(self._stopped(now), key=lambda node_id: -self._members[node_id].heard_at)
        kept = best.union(stopped[: MAX_REMEMBERED - MAX_MEMBERS])
        self._members = {node_id: member for node_id, member in self._members.items() if node_id in kept}
        self._gone &= kept

    def _stopped(self, now: float) -> Iterable[str]:
        return (
            node_id
            for node_id, member in self._members.items()
            if now - member.heard_at >= LIFETIME_SECONDS or node_id in self._gone
        )
