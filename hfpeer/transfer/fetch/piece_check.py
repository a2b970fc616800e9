"""Finds wrong pieces at once, by what other leechers say of them.

A leecher vouches for a piece that came to it at first hand: it tells the digest. Where a piece that came at second hand
differs, a seed is asked for it, and its bytes say whether the sender or the voucher told a wrong digest; until then
neither is believed. A digest that a peer tells never counts against the digest of the blob, and nothing here names a
liar: `whole_check` does, when the blob is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hfpeer.budgets import DISPUTE_SECONDS
from hfpeer.ranges import PieceGrid
from hfpeer.transfer.integrity.vouchers import Vouchers, span_of
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.source_state import RangeRequest
from hfpeer.transfer.swarm.have_log import HaveLog

UNVOUCHED_SECONDS = 2.0
"""Seconds for which peers are not told of a piece that came before a leecher vouched for it."""
COMPARED = "its bytes are being compared with others'"
"""Why a source is not asked while it may be a liar."""
GAVE_WRONG_BYTES = "gave bytes that are not the file's"
VOUCHED_WRONGLY = "said that the file has bytes that it does not have"


@dataclass(frozen=True)
class Contradiction:
    """A seed gave another piece than a source gave or vouched for: `digest` is what the source said or gave."""

    piece: int
    digest: str
    reason: str
    """The lie, if the seed is right."""


@dataclass(frozen=True)
class _Dispute:
    """`sender` gave a piece with `digest`; `voucher` says that it has `vouched`."""

    piece: int
    digest: str
    sender: str
    voucher: str
    vouched: str
    since: float

    @property
    def parties(self) -> tuple[str, str]:
        return self.sender, self.voucher


class PieceCheck:
    """The pieces of one fetch. Not thread-safe: `FetchState` guards it, the picker and the log."""

    def __init__(self, grid: PieceGrid, picker: Picker, have_log: HaveLog) -> None:
        self._grid = grid
        self._picker = picker
        self._have_log = have_log
        self._vouchers = Vouchers()
        self._early: dict[int, tuple[int, str]] = {}
        """By request: the piece that it brings before a leecher vouches for it, and its digest."""
        self._to_judge: list[tuple[int, str, str]] = []
        """Pieces that differ from what a leecher told after they came, with digest and sender."""
        self._asked: dict[int, _Dispute] = {}
        """By piece: the disputes that a seed is asked about."""
        self._undecided: list[_Dispute] = []
        """Other disputes of the same sources, which wait for the answer."""
        self._wrong: list[int] = []
        """Pieces of a sender that a seed has contradicted."""
        self._contradictions: dict[str, Contradiction] = {}

    @property
    def contradictions(self) -> dict[str, Contradiction]:
        """The first contradiction of each source that seeds have contradicted."""
        return dict(self._contradictions)

    def hear(self, name: str, firsthand: Mapping[int, str]) -> None:
        """A leecher vouches for pieces: their digests."""
        self._confirm(self._vouchers.hear(name, firsthand))

    def piece_to_compare(self, request: RangeRequest, start: int, size_bytes: int) -> int | None:
        """The piece that a request has brought whole, if its digest is needed for `is_disputed`."""
        piece = span_of(self._grid, start, size_bytes)
        if piece is None:
            return None
        if self._picker.sources[request.source].gives_first_hand:
            return piece if self._picker.swarm.has_leechers else None
        return piece if request.is_cut_through or self._vouchers.knows(piece) else None

    def is_disputed(self, request: RangeRequest, piece: int, digest: str, now: float) -> bool:
        """Notes what a piece is that is about to be written. True if it is not to be used, because a leecher says that
        it is another, and a seed is asked for it."""
        if self._picker.sources[request.source].gives_first_hand:
            self._have_log.vouch(piece, digest)
            self._decide(piece, digest, now)
            return False
        if not self._vouchers.knows(piece):
            self._early[request.number] = piece, digest
            self._have_log.withhold(piece, now)
            return False
        return self._is_seed_asked(piece, digest, request.source, now)

    def arrived(self, request: RangeRequest) -> None:
        """The piece that a request brought last is on disk."""
        piece, digest = self._early.pop(request.number, (None, ""))
        if piece is not None:
            self._confirm(self._vouchers.came_early(piece, digest, request.source))

    def judge(self, now: float) -> list[int]:
        """Judges what can be judged by now: the pieces found wrong, which the caller discards.

        Ends the disputes that no seed decides in time, and releases the pieces that no leecher vouches for in time.
        """
        for dispute in [one for one in self._asked.values() if not self._may_be_decided(one, now)]:
            del self._asked[dispute.piece]
            self._picker.settle(dispute.piece, dispute.parties, now)
            self._vouchers.forget(dispute.voucher)
            self._resume_undecided()
        to_judge, self._to_judge = self._to_judge, []
        wrong, self._wrong = self._wrong, []
        for piece, digest, sender in to_judge:
            if self._is_seed_asked(piece, digest, sender, now):
                wrong.append(piece)
            elif not any(piece == dispute.piece for dispute in self._undecided):
                self._release(piece)
        waiting = {dispute.piece for dispute in self._undecided}
        for piece in self._have_log.withheld_before(now - UNVOUCHED_SECONDS):
            if piece not in waiting:
                self._release(piece)
        return wrong

    def _confirm(self, vouched: list[tuple[int, str, str]]) -> None:
        """Releases the pieces that came early and are as a leecher says now; the others are to be judged."""
        for piece, digest, sender in vouched:
            if self._vouchers.contradicted_by(piece, digest, sender) is None:
                self._release(piece)
            else:
                self._to_judge.append((piece, digest, sender))

    def _is_seed_asked(self, piece: int, digest: str, sender: str, now: float) -> bool:
        """Whether a leecher vouches for another piece than `sender` gave, and a seed is asked. The piece is kept while
        another dispute of the two is open, and where no seed can be asked."""
        voucher = self._vouchers.contradicted_by(piece, digest, sender)
        if voucher is None:
            return False
        vouched = self._vouchers.digest_by(voucher, piece) or ""
        dispute = _Dispute(piece, digest, sender, voucher, vouched, now)
        if any(name in one.parties for one in self._asked.values() for name in dispute.parties):
            self._have_log.withhold(piece, now)
            self._undecided.append(dispute)
            return False
        if not self._may_be_decided(dispute, now):
            self._vouchers.forget(voucher)
            return False
        self._asked[piece] = dispute
        self._picker.dispute(piece, dispute.parties, now + DISPUTE_SECONDS)
        return True

    def _may_be_decided(self, dispute: _Dispute, now: float) -> bool:
        return now - dispute.since < DISPUTE_SECONDS and self._picker.has_seed(now, but=dispute.parties)

    def _decide(self, piece: int, digest: str, now: float) -> None:
        """A seed has given a piece. If that was disputed, a source that it contradicts is not believed any more."""
        dispute = self._asked.pop(piece, None)
        if dispute is None:
            return
        self._picker.settle(piece, dispute.parties, now)
        if dispute.vouched != digest:
            found = Contradiction(piece, dispute.vouched, VOUCHED_WRONGLY)
            self._contradictions.setdefault(dispute.voucher, found)
            self._vouchers.forget(dispute.voucher)
        if dispute.digest != digest:
            self._contradictions.setdefault(dispute.sender, Contradiction(piece, dispute.digest, GAVE_WRONG_BYTES))
            self._picker.remove_source(dispute.sender, COMPARED)
        self._resume_undecided()

    def _resume_undecided(self) -> None:
        """A dispute has ended; the others of its sources can be judged."""
        undecided, self._undecided = self._undecided, []
        for one in undecided:
            found = self._contradictions.get(one.sender)
            if found is not None and found.reason == GAVE_WRONG_BYTES:
                self._wrong.append(one.piece)
            else:
                self._to_judge.append((one.piece, one.digest, one.sender))

    def _release(self, piece: int) -> None:
        """Peers may be told of a piece, if it is here."""
        if self._picker.present.covers(*self._grid.range_of(piece)):
            self._have_log.release(piece)
