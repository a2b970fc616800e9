"""The files that peers have promised, and whether they bring them. The owner holds a lock; time is handed in.

A peer that is asked for files, or that has a share of a bundle, holds back others. If it gives too little for
`NEAR_HOLD_SECONDS`, others take over.
"""

from __future__ import annotations

from collections.abc import Iterator

from hfpeer.budgets import (
    HOLD_BYTES,
    HOLD_FILES,
    NEAR_FLOOR_BYTES_PER_SECOND,
    NEAR_FLOOR_FILES_PER_SECOND,
    NEAR_HOLD_SECONDS,
)
from hfpeer.transfer.small.requests import Abortable
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob

SLOW_SECONDS = 1.0
"""Seconds after which a promise shows how fast its peer is."""


class Hold:
    """The batch that one thread asks a peer for, and how much came since it was last enough to be worth the wait.
    Batches that break off and are asked for again are one promise."""

    def __init__(self, peer: PeerSource) -> None:
        self.peer = peer
        self.batch: list[WantedBlob] = []
        self.since = 0.0
        """When the wait began; 0.0 while nothing is asked for."""
        self._began_at = 0.0
        self.is_lost = False
        self.response: Abortable | None = None
        self._since_enough = [0, 0]
        self._of_promise = [0, 0]

    def begin(self, batch: list[WantedBlob], now: float) -> None:
        """A batch is asked for."""
        self.batch = batch
        if not self.since:
            self.since = self._began_at = now
            self._since_enough, self._of_promise = [0, 0], [0, 0]

    def came(self, files: int, size_bytes: int, now: float) -> None:
        """Files of the batch have come."""
        for counts in (self._since_enough, self._of_promise):
            counts[0] += files
            counts[1] += size_bytes
        if self._since_enough[0] >= HOLD_FILES or self._since_enough[1] >= HOLD_BYTES:
            self.since, self._since_enough = now, [0, 0]

    def end(self) -> None:
        """The batch was answered to its end."""
        self.batch, self.since = [], 0.0

    def is_over(self, now: float) -> bool:
        """Whether too little came for too long."""
        return bool(self.since) and now - self.since >= NEAR_HOLD_SECONDS

    def is_slow(self, now: float) -> bool | None:
        """Whether the peer gives less than a LAN should; None while that cannot be told."""
        seconds = now - self._began_at
        if not self.batch or seconds < SLOW_SECONDS:
            return None
        is_few = self._of_promise[0] < NEAR_FLOOR_FILES_PER_SECOND * seconds
        return is_few and self._of_promise[1] < NEAR_FLOOR_BYTES_PER_SECOND * seconds


class Promises:
    """The holds of all peers, when each leecher last told of a new file, and the peers that cannot be reached."""

    def __init__(self) -> None:
        self._unreachable: dict[str, float] = {}
        """By node id, when no connection came about."""
        self._holds: list[Hold] = []
        self._told_at: dict[str, float] = {}

    def begin(self, peer: PeerSource) -> Hold:
        self._holds.append(Hold(peer))
        return self._holds[-1]

    def end(self, hold: Hold) -> None:
        self._holds.remove(hold)

    def told(self, leecher: str, now: float) -> None:
        """A leecher told of something new."""
        self._told_at[leecher] = now

    def idle(self, now: float) -> list[str]:
        """The leechers that do nothing about their share."""
        return [name for name, told_at in self._told_at.items() if now - told_at >= NEAR_HOLD_SECONDS]

    def of(self, peer: str) -> list[Hold]:
        return [hold for hold in self._holds if hold.peer.name == peer]

    def under_way(self) -> Iterator[Hold]:
        """The holds with a batch that is asked for and not given up."""
        return (hold for hold in self._holds if hold.batch and not hold.is_lost)

    def unreachable(self, node_id: str, now: float) -> None:
        """No connection to a peer came about, or it broke before anything came."""
        self._unreachable[node_id] = now

    def found(self, node_id: str) -> None:
        """A peer has another address."""
        self._unreachable.pop(node_id, None)

    def may_be_found(self, now: float, seconds: float) -> bool:
        """Whether an unreachable peer may still be found at another address, for which `seconds` are allowed."""
        return any(now - at < seconds for at in self._unreachable.values())

    def unanswered(self, now: float) -> set[str]:
        """The node ids of the peers that give too little, or cannot be reached."""
        return {hold.peer.node_id for hold in self._holds if hold.is_over(now)} | self._unreachable.keys()
