"""Knows the members of the swarm of a blob, and its envoys, the only leechers that request pieces from seeds. Pure.

Hundreds of nodes cannot all know what each of them requests; a few can. A hash that all compute alike ranks the nodes
for each blob, and the first are its envoys: they divide the pieces among themselves, and all others get them from
leechers. Each node tells the first members that it knows, so that after a few messages all know the same envoys,
however many nodes there are. A member counts while its heartbeat grows, a number that only the member itself raises, so
that a dead node is forgotten although others repeat its name (van Renesse et al., "A Gossip-Style Failure Detection
Service"). A peer that invents members can delay others, but cannot corrupt anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_ENVOYS = 12
MAX_MEMBERS = 2 * MAX_ENVOYS
"""At most this many members are known and told: the envoys, and the next in rank."""
HEARTBEAT_SECONDS = 1.0
LIFETIME_SECONDS = 5.0
"""Seconds without a new heartbeat before a member does not count."""
MAX_REMEMBERED = 8 * MAX_MEMBERS
"""At most this many members are remembered. Those without a new heartbeat are among them, so that an old heartbeat of
theirs is recognised as old."""
SETTLING_SECONDS = 0.15
"""Seconds without a change of envoys before a new node acts on what it knows of them."""
MAX_SETTLING_SECONDS = 1.0
"""After this many seconds it acts in any case."""


@dataclass
class _Member:
    score: bytes
    heartbeat: int
    heard_at: float


class Membership:
    """The members of one swarm, as far as the node `own_id` knows them.

    `salt` is the same for all nodes that fetch the blob. `first_heartbeat` must be larger than any that this node used
    before: the seconds since the epoch.
    """

    def __init__(self, own_id: str, salt: str, first_heartbeat: int) -> None:
        self.own_id = own_id
        self._salt = salt
        self._heartbeat = first_heartbeat
        self._heartbeat_at: float | None = None
        self._is_candidate = False
        self._members: dict[str, _Member] = {}
        self._own_score = self._score(own_id)
        self._gone: set[str] = set()
        self._envoys: tuple[str, ...] = ()
        self._ranked_until = 0.0
        self._began_at: float | None = None
        self._changed_at = 0.0
        self._is_settled = False

    # What is learnt

    def update(self, heartbeats: Mapping[str, int], now: float) -> None:
        """Takes the node ids and heartbeats that a leecher tells."""
        for node_id, heartbeat in heartbeats.items():
            known = self._members.get(node_id)
            if node_id == self.own_id or (known is not None and heartbeat <= self._newest_of(node_id, known)):
                continue
            if known is None:
                self._members[node_id] = _Member(self._score(node_id), heartbeat, now)
                self._ranked_until = 0.0
            else:
                self._renew(known, heartbeat, now)
            self._readmit(node_id)
        self._forget(now)

    def note_leecher(self, node_id: str, now: float) -> None:
        """A leecher was met; it counts from now on, and is told of once it tells its own heartbeat."""
        self._readmit(node_id)
        if node_id not in self._members:
            self.update({node_id: 0}, now)

    def note_left(self, node_id: str) -> None:
        """A leecher does not respond; it does not count until it has a new heartbeat."""
        self._gone.add(node_id)
        self._ranked_until = 0.0

    def set_candidate(self, is_candidate: bool) -> None:
        """Whether this node can be an envoy: it can ask a seed now."""
        if is_candidate != self._is_candidate:
            self._is_candidate = is_candidate
            self._ranked_until = 0.0

    # What follows

    def envoys(self, now: float) -> tuple[str, ...]:
        """The node ids of the envoys in their rank, perhaps with this node's own."""
        if now >= self._ranked_until:
            self._rank(now)
        return self._envoys

    def is_settled(self, now: float) -> bool:
        """Whether the envoys have been the same for long enough to act on it."""
        if not self._is_settled:
            self.envoys(now)
            assert self._began_at is not None
            is_late = now - self._began_at >= MAX_SETTLING_SECONDS
            self._is_settled = is_late or now - self._changed_at >= SETTLING_SECONDS
        return self._is_settled

    def to_follow(self, now: float) -> tuple[str, ...]:
        """The leechers that this node must follow: envoys follow each other."""
        envoys = self.envoys(now)
        return tuple(node_id for node_id in envoys if node_id != self.own_id) if self.own_id in envoys else ()

    def heartbeats(self, now: float) -> dict[str, int]:
        """The first members and their heartbeats, to be told to leechers."""
        if self._heartbeat_at is None or now - self._heartbeat_at >= HEARTBEAT_SECONDS:
            self._heartbeat, self._heartbeat_at = self._heartbeat + 1, now
        found = {node_id: self._heartbeat_of(node_id) for node_id in self._first(now, MAX_MEMBERS)}
        return {node_id: heartbeat for node_id, heartbeat in found.items() if heartbeat}

    # Inside

    def _score(self, node_id: str) -> bytes:
        return hashlib.sha256(f"{self._salt} {node_id}".encode()).digest()

    def _newest_of(self, node_id: str, member: _Member) -> int:
        """The newest heartbeat that proves nothing. When a member has left, others may know one more than this node."""
        return member.heartbeat + (node_id in self._gone)

    def _readmit(self, node_id: str) -> None:
        if node_id in self._gone:
            self._gone.discard(node_id)
            self._ranked_until = 0.0

    def _renew(self, member: _Member, heartbeat: int, now: float) -> None:
        if now - member.heard_at >= LIFETIME_SECONDS:
            self._ranked_until = 0.0
        member.heartbeat, member.heard_at = heartbeat, now

    def _heartbeat_of(self, node_id: str) -> int:
        return self._heartbeat if node_id == self.own_id else self._members[node_id].heartbeat

    def _first(self, now: float, count: int) -> list[str]:
        """The first `count` living members in their rank."""
        scores = {
            node_id: member.score
            for node_id, member in self._members.items()
            if now - member.heard_at < LIFETIME_SECONDS and node_id not in self._gone
        }
        if self._is_candidate:
            scores[self.own_id] = self._own_score
        return sorted(scores, key=scores.__getitem__)[:count]

    def _rank(self, now: float) -> None:
        envoys = tuple(self._first(now, MAX_ENVOYS))
        if self._began_at is None:
            self._began_at = self._changed_at = now
        if envoys != self._envoys:
            self._envoys, self._changed_at = envoys, now
        ends = (member.heard_at + LIFETIME_SECONDS for member in self._members.values())
        self._ranked_until = min((end for end in ends if end > now), default=now + LIFETIME_SECONDS)

    def _forget(self, now: float) -> None:
        """Keeps the first members, and of those that do not count the ones heard of last."""
        if len(self._members) <= MAX_MEMBERS:
            return
        first = set(self._first(now, MAX_MEMBERS))
        stopped = sorted(self._stopped(now), key=lambda node_id: -self._members[node_id].heard_at)
        kept = first.union(stopped[: MAX_REMEMBERED - MAX_MEMBERS])
        self._members = {node_id: member for node_id, member in self._members.items() if node_id in kept}
        self._gone &= kept

    def _stopped(self, now: float) -> Iterable[str]:
        return (
            node_id
            for node_id, member in self._members.items()
            if now - member.heard_at >= LIFETIME_SECONDS or node_id in self._gone
        )
