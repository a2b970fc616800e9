"""How a node of many asks fellows for pieces, so that not all ask the same few for the same. Pure; time is handed in.

In a crowd whoever follows an envoy wants each of its new pieces at once, and to give one to each of them would take its
link for a second; two that have it can give it to the others. So a piece that only a few fellows have yet is put off
for most: in each moment a node may ask for some of these, by a hash, other nodes for others. Envoys nearly leave each
other alone: what one of them gives is to go to those who pass it on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import count as count_from

from hfpeer.transfer.company import MAX_ENVOYS, Company
from hfpeer.transfer.shares import one_of

MOMENT_SECONDS = 0.06
HALVINGS = 3
"""One of 2 to this power of such pieces may be asked for in a moment."""
ENVOY_HALVINGS = 6
"""The same for what one envoy asks of another."""


class Crowd:
    """The choices of the node `own_id` for a blob of `count` pieces."""

    def __init__(self, own_id: str, count: int, company: Company | None) -> None:
        self._own_id = own_id
        self._count = count
        self._company = company
        self._moment = -1
        self._some: dict[int, int] = {}
        self._postponed = 0
        self.rare = 0
        """The pieces that at most one fellow has."""
        self._left_alone: frozenset[str] = frozenset()
        self._turns = count_from(1)
        self.is_one = False
        """Whether the fellows are so many that this matters."""

    def look(self, fellows: Mapping[str, int], now: float) -> None:
        """Which fellows there are, by node id, and what each of them has."""
        self.is_one = self._company is not None and len(fellows) > MAX_ENVOYS
        by_one, by_two, by_more = _had_by_one_two_and_more(fellows.values())
        self.rare = ~(by_two | by_more)
        if self.is_one:
            self._begin_moment(now)
            self._postponed = (by_one | by_two) & ~self._chosen(HALVINGS)
            assert self._company is not None
            envoys = frozenset(self._company.to_follow(now))
            self._left_alone = envoys if len(fellows.keys() - envoys) >= MAX_ENVOYS else frozenset()

    def choose(self, pieces: int, fellow: str) -> int:
        """In a crowd, which of these pieces to ask of a fellow now; 0 when it is better to wait."""
        pieces &= ~self._postponed
        if fellow in self._left_alone:
            pieces &= self._chosen(ENVOY_HALVINGS)
        return self._one_of(pieces)

    def _one_of(self, pieces: int) -> int:
        return one_of(pieces, self._own_id, next(self._turns), self._count) if pieces else 0

    def _begin_moment(self, now: float) -> None:
        moment = int(now / MOMENT_SECONDS)
        if moment != self._moment:
            self._moment, self._some = moment, {}

    def _chosen(self, halvings: int) -> int:
        """A random choice of pieces, the same throughout a moment, another for each node."""
        if halvings not in self._some:
            pieces = -1
            for half in range(halvings):
                text = f"{self._own_id} {self._moment} {halvings} {half}"
                pieces &= int.from_bytes(hashlib.shake_128(text.encode()).digest(-(-self._count // 8)), "little")
            self._some[halvings] = pieces
        return self._some[halvings]


def _had_by_one_two_and_more(fellows: Iterable[int]) -> tuple[int, int, int]:
    """The pieces that exactly one fellow has, those that exactly two have, and those that more have."""
    one_or_more = two_or_more = more = 0
    for pieces in fellows:
        more |= two_or_more & pieces
        two_or_more |= one_or_more & pieces
        one_or_more |= pieces
    return one_or_more & ~two_or_more, two_or_more & ~more, more
