"""Tracks each byte of a blob as present, requested or free. Pure.

No byte is requested twice at a time.
"""

from __future__ import annotations

from itertools import count

from hfpeer.ranges import ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.picker.bitfield import bits, lowest
from hfpeer.transfer.picker.source_state import RangeRequest


class Ledger:
    """The bytes and the running requests of one blob. `all` and `free` are sets of pieces, a bit each: every piece, and
    those with a free byte."""

    def __init__(self, grid: PieceGrid, present: RangeSet) -> None:
        self.grid = grid
        self.present = present.copy()
        self.requests: dict[int, RangeRequest] = {}
        """The running requests by their numbers."""
        self.all = (1 << grid.count) - 1
        self.free = self.all
        self.free_bytes = grid.size_bytes - present.total
        self._taken = present.copy()
        """Present or requested; the rest is free."""
        self._numbers = count(1)
        for start, stop in present:
            self.free &= ~bits(grid.pieces_inside(start, stop))

    def begin(self, source: str, span: ByteRange, now: float, *, is_cut_through: bool = False) -> RangeRequest:
        """A new request for a range that is free."""
        request = RangeRequest(next(self._numbers), source, span.start, span.stop, span.start, now, now)
        request.is_cut_through = is_cut_through
        request.meet_floor(now)
        self.requests[request.number] = request
        self._take(span.start, span.stop)
        return request

    def advance(self, request: RangeRequest, size_bytes: int, now: float) -> None:
        """The next `size_bytes` of a request are present."""
        self.present.add(request.position, request.position + size_bytes)
        request.advance(size_bytes, now)

    def end(self, request: RangeRequest) -> bool:
        """A request has ended, and what it did not bring is free. Whether it was still running."""
        was_running = self.requests.pop(request.number, None) is not None
        if was_running:
            self._free_up(request.position, request.stop)
        return was_running

    def shorten(self, request: RangeRequest, stop: int) -> None:
        """A running request ends at `stop`, and the rest of it is free."""
        end, request.stop = request.stop, stop
        self._free_up(stop, end)

    def discard(self, start: int, stop: int) -> None:
        """Bytes that were present are wrong. They are free, unless they are requested already."""
        self.present.discard(start, stop)
        lost = self._taken.within(start, stop)
        for request in self.requests.values():
            lost.discard(request.position, request.stop)
        for span in lost:
            self._free_up(*span)

    def pieces_of(self, request: RangeRequest) -> int:
        """The pieces that a request still has to bring, a bit each."""
        return bits(self.grid.pieces_touching(request.position, request.stop))

    def is_free(self, position: int) -> bool:
        """Whether the byte at `position` is neither present nor requested."""
        return not self._taken.covers(position, position + 1)

    def first_free(self, pieces: int, max_pieces: int = 1) -> ByteRange:
        """The first run of free bytes in these pieces, from the first of them to the first gap or through `max_pieces`.
        At least the first piece has free bytes."""
        first = lowest(pieces)
        window = pieces >> first & (1 << max_pieces) - 1
        last = first + lowest(~window) - 1
        return next(self._taken.gaps(self.grid.range_of(first).start, self.grid.range_of(last).stop))

    def _take(self, start: int, stop: int) -> None:
        self._taken.add(start, stop)
        self.free_bytes -= stop - start
        touched = self.grid.pieces_touching(start, stop)
        self.free &= ~bits(touched)
        for piece in {touched[0], touched[-1]}:
            if not self._taken.covers(*self.grid.range_of(piece)):
                self.free |= 1 << piece

    def _free_up(self, start: int, stop: int) -> None:
        if start < stop:
            self._taken.discard(start, stop)
            self.free_bytes += stop - start
            self.free |= bits(self.grid.pieces_touching(start, stop))
