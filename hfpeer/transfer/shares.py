"""Who asks a holder for which piece, when several nodes want the same blob: rendezvous hashing, evened out. Pure.

Each node scores every piece for itself and for its fellows, by a hash that all compute alike; the highest score owns
the piece, but nobody owns more than the others, for then all would wait for that one at the end. So the pieces are
shared out with no word exchanged, and when a node comes or goes few pieces of others change hands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate

SCORE_BYTES = 4
EVEN_PIECES = 64
"""After each so many pieces all nodes own the same number of them, give or take one."""
PATTERN_PIECES = 4096
"""After so many the same begins again: of a large blob nobody need score every piece."""


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
            company = sorted({*fellows, self.own_id})
            before = _before(company.index(self.own_id), [self._scores(node_id) for node_id in company])
            # No piece has two ranks, so that their sums are their unions.
            within = accumulate(_bits_where(before, rank) for rank in range(len(company)))
            self._by_rank = [_repeated(pattern, len(before), self.count) for pattern in within]
        return self._by_rank[min(rank, len(self._by_rank)) - 1]

    def _scores(self, node_id: str) -> tuple[int, ...]:
        return _scores(node_id, self._salt, min(self.count, PATTERN_PIECES))


def place_of(node_id: str, turn: int, count: int) -> int:
    """A piece of `count`, and at each turn another, that hardly any other node finds at the same time."""
    raw = hashlib.sha256(f"{node_id} {turn}".encode()).digest()
    return int.from_bytes(raw[:8], "little") % max(1, count)


def one_of(pieces: int, node_id: str, turn: int, count: int) -> int:
    """One of these pieces of `count`, another than other nodes choose; 0 of none."""
    place = place_of(node_id, turn, count)
    after = pieces >> place << place or pieces
    return after & -after


@lru_cache(maxsize=128)
def _scores(node_id: str, salt: str, count: int) -> tuple[int, ...]:
    raw = hashlib.shake_128(f"{salt} {node_id}".encode()).digest(SCORE_BYTES * count)
    return tuple(int.from_bytes(raw[at : at + SCORE_BYTES], "little") for at in range(0, len(raw), SCORE_BYTES))


def _before(own: int, scores: list[tuple[int, ...]]) -> list[int]:
    """For each piece how many nodes come before the one that is number `own`: its owner, then by their scores."""
    owned, before = [0] * len(scores), []
    for piece, column in enumerate(zip(*scores, strict=True)):
        until = min((piece // EVEN_PIECES + 1) * EVEN_PIECES, len(scores[own]))
        most = -(-until // len(scores))
        ranked = sorted(range(len(scores)), key=column.__getitem__, reverse=True)
        owner = next(node for node in ranked if owned[node] < most)
        owned[owner] += 1
        ranked.remove(owner)
        before.append(0 if owner == own else 1 + ranked.index(own))
    return before


def _bits_where(before: list[int], rank: int) -> int:
    """A bit for each piece that has exactly `rank` nodes before this one."""
    digits = "".join("1" if ahead == rank else "0" for ahead in reversed(before))
    return int(digits, 2) if digits else 0


def _repeated(pattern: int, length: int, count: int) -> int:
    """The first `count` bits of a pattern of `length` bits that begins again and again."""
    return pattern * sum(1 << at for at in range(0, count, max(1, length))) & ((1 << count) - 1)
