"""Who asks a holder for which piece, when several nodes want the same blob: rendezvous hashing. Pure.

Each node scores every piece for itself and for its fellows, by a hash that all compute alike; the highest score owns
the piece. So the pieces are shared out evenly with no word exchanged, and when a node comes or goes only its own
pieces change hands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from itertools import repeat

SCORE_BYTES = 4


class Shares:
    """The shares of a blob of `count` pieces, for the node `own_id`; `salt` is the same for all who want the blob."""

    def __init__(self, own_id: str, salt: str, count: int) -> None:
        self.own_id = own_id
        self.count = count
        self._salt = salt
        self._fellows: frozenset[str] = frozenset()
        self._by_rank: list[int] = []

    def within(self, fellows: Iterable[str], rank: int) -> int:
        """The pieces, a bit each, for which fewer than `rank` fellows come before this node: rank 1 is its own share,
        rank 2 adds those that are its to take over first."""
        fellows = frozenset(fellows) - {self.own_id}
        if fellows != self._fellows or not self._by_rank:
            self._fellows = fellows
            self._by_rank = _by_rank(self._scores(self.own_id), [self._scores(fellow) for fellow in sorted(fellows)])
        return self._by_rank[min(rank, len(self._by_rank)) - 1]

    def _scores(self, node_id: str) -> tuple[int, ...]:
        return _scores(node_id, self._salt, self.count)


def place_of(node_id: str, turn: int, count: int) -> int:
    """A piece of `count`, and at each turn another, that hardly any other node finds at the same time."""
    raw = hashlib.sha256(f"{node_id} {turn}".encode()).digest()
    return int.from_bytes(raw[:8], "little") % max(1, count)


@lru_cache(maxsize=128)
def _scores(node_id: str, salt: str, count: int) -> tuple[int, ...]:
    raw = hashlib.shake_128(f"{salt} {node_id}".encode()).digest(SCORE_BYTES * count)
    return tuple(int.from_bytes(raw[at : at + SCORE_BYTES], "little") for at in range(0, len(raw), SCORE_BYTES))


def _by_rank(own: tuple[int, ...], others: list[tuple[int, ...]]) -> list[int]:
    """For each rank the pieces within it, as bits."""
    columns = zip(own, *others, strict=True) if others else zip(own, repeat(-1))
    before = [sum(score > row[0] for score in row[1:]) for row in columns]
    within, masks = 0, []
    for rank in range(len(others) + 1):
        within |= _bits_where(before, rank)
        masks.append(within)
    return masks


def _bits_where(before: list[int], rank: int) -> int:
    """A bit for each piece that has exactly `rank` nodes before this one."""
    digits = "".join("1" if ahead == rank else "0" for ahead in reversed(before))
    return int(digits, 2) if digits else 0
