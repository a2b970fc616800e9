"""Decides which small files of a commit each source is asked for. Pure; its owner holds a lock.

Nodes that fetch the same commit share its small files out as they share the pieces of a large one: each asks seeds
and upstreams for its own share only, and gets the rest from its leechers, which tell what they have as they get it. A
set of files is an integer with a bit for each, in the order of the commit's manifest, which is the same on all nodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hfpeer.names import Commit, Digest, RepoId
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.picker.assignment import Assignment
from hfpeer.transfer.picker.bitfield import bits_of, first_pieces, pieces_of
from hfpeer.transfer.sources.tiers import Tier
from hfpeer.transfer.swarm.have_log import HaveLog


def bundle_digest(repo: RepoId, commit: Commit) -> Digest:
    """The digest by which nodes follow each other's bundle, as they follow a blob by its own."""
    return Digest("sha256", hashlib.sha256(f"small files of {repo.api_path} at {commit}".encode()).hexdigest())


@dataclass
class _Source:
    """A source, and the files that it has and was asked for."""

    order: tuple[Tier, int]
    """Sources with a lower order are asked first."""
    node_id: str
    asked: int = 0
    """The files that it is asked for now, or was asked for and did not give."""
    asked_again: int = 0
    has: int | None = None
    """None for a source that does not say what it has."""
    is_fetching: bool = False
    """It fetches this bundle too, so it has a share of it."""
    is_gone: bool = False
    is_idle: bool = False
    """It does nothing about its share."""
    is_slow: bool = False
    """Upstreams are asked beside it."""
    is_resting: bool = False
    """It has asked for a rest, so no other source waits for it."""
    is_last: bool = False
    """It gave too little for too long: it is asked only for files that all others did not give."""

    @property
    def comes_before_last(self) -> bool:
        """Whether a source that comes last waits for this one."""
        return not (self.is_gone or self.is_last or self.is_resting)

    def could_give(self, files: int) -> int:
        """Those of `files` that it can still be asked for."""
        if self.is_gone:
            return 0
        return files & ~self.asked & (-1 if self.has is None else self.has)


class Bundle:
    """`digests` are all small blobs of the commit, in order; `wanted` are those that are missing, `here` those in the
    cache.

    `own_id` is the id of this node; with "" nothing is shared out.
    """

    def __init__(
        self, digests: Sequence[Digest], wanted: Iterable[Digest], here: Iterable[Digest] = (), own_id: str = ""
    ) -> None:
        self._digests = digests
        self._numbers = {digest: number for number, digest in enumerate(digests)}
        self.todo = self._bits(wanted)
        self._claimed = 0
        self._held = 0
        self._preferred = 0
        self._sources: dict[str, _Source] = {}
        self._shares = Assignment(own_id, str(digests[0]), len(digests)) if own_id and digests else None
        self._have_log = HaveLog(PieceGrid(len(digests), 1), RangeSet())
        self.kept(here)

    @property
    def count(self) -> int:
        return len(self._digests)

    # Sources

    def meet(self, name: str, tier: Tier, node_id: str = "", place: int = 0) -> None:
        """A source that may have any file. It is asked for what sources of lower tiers, or lower places in its own
        tier, did not give."""
        self._sources.setdefault(name, _Source((tier, place), node_id))

    def has_all(self, name: str) -> None:
        """A source that was fetching the bundle has all of it now."""
        source = self._sources[name]
        source.is_fetching = False
        self._gains(source, (1 << len(self._digests)) - 1)

    def fetches(self, name: str, bits: int) -> None:
        """A source fetches the bundle too, and has these files of it."""
        source = self._sources[name]
        source.is_fetching, source.is_idle = True, False
        source.has = source.has or 0
        self._gains(source, bits)

    def gains(self, name: str, numbers: Iterable[int]) -> bool:
        """A leecher tells of files. Whether any of them is news."""
        source = self._sources[name]
        is_news = self._gains(source, bits_of(number for number in numbers if number < len(self._digests)))
        source.is_idle &= not is_news
        return is_news

    def idles(self, name: str) -> None:
        """A leecher does nothing about its share, which goes to the others until it tells of more."""
        self._sources[name].is_idle = True

    def is_slow(self, name: str, is_slow: bool) -> bool:
        """Sets whether upstreams are asked beside a source. Whether that is new."""
        source = self._sources[name]
        was_slow, source.is_slow = source.is_slow, is_slow
        return was_slow != is_slow

    def comes_last(self, name: str) -> None:
        """From now on all others are asked before this source."""
        self._sources[name].is_last = True

    def rests(self, name: str, is_resting: bool) -> None:
        """A source rests, or has rested. Meanwhile other sources are asked in its place."""
        self._sources[name].is_resting = is_resting

    def returns(self, name: str) -> None:
        """A source has another address now: it is asked for everything again."""
        source = self._sources[name]
        source.asked, source.is_gone, source.is_last, source.is_slow = 0, False, False, False

    def has_others(self, name: str) -> bool:
        """Whether another source could give any missing file."""
        others = (source for other, source in self._sources.items() if other != name and not source.is_gone)
        return any(not one.is_last and bool(self.todo & (~one.asked if one.has is None else one.has)) for one in others)

    def leecher_left(self, name: str) -> None:
        """A leecher has stopped, or does not answer: it has no share. It may still give the files that it told of."""
        if name in self._sources:
            self._sources[name].is_fetching = False

    def gone(self, name: str) -> None:
        """A source is not asked any more."""
        self._sources[name].is_gone = True

    def tells(self, name: str) -> bool:
        """Whether a source says what it has."""
        return self._sources[name].has is not None

    @property
    def has_leechers(self) -> bool:
        return any(source.is_fetching and not source.is_gone for source in self._sources.values())

    # Choice

    def claim(self, name: str, count: int, rank: int) -> list[Digest]:
        """The next files to ask a source for, at most `count`.

        `rank` is 1 for this node's own share; with 2 the shares that it would take over first are added, and so on.
        """
        free = self._askable(self._sources[name], rank)
        numbers = first_pieces(free & self._preferred or free, count)
        claimed = bits_of(numbers)
        self._sources[name].asked |= claimed
        self._claimed |= claimed
        return [self._digests[number] for number in numbers]

    def may_be_of_use(self, name: str) -> bool:
        """Whether a source could be asked for anything, now or later."""
        source = self._sources[name]
        return not source.is_gone and bool(self.todo & ~source.asked if source.has is None else self.todo)

    def unclaim(self, name: str, digests: Iterable[Digest], *, may_be_asked_again: bool = False) -> None:
        """A request has ended: files that did not come are free for other sources, with `may_be_asked_again` also for
        this one."""
        bits = self._bits(digests)
        self._claimed &= ~bits
        if may_be_asked_again:
            self._sources[name].asked &= ~bits

    @property
    def has_requests(self) -> bool:
        """Whether any source is asked for a file now."""
        return bool(self._claimed)

    def came(self, digests: Sequence[Digest]) -> list[Digest]:
        """Files came. Returns those that were still missing."""
        came = self._bits(digests)
        new = self.todo & came
        self.todo ^= new
        if new == came:
            return list(dict.fromkeys(digests))
        return [digest for digest in dict.fromkeys(digests) if new >> self._numbers[digest] & 1]

    def are_missing(self, digests: Iterable[Digest]) -> bool:
        """Whether all of these files are missing."""
        bits = self._bits(digests)
        return bits & self.todo == bits

    def missing(self) -> list[Digest]:
        return [self._digests[number] for number in pieces_of(self.todo)]

    def hold(self, digests: Iterable[Digest]) -> None:
        """Another fetch of this node requests these files: this one asks no source for them until `free`."""
        self._held |= self._bits(digests)

    def free(self, digests: Iterable[Digest]) -> None:
        """This fetch is to request these files itself."""
        self._held &= ~self._bits(digests)

    @property
    def awaits_others(self) -> bool:
        """Whether another fetch of this node still requests missing files."""
        return bool(self.todo & self._held)

    def prefer(self, digests: Iterable[Digest]) -> None:
        """These files are requested before others."""
        self._preferred |= self._bits(digest for digest in digests if digest in self._numbers)

    def hopeless(self, digests: Iterable[Digest]) -> list[Digest]:
        """Those of these files that are missing and that no source known now can be asked for."""
        left = self._bits(digests) & self.todo & ~self._claimed
        for source in self._sources.values():
            left &= ~source.could_give(left)
        return [self._digests[number] for number in pieces_of(left)]

    def _askable(self, source: _Source, rank: int) -> int:
        free = self.todo & ~self._claimed & ~self._held & ~source.asked
        others = [one for one in self._sources.values() if one is not source and one.comes_before_last]
        if source.has is not None:
            free &= source.has
        if source.is_last:
            for other in others:
                free &= other.asked if other.has is None else ~other.has | other.asked
            return free
        if source.has is not None:
            return free
        if self._shares is not None:
            leechers = [one.node_id for one in others if one.is_fetching and not one.is_idle]
            free &= self._shares.within(leechers, rank)
        for other in others:
            if other.is_slow and source.order[0].is_upstream:
                continue
            if other.has is None and other.order < source.order:
                free &= other.asked
            elif other.has is not None and rank == 1:
                free &= ~other.has | other.asked
        return free

    # For leechers

    def kept(self, digests: Iterable[Digest]) -> None:
        """Files are in the cache now, from where leechers can have them."""
        for digest in digests:
            self._have_log.add(self._numbers[digest])

    def piece_map(self) -> PieceMap:
        return self._have_log.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        return self._have_log.version, self._have_log.since(version, 0)

    def _bits(self, digests: Iterable[Digest]) -> int:
        return bits_of(self._numbers[digest] for digest in digests)

    @staticmethod
    def _gains(source: _Source, bits: int) -> bool:
        """A source tells of files. Whether any of them is news.

        A file that it tells of again, after it did not give it, is asked for once more; a third time would let a
        source repeat itself for ever.
        """
        new = bits & ~(source.has or 0)
        again = bits & source.asked & ~source.asked_again
        source.has = (source.has or 0) | new
        source.asked &= ~(new | again)
        source.asked_again |= again
        return bool(new)
