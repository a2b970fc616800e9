"""Finds the liars when a blob does not have its digest.

An inquiry proposes, one after the other, which sources to exclude. Their bytes come again from the others, and the old
digests are remembered, so that the liars are known once the blob is right: a source is a liar if its bytes differ
from the right ones, and for no other reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.ranges import ByteRange, PieceGrid
from hfpeer.transfer.integrity.sampling import Ask

LEAST_TRUSTED = -100
"""Below the rank of every tier."""


class Inquiry:
    """Belongs to one fetch, and to one thread."""

    def __init__(
        self,
        partial: PartialBlob,
        ask: Ask,
        tiers: Callable[[], Mapping[str, int]],
        seeds: Callable[[], Sequence[str]],
    ) -> None:
        """`tiers` gives the sources that can be asked now and their tiers: the higher, the more a source is trusted.
        `seeds` gives those with the whole blob."""
        self._partial = partial
        self._grid = PieceGrid(partial.size_bytes)
        self._ask = ask
        self._tiers = tiers
        self._seeds = seeds
        self._given: dict[str, dict[ByteRange, bytes]] = {}
        """By source that was excluded: the digests of what it gave."""
        self._proposals = self._propose()
        self.is_open = False
        """Whether the digest was ever wrong."""
        self.is_exhausted = False
        """Whether the sources that are not excluded cannot give the rest."""
        self.liars: list[str] = []
        """The liars found until now."""

    def next_exclusion(self) -> set[str] | None:
        """The blob is wrong, or cannot be had without the sources excluded last: the sources to exclude now.

        None when every way has been tried. A source that alone gave the whole of a wrong blob is a liar.
        """
        self.is_open = True
        contributions = self.contributions()
        if len(contributions) == 1 and not self.is_exhausted:
            self._found(next(iter(contributions)))
        excluded = next(self._proposals, None)
        self.is_exhausted = False
        return None if excluded is None else excluded | set(self.liars)

    @property
    def excluded(self) -> set[str]:
        """All sources that were excluded until now."""
        return {*self._given, *self.liars}

    def remember(self, name: str) -> list[ByteRange]:
        """Keeps the digests of what a source gave, which is about to be discarded. The ranges that it gave."""
        ranges = self.contributions().get(name, [])
        given = self._given.setdefault(name, {})
        for whole in ranges:
            for piece in self._grid.pieces_touching(*whole):
                low, high = self._grid.range_of(piece)
                span = ByteRange(max(low, whole.start), min(high, whole.stop))
                given[span] = self._digest(span)
        return ranges

    def find_liars(self) -> list[str]:
        """The blob is right now: the sources that gave something else for any of it."""
        for name in self._given:
            if not self._is_confirmed(name):
                self._found(name)
        return self.liars

    def contributions(self) -> dict[str, list[ByteRange]]:
        """The ranges on disk, by the source that gave them."""
        found: dict[str, list[ByteRange]] = {}
        for start, stop, source in self._partial.sources():
            found.setdefault(source, []).append(ByteRange(start, stop))
        return found

    def _propose(self) -> Iterator[set[str]]:
        """First the sources of which a sample is wrong, or the liar that gave all, then one source after the other,
        then all but one."""
        excluded = self._compare()
        tried = set(excluded)
        if excluded or self.liars:
            yield excluded
        while not self.is_exhausted and (likeliest := self._likeliest(tried)) is not None:
            tried.add(likeliest)
            excluded = {name for name in excluded if not self._is_confirmed(name)} | {likeliest}
            yield excluded
        for name in self._by_trust(self._seeds()):
            if name not in self.liars:
                yield {*self._tiers(), *self.contributions()} - {name}

    def _by_trust(self, names: Iterable[str]) -> list[str]:
        tiers = self._tiers()
        return sorted(names, key=lambda name: -tiers.get(name, 0))

    def _compare(self) -> set[str]:
        """The sources of which a sample differs from what the most trusted source that answers, the referee, gives. Or
        the referee itself, if the others are trusted as much and outvote it: by their number, or by their bytes."""
        tiers = self._tiers()
        referees = self._by_trust(tiers)
        same: set[str] = set()
        different: set[str] = set()
        for name, ranges in self.contributions().items():
            start, stop = ranges[0]
            span = ByteRange(start, min(stop, start + self._grid.piece_size_bytes))
            while referees and referees[0] != name:
                sample = self._ask(referees[0], span)
                if sample is not None:
                    is_same = hashlib.sha256(sample).digest() == self._digest(span)
                    (same if is_same else different).add(name)
                    break
                del referees[0]
        if different and all(tiers.get(name) == tiers[referees[0]] for name in different):
            given = self._sizes()
            bytes_against = sum(given[name] for name in different)
            votes = len(same) + 1 - len(different)
            if votes < 0 or (votes == 0 and 0 < given.get(referees[0], 0) < bytes_against):
                return {referees[0]}
        return different

    def _likeliest(self, tried: set[str]) -> str | None:
        """The least trusted source that was not tried yet; among equals the one that gave least, because a wrong guess
        costs its bytes. A source that cannot be asked any more, and files of this machine, are trusted least."""
        tiers, sizes = self._tiers(), self._sizes()
        candidates = [name for name in sizes if name not in tried and name not in self.liars]
        return min(candidates, key=lambda name: (tiers.get(name, LEAST_TRUSTED), sizes[name]), default=None)

    def _sizes(self) -> dict[str, int]:
        """The bytes on disk that each source gave."""
        return {name: sum(span.size_bytes for span in ranges) for name, ranges in self.contributions().items()}

    def _is_confirmed(self, name: str) -> bool:
        """Whether others gave the same for all that a source gave."""
        return all(self._digest(span) == digest for span, digest in self._given.get(name, {}).items())

    def _found(self, liar: str) -> None:
        if liar not in self.liars:
            self.liars.append(liar)

    def _digest(self, span: ByteRange) -> bytes:
        view = memoryview(bytearray(span.size_bytes))
        self._partial.read(span.start, view)
        return hashlib.sha256(view).digest()
