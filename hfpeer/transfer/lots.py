"""The small files of a commit as one lot, and who may be asked for which of them. Pure; its owner holds a lock.

Nodes that fetch the same commit share its small files out as they share the pieces of a large one: each asks a holder,
or a hub, for its own share only, and has the rest from its fellows, who tell what they have as they get it. A set of
files is an integer with a bit for each, in the order of the commit's listing, in which all nodes agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hfpeer.names import Commit, Digest, RepoId
from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.fellows import Chronicle
from hfpeer.transfer.pieces import bits_of, lowest, pieces_of
from hfpeer.transfer.shares import Shares
from hfpeer.wire import PieceMap, PieceNews


def lot_digest(repo: RepoId, commit: Commit) -> Digest:
    """The name by which nodes follow each other's lot, as they follow a blob by its digest."""
    return Digest("sha256", hashlib.sha256(f"small files of {repo.api_path} at {commit}".encode()).hexdigest())


@dataclass
class _Giver:
    """A source: what it was asked for in vain or is asked for now, and what it has (None: it does not say)."""

    tier: int
    node_id: str
    asked: int = 0
    has: int | None = None
    is_fetching: bool = False
    """It fetches this lot, so it has a share of it."""
    is_gone: bool = False


class Lot:
    """`digests` are all small blobs of the commit, in order; of them `wanted` are missing, and `here` are in the cache.

    `own_id` is this node's; "" shares nothing out.
    """

    def __init__(
        self, digests: Sequence[Digest], wanted: Iterable[Digest], here: Iterable[Digest] = (), own_id: str = ""
    ) -> None:
        self._digests = digests
        self._numbers = {digest: number for number, digest in enumerate(digests)}
        self.todo = self._bits(wanted)
        self._claimed = 0
        self._givers: dict[str, _Giver] = {}
        self._shares = Shares(own_id, str(digests[0]), len(digests)) if own_id and digests else None
        self._here = RangeSet()
        self._chronicle = Chronicle(PieceGrid(len(digests), 1), self._here)
        self.kept(here)

    @property
    def count(self) -> int:
        return len(self._digests)

    # Sources

    def meet(self, name: str, tier: int, node_id: str = "") -> None:
        """A source that may have anything, to be asked when those of lower tiers have failed."""
        self._givers.setdefault(name, _Giver(tier, node_id))

    def has_all(self, name: str) -> None:
        """A source that was fetching the lot has all of it now."""
        giver = self._givers[name]
        giver.is_fetching = False
        self._gains(giver, (1 << len(self._digests)) - 1)

    def fetches(self, name: str, bits: int) -> None:
        """A source fetches the lot too, and has these files of it."""
        giver = self._givers[name]
        giver.is_fetching, giver.has = True, 0
        self._gains(giver, bits)

    def gains(self, name: str, numbers: Iterable[int]) -> None:
        """A fellow tells of more."""
        self._gains(self._givers[name], bits_of(number for number in numbers if number < len(self._digests)))

    def fellow_left(self, name: str) -> None:
        """It does not fetch any more, or does not answer: it has no share. What it has told of it may still give."""
        self._givers[name].is_fetching = False

    def gone(self, name: str) -> None:
        """A source is not asked any more."""
        self._givers[name].is_gone = True

    def tells(self, name: str) -> bool:
        """Whether a source says what it has."""
        return self._givers[name].has is not None

    @property
    def has_fellows(self) -> bool:
        return any(giver.is_fetching and not giver.is_gone for giver in self._givers.values())

    # Choice

    def claim(self, name: str, count: int, rank: int) -> list[Digest]:
        """The next files to ask a source for, at most `count`. Below `rank` come those that are this node's to ask
        for: 1 is its own share, 2 those to take over first, and so on."""
        numbers = _first(self._askable(self._givers[name], rank), count)
        self._givers[name].asked |= bits_of(numbers)
        self._claimed |= bits_of(numbers)
        return [self._digests[number] for number in numbers]

    def may_be_of_use(self, name: str) -> bool:
        """Whether there is anything that a source could still be asked for, now or later."""
        giver = self._givers[name]
        return not giver.is_gone and bool(self.todo & ~giver.asked if giver.has is None else self.todo)

    def unclaim(self, name: str, digests: Iterable[Digest], *, may_be_asked_again: bool = False) -> None:
        """A request has ended; what did not come is free for others, and for the same source if it may be asked."""
        bits = self._bits(digests)
        self._claimed &= ~bits
        if may_be_asked_again:
            self._givers[name].asked &= ~bits

    def came(self, digest: Digest) -> bool:
        """A file came. Whether it was still missing."""
        bit = 1 << self._numbers[digest]
        was_missing = bool(self.todo & bit)
        self.todo &= ~bit
        return was_missing

    def missing(self) -> list[Digest]:
        return [self._digests[number] for number in pieces_of(self.todo)]

    def _askable(self, giver: _Giver, rank: int) -> int:
        free = self.todo & ~self._claimed & ~giver.asked
        if giver.has is not None:
            return free & giver.has
        if self._shares is not None:
            fellows = [one.node_id for one in self._givers.values() if one.is_fetching and not one.is_gone]
            free &= self._shares.within(fellows, rank)
        for other in self._givers.values():
            if other.is_gone or other is giver:
                continue
            if other.has is None and other.tier < giver.tier:
                free &= other.asked
            elif other.has is not None and rank == 1:
                free &= ~other.has | other.asked
        return free

    # What is told

    def kept(self, digests: Iterable[Digest]) -> None:
        """Files are in the cache now, where fellows can have them."""
        for digest in digests:
            number = self._numbers[digest]
            self._here.add(number, number + 1)
            self._chronicle.came(number, number + 1, self._here)

    def piece_map(self) -> PieceMap:
        return self._chronicle.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        return self._chronicle.version, self._chronicle.since(version, 0)

    def _bits(self, digests: Iterable[Digest]) -> int:
        return bits_of(self._numbers[digest] for digest in digests)

    @staticmethod
    def _gains(giver: _Giver, bits: int) -> None:
        giver.has = (giver.has or 0) | bits
        giver.asked &= ~bits


def _first(bits: int, count: int) -> list[int]:
    """The first of a set, at most `count`."""
    numbers: list[int] = []
    while bits and len(numbers) < count:
        numbers.append(lowest(bits))
        bits &= bits - 1
    return numbers
