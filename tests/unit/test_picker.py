"""The picker: its promises hold in every sequence of events, and its decisions in the cases that matter."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hfpeer.budgets import LONGEST_WITHOUT_CREDIT_SECONDS, MAX_CREDIT_ACCOUNTS
from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.source_state import RangeRequest
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.sources.tiers import Tier

PIECE = 8
PACE = StallLimits()


def picker_of(pieces: int, present: RangeSet | None = None) -> Picker:
    return Picker(PieceGrid(pieces * PIECE, PIECE), present or RangeSet())


def some_pieces(picker: Picker, pieces: set[int]) -> PieceMap:
    bits = sum(1 << piece for piece in pieces).to_bytes(2, "little")
    return PieceMap(picker.grid.size_bytes, picker.grid.piece_size_bytes, 1, bits)


def bring(picker: Picker, request: RangeRequest, now: float) -> None:
    """The rest of a request comes."""
    picker.received(request, request.remaining_bytes, now)
    picker.finished(request)


def must_request(picker: Picker, now: float) -> RangeRequest:
    request = picker.next_request(now)
    assert request is not None
    return request


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

    @rule(
        name=st.integers(0, 4), tier=st.sampled_from(Tier), limit=st.integers(1, 3), pieces=st.sets(st.integers(0, 11))
    )
    def a_source_has_pieces(self, name: int, tier: Tier, limit: int, pieces: set[int]) -> None:
        self.picker.add_source(f"s{name}", tier, limit, some_pieces(self.picker, pieces))

    @rule(name=st.integers(0, 4), tier=st.sampled_from(Tier), limit=st.integers(1, 3))
    def a_source_has_everything(self, name: int, tier: Tier, limit: int) -> None:
        self.picker.add_source(f"s{name}", tier, limit)

    @rule(name=st.integers(0, 4), returns=st.booleans())
    def a_source_is_excluded(self, name: int, returns: bool) -> None:
        self.picker.remove_source(f"s{name}", "lied")
        if returns and f"s{name}" in self.picker.sources:
            self.picker.restore_source(f"s{name}")

    @rule(reader=st.integers(0, 2), start=st.integers(0, 95), size=st.integers(0, 40))
    def a_reader_waits(self, reader: int, start: int, size: int) -> None:
        end = self.picker.grid.size_bytes
        self.picker.readers.wait_for(reader, min(start, end), min(start + size, end))

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_request_begins(self) -> None:
        stops = {number: request.stop for number, request in self.picker.requests.items()}
        request = self.picker.next_request(self.now)
        if request is None:
            return
        source = self.picker.sources[request.source]
        pieces = self.picker.grid.pieces_touching(request.start, request.stop)
        is_taken_over = any(stops[number] != self.picker.requests[number].stop for number in stops)
        assert request.start < request.stop
        assert source.in_flight <= source.limit
        assert source.is_usable(self.now)
        assert all(source.pieces >> piece & 1 for piece in pieces)
        if not is_taken_over:
            for better in self.picker.sources.values():
                if better.tier < source.tier and self.picker.holds_back(better, self.now):
                    assert not any(better.pieces >> p & 1 for p in pieces)

    @precondition(lambda self: self.picker.requests)
    @rule(data=st.data(), share=st.floats(0, 1))
    def bytes_come(self, data: st.DataObject, share: float) -> None:
        request = data.draw(st.sampled_from(list(self.picker.requests.values())))
        self.picker.received(request, max(1, int(request.remaining_bytes * share)), self.now)
        if not request.remaining_bytes:
            self.picker.finished(request)

    @precondition(lambda self: self.picker.requests)
    @rule(data=st.data(), is_permanent=st.booleans(), retry_after=st.sampled_from([None, 0.0, 50.0]))
    def a_request_fails(self, data: st.DataObject, is_permanent: bool, retry_after: float | None) -> None:
        request = data.draw(st.sampled_from(list(self.picker.requests.values())))
        self.picker.failed(request, "broke", self.now, is_permanent=is_permanent, retry_after_seconds=retry_after)

    @rule()
    def stalled_requests_end(self) -> None:
        for request, reason in self.picker.overdue(self.now):
            assert reason
            self.picker.overtaken(request, reason, self.now)

    @rule(start=st.integers(0, 90), size_bytes=st.integers(1, 30))
    def bytes_turn_out_wrong(self, start: int, size_bytes: int) -> None:
        self.picker.discard(start, min(start + size_bytes, self.picker.grid.size_bytes))

    @invariant()
    def no_byte_is_on_request_twice_or_while_it_is_present(self) -> None:
        running = sorted((request.position, request.stop) for request in self.picker.requests.values())
        assert all(before[1] <= after[0] for before, after in pairwise(running))
        for start, stop in running:
            assert list(self.picker.present.gaps(start, stop)) == [(start, stop)]

    @invariant()
    def the_free_bytes_are_counted(self) -> None:
        requested = sum(request.remaining_bytes for request in self.picker.requests.values())
        free_bytes = self.picker.grid.size_bytes - self.picker.present.total - requested
        assert self.picker._ledger.free_bytes == free_bytes

    @invariant()
    def accounts_of_requests_are_right(self) -> None:
        for source in self.picker.sources.values():
            assert source.in_flight == sum(o.source == source.name for o in self.picker.requests.values())

    @invariant()
    def it_is_stuck_exactly_when_no_source_will_help(self) -> None:
        missing = self.picker.present.gaps(0, self.picker.grid.size_bytes)
        pieces = {piece for gap in missing for piece in self.picker.grid.pieces_touching(*gap)}
        hopeful = [source for source in self.picker.sources.values() if source.excluded_because is None]
        can_help = any(not s.is_seed or any(s.pieces >> piece & 1 for piece in pieces) for s in hopeful)
        assert self.picker.is_stuck() == (bool(pieces) and not self.picker.requests and not can_help)

    def teardown(self) -> None:
        """With one source that has the whole blob the fetch ends, after any events, and every byte has come."""
        if not hasattr(self, "picker"):
            return
        self.picker.add_source("the last resort", Tier.ORIGIN, 2)
        for _ in range(500):
            if self.picker.is_complete:
                return
            self.now += 20.0
            for request, reason in self.picker.overdue(self.now):
                self.picker.overtaken(request, reason, self.now)
            for request in list(self.picker.requests.values()):
                if request.source == "the last resort":
                    bring(self.picker, request, self.now)
                else:
                    self.picker.failed(request, "is gone", self.now, is_permanent=True)
            self.picker.next_request(self.now)
        raise AssertionError(f"does not end: {self.picker.present} of {self.picker.grid}")


PickerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPicker = PickerMachine.TestCase


def test_a_mirror_waits_while_a_peer_can_give_everything() -> None:
    picker = picker_of(8)
    picker.add_source("mirror", Tier.MIRROR, 4)
    picker.add_source("peer", Tier.PEER, 1)
    assert must_request(picker, 0.0).source == "peer"
    assert picker.next_request(0.0) is None


def test_a_mirror_gives_what_no_peer_has() -> None:
    picker = picker_of(8)
    picker.add_source("peer", Tier.PEER, 2, some_pieces(picker, {0, 1, 2, 3}))
    picker.add_source("mirror", Tier.MIRROR, 4)
    requests = iter(lambda: picker.next_request(0.0), None)
    spans = [(request.source, request.start, request.stop) for request in requests]
    assert {span for span in spans if span[0] == "mirror" and span[1] < 4 * PIECE} == set()
    assert any(span[0] == "mirror" for span in spans)


def test_a_failed_peer_gets_one_request_and_holds_no_source_back_until_it_gives() -> None:
    picker = picker_of(40)
    picker.add_source("peer", Tier.PEER, 2)
    picker.add_source("mirror", Tier.MIRROR, 1)
    picker.failed(must_request(picker, 0.0), "the connection broke", 0.0)
    assert must_request(picker, 0.1).source == "mirror"
    again = must_request(picker, 1.0)
    assert again.source == "peer"
    assert picker.next_request(1.0) is None
    picker.received(again, PIECE, 1.0)
    assert must_request(picker, 1.0).source == "peer"


def test_a_silent_peer_loses_its_request_to_a_mirror_and_does_not_get_it_back() -> None:
    picker = picker_of(4)
    picker.add_source("peer", Tier.PEER, 2)
    picker.add_source("mirror", Tier.MIRROR, 2)
    silent = must_request(picker, 0.0)
    assert picker.overdue(2.9) == []
    assert [(request, reason) for request, reason in picker.overdue(3.0)] == [(silent, "silent for 3 s")]
    picker.overtaken(silent, "silent for 3 s", 3.0)
    assert must_request(picker, 3.1).source == "mirror"


def test_a_mirror_is_asked_although_twenty_peers_are_silent() -> None:
    picker = picker_of(1)
    for number in range(20):
        picker.add_source(f"silent {number}", Tier.PEER, 2)
    picker.add_source("mirror", Tier.MIRROR, 2)
    now = 0.0
    while (request := must_request(picker, now)).source != "mirror":
        now += PACE.silence_seconds
        picker.overtaken(request, picker.overdue(now)[0][1], now)
        assert now < 1000


def test_a_request_that_waits_for_this_node_is_not_silent() -> None:
    picker = picker_of(4)
    picker.add_source("peer", Tier.PEER, 1)
    picker.add_source("mirror", Tier.MIRROR, 2)
    request = must_request(picker, 0.0)
    picker.paused(request)
    assert picker.overdue(60.0) == []
    picker.resumed(request, 60.0)
    assert picker.overdue(66.0) != []


def test_a_source_much_slower_than_others_of_its_tier_loses_the_rest_of_its_request() -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("slow", Tier.PEER, 1)
    slow = must_request(picker, 0.0)
    picker.add_source("fast", Tier.PEER, 1)
    fast = must_request(picker, 0.0)
    for second in range(1, 4):
        picker.received(slow, 100_000, float(second))
        picker.received(fast, 1_500_000, float(second))
    assert [(request, reason) for request, reason in picker.overdue(3.0)] == [
        (slow, "15 times slower than another source")
    ]


def test_a_peer_below_the_floor_holds_back_no_mirror() -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("peer", Tier.PEER, 1)
    request = must_request(picker, 0.0)
    picker.add_source("mirror", Tier.MIRROR, 1)
    assert picker.next_request(0.5) is None
    for second in range(1, 5):
        picker.received(request, 10_000, float(second))
        assert (picker.overdue(float(second)) == [(request, "gives less than 64 KiB/s")]) == (second >= 3)
    picker.overtaken(request, "gives less than 64 KiB/s", 4.0)
    assert must_request(picker, 4.1).source == "mirror"


def test_a_peer_that_is_slower_than_a_lan_is_asked_beside_a_mirror_and_loses_to_a_much_faster_one() -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("peer", Tier.PEER, 1)
    slow = must_request(picker, 0.0)
    picker.add_source("mirror", Tier.MIRROR, 1)
    picker.received(slow, 100_000, 1.0)
    fast = must_request(picker, 1.0)
    assert fast.source == "mirror"
    for second in range(2, 5):
        picker.received(slow, 100_000, float(second))
        picker.received(fast, 2_000_000, float(second))
    assert picker.overdue(4.0) == [(slow, "20 times slower than another source")]


def test_a_source_without_credit_has_none_for_the_next_blob_either() -> None:
    credits = Credits()
    for now in (0.0, 10.0):
        picker = picker_of(4)
        picker.add_source("peer", Tier.PEER, 1, credit=credits.of("peer"))
        picker.add_source("mirror", Tier.MIRROR, 1)
        request = must_request(picker, now)
        assert request.source == ("mirror" if now else "peer")
        for late, reason in picker.overdue(now + 3.0):
            picker.overtaken(late, reason, now + 3.0)


def test_credit_is_lost_for_twice_as_long_each_time_and_the_latest_sources_are_remembered() -> None:
    credits, now = Credits(), 0.0
    for seconds in (30.0, 60.0, 120.0):
        credits.of("peer").lose(now)
        credits.of("peer").lose(now + 1.0)
        assert credits.of("peer").is_lost(now + seconds - 0.1)
        now += seconds
        assert not credits.of("peer").is_lost(now)
    for _ in range(20):
        credits.of("peer").lose(now)
        now += LONGEST_WITHOUT_CREDIT_SECONDS
    assert not credits.of("peer").is_lost(now), "no longer than this, ever"
    for number in range(MAX_CREDIT_ACCOUNTS):
        credits.of(f"other {number}")
    assert len(credits._accounts) == MAX_CREDIT_ACCOUNTS
    assert not credits.of("peer").losses


def test_in_the_endgame_an_idle_source_takes_over_half_of_the_rest_of_a_request() -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("busy", Tier.PEER, 1)
    large = must_request(picker, 0.0)
    picker.add_source("idle", Tier.PEER, 1)
    while (request := must_request(picker, 0.0)).start >= 16 * MIB:
        bring(picker, request, 0.0)
    assert (request.source, request.start, request.stop) == ("idle", 8 * MIB, 16 * MIB)
    assert large.stop == 8 * MIB
    assert picker._ledger.free_bytes == 0, "the half is counted once"


def test_a_request_is_cut_short_for_a_reader_unless_another_reader_waits_for_it() -> None:
    picker = Picker(PieceGrid(400 * MIB), RangeSet())
    picker.add_source("hub", Tier.ORIGIN, 2)
    first, second = must_request(picker, 0.0), must_request(picker, 0.0)
    picker.received(first, MIB // 2, 0.1)
    picker.readers.wait_for(1, second.start, second.stop)
    picker.readers.wait_for(2, 300 * MIB, 301 * MIB)
    assert first.stop == MIB, "it ends with the piece that is arriving"
    assert second.remaining_bytes > MIB, "a reader waits for it"
    bring(picker, first, 0.2)
    urgent = must_request(picker, 0.2)
    assert urgent.start == 300 * MIB
    picker.readers.wait_for(2, 300 * MIB, 301 * MIB)
    bring(picker, urgent, 0.3)
    assert must_request(picker, 0.3).start == MIB, "the rest of the first request goes out again"


def test_a_leecher_that_has_given_all_its_pieces_may_still_bring_more() -> None:
    picker = picker_of(4)
    picker.add_source("peer", Tier.PEER, 2, some_pieces(picker, {0, 1}))
    while (request := picker.next_request(0.0)) is not None:
        bring(picker, request, 0.0)
    assert not picker.is_stuck()
    picker.add_source("peer", Tier.PEER, 2, some_pieces(picker, {0, 1, 2, 3}))
    assert must_request(picker, 0.0).start == 2 * PIECE


def test_a_peer_that_had_nothing_is_asked_again_when_it_has_something() -> None:
    picker = picker_of(4)
    picker.add_source("peer", Tier.PEER, 2, some_pieces(picker, {0}))
    picker.failed(must_request(picker, 0.0), "does not have it", 0.0, is_permanent=True)
    assert picker.is_stuck()
    picker.add_source("peer", Tier.PEER, 2)
    assert must_request(picker, 5.0).source == "peer"


def test_a_removed_source_is_not_asked_again_although_it_has_something_new() -> None:
    picker = picker_of(4)
    picker.add_source("peer", Tier.PEER, 2, some_pieces(picker, {0}))
    picker.remove_source("peer", "lied")
    picker.add_source("peer", Tier.PEER, 2)
    assert picker.next_request(0.0) is None
    assert picker.is_stuck()


@pytest.mark.timed
@pytest.mark.parametrize("sources", [1, 16])
def test_a_decision_over_sixty_thousand_pieces_is_quick(sources: int) -> None:
    """60 GB whose pieces come in a random sequence. The bound is ten times what a decision takes on an idle machine; to
    look at each piece would take longer."""
    dice = random.Random(7)
    grid = PieceGrid(60_000 * MIB)
    picker = Picker(grid, RangeSet())
    for number in range(sources):
        bits = dice.getrandbits(grid.count).to_bytes(grid.count // 8 + 1, "little")
        picker.add_source(f"peer {number}", Tier.PEER, 2, PieceMap(grid.size_bytes, MIB, 1, bits))
    picker.add_source("mirror", Tier.MIRROR, 8)
    running: list[RangeRequest] = []
    began_at, decisions = time.process_time(), 0
    while decisions < 2000:
        while len(running) < 8:
            running.append(must_request(picker, decisions / 100))
            decisions += 1
        picker.overdue(decisions / 100)
        bring(picker, running.pop(dice.randrange(8)), decisions / 100)
    assert (time.process_time() - began_at) / decisions < 2.5e-3
