"""Who gave the wrong bytes of a blob that does not hash to its digest.

An inquiry proposes, one after the other, which sources to do without; what those gave is fetched again from the
rest, and what they gave before is remembered, so that once the blob is right every liar can be named and nobody
else. It never decides by reputation: whoever's bytes differ from the right ones has lied.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hfpeer.cache.blobs import PartialBlob
from hfpeer.ranges import ByteRange, PieceGrid
from hfpeer.wire import Body, SourceFault

LOOK_SECONDS = 0.1

Ask = Callable[[str, ByteRange], "bytes | None"]
"""What a source gives for a range now; None if it does not."""


class Inquiry:
    """Belongs to one fetch. `tiers` says who can be asked now, and their tiers: the higher, the more they are trusted;
    `whole` lists those of them that have the whole blob."""

    def __init__(
        self,
        partial: PartialBlob,
        ask: Ask,
        tiers: Callable[[], Mapping[str, int]],
        whole: Callable[[], Sequence[str]],
    ) -> None:
        self._partial = partial
        self._grid = PieceGrid(partial.size_bytes)
        self._ask = ask
        self._tiers = tiers
        self._whole = whole
        self._given: dict[str, dict[ByteRange, bytes]] = {}
        self._plans = self._propose()
        self.is_open = False
        self.is_exhausted = False
        self.convicted: list[str] = []

    def next_exclusion(self) -> set[str] | None:
        """The blob is wrong, or cannot be had without those excluded last: whom to do without now.

        None when every way has been tried. A source that alone gave the whole of a wrong blob is convicted.
        """
        self.is_open = True
        givers = self.givers()
        if len(givers) == 1 and not self.is_exhausted:
            self._convict(next(iter(givers)))
        excluded = next(self._plans, None)
        self.is_exhausted = False
        return None if excluded is None else excluded | set(self.convicted)

    @property
    def suspected(self) -> set[str]:
        """Everybody who was done without so far."""
        return {*self._given, *self.convicted}

    def remember(self, name: str) -> list[ByteRange]:
        """Keeps digests of what a source gave, which is about to be discarded; the ranges it gave."""
        ranges = self.givers().get(name, [])
        given = self._given.setdefault(name, {})
        for whole in ranges:
            for piece in self._grid.pieces_touching(*whole):
                low, high = self._grid.range_of(piece)
                span = ByteRange(max(low, whole.start), min(high, whole.stop))
                given[span] = self._digest(span)
        return ranges

    def liars(self) -> list[str]:
        """The blob is right now: those who gave something else for any of it."""
        for name in self._given:
            if not self._is_confirmed(name):
                self._convict(name)
        return self.convicted

    def givers(self) -> dict[str, list[ByteRange]]:
        """What is on disk, by who gave it."""
        found: dict[str, list[ByteRange]] = {}
        for start, stop, source in self._partial.sources():
            found.setdefault(source, []).append(ByteRange(start, stop))
        return found

    def _propose(self) -> Iterator[set[str]]:
        """First those of whom a sample is wrong, then one after the other, then all but one."""
        suspects = self._compare()
        tried = set(suspects)
        if suspects:
            yield suspects
        while not self.is_exhausted and (likeliest := self._likeliest(tried)) is not None:
            tried.add(likeliest)
            suspects = {name for name in suspects if not self._is_confirmed(name)} | {likeliest}
            yield suspects
        for name in self._by_trust(self._whole()):
            if name not in self.convicted:
                yield {*self._tiers(), *self.givers()} - {name}

    def _by_trust(self, names: Iterable[str]) -> list[str]:
        tiers = self._tiers()
        return sorted(names, key=lambda name: -tiers.get(name, 0))

    def _compare(self) -> set[str]:
        """The givers of whose bytes a sample differs from what the most trusted source that answers gives; or that
        source itself, if most of those that are trusted as much give something else."""
        tiers = self._tiers()
        referees = self._by_trust(tiers)
        same: set[str] = set()
        different: set[str] = set()
        for name, ranges in self.givers().items():
            start, stop = ranges[0]
            span = ByteRange(start, min(stop, start + self._grid.piece_size_bytes))
            while referees and referees[0] != name:
                sample = self._ask(referees[0], span)
                if sample is not None:
                    is_same = hashlib.sha256(sample).digest() == self._digest(span)
                    (same if is_same else different).add(name)
                    break
                del referees[0]
        is_outvoted = len(different) > len(same) + 1
        if is_outvoted and all(tiers.get(name) == tiers[referees[0]] for name in different):
            return {referees[0]}
        return different

    def _likeliest(self, tried: set[str]) -> str | None:
        """The giver not tried yet that is trusted least; of equals the one that gave most."""
        tiers = self._tiers()
        sizes = {name: sum(span.size_bytes for span in ranges) for name, ranges in self.givers().items()}
        candidates = [name for name in sizes if name not in tried and name not in self.convicted]
        return min(candidates, key=lambda name: (tiers.get(name, 0), -sizes[name]), default=None)

    def _is_confirmed(self, name: str) -> bool:
        """Whether everything a source gave was given again by others, and the same."""
        return all(self._digest(span) == digest for span, digest in self._given.get(name, {}).items())

    def _convict(self, name: str) -> None:
        if name not in self.convicted:
            self.convicted.append(name)

    def _digest(self, span: ByteRange) -> bytes:
        view = memoryview(bytearray(span.size_bytes))
        self._partial.read(span.start, view)
        return hashlib.sha256(view).digest()


def ask_once(
    open_body: Callable[[], Body], size_bytes: int, seconds: float, is_over: Callable[[], bool]
) -> bytes | None:
    """The `size_bytes` of a body, unless its source fails, takes longer, or they are not wanted any more.

    A source that does not even answer keeps a thread until it does.
    """
    asking = _Asking(open_body, size_bytes)
    asking.start()
    deadline = time.monotonic() + seconds
    while asking.is_alive() and not is_over() and time.monotonic() < deadline:
        asking.join(LOOK_SECONDS)
    return asking.leave()


class _Asking(threading.Thread):
    """Reads one body whole."""

    def __init__(self, open_body: Callable[[], Body], size_bytes: int) -> None:
        super().__init__(name="compare", daemon=True)
        self._open_body = open_body
        self._found = bytearray(size_bytes)
        self._filled = 0
        self._lock = threading.Lock()
        self._body: Body | None = None
        self._is_left = False

    def run(self) -> None:
        try:
            body = self._open_body()
        except SourceFault:
            return
        with self._lock:
            self._body = body
            if self._is_left:
                body.abort()
        try:
            view = memoryview(self._found)
            while self._filled < len(view) and (received := body.readinto(view[self._filled :])):
                self._filled += received
        except SourceFault:
            pass
        finally:
            with self._lock:
                self._body = None
            body.close()

    def leave(self) -> bytes | None:
        """What was read, if it is all; ends a read that still goes on."""
        with self._lock:
            self._is_left = True
            if self._body is not None:
                self._body.abort()
            return bytes(self._found) if self._filled == len(self._found) else None
