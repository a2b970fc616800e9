"""Decides which pieces to request from which leecher in a flash crowd, so that not all nodes ask the same few leechers.
Pure; time is handed in.

All followers of an envoy want each new piece at once. To send it to each of them would take the envoy's link for a
second; two that have it can pass it on. So most nodes postpone a piece that only one or two leechers have: in each
moment a hash lets each node request some of these pieces, and other nodes others. Envoys request very little from each
other, so that an envoy's link serves the nodes that pass pieces on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import count as count_from

from hfpeer.transfer.picker.assignment import one_of
from hfpeer.transfer.picker.membership import MAX_ENVOYS, Membership

MOMENT_SECONDS = 0.06
SAMPLE_HALVINGS = 3
"""A node may request one in 2 to this power of the postponed pieces in a moment."""
ENVOY_SAMPLE_HALVINGS = 6
"""The same for any piece that an envoy requests from another envoy."""


class FlashCrowd:
    """The choices of the node `own_id` for a blob of `count` pieces."""

    def __init__(self, own_id: str, count: int, membership: Membership | None) -> None:
        self._own_id = own_id
        self._count = count
        self._membership = membership
        self._moment = -1
        self._samples: dict[int, int] = {}
        self._postponed = 0
        self.rare = 0
        """The pieces that at most one leecher has."""
        self._spared_envoys: frozenset[str] = frozenset()
        self._turns = count_from(1)
        self.is_active = False
        """Whether there are leechers enough for a flash crowd."""

    def update(self, leechers: Mapping[str, int], now: float) -> None:
        """Takes the pieces that each leecher has, by node id."""
        self.is_active = self._membership is not None and len(leechers) > MAX_ENVOYS
        by_one, by_two, by_more = _had_by_one_two_and_more(leechers.values())
        self.rare = ~(by_two | by_more)
        if self.is_active:
            self._begin_moment(now)
            self._postponed = (by_one | by_two) & ~self._sample(SAMPLE_HALVINGS)
            assert self._membership is not None
            envoys = frozenset(self._membership.to_follow(now))
            self._spared_envoys = envoys if len(leechers.keys() - envoys) >= MAX_ENVOYS else frozenset()

    def choose(self, pieces: int, leecher: str) -> int:
        """Chooses a piece of these to request from a leecher now; 0 to wait."""
        pieces &= ~self._postponed
        if leecher in self._spared_envoys:
            pieces &= self._sample(ENVOY_SAMPLE_HALVINGS)
        return self._one_of(pieces)

    def _one_of(self, pieces: int) -> int:
        return one_of(pieces, self._own_id, next(self._turns), self._count) if pieces else 0

    def _begin_moment(self, now: float) -> None:
        moment = int(now / MOMENT_SECONDS)
        if moment != self._moment:
            self._moment, self._samples = moment, {}

    def _sample(self, halvings: int) -> int:
        """A pseudo-random sample of pieces: the same throughout a moment, another for each node."""
        if halvings not in self._samples:
            pieces = -1
            for half in range(halvings):
                text = f"{self._own_id} {self._moment} {halvings} {half}"
                pieces &= int.from_bytes(hashlib.shake_128(text.encode()).digest(-(-self._count // 8)), "little")
            self._samples[halvings] = pieces
        return self._samples[halvings]


def _had_by_one_two_and_more(leechers: Iterable[int]) -> tuple[int, int, int]:
    """The pieces that exactly one leecher has, those that exactly two have, and those that more have."""
    one_or_more = two_or_more = more = 0
    for pieces in leechers:
        more |= two_or_more & pieces
        two_or_more |= one_or_more & pieces
        one_or_more |= pieces
    return one_or_more & ~two_or_more, two_or_more & ~more, more
