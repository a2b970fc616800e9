"""Half-open byte ranges, sets of them, and the piece grid of a blob.

Every range in hfpeer is half-open, `start <= x < stop`; only HTTP headers have inclusive ones. A piece is a fixed-size
slice of a blob, the unit of transfer and of resume. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MIB = 1024 * 1024
PIECE_SIZE_BYTES = MIB
"""Bytes of a piece. With 512 KiB to 1 MiB a swarm stays within a few per cent of the shortest possible time."""


class ByteRange(NamedTuple):
    """`start <= x < stop`, in bytes."""

    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"


def touching(starts: Sequence[int], stops: Sequence[int], start: int, stop: int) -> tuple[int, int]:
    """The slice, as (low, high), of sorted disjoint ranges that overlap `[start, stop)`. Without any, high <= low."""
    return (bisect_right(stops, start), bisect_left(starts, stop)) if start < stop else (0, 0)


class RangeSet:
    """A set of integers kept as sorted, disjoint, non-touching half-open ranges."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Adds `[start, stop)`; ranges that touch or overlap become one."""
        if start >= stop:
            return
        low = bisect_left(self._stops, start)
        high = bisect_right(self._starts, stop)
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]

    def discard(self, start: int, stop: int) -> None:
        """Removes `[start, stop)`."""
        low, high = touching(self._starts, self._stops, start, stop)
        if low >= high:
            return
        kept = [(self._starts[low], start), (stop, self._stops[high - 1])]
        kept = [(first, last) for first, last in kept if first < last]
        self._starts[low:high] = [first for first, _ in kept]
        self._stops[low:high] = [last for _, last in kept]

    def within(self, start: int, stop: int) -> RangeSet:
        """The part of the set inside `[start, stop)`."""
        part = RangeSet()
        low, high = touching(self._starts, self._stops, start, stop)
        if low < high:
            part._starts, part._stops = self._starts[low:high], self._stops[low:high]
            part._starts[0] = max(part._starts[0], start)
            part._stops[-1] = min(part._stops[-1], stop)
        return part

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of `[start, stop)` is in the set; an empty range always is."""
        if start >= stop:
            return True
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._stops[index] >= stop

    def gaps(self, start: int, stop: int) -> Iterator[ByteRange]:
        """The parts of `[start, stop)` that are not in the set, in order."""
        index = bisect_right(self._stops, start)
        while start < stop and index < len(self._starts):
            if self._starts[index] > start:
                yield ByteRange(start, min(self._starts[index], stop))
            start = max(start, self._stops[index])
            index += 1
        if start < stop:
            yield ByteRange(start, stop)

    @property
    def total(self) -> int:
        """How many integers are in the set."""
        return sum(self._stops) - sum(self._starts)

    def copy(self) -> RangeSet:
        clone = RangeSet()
        clone._starts, clone._stops = self._starts.copy(), self._stops.copy()
        return clone

    def __iter__(self) -> Iterator[ByteRange]:
        return (ByteRange(start, stop) for start, stop in zip(self._starts, self._stops, strict=True))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RangeSet([{', '.join(map(str, self))}])"


@dataclass(frozen=True)
class PieceGrid:
    """A blob of `size_bytes` cut into pieces of `piece_size_bytes`; the last one may be shorter."""

    size_bytes: int
    piece_size_bytes: int = PIECE_SIZE_BYTES

    @property
    def count(self) -> int:
        return -(-self.size_bytes // self.piece_size_bytes)

    def range_of(self, piece: int) -> ByteRange:
        """The bytes of one piece. Raises IndexError outside the grid."""
        if not 0 <= piece < self.count:
            raise IndexError(piece)
        start = piece * self.piece_size_bytes
        return ByteRange(start, min(start + self.piece_size_bytes, self.size_bytes))

    def pieces_inside(self, start: int, stop: int) -> range:
        """The pieces that lie wholly inside `[start, stop)`."""
        first = -(-start // self.piece_size_bytes)
        last = self.count if stop >= self.size_bytes else stop // self.piece_size_bytes
        return range(first, max(first, last))

    def pieces_touching(self, start: int, stop: int) -> range:
        """The pieces that share at least one byte with `[start, stop)`."""
        if start >= stop:
            return range(0)
        return range(start // self.piece_size_bytes, min(self.count, -(-stop // self.piece_size_bytes)))
