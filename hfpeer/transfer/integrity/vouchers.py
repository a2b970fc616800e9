"""The digests of pieces that leechers tell when they have the piece at first hand. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hfpeer.ranges import ByteRange, PieceGrid


class Vouchers:
    """By piece, the digest that each leecher tells.

    A voucher proves nothing: where bytes contradict it, a seed is asked for the piece.
    """

    def __init__(self) -> None:
        self._digests: dict[int, dict[str, str]] = {}
        """By piece and leecher."""
        self._ignored: set[str] = set()
        """Leechers whose vouchers do not count."""
        self._early: dict[int, tuple[str, str]] = {}
        """Digest and sender of the pieces that came before a leecher vouched for them."""

    def hear(self, leecher: str, firsthand: Mapping[int, str]) -> list[tuple[int, str, str]]:
        """The pieces that came early and can be judged now, with digest and sender. The last digest that a leecher
        tells counts: it may have found its own bytes wrong."""
        if leecher in self._ignored:
            return []
        for piece, digest in firsthand.items():
            self._digests.setdefault(piece, {})[leecher] = digest
        return [(piece, *self._early.pop(piece)) for piece in firsthand if piece in self._early]

    def knows(self, piece: int) -> bool:
        """Whether a leecher vouches for a piece."""
        return piece in self._digests

    def digest_by(self, leecher: str, piece: int) -> str | None:
        return self._digests.get(piece, {}).get(leecher)

    def came_early(self, piece: int, digest: str, sender: str) -> list[tuple[int, str, str]]:
        """A piece came before a leecher vouched for it, because its sender was still getting it. The same as from
        `hear` if a leecher does by now."""
        if piece in self._digests:
            return [(piece, digest, sender)]
        self._early[piece] = digest, sender
        return []

    def contradicted_by(self, piece: int, digest: str, sender: str) -> str | None:
        """The leecher that tells another digest than `sender` gave; None if there is none, or another leecher tells the
        same."""
        told = self._digests.get(piece, {})
        if any(vouched == digest for leecher, vouched in told.items() if leecher != sender):
            return None
        return next((leecher for leecher, vouched in told.items() if vouched != digest), None)

    def forget(self, leecher: str) -> None:
        """No voucher of a leecher counts any more."""
        self._ignored.add(leecher)
        for piece, told in list(self._digests.items()):
            told.pop(leecher, None)
            if not told:
                del self._digests[piece]


def span_of(grid: PieceGrid, start: int, size_bytes: int) -> int | None:
    """The number of the piece that `size_bytes` from `start` are; None if they are not exactly one piece."""
    piece = start // grid.piece_size_bytes
    is_piece = size_bytes > 0 and grid.range_of(piece) == ByteRange(start, start + size_bytes)
    return piece if is_piece else None
