"""Which pieces a fetch has, in the order in which they came, for the leechers that follow it. Pure.

The digest of a piece that came at first hand is told with it, so that a later receiver notices a piece that was changed
on the way. That is no proof; the digest of the blob is.
"""

from __future__ import annotations

from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.picker.bitfield import pieces_of


class HaveLog:
    """Not thread-safe.

    `version` grows by one with each piece. When bytes are discarded, it jumps beyond all versions that were told.
    """

    def __init__(self, grid: PieceGrid, present: RangeSet, untold: RangeSet | None = None) -> None:
        self._grid = grid
        self._arrived: list[int] = []
        self._firsthand: dict[int, str] = {}
        self._withheld: dict[int, float] = {}
        """By piece that is not told: since when. Peers that get a wrong piece from this node would take it for the
        liar."""
        self.untold = RangeSet() if untold is None else untold.copy()
        """Ranges that peers are not told of, unless they are discarded and come again."""
        self._has = bytearray(-(-grid.count // 8))
        self._first_version = 0
        for start, stop in present:
            self.came(start, stop, present)

    @property
    def version(self) -> int:
        return self._first_version + len(self._arrived)

    def came(self, start: int, stop: int, present: RangeSet) -> None:
        """The bytes `[start, stop)` came; `present` are all that are here now."""
        for piece in self._grid.pieces_touching(start, stop):
            if piece not in self._withheld and present.covers(*self._grid.range_of(piece)):
                self.add(piece)

    def withhold(self, piece: int, now: float) -> None:
        """A piece that comes now is not told before its `release`."""
        self._withheld[piece] = now

    def withheld_before(self, moment: float) -> list[int]:
        """The pieces that have been withheld since before `moment`."""
        return [piece for piece, since in self._withheld.items() if since < moment]

    def release(self, piece: int) -> None:
        """A withheld piece that is here may be told."""
        if self._withheld.pop(piece, None) is not None:
            self.add(piece)

    def vouch(self, piece: int, digest: str) -> None:
        """A piece came at first hand; `digest` is its `piece_digest`."""
        self._firsthand[piece] = digest

    def discard(self, start: int, stop: int) -> None:
        """The bytes `[start, stop)` are wrong."""
        gone = set(self._grid.pieces_touching(start, stop))
        self._first_version = self.version + 1
        self._arrived = [piece for piece in self._arrived if piece not in gone]
        self._has = bytearray(len(self._has))
        for piece in self._arrived:
            self._has[piece >> 3] |= 1 << (piece & 7)
        for piece in gone:
            self._firsthand.pop(piece, None)
            self._withheld.pop(piece, None)
        self.untold.discard(start, stop)

    def since(self, version: int, claimed: int) -> PieceNews | None:
        """The pieces that came since a version, and those `claimed` now, a bit each. None when the whole map has to be
        told again."""
        if version < self._first_version:
            return None
        added = self._arrived[version - self._first_version :]
        firsthand = {piece: self._firsthand[piece] for piece in added if piece in self._firsthand}
        return PieceNews(tuple(added), pieces_of(claimed), firsthand)

    def piece_map(self) -> PieceMap:
        """All pieces that are here and not withheld."""
        return PieceMap(self._grid.size_bytes, self._grid.piece_size_bytes, self.version, bytes(self._has))

    def add(self, piece: int) -> None:
        """A piece is here, and may be told."""
        byte, bit = piece >> 3, 1 << (piece & 7)
        is_untold = bool(self.untold) and bool(self.untold.within(*self._grid.range_of(piece)))
        if not (self._has[byte] & bit or is_untold):
            self._has[byte] |= bit
            self._arrived.append(piece)
