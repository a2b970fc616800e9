"""Requests the pieces that readers wait for before all others. Pure.

libtorrent calls this time-critical pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_

from hfpeer.transfer.picker.bitfield import bits
from hfpeer.transfer.picker.ledger import Ledger
from hfpeer.transfer.picker.source_state import SourceState


class Readers:
    """The readers of one blob, by number, and the pieces that each waits for."""

    def __init__(self, ledger: Ledger, sources: Mapping[str, SourceState]) -> None:
        self._ledger = ledger
        self._sources = sources
        self._awaited: dict[int, int] = {}

    def wait_for(self, reader: int, start: int, stop: int) -> None:
        """A reader waits for `[start, stop)` now, and for nothing else. An empty range ends its wait.

        Running requests that would come to it only later are cut short there. If its first byte is neither present nor
        requested, another request is cut short to free a source for it.
        """
        self._awaited.pop(reader, None)
        if start >= stop:
            return
        self._awaited[reader] = bits(self._ledger.grid.pieces_touching(start, stop))
        piece = self._ledger.grid.piece_size_bytes
        begin = start // piece * piece
        for request in self._ledger.requests.values():
            if request.position + 2 * piece < begin < request.stop:
                self._ledger.shorten(request, begin)
        self._make_way(start, stop)

    def urgent(self, pieces: int) -> int:
        """The part of `pieces` that one reader waits for: the reader that needs the fewest. 0 if there is none."""
        awaited = (pieces & awaited for awaited in self._awaited.values())
        return min((wanted for wanted in awaited if wanted), key=int.bit_count, default=0)

    def _make_way(self, start: int, stop: int) -> None:
        """Cuts the longest request without a reader short after its piece, if `start` is neither present nor
        requested."""
        absent = next(self._ledger.present.gaps(start, stop), None)
        if absent is None or not self._ledger.is_free(absent.start):
            return
        piece = self._ledger.grid.piece_size_bytes
        wanted = 1 << absent.start // piece
        awaited = reduce(or_, self._awaited.values())
        idle = [
            request
            for request in self._ledger.requests.values()
            if request.remaining_bytes > piece
            and self._sources[request.source].pieces & wanted
            and not self._ledger.pieces_of(request) & awaited
        ]
        if idle:
            request = max(idle, key=lambda request: request.remaining_bytes)
            self._ledger.shorten(request, (request.position // piece + 1) * piece)
