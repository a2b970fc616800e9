"""Stalls: a slow source costs its piece, not the time of all nodes that fetch the blob."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hfpeer.budgets import CLAIM_SECONDS, NEAR_HOLD_SECONDS
from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.picker.assignment import Assignment
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.seed_policy import SeedPolicy
from hfpeer.transfer.picker.source_state import LATE_SECONDS, MIN_SAMPLE_PIECES, RangeRequest
from hfpeer.transfer.picker.stalls import HIGHER_TIER_PATIENCE, LATE_IN_A_ROW, StallLimits
from hfpeer.transfer.picker.tier_rules import PeerRate
from hfpeer.transfer.sources.tiers import Tier

PIECE = 1024
COUNT = 64
QUICK = 0.1
AFTER = LATE_SECONDS + 0.01
SLOW, SOUND, HUB = "slow", "sound", "hub"


class Node:
    """A picker that has learnt the usual time: a piece takes QUICK seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.grid = PieceGrid(COUNT * PIECE, PIECE)
        pace = StallLimits(near_floor_bytes_per_second=0.0)  # the pieces are far smaller than real ones
        self.picker = Picker(self.grid, RangeSet(), pace, SeedPolicy(Assignment("me", "blob", COUNT)))
        self.tell(SOUND, range(MIN_SAMPLE_PIECES))
        for _ in range(MIN_SAMPLE_PIECES):
            self.bring(self.request())

    def tell(self, name: str, pieces: range) -> None:
        bits = sum(1 << piece for piece in pieces).to_bytes(-(-COUNT // 8), "little")
        self.picker.add_source(name, Tier.PEER, 1, PieceMap(self.grid.size_bytes, PIECE, 1, bits), name)

    def request(self) -> RangeRequest:
        request = self.picker.next_request(self.now)
        assert request is not None
        return request

    def request_at_hub(self) -> RangeRequest | None:
        """The next request. Leechers that claim pieces pass none of them on."""
        while (request := self.picker.next_request(self.now)) is not None and request.is_cut_through:
            self.picker.failed(request, "does not have these bytes now", self.now)
        return request

    def bring(self, request: RangeRequest, seconds: float = QUICK) -> None:
        self.now += seconds
        self.picker.received(request, request.remaining_bytes, self.now)
        self.picker.finished(request)

    def end_late(self) -> list[str]:
        """Ends the stalled requests, and returns their sources."""
        late = self.picker.overdue(self.now)
        for request, reason in late:
            self.picker.overtaken(request, reason, self.now)
        return [request.source for request, _ in late]


def test_a_piece_that_takes_much_longer_than_usual_is_requested_elsewhere() -> None:
    node = Node()
    node.tell(SLOW, range(20, 24))
    late = node.request()
    node.tell(SOUND, range(20, 24))
    node.now += AFTER
    assert node.end_late() == [SLOW]
    again = node.request()
    assert (again.source, again.start, again.stop) == (SOUND, late.start, late.stop)


def test_a_late_piece_that_no_other_source_has_is_waited_for() -> None:
    node = Node()
    node.tell(SLOW, range(20, 24))
    node.request()
    node.now += AFTER
    assert node.end_late() == []


def test_one_late_piece_costs_no_credit_but_several_in_a_row_do() -> None:
    node = Node()
    node.tell(SLOW, range(20, 40))
    for count in range(1, LATE_IN_A_ROW + 1):
        assert node.request().source == SLOW
        node.tell(SOUND, range(40))
        node.now += AFTER
        assert node.end_late() == [SLOW]
        node.tell(SOUND, range(0))
        assert node.picker.sources[SLOW].is_sound(node.now) == (count < LATE_IN_A_ROW)


def test_a_piece_in_time_makes_up_for_late_ones() -> None:
    node = Node()
    node.tell(SLOW, range(20, 40))
    for _ in range(2 * LATE_IN_A_ROW):
        node.request()
        node.tell(SOUND, range(40))
        node.now += AFTER
        node.end_late()
        node.tell(SOUND, range(0))
        node.bring(node.request())
        assert node.picker.sources[SLOW].is_sound(node.now)


def test_a_late_piece_that_only_a_higher_tier_has_too_is_waited_for_longer() -> None:
    node = Node()
    node.tell(SLOW, range(COUNT))
    late = node.request()
    node.picker.add_source(HUB, Tier.MIRROR, 4)
    node.now += AFTER
    assert node.end_late() == []
    node.now += (HIGHER_TIER_PATIENCE - 1) * LATE_SECONDS
    assert node.end_late() == [SLOW]
    asked = set()
    for _ in range(20):
        while request := node.picker.next_request(node.now):
            asked.add((request.source, request.start))
        node.now += QUICK
    assert (HUB, late.start) in asked
    assert [start for source, start in asked if source == HUB] == [late.start]


def test_a_claim_of_which_nothing_comes_expires() -> None:
    node = Node()
    node.tell(SLOW, range(0))
    node.picker.add_source(HUB, Tier.MIRROR, 1)
    node.picker.swarm.note_news(SLOW, 0, (1 << COUNT) - 1)
    for _ in range(MIN_SAMPLE_PIECES):
        assert node.request_at_hub() is None
        node.now += QUICK
    node.picker.swarm.note_news(SLOW, 0, (1 << COUNT // 2) - 1)
    for _ in range(MIN_SAMPLE_PIECES - 1):
        if request := node.request_at_hub():
            node.bring(request)
        node.now += QUICK
    assert not any(
        node.picker.present.covers(*node.grid.range_of(piece)) for piece in range(MIN_SAMPLE_PIECES, COUNT // 2)
    )
    node.now += 10.0
    while (request := node.request_at_hub()) or node.now < 150.0:
        if request:
            node.bring(request)
        node.now += QUICK
    assert node.picker.is_complete


# Before the usual time is known


class Newcomer:
    """A picker that has learnt nothing yet: a hub, and a leecher that claims."""

    def __init__(self) -> None:
        self.now = 100.0
        self.grid = PieceGrid(COUNT * PIECE, PIECE)
        self.picker = Picker(self.grid, RangeSet(), seed_policy=SeedPolicy(Assignment("me", "blob", COUNT)))
        self.picker.add_source(SLOW, Tier.PEER, 1, PieceMap(self.grid.size_bytes, PIECE, 1, bytes(COUNT // 8)), SLOW)
        self.picker.add_source(HUB, Tier.MIRROR, 1)

    def request_at_hub(self) -> RangeRequest | None:
        """The next request to the hub. The leecher passes no piece on."""
        while (request := self.picker.next_request(self.now)) is not None and request.source != HUB:
            self.picker.failed(request, "does not have these bytes now", self.now)
        return request

    def seconds_until_the_hub_has_given_all(self, claims: Callable[[int], int]) -> float:
        """`claims` gives the pieces that the leecher claims in each tenth of a second. None of them ever comes."""
        for turn in range(300):
            self.picker.swarm.note_news(SLOW, 0, claims(turn))
            while (request := self.picker.next_request(self.now)) is not None:
                if request.source == HUB:
                    self.picker.received(request, request.remaining_bytes, self.now)
                    self.picker.finished(request)
                else:
                    self.picker.failed(request, "is busy", self.now, retry_after_seconds=1.0)
            if self.picker.is_complete:
                break
            self.now += 0.1
        return self.now - 100.0


ALL = (1 << COUNT) - 1


@pytest.mark.parametrize(
    "claims",
    [
        lambda turn: ALL,
        lambda turn: ALL // 3 << turn % 2 & ALL,
        lambda turn: ALL if turn % 5 else 0,
        lambda turn: ALL >> min(turn, COUNT - 8) & ALL,
    ],
    ids=["all, again and again", "one half and the other", "on and off", "ever fewer"],
)
def test_empty_claims_hold_a_hub_back_for_a_bounded_time(claims: Callable[[int], int]) -> None:
    assert Newcomer().seconds_until_the_hub_has_given_all(claims) <= CLAIM_SECONDS + 4.0


def test_a_leecher_that_claims_piece_after_piece_and_brings_none_loses_credit() -> None:
    def a_few_more(turn: int) -> int:
        return ALL & (1 << 4 * (turn // 10 + 1)) - 1 | 1 << COUNT - 1

    node = Newcomer()
    assert node.seconds_until_the_hub_has_given_all(a_few_more) <= CLAIM_SECONDS + 4.0
    assert node.picker.sources[SLOW].credit.is_lost(node.now)


def test_a_claim_counts_for_longer_while_the_hub_is_slow_for_this_node_too() -> None:
    node = Newcomer()
    for _ in range(4):
        request = node.picker.next_request(node.now)
        if request is not None and request.source == HUB:
            break
    node.picker.swarm.note_news(SLOW, 0, 1 << COUNT - 1)
    node.picker.sources[HUB].limit = 4
    node.now += 2 * CLAIM_SECONDS
    requests = iter(lambda: node.request_at_hub(), None)
    assert all(request.start < (COUNT - 1) * PIECE for request in requests)


# A leecher that only says that it fetches too


def seconds_until_the_hub_helps(leecher_news: Callable[[Picker, int], object]) -> float:
    """How long a hub is held back by a seed on the LAN that gives 384 KiB/s, a piece in each request, beside a leecher:
    too little for a LAN, and enough for one that leechers load."""
    picker = Picker(PieceGrid(64 * MIB), RangeSet(), seed_policy=SeedPolicy(Assignment("me", "blob", 64)))
    picker.add_source("seed", Tier.PEER, 1)
    picker.add_source(HUB, Tier.ORIGIN, 1)
    picker.add_source("leecher", Tier.PEER, 1, PieceMap(64 * MIB, MIB, 1, bytes(8)), "leecher")
    now = 100.0
    for tick in range(200):
        leecher_news(picker, tick)
        while (request := picker.next_request(now)) is not None:
            if request.source == HUB:
                return now - 100.0
        now += 0.1
        for request in list(picker.requests.values()):
            picker.received(request, min(384 * 1024 // 10, request.remaining_bytes), now)
            if not request.remaining_bytes:
                picker.finished(request)
    return float("inf")


def test_a_leecher_that_gets_nothing_does_not_make_a_slow_lan_pass_for_a_loaded_one() -> None:
    assert seconds_until_the_hub_helps(lambda picker, tick: None) <= NEAR_HOLD_SECONDS + 1.0


def test_a_leecher_without_credit_does_not_either_though_it_tells_of_pieces() -> None:
    def lie(picker: Picker, tick: int) -> None:
        picker.swarm.note_news("leecher", 1 << tick // 20, 0)
        picker.sources["leecher"].credit.lose(100.0)

    assert seconds_until_the_hub_helps(lie) <= 2.0


def test_while_leechers_get_pieces_a_quarter_of_the_rate_is_enough_for_a_lan() -> None:
    def tell(picker: Picker, tick: int) -> None:
        picker.swarm.note_news("leecher", 1 << 63 - tick // 20, 0)

    assert seconds_until_the_hub_helps(tell) == float("inf")


def test_a_slow_lan_is_still_slow_when_the_next_request_begins() -> None:
    rate = PeerRate()
    rate.begin(100.0)
    rate.add(MIB // 2, 102.0)
    assert rate.is_below(MIB, 102.0)
    rate.end()
    rate.begin(102.1)
    assert rate.is_below(MIB, 102.1)
    rate.add(2 * MIB, 103.1)
    assert not rate.is_below(MIB, 103.1)
