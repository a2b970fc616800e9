"""Lies about a blob: found by the piece where fellows say what it should be, else by the whole.

A piece that came at first hand is vouched for, one at second hand compared. When the whole is wrong nevertheless, an
inquiry says whom to do without, and what those gave is fetched again from others until the whole is right. Only who
is found to have lied is blamed. Must never believe a digest that a peer says over the blob's own.
"""

from __future__ import annotations

from hfpeer.errors import CorruptData, HfpeerError
from hfpeer.ranges import PIECE_SIZE_BYTES, ByteRange
from hfpeer.transfer.blame import Inquiry, ask_once
from hfpeer.transfer.desk import Desk
from hfpeer.transfer.events import SourceFailed
from hfpeer.transfer.fellows import Vouchers, span_of
from hfpeer.transfer.standing import Order
from hfpeer.wire import PieceNews, SourceFault, piece_digest

SAMPLE_SILENCES = 3
"""How long a source may take to give one piece for comparison, in the time after which it counts as silent."""
UNVOUCHED_SECONDS = 2.0
"""How long a piece that came early is not told of while nobody vouches for it."""
COMPARED = "its bytes are being compared with others'"
_LIED = "gave bytes that are not the file's"


class Lies:
    """The judge of one fetch."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._vouchers = Vouchers()
        self._early: dict[int, tuple[int, str]] = {}
        """By order: the piece that it brings before anybody vouches for it, and its digest."""
        self._to_judge: list[tuple[int, str, str]] = []
        """Those for which a fellow vouches only now, with digest and sender, and that are not what it says."""
        self.inquiry = Inquiry(desk.partial, self._sample, self._tiers, self._whole_sources)

    def hear(self, name: str, news: PieceNews) -> None:
        """With the lock held: what a fellow vouches for."""
        self._confirm(self._vouchers.hear(name, news.firsthand))

    # By the piece

    def compare(self, order: Order, start: int, view: memoryview) -> None:
        """Takes note of the digest of a piece that came at first hand, if anybody listens, and compares one that did
        not with what its first receiver says, at once or when that says it. Raises SourceFault when the sender changed
        it."""
        piece = span_of(self._desk.grid, start, len(view))
        if piece is None:
            return
        with self._desk.lock:
            is_first_hand = self._desk.picker.sources[order.source].is_holder
            may_be_judged = order.is_cut_through or self._vouchers.knows(piece)
            if not (self._desk.picker.has_fellows if is_first_hand else may_be_judged):
                return
        digest = piece_digest(view)
        with self._desk.lock:
            if is_first_hand:
                self._desk.chronicle.vouch(piece, digest)
                return
            if not self._vouchers.knows(piece):
                self._early[order.number] = piece, digest
                self._desk.chronicle.withhold(piece, self._desk.clock())
                return
        if self._is_lie_of(order.source, piece, digest):
            self._discard(ByteRange(start, order.position))
            raise SourceFault(_LIED, is_permanent=True)

    def arrived(self, order: Order) -> None:
        """With the lock held: what an order brought last is here, and can be judged when somebody vouches for it."""
        piece, digest = self._early.pop(order.number, (None, ""))
        if piece is not None:
            self._confirm(self._vouchers.came_early(piece, digest, order.source))

    def judge_early(self) -> None:
        """Forgets what came early and is a lie. What nobody vouches for in time is told of nevertheless."""
        with self._desk.lock:
            to_judge, self._to_judge = self._to_judge, []
            for piece in self._desk.chronicle.withheld_before(self._desk.clock() - UNVOUCHED_SECONDS):
                self._release(piece)
        for piece, digest, sender in to_judge:
            if self._is_lie_of(sender, piece, digest):
                with self._desk.lock:
                    self._desk.pool.clear()
                self._discard(self._desk.grid.range_of(piece))
            else:
                with self._desk.lock:
                    self._release(piece)

    def _confirm(self, vouched: list[tuple[int, str, str]]) -> None:
        """With the lock held: of pieces that came early, those that are as a fellow says now may be told of."""
        for piece, digest, sender in vouched:
            if self._vouchers.confirms(piece, digest):
                self._release(piece)
            else:
                self._to_judge.append((piece, digest, sender))

    def _release(self, piece: int) -> None:
        """With the lock held: a piece that is here may be told of."""
        if self._desk.picker.present.covers(*self._desk.grid.range_of(piece)):
            self._desk.chronicle.release(piece)

    def _is_lie_of(self, sender: str, piece: int, digest: str) -> bool:
        """Judges a piece; whoever lied about it is blamed, and asked no more."""
        with self._desk.lock:
            verdict = self._vouchers.judge(piece, digest, sender)
            if verdict is None:
                return False
            self._desk.report.liars.append(verdict.liar)
            self._desk.picker.remove_source(verdict.liar, _LIED)
            self._desk.report.liars = [name for name in self._desk.report.liars if name not in verdict.innocent]
            for innocent in verdict.innocent - self._desk.excluded:
                self._desk.picker.pardon(innocent)
        self._desk.listener(SourceFailed(verdict.liar, str(self._desk.blob.path), _LIED, was_lying=True))
        return verdict.liar == sender

    def _discard(self, span: ByteRange) -> None:
        """Forgets what a lying piece had brought before it was known to be one."""
        if span.size_bytes:
            self._desk.partial.discard(*span)
            with self._desk.lock:
                self._desk.discard(span)
                self._desk.must_hash_again |= span.start < self._desk.hashed_bytes + PIECE_SIZE_BYTES
            self._desk.tell_readers()

    # By the whole

    def try_otherwise(self) -> None:
        """The blob is wrong: do without whom the inquiry suspects, and fetch what those gave from others.

        Raises CorruptData when every way has been tried.
        """
        excluded = self.inquiry.next_exclusion()
        if excluded is None:
            raise self._wrong_everywhere()
        wrong = {name: self.inquiry.remember(name) for name in excluded}
        for span in (span for ranges in wrong.values() for span in ranges):
            self._desk.partial.discard(*span)
        with self._desk.lock:
            for name in self._desk.excluded - excluded:
                if name in self._desk.picker.sources:
                    self._desk.picker.pardon(name)
            for name in excluded:
                self._desk.picker.remove_source(name, COMPARED)
            for span in (span for ranges in wrong.values() for span in ranges):
                self._desk.discard(span)
            self._desk.excluded = excluded
            self._desk.pool.clear()
            self._desk.progressed_at = self._desk.clock()
        self._desk.tell_readers()

    # What the inquiry asks for

    def _sample(self, name: str, span: ByteRange) -> bytes | None:
        """What a source gives for a range, asked at once and beside all orders."""
        with self._desk.lock:
            source = self._desk.sources[name]
        found = ask_once(
            lambda: source.open_range(self._desk.blob, span.start, span.stop),
            span.size_bytes,
            SAMPLE_SILENCES * self._desk.pace.silence_seconds,
            lambda: self._desk.is_over,
        )
        with self._desk.lock:
            self._desk.progressed_at = self._desk.clock()
            if found is not None:
                self._desk.report.count(name, len(found))
                self._desk.report.refetched_bytes += len(found)
        return found

    def _tiers(self) -> dict[str, int]:
        with self._desk.lock:
            sources = self._desk.picker.sources.values()
            return {source.name: source.tier for source in sources if source.out_because is None or source.is_barred}

    def _whole_sources(self) -> list[str]:
        with self._desk.lock:
            return [source.name for source in self._desk.picker.sources.values() if source.is_whole]

    def name_liars(self) -> None:
        """The whole is right now: whoever gave other bytes before has lied."""
        if not self.inquiry.is_open:
            return
        self._desk.report.liars = self.inquiry.liars()
        for name in self._desk.report.liars:
            self._desk.listener(SourceFailed(name, str(self._desk.blob.path), _LIED, was_lying=True))

    def _wrong_everywhere(self) -> HfpeerError:
        self._desk.report.liars = self.inquiry.convicted
        for name in self._desk.report.liars:
            self._desk.listener(SourceFailed(name, str(self._desk.blob.path), _LIED, was_lying=True))
        names = sorted({*self.inquiry.suspected, *self.inquiry.givers()})
        self._desk.partial.discard(0, self._desk.blob.size_bytes)
        blob = self._desk.blob
        return CorruptData(
            f"{blob.path} does not hash to {blob.digest}; it came from {', '.join(names) or 'nobody'}.",
            hint="Nothing of it was kept. Try again later, or from another network.",
            path=str(blob.path),
            sources=names,
        )
