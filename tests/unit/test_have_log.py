"""The news that leechers tell each other: a follower knows the pieces of the teller, and vouchers find wrong bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.integrity.vouchers import Vouchers, span_of
from hfpeer.transfer.picker.bitfield import bits_of, pieces_of
from hfpeer.transfer.swarm.have_log import HaveLog

PIECE = 8
TRUE, FALSE = "true", "false"


class HaveLogMachine(RuleBasedStateMachine):
    """Bytes come and are discarded in any order; a follower reads the news at any time."""

    @initialize(size_bytes=st.integers(1, 12 * PIECE), here=st.tuples(st.integers(0, 96), st.integers(0, 96)))
    def begin(self, size_bytes: int, here: tuple[int, int]) -> None:
        self.grid = PieceGrid(size_bytes, PIECE)
        self.present = RangeSet([(min(here), min(max(here), size_bytes))])
        self.have_log = HaveLog(self.grid, self.present)
        self.vouched: dict[int, str] = {}
        self.version = 0
        self.known: set[int] = set()
        self.follow_anew()

    @rule(start=st.integers(0, 95), size_bytes=st.integers(1, 40))
    def bytes_come(self, start: int, size_bytes: int) -> None:
        stop = min(start + size_bytes, self.grid.size_bytes)
        self.present.add(start, stop)
        self.have_log.came(start, stop, self.present)

    @rule(piece=st.integers(0, 11))
    def a_piece_comes_at_first_hand(self, piece: int) -> None:
        if piece < self.grid.count and not self.present.covers(*self.grid.range_of(piece)):
            start, stop = self.grid.range_of(piece)
            self.have_log.vouch(piece, f"digest {piece}")
            self.vouched[piece] = f"digest {piece}"
            self.bytes_come(start, stop - start)

    @rule(start=st.integers(0, 95), size_bytes=st.integers(1, 40))
    def bytes_turn_out_wrong(self, start: int, size_bytes: int) -> None:
        stop = min(start + size_bytes, self.grid.size_bytes)
        self.present.discard(start, stop)
        self.have_log.discard(start, stop)
        for piece in self.grid.pieces_touching(start, stop):
            self.vouched.pop(piece, None)

    @rule(claimed=st.sets(st.integers(0, 11)))
    def the_follower_listens(self, claimed: set[int]) -> None:
        news = self.have_log.since(self.version, bits_of(claimed))
        if news is None:
            self.follow_anew()
            return
        assert set(news.claimed) == claimed
        assert all(self.vouched.get(piece) == digest for piece, digest in news.firsthand.items())
        assert set(news.added) & self.vouched.keys() == news.firsthand.keys()
        self.known |= set(news.added)
        self.version = self.have_log.version
        self.assert_known()

    @rule()
    def follow_anew(self) -> None:
        first = self.have_log.piece_map()
        self.known = {piece for piece in range(self.grid.count) if first.has(piece)}
        self.version = first.version
        self.assert_known()

    def assert_known(self) -> None:
        whole = {p for p in range(self.grid.count) if self.present.covers(*self.grid.range_of(p))}
        assert self.known == whole, "the follower knows what is there, no more and no less"

    @invariant()
    def nothing_old_is_told_after_a_loss(self) -> None:
        if hasattr(self, "have_log"):
            assert self.version <= self.have_log.version


TestHaveLog = HaveLogMachine.TestCase
TestHaveLog.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


@given(st.sets(st.integers(0, 5000)))
def test_pieces_and_bits_are_the_same_set(pieces: set[int]) -> None:
    assert pieces_of(bits_of(pieces)) == tuple(sorted(pieces))


def test_only_a_whole_piece_has_a_digest() -> None:
    grid = PieceGrid(20, PIECE)
    assert [span_of(grid, *span) for span in [(0, 8), (8, 8), (16, 4)]] == [0, 1, 2]
    assert [span_of(grid, *span) for span in [(0, 7), (4, 8), (16, 3), (0, 0), (0, 16)]] == [None] * 5


def test_a_withheld_piece_is_told_when_it_is_released() -> None:
    grid, present = PieceGrid(32, PIECE), RangeSet()
    have_log = HaveLog(grid, present)
    for piece in (1, 2):
        have_log.withhold(piece, float(piece))
        present.add(*grid.range_of(piece))
        have_log.came(*grid.range_of(piece), present)
    assert have_log.piece_map().bitfield == b"\0"
    assert have_log.withheld_before(2.0) == [1]
    have_log.release(1)
    have_log.release(1)
    have_log.discard(*grid.range_of(2))
    have_log.release(2)
    assert have_log.piece_map().bitfield == bytes([0b10])


def heard(*told: tuple[str, dict[int, str]]) -> Vouchers:
    vouchers = Vouchers()
    for leecher, firsthand in told:
        vouchers.hear(leecher, firsthand)
    return vouchers


def test_bytes_are_contradicted_by_a_leecher_that_vouches_for_others() -> None:
    vouchers = heard(("owner", {1: TRUE, 2: TRUE}))
    assert vouchers.contradicted_by(1, TRUE, "owner") is None
    assert vouchers.contradicted_by(3, FALSE, "liar") is None, "no leecher vouched for it"
    for piece in (1, 2, 1):
        assert vouchers.contradicted_by(piece, FALSE, "liar") == "owner"
    assert vouchers.contradicted_by(1, TRUE, "leecher") is None


def test_a_piece_that_came_before_its_voucher_is_judged_when_that_comes() -> None:
    vouchers = Vouchers()
    assert vouchers.came_early(1, FALSE, "liar") == []
    assert vouchers.came_early(2, TRUE, "leecher") == []
    assert vouchers.hear("owner", {3: TRUE}) == []
    assert vouchers.hear("owner", {1: TRUE}) == [(1, FALSE, "liar")]
    assert vouchers.hear("owner", {1: TRUE}) == [], "once"
    assert vouchers.came_early(3, FALSE, "liar") == [(3, FALSE, "liar")], "its voucher came meanwhile"


def test_a_leecher_can_contradict_itself_and_its_last_voucher_counts() -> None:
    vouchers = heard(("liar", {1: TRUE}))
    assert vouchers.contradicted_by(1, FALSE, "liar") == "liar"
    vouchers.hear("liar", {1: FALSE})
    assert vouchers.contradicted_by(1, FALSE, "liar") is None


def test_bytes_that_another_leecher_confirms_are_taken() -> None:
    vouchers = heard(("liar", {1: FALSE}), ("owner", {1: TRUE}))
    assert vouchers.contradicted_by(1, TRUE, "leecher") is None
    assert vouchers.contradicted_by(1, TRUE, "owner") == "liar", "its own voucher confirms nothing"


def test_no_voucher_of_a_forgotten_leecher_counts() -> None:
    vouchers = heard(("liar", {1: FALSE, 2: FALSE}), ("owner", {2: TRUE}))
    vouchers.forget("liar")
    vouchers.hear("liar", {4: FALSE})
    assert [vouchers.knows(piece) for piece in (1, 2, 4)] == [False, True, False]
    assert vouchers.contradicted_by(2, FALSE, "liar") == "owner"
