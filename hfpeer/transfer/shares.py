"""Who asks a holder for which piece, when several nodes want the same blob: rendezvous hashing, evened out. Pure.

Each node scores every piece for itself and for its fellows, by a hash that all compute alike; the highest score owns
the piece, but nobody owns more than the others, for then all would wait for that one at the end. So the pieces are
shared out with no word exchanged, and when a node comes or goes few pieces of others change hands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
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
        self._fellows: frozenset[str] | None = None
        self._by_rank: list[int] = []
        self._by_owner: dict[str, int] = {}

    def within(self, fellows: Iterable[str], rank: int) -> int:
        """The pieces, a bit each, for which fewer than `rank` fellows come before this node: rank 1 is its own share,
        rank 2 adds those that are its to take over first."""
        self._share_out(fellows)
        return self._by_rank[min(rank, len(self._by_rank)) - 1]

    def by_owner(self, fellows: Iterable[str]) -> Mapping[str, int]:
        """The share of each fellow, and of this node."""
        self._share_out(fellows)
        return self._by_owner

    def _share_out(self, fellows: Iterable[str]) -> None:
        fellows = frozenset(fellows) - {self.own_id}
        if fellows == self._fellows:
            return
        self._fellows = fellows
        company = sorted({*fellows, self.own_id})
        ranked = _ranked([self._scores(node_id) for node_id in company])
        own = company.index(self.own_id)
        before = [nodes.index(own) for nodes in ranked]
        # No piece has two ranks, so that their sums are their unions.
        self._by_rank = list(accumulate(self._where(before, rank) for rank in range(len(company))))
        owners = [nodes[0] for nodes in ranked]
        self._by_owner = {node_id: self._where(owners, number) for number, node_id in enumerate(company)}

    def _where(self, numbers: Sequence[int], number: int) -> int:
        """A bit for each piece, where the pattern has this number."""
        digits = "".join("1" if other == number else "0" for other in reversed(numbers))
        return _repeated(int(digits, 2) if digits else 0, len(numbers), self.count)

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


def _ranked(scores: list[tuple[int, ...]]) -> list[list[int]]:
    """For each piece the numbers of all nodes: its owner, then the others by their scores."""
    owned, ranked = [0] * len(scores), []
    for piece, column in enumerate(zip(*scores, strict=True)):
        until = min((piece // EVEN_PIECES + 1) * EVEN_PIECES, len(scores[0]))
        most = -(-until // len(scores))
        nodes = sorted(range(len(scores)), key=column.__getitem__, reverse=True)
        owner = next(node for node in nodes if owned[node] < most)
        owned[owner] += 1
        nodes.remove(owner)
        ranked.append([owner, *nodes])
    return ranked


def _repeated(pattern: int, length: int, count: int) -> int:
    """The first `count` bits of a pattern of `length` bits that begins again and again."""
    return pattern * sum(1 << at for at in range(0, count, max(1, length))) & ((1 << count) - 1)
