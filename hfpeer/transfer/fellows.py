"""What nodes that fetch the same blob tell each other, and what can be made of it. Pure; its owner holds a lock.

A piece that comes straight from a holder of the whole blob is at first hand: who got it so says the digest of its
bytes, and whoever gets it later, from anybody, can tell whether it was changed on the way. That is no proof, the
blob's own digest is; but it finds who lies at once, and keeps a lie from spreading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hfpeer.ranges import ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.pieces import bits_of, pieces_of
from hfpeer.wire import PieceMap, PieceNews

SIGN_OF_LIFE_SECONDS = 5.0
MEMBERS_SECONDS = 0.5


class Chronicle:
    """Which whole pieces a fetch has, in the order in which they came, and the digests of those at first hand.

    `version` grows with each piece, and at once beyond what anybody has heard of when bytes turn out to be wrong.
    """

    def __init__(self, grid: PieceGrid, present: RangeSet) -> None:
        self._grid = grid
        self._arrived: list[int] = []
        self._firsthand: dict[int, str] = {}
        self._withheld: dict[int, float] = {}
        """Since when which pieces are not told of: whoever got one from here might blame this node."""
        self._has = 0
        self._first_version = 0
        for start, stop in present:
            self.came(start, stop, present)

    @property
    def version(self) -> int:
        return self._first_version + len(self._arrived)

    def came(self, start: int, stop: int, present: RangeSet) -> None:
        """Bytes came; `present` is what is there now."""
        for piece in self._grid.pieces_touching(start, stop):
            if piece not in self._withheld and present.covers(*self._grid.range_of(piece)):
                self._tell_of(piece)

    def withhold(self, piece: int, now: float) -> None:
        """A piece that comes now is not to be told of before its `release`."""
        self._withheld[piece] = now

    def withheld_before(self, moment: float) -> list[int]:
        """The pieces that have been withheld since before that."""
        return [piece for piece, since in self._withheld.items() if since < moment]

    def release(self, piece: int) -> None:
        """A piece that was withheld has come, and may be told of."""
        if self._withheld.pop(piece, None) is not None:
            self._tell_of(piece)

    def vouch(self, piece: int, digest: str) -> None:
        """A piece came at first hand; `digest` is `wire.piece_digest` of it."""
        self._firsthand[piece] = digest

    def lost(self, start: int, stop: int) -> None:
        """Bytes turned out to be wrong."""
        gone = set(self._grid.pieces_touching(start, stop))
        self._first_version = self.version + 1
        self._arrived = [piece for piece in self._arrived if piece not in gone]
        self._has = bits_of(self._arrived)
        for piece in gone:
            self._firsthand.pop(piece, None)
            self._withheld.pop(piece, None)

    def since(self, version: int, claimed: int) -> PieceNews | None:
        """What came since a version; None when the whole map has to be told again."""
        if version < self._first_version:
            return None
        added = self._arrived[version - self._first_version :]
        firsthand = {piece: self._firsthand[piece] for piece in added if piece in self._firsthand}
        return PieceNews(tuple(added), pieces_of(claimed), firsthand)

    def _tell_of(self, piece: int) -> None:
        if not self._has >> piece & 1:
            self._has |= 1 << piece
            self._arrived.append(piece)

    def piece_map(self) -> PieceMap:
        """All pieces that are there, but for those withheld."""
        bits = self._has.to_bytes(-(-self._grid.count // 8), "little")
        return PieceMap(self._grid.size_bytes, self._grid.piece_size_bytes, self.version, bits)


class Telling:
    """What one follower has been told, apart from the pieces."""

    def __init__(self) -> None:
        self._claimed: tuple[int, ...] = ()
        self._company: dict[str, int] = {}
        self._told_at = -SIGN_OF_LIFE_SECONDS

    def fresh(self, news: PieceNews, now: float) -> PieceNews | None:
        """What of these news is worth telling now: None when nothing is. Only a new member of the company is news at
        once; that a known one is still there waits a while for other news."""
        company = {node_id: beat for node_id, beat in news.company.items() if self._company.get(node_id, -1) < beat}
        quiet_seconds = now - self._told_at
        is_due = quiet_seconds >= (MEMBERS_SECONDS if company else SIGN_OF_LIFE_SECONDS)
        if not (news.added or news.claimed != self._claimed or company.keys() - self._company.keys() or is_due):
            return None
        self._claimed, self._company, self._told_at = news.claimed, dict(news.company), now
        return replace(news, company=company)


@dataclass
class _Voucher:
    """What the first receiver of a piece says of it, and who gave what else."""

    digest: str
    by: str
    contradictions: dict[str, str] = field(default_factory=dict)
    """By digest its first sender."""


@dataclass(frozen=True)
class Verdict:
    """Who lied about a piece, and who were accused wrongly before."""

    liar: str
    innocent: frozenset[str] = frozenset()


class Vouchers:
    """What fellows say of the pieces that they got at first hand. The first word on a piece counts."""

    def __init__(self) -> None:
        self._by_piece: dict[int, _Voucher] = {}
        self._false: set[str] = set()
        self._early: dict[int, tuple[str, str]] = {}
        """Digest and sender of the pieces that came before anybody vouched for them."""

    def hear(self, fellow: str, firsthand: Mapping[int, str]) -> list[tuple[int, str, str]]:
        """What of all that came early is to be judged now: piece, digest and sender."""
        if fellow in self._false:
            return []
        for piece, digest in firsthand.items():
            self._by_piece.setdefault(piece, _Voucher(digest, fellow))
        return [(piece, *self._early.pop(piece)) for piece in firsthand if piece in self._early]

    def knows(self, piece: int) -> bool:
        return piece in self._by_piece

    def confirms(self, piece: int, digest: str) -> bool:
        """Whether somebody vouches for just this."""
        return piece in self._by_piece and self._by_piece[piece].digest == digest

    def came_early(self, piece: int, digest: str, sender: str) -> list[tuple[int, str, str]]:
        """A piece came before anybody vouched for it: its sender was still getting it. Itself, as `hear` gives it, if
        somebody does by now."""
        if piece in self._by_piece:
            return [(piece, digest, sender)]
        self._early[piece] = digest, sender
        return []

    def judge(self, piece: int, digest: str, sender: str) -> Verdict | None:
        """What follows when `sender` gave bytes with this digest; None when nothing speaks against them.

        Whoever contradicts the voucher is taken for the liar; when a second one gives the same bytes as the first, it
        was the voucher, and no other word of it counts.
        """
        voucher = self._by_piece.get(piece)
        if voucher is None or voucher.digest == digest:
            return None
        if sender != voucher.by and voucher.contradictions.setdefault(digest, sender) != sender:
            return Verdict(voucher.by, self._forget(voucher.by))
        return Verdict(sender)

    def _forget(self, liar: str) -> frozenset[str]:
        """Drops all that a liar vouched for. Whom only this accused."""
        self._false.add(liar)
        false = [piece for piece, voucher in self._by_piece.items() if voucher.by == liar]
        accused = {sender for piece in false for sender in self._by_piece.pop(piece).contradictions.values()}
        by_others = {sender for voucher in self._by_piece.values() for sender in voucher.contradictions.values()}
        return frozenset(accused - by_others - {liar})


def span_of(grid: PieceGrid, start: int, size_bytes: int) -> int | None:
    """The piece that `size_bytes` from `start` are, when they are a whole one."""
    piece = start // grid.piece_size_bytes
    is_whole = size_bytes > 0 and grid.range_of(piece) == ByteRange(start, start + size_bytes)
    return piece if is_whole else None
