"""What fellows tell each other: a follower's map is the teller's, and only liars are named."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.fellows import Chronicle, Verdict, Vouchers, span_of
from hfpeer.transfer.pieces import bits_of, pieces_of

PIECE = 8
TRUE, FALSE, OTHER = "true", "false", "other"


class ChronicleMachine(RuleBasedStateMachine):
    """Bytes come and are lost in any order; a follower listens whenever it likes."""

    @initialize(size_bytes=st.integers(1, 12 * PIECE), here=st.tuples(st.integers(0, 96), st.integers(0, 96)))
    def begin(self, size_bytes: int, here: tuple[int, int]) -> None:
        self.grid = PieceGrid(size_bytes, PIECE)
        self.present = RangeSet([(min(here), min(max(here), size_bytes))])
        self.chronicle = Chronicle(self.grid, self.present)
        self.vouched: dict[int, str] = {}
        self.version = 0
        self.known: set[int] = set()
        self.follow_anew()

    @rule(start=st.integers(0, 95), size_bytes=st.integers(1, 40))
    def bytes_come(self, start: int, size_bytes: int) -> None:
        stop = min(start + size_bytes, self.grid.size_bytes)
        self.present.add(start, stop)
        self.chronicle.came(start, stop, self.present)

    @rule(piece=st.integers(0, 11))
    def a_piece_comes_at_first_hand(self, piece: int) -> None:
        if piece < self.grid.count and not self.present.covers(*self.grid.range_of(piece)):
            start, stop = self.grid.range_of(piece)
            self.chronicle.vouch(piece, f"digest {piece}")
            self.vouched[piece] = f"digest {piece}"
            self.bytes_come(start, stop - start)

    @rule(start=st.integers(0, 95), size_bytes=st.integers(1, 40))
    def bytes_turn_out_wrong(self, start: int, size_bytes: int) -> None:
        stop = min(start + size_bytes, self.grid.size_bytes)
        self.present.discard(start, stop)
        self.chronicle.lost(start, stop)
        for piece in self.grid.pieces_touching(start, stop):
            self.vouched.pop(piece, None)

    @rule(claimed=st.sets(st.integers(0, 11)))
    def the_follower_listens(self, claimed: set[int]) -> None:
        news = self.chronicle.since(self.version, bits_of(claimed))
        if news is None:
            self.follow_anew()
            return
        assert set(news.claimed) == claimed
        assert all(self.vouched.get(piece) == digest for piece, digest in news.firsthand.items())
        assert set(news.added) & self.vouched.keys() == news.firsthand.keys()
        self.known |= set(news.added)
        self.version = self.chronicle.version
        self.assert_known()

    @rule()
    def follow_anew(self) -> None:
        first = self.chronicle.piece_map()
        self.known = {piece for piece in range(self.grid.count) if first.has(piece)}
        self.version = first.version
        self.assert_known()

    def assert_known(self) -> None:
        whole = {p for p in range(self.grid.count) if self.present.covers(*self.grid.range_of(p))}
        assert self.known == whole, "the follower knows what is there, no more and no less"

    @invariant()
    def nothing_old_is_told_after_a_loss(self) -> None:
        if hasattr(self, "chronicle"):
            assert self.version <= self.chronicle.version


TestChronicle = ChronicleMachine.TestCase
TestChronicle.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


@given(st.sets(st.integers(0, 5000)))
def test_pieces_and_bits_are_the_same_set(pieces: set[int]) -> None:
    assert pieces_of(bits_of(pieces)) == tuple(sorted(pieces))


def test_only_a_whole_piece_has_a_digest() -> None:
    grid = PieceGrid(20, PIECE)
    assert [span_of(grid, *span) for span in [(0, 8), (8, 8), (16, 4)]] == [0, 1, 2]
    assert [span_of(grid, *span) for span in [(0, 7), (4, 8), (16, 3), (0, 0), (0, 16)]] == [None] * 5


def test_a_piece_that_is_withheld_is_told_of_when_it_is_released() -> None:
    grid, present = PieceGrid(32, PIECE), RangeSet()
    chronicle = Chronicle(grid, present)
    for piece in (1, 2):
        chronicle.withhold(piece, float(piece))
        present.add(*grid.range_of(piece))
        chronicle.came(*grid.range_of(piece), present)
    assert chronicle.piece_map().bits == b"\0"
    assert chronicle.withheld_before(2.0) == [1]
    chronicle.release(1)
    chronicle.release(1)
    chronicle.lost(*grid.range_of(2))
    chronicle.release(2)
    assert chronicle.piece_map().bits == bytes([0b10])


def heard(*words: tuple[str, dict[int, str]]) -> Vouchers:
    vouchers = Vouchers()
    for fellow, firsthand in words:
        vouchers.hear(fellow, firsthand)
    return vouchers


def test_who_gives_other_bytes_than_were_vouched_for_is_named_each_time() -> None:
    vouchers = heard(("owner", {1: TRUE, 2: TRUE}))
    assert vouchers.judge(1, TRUE, "owner") is None
    assert vouchers.judge(3, FALSE, "liar") is None, "nobody vouched for it"
    for piece in (1, 2, 1):
        assert vouchers.judge(piece, FALSE, "liar") == Verdict("liar")
    assert vouchers.judge(1, TRUE, "fellow") is None


def test_what_came_before_anybody_vouched_for_it_is_judged_when_somebody_does() -> None:
    vouchers = Vouchers()
    assert vouchers.came_early(1, FALSE, "liar") == []
    assert vouchers.came_early(2, TRUE, "fellow") == []
    assert vouchers.hear("owner", {3: TRUE}) == []
    assert vouchers.hear("owner", {1: TRUE}) == [(1, FALSE, "liar")]
    assert vouchers.hear("owner", {1: TRUE}) == [], "once"
    assert vouchers.came_early(3, FALSE, "liar") == [(3, FALSE, "liar")], "somebody did meanwhile"


def test_one_who_breaks_its_own_word_is_named() -> None:
    vouchers = heard(("liar", {1: TRUE}))
    assert vouchers.judge(1, FALSE, "liar") == Verdict("liar")
    assert vouchers.judge(1, TRUE, "fellow") is None


def test_a_false_voucher_is_named_by_two_who_agree_and_all_whom_it_accused_are_cleared() -> None:
    vouchers = heard(("liar", {1: FALSE, 2: FALSE, 3: FALSE}))
    assert vouchers.judge(1, TRUE, "first") == Verdict("first")
    assert vouchers.judge(2, TRUE, "second") == Verdict("second")
    assert vouchers.judge(1, TRUE, "third") == Verdict("liar", frozenset({"first", "second"}))
    assert not vouchers.knows(3), "no other word of it counts"
    vouchers.hear("liar", {1: FALSE, 4: FALSE})
    assert not vouchers.knows(1)
    assert not vouchers.knows(4)
    vouchers.hear("owner", {1: TRUE})
    assert vouchers.judge(1, FALSE, "liar") == Verdict("liar")


def test_two_liars_who_disagree_do_not_bring_down_an_honest_voucher() -> None:
    vouchers = heard(("owner", {1: TRUE}))
    assert vouchers.judge(1, FALSE, "liar") == Verdict("liar")
    assert vouchers.judge(1, OTHER, "another") == Verdict("another")
    assert vouchers.judge(1, TRUE, "fellow") is None


def test_who_is_accused_by_an_honest_voucher_too_stays_named() -> None:
    vouchers = heard(("liar", {1: FALSE}), ("owner", {2: TRUE}))
    assert vouchers.judge(2, OTHER, "accomplice") == Verdict("accomplice")
    assert vouchers.judge(1, TRUE, "accomplice") == Verdict("accomplice")
    assert vouchers.judge(1, TRUE, "fellow") == Verdict("liar")


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdL"), st.booleans()), max_size=30),
    st.dictionaries(st.integers(0, 3), st.sampled_from("abcd")),
)
def test_with_honest_vouchers_nobody_but_the_liar_is_ever_named(
    gifts: list[tuple[int, str, bool]], owners: dict[int, str]
) -> None:
    vouchers = heard(*((owner, {piece: TRUE}) for piece, owner in owners.items()))
    for piece, sender, is_false in gifts:
        is_lie = sender == "L" and is_false
        verdict = vouchers.judge(piece, FALSE if is_lie else TRUE, sender)
        assert verdict == (Verdict("L") if is_lie and piece in owners else None)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcd")), max_size=30), st.sets(st.integers(0, 3)))
def test_in_the_end_nobody_but_the_false_voucher_is_out(gifts: list[tuple[int, str]], lies: set[int]) -> None:
    vouchers = heard(("L", dict.fromkeys(lies, FALSE)))
    out: set[str] = set()
    for piece, sender in gifts:
        if sender not in out and (verdict := vouchers.judge(piece, TRUE, sender)):
            out = (out | {verdict.liar}) - verdict.innocent
    assert "L" not in out or out == {"L"}
    assert all(vouchers.knows(piece) for piece in lies) or "L" in out
