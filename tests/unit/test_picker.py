"""The picker: what is asked of whom, over all the orders in which things can happen."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.picker import Picker
from hfpeer.transfer.standing import Order, Pace
from hfpeer.wire import PieceMap

PIECE = 8
PACE = Pace()


def picker_of(pieces: int, present: RangeSet | None = None) -> Picker:
    return Picker(PieceGrid(pieces * PIECE, PIECE), present or RangeSet())


def some_pieces(picker: Picker, pieces: set[int]) -> PieceMap:
    bits = sum(1 << piece for piece in pieces).to_bytes(2, "little")
    return PieceMap(picker.grid.size_bytes, picker.grid.piece_size_bytes, 1, bits)


def bring(picker: Picker, order: Order, now: float) -> None:
    """All that is left of an order comes."""
    picker.received(order, order.remaining_bytes, now)
    picker.finished(order)


def must_order(picker: Picker, now: float) -> Order:
    order = picker.next_order(now)
    assert order is not None
    return order


class PickerMachine(RuleBasedStateMachine):
    """Sources come, grow, fail, fall silent and lie, while time passes; the picker's promises hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    @initialize(
        size_bytes=st.integers(1, 12 * PIECE),
        present=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), max_size=4),
    )
    def begin(self, size_bytes: int, present: list[tuple[int, int]]) -> None:
        here = RangeSet((min(pair), min(max(pair), size_bytes)) for pair in present)
        self.picker = Picker(PieceGrid(size_bytes, PIECE), here)

    @rule(name=st.integers(0, 4), tier=st.integers(0, 2), limit=st.integers(1, 3), pieces=st.sets(st.integers(0, 11)))
    def a_source_has_pieces(self, name: int, tier: int, limit: int, pieces: set[int]) -> None:
        self.picker.add_source(f"s{name}", tier, limit, some_pieces(self.picker, pieces))

    @rule(name=st.integers(0, 4), tier=st.integers(0, 2), limit=st.integers(1, 3))
    def a_source_has_everything(self, name: int, tier: int, limit: int) -> None:
        self.picker.add_source(f"s{name}", tier, limit)

    @rule(name=st.integers(0, 4), returns=st.booleans())
    def a_source_is_excluded(self, name: int, returns: bool) -> None:
        self.picker.remove_source(f"s{name}", "lied")
        if returns and f"s{name}" in self.picker.sources:
            self.picker.pardon(f"s{name}")

    @rule(reader=st.integers(0, 2), start=st.integers(0, 95), size=st.integers(0, 40))
    def a_reader_waits(self, reader: int, start: int, size: int) -> None:
        end = self.picker.grid.size_bytes
        self.picker.prefer(reader, min(start, end), min(start + size, end))

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def something_is_ordered(self) -> None:
        stops = {number: order.stop for number, order in self.picker.orders.items()}
        order = self.picker.next_order(self.now)
        if order is None:
            return
        source = self.picker.sources[order.source]
        pieces = self.picker.grid.pieces_touching(order.start, order.stop)
        is_taken_over = any(stops[number] != self.picker.orders[number].stop for number in stops)
        assert order.start < order.stop
        assert source.in_flight <= source.limit
        assert source.is_usable(self.now)
        assert all(source.pieces >> piece & 1 for piece in pieces)
        if not is_taken_over:
            for better in self.picker.sources.values():
                if better.tier < source.tier and better.is_sound(self.now):
                    assert better.is_below_floor(self.now, PACE) or not any(better.pieces >> p & 1 for p in pieces)

    @precondition(lambda self: self.picker.orders)
    @rule(data=st.data(), share=st.floats(0, 1))
    def bytes_come(self, data: st.DataObject, share: float) -> None:
        order = data.draw(st.sampled_from(list(self.picker.orders.values())))
        self.picker.received(order, max(1, int(order.remaining_bytes * share)), self.now)
        if not order.remaining_bytes:
            self.picker.finished(order)

    @precondition(lambda self: self.picker.orders)
    @rule(data=st.data(), is_permanent=st.booleans(), retry_after=st.sampled_from([None, 0.0, 50.0]))
    def an_order_fails(self, data: st.DataObject, is_permanent: bool, retry_after: float | None) -> None:
        order = data.draw(st.sampled_from(list(self.picker.orders.values())))
        self.picker.failed(order, "broke", self.now, is_permanent=is_permanent, retry_after_seconds=retry_after)

    @rule()
    def what_is_overdue_is_ended(self) -> None:
        for order, reason in self.picker.overdue(self.now):
            assert reason
            self.picker.overtaken(order, reason, self.now)

    @rule(start=st.integers(0, 90), size_bytes=st.integers(1, 30))
    def bytes_turn_out_wrong(self, start: int, size_bytes: int) -> None:
        self.picker.discard(start, min(start + size_bytes, self.picker.grid.size_bytes))

    @invariant()
    def no_byte_is_on_order_twice_or_while_it_is_present(self) -> None:
        running = sorted((order.position, order.stop) for order in self.picker.orders.values())
        assert all(before[1] <= after[0] for before, after in pairwise(running))
        for start, stop in running:
            assert list(self.picker.present.gaps(start, stop)) == [(start, stop)]

    @invariant()
    def accounts_of_orders_are_right(self) -> None:
        for source in self.picker.sources.values():
            assert source.in_flight == sum(o.source == source.name for o in self.picker.orders.values())

    @invariant()
    def it_is_stuck_exactly_when_nobody_will_help(self) -> None:
        missing = self.picker.present.gaps(0, self.picker.grid.size_bytes)
        pieces = {piece for gap in missing for piece in self.picker.grid.pieces_touching(*gap)}
        hopeful = [source for source in self.picker.sources.values() if source.out_because is None]
        can_help = any(not s.is_whole or any(s.pieces >> piece & 1 for piece in pieces) for s in hopeful)
        assert self.picker.is_stuck() == (bool(pieces) and not self.picker.orders and not can_help)

    def teardown(self) -> None:
        """Whatever has happened: with one source that has everything, it ends, and every byte has come."""
        if not hasattr(self, "picker"):
            return
        self.picker.add_source("the last resort", 2, 2)
        for _ in range(500):
            if self.picker.is_complete:
                return
            self.now += 20.0
            for order, reason in self.picker.overdue(self.now):
                self.picker.overtaken(order, reason, self.now)
            for order in list(self.picker.orders.values()):
                if order.source == "the last resort":
                    bring(self.picker, order, self.now)
                else:
                    self.picker.failed(order, "is gone", self.now, is_permanent=True)
            self.picker.next_order(self.now)
        raise AssertionError(f"does not end: {self.picker.present} of {self.picker.grid}")


PickerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPicker = PickerMachine.TestCase


def test_a_mirror_waits_while_a_peer_can_give_everything() -> None:
    picker = picker_of(8)
    picker.add_source("mirror", 1, 4)
    picker.add_source("peer", 0, 1)
    assert must_order(picker, 0.0).source == "peer"
    assert picker.next_order(0.0) is None


def test_a_mirror_gives_what_no_peer_has() -> None:
    picker = picker_of(8)
    picker.add_source("peer", 0, 2, some_pieces(picker, {0, 1, 2, 3}))
    picker.add_source("mirror", 1, 4)
    orders = iter(lambda: picker.next_order(0.0), None)
    spans = [(order.source, order.start, order.stop) for order in orders]
    assert {span for span in spans if span[0] == "mirror" and span[1] < 4 * PIECE} == set()
    assert any(span[0] == "mirror" for span in spans)


def test_a_failed_peer_is_tried_with_one_order_and_holds_nobody_back_until_it_gives() -> None:
    picker = picker_of(40)
    picker.add_source("peer", 0, 2)
    picker.add_source("mirror", 1, 1)
    picker.failed(must_order(picker, 0.0), "the connection broke", 0.0)
    assert must_order(picker, 0.1).source == "mirror"
    again = must_order(picker, 1.0)
    assert again.source == "peer"
    assert picker.next_order(1.0) is None
    picker.received(again, PIECE, 1.0)
    assert must_order(picker, 1.0).source == "peer"


def test_a_silent_peer_loses_its_order_to_a_mirror_and_does_not_get_it_back() -> None:
    picker = picker_of(4)
    picker.add_source("peer", 0, 2)
    picker.add_source("mirror", 1, 2)
    silent = must_order(picker, 0.0)
    assert picker.overdue(4.9) == []
    assert [(order, reason) for order, reason in picker.overdue(5.0)] == [(silent, "silent for 5 s")]
    picker.overtaken(silent, "silent for 5 s", 5.0)
    assert must_order(picker, 5.1).source == "mirror"


def test_however_many_peers_are_silent_a_mirror_gets_its_turn() -> None:
    picker = picker_of(1)
    for number in range(20):
        picker.add_source(f"silent {number}", 0, 2)
    picker.add_source("mirror", 1, 2)
    now = 0.0
    while (order := must_order(picker, now)).source != "mirror":
        now += PACE.silence_seconds
        picker.overtaken(order, picker.overdue(now)[0][1], now)
        assert now < 1000


def test_a_receiver_that_is_behind_is_not_held_against_the_source() -> None:
    picker = picker_of(4)
    picker.add_source("peer", 0, 1)
    picker.add_source("mirror", 1, 2)
    order = must_order(picker, 0.0)
    picker.paused(order)
    assert picker.overdue(60.0) == []
    picker.resumed(order, 60.0)
    assert picker.overdue(66.0) != []


def test_a_source_far_slower_than_its_equals_loses_the_rest_of_its_order() -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("slow", 0, 1)
    slow = must_order(picker, 0.0)
    picker.add_source("fast", 0, 1)
    fast = must_order(picker, 0.0)
    for second in range(1, 4):
        picker.received(slow, 100_000, float(second))
        picker.received(fast, 1_500_000, float(second))
    assert [(order, reason) for order, reason in picker.overdue(3.0)] == [(slow, "15 times slower than another source")]


def test_a_peer_below_the_floor_holds_back_no_mirror() -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("peer", 0, 1)
    order = must_order(picker, 0.0)
    picker.add_source("mirror", 1, 1)
    for second in range(1, 12):
        assert second >= 10 or picker.next_order(float(second)) is None
        picker.received(order, 10_000, float(second))
    assert must_order(picker, 11.0).source == "mirror"
    assert picker.overdue(11.0) == [(order, "gives less than 64 KiB/s")]


def test_an_idle_source_takes_over_half_of_what_another_has_left() -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("busy", 0, 1)
    large = must_order(picker, 0.0)
    picker.add_source("idle", 0, 1)
    while (order := must_order(picker, 0.0)).start >= 16 * MIB:
        bring(picker, order, 0.0)
    assert (order.source, order.start, order.stop) == ("idle", 8 * MIB, 16 * MIB)
    assert large.stop == 8 * MIB


def test_a_connection_is_freed_for_a_reader_and_is_not_taken_from_another() -> None:
    picker = Picker(PieceGrid(400 * MIB), RangeSet())
    picker.add_source("hub", 2, 2)
    first, second = must_order(picker, 0.0), must_order(picker, 0.0)
    picker.received(first, MIB // 2, 0.1)
    picker.prefer(1, second.start, second.stop)
    picker.prefer(2, 300 * MIB, 301 * MIB)
    assert first.stop == MIB, "it ends with the piece that is coming"
    assert second.remaining_bytes > MIB, "somebody waits for it"
    bring(picker, first, 0.2)
    urgent = must_order(picker, 0.2)
    assert urgent.start == 300 * MIB
    picker.prefer(2, 300 * MIB, 301 * MIB)
    bring(picker, urgent, 0.3)
    assert must_order(picker, 0.3).start == MIB, "what was given up is ordered again"


def test_two_peers_that_still_fetch_wait_for_each_other() -> None:
    """A peer that has given all it has is no reason to give up: it will have more."""
    picker = picker_of(4)
    picker.add_source("peer", 0, 2, some_pieces(picker, {0, 1}))
    while (order := picker.next_order(0.0)) is not None:
        bring(picker, order, 0.0)
    assert not picker.is_stuck()
    picker.add_source("peer", 0, 2, some_pieces(picker, {0, 1, 2, 3}))
    assert must_order(picker, 0.0).start == 2 * PIECE


def test_a_peer_that_did_not_have_it_is_asked_again_once_it_says_so() -> None:
    picker = picker_of(4)
    picker.add_source("peer", 0, 2, some_pieces(picker, {0}))
    picker.failed(must_order(picker, 0.0), "does not have it", 0.0, is_permanent=True)
    assert picker.is_stuck()
    picker.add_source("peer", 0, 2)
    assert must_order(picker, 5.0).source == "peer"


def test_a_liar_is_not_asked_again_whatever_it_says() -> None:
    picker = picker_of(4)
    picker.add_source("peer", 0, 2, some_pieces(picker, {0}))
    picker.remove_source("peer", "lied")
    picker.add_source("peer", 0, 2)
    assert picker.next_order(0.0) is None
    assert picker.is_stuck()


@pytest.mark.parametrize("sources", [1, 16])
def test_a_decision_over_sixty_thousand_pieces_is_quick(sources: int) -> None:
    """60 GB in the order in which things happen to come; a bound of ten times what it takes on an idle machine."""
    dice = random.Random(7)
    grid = PieceGrid(60_000 * MIB)
    picker = Picker(grid, RangeSet())
    for number in range(sources):
        bits = dice.getrandbits(grid.count).to_bytes(grid.count // 8 + 1, "little")
        picker.add_source(f"peer {number}", 0, 2, PieceMap(grid.size_bytes, MIB, 1, bits))
    picker.add_source("mirror", 1, 8)
    running: list[Order] = []
    began_at, decisions = time.process_time(), 0
    while decisions < 2000:
        while len(running) < 8:
            running.append(must_order(picker, decisions / 100))
            decisions += 1
        picker.overdue(decisions / 100)
        bring(picker, running.pop(dice.randrange(8)), decisions / 100)
    assert (time.process_time() - began_at) / decisions < 500e-6
