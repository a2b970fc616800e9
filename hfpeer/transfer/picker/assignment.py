"""Assigns each piece to one of the nodes that fetch the same blob, by rendezvous hashing with bounded loads. Pure.

Each node computes the score of every piece with its own id and with those of its leechers; the node with the highest
score owns the piece. No node owns more than the others, because all would wait for it at the end. So no message is
needed, and few pieces change owners when a node comes or goes (Thaler and Ravishankar, "Using name-based mappings to
increase hit rates"; Mirrokni et al., "Consistent hashing with bounded loads").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

SCORE_BYTES = 4
EVEN_PIECES = 64
"""Of each run of this many pieces all nodes own equally many, give or take one."""
PATTERN_PIECES = 4096
"""The owners repeat after this many pieces, because scoring every piece of a large blob takes too long."""


class Assignment:
    """The owners of the pieces of a blob, `count` in number, as the node `own_id` computes them. `salt` is the same for
    all nodes that fetch the blob."""

    def __init__(self, own_id: str, salt: str, count: int) -> None:
        self.own_id = own_id
        self.count = count
        self._salt = salt
        self._leechers: frozenset[str] | None = None
        self._by_rank: list[int] = []
        self._by_owner: dict[str, int] = {}

    def within(self, leechers: Iterable[str], rank: int) -> int:
        """The pieces, a bit each, for which fewer than `rank` leechers come before this node. Rank 1 is its own share,
        rank 2 adds the pieces of which it is the second owner."""
        self._assign(leechers)
        return self._by_rank[min(rank, len(self._by_rank)) - 1]

    def by_owner(self, leechers: Iterable[str]) -> Mapping[str, int]:
        """The share of each leecher, and of this node."""
        self._assign(leechers)
        return self._by_owner

    def _assign(self, leechers: Iterable[str]) -> None:
        leechers = frozenset(leechers) - {self.own_id}
        if leechers == self._leechers:
            return
        self._leechers = leechers
        members = sorted({*leechers, self.own_id})
        ranked = _ranked([self._scores(node_id) for node_id in members])
        own = members.index(self.own_id)
        before = [nodes.index(own) for nodes in ranked]
        # Ranks are disjoint, so their sum is their union.
        self._by_rank = list(accumulate(self._where(before, rank) for rank in range(len(members))))
        owners = [nodes[0] for nodes in ranked]
        self._by_owner = {node_id: self._where(owners, number) for number, node_id in enumerate(members)}

    def _where(self, numbers: Sequence[int], number: int) -> int:
        """A bit for each piece, where the pattern has this number."""
        digits = "".join("1" if other == number else "0" for other in reversed(numbers))
        return _repeated(int(digits, 2) if digits else 0, len(numbers), self.count)

    def _scores(self, node_id: str) -> tuple[int, ...]:
        return _scores(node_id, self._salt, min(self.count, PATTERN_PIECES))


def place_of(node_id: str, turn: int, count: int) -> int:
    """A piece of `count`, another at each turn. Other nodes get other pieces, with few exceptions."""
    raw = hashlib.sha256(f"{node_id} {turn}".encode()).digest()
    return int.from_bytes(raw[:8], "little") % max(1, count)


def one_of(pieces: int, node_id: str, turn: int, count: int) -> int:
    """Chooses a piece of these, `count` in all, mostly another than other nodes choose. 0 if there are none."""
    place = place_of(node_id, turn, count)
    after = pieces >> place << place or pieces
    return after & -after


@lru_cache(maxsize=128)
def _scores(node_id: str, salt: str, count: int) -> tuple[int, ...]:
    raw = hashlib.shake_128(f"{salt} {node_id}".encode()).digest(SCORE_BYTES * count)
    return tuple(int.from_bytes(raw[at : at + SCORE_BYTES], "little") for at in range(0, len(raw), SCORE_BYTES))


def _ranked(scores: list[tuple[int, ...]]) -> list[list[int]]:
    """For each piece the numbers of all nodes: first its owner, then the other nodes by their scores."""
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
    """The first `count` bits of a pattern of `length` bits, repeated."""
    return pattern * sum(1 << at for at in range(0, count, max(1, length))) & ((1 << count) - 1)
