"""What of a blob is present, what is on order, and what is free to be ordered. Pure.

No byte is on order twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from hfpeer.ranges import ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.pieces import bits


class Ledger:
    """The bytes of one blob. `all` and `free` are sets of pieces: every one, and those with a free byte."""

    def __init__(self, grid: PieceGrid, present: RangeSet) -> None:
        self.grid = grid
        self.present = present.copy()
        self.taken = present.copy()
        """What is present or on order; the rest is free."""
        self.all = (1 << grid.count) - 1
        self.free = self.all
        self.free_bytes = grid.size_bytes - present.total
        for start, stop in present:
            self.free &= ~bits(grid.pieces_inside(start, stop))

    def take_up(self, start: int, stop: int) -> None:
        """`[start, stop)` was free and is on order from now on."""
        self.taken.add(start, stop)
        self.free_bytes -= stop - start
        touched = self.grid.pieces_touching(start, stop)
        self.free &= ~bits(touched)
        for piece in {touched[0], touched[-1]}:
            if not self.taken.covers(*self.grid.range_of(piece)):
                self.free |= 1 << piece

    def free_up(self, start: int, stop: int) -> None:
        """`[start, stop)` was present or on order and is to be ordered again."""
        if start < stop:
            self.taken.discard(start, stop)
            self.free_bytes += stop - start
            self.free |= bits(self.grid.pieces_touching(start, stop))

    def discard(self, start: int, stop: int, on_order: Iterable[tuple[int, int]]) -> None:
        """Bytes that were thought present are wrong; what is `on_order` comes anyway, the rest is free."""
        self.present.discard(start, stop)
        lost = self.taken.within(start, stop)
        for ordered in on_order:
            lost.discard(*ordered)
        for span in lost:
            self.free_up(*span)

    def bytes_of(self, first: int, stop: int) -> ByteRange:
        """The bytes of the pieces from `first` up to and without `stop`."""
        return ByteRange(self.grid.range_of(first).start, self.grid.range_of(stop - 1).stop)
