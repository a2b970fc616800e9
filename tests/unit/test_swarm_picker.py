"""The picker among leechers: pickers of several nodes in lock-step, with nothing between them but news."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.picker.assignment import Assignment
from hfpeer.transfer.picker.bitfield import lowest
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.seed_policy import (
    END_HELP_DIVISOR,
    END_HELP_LEECHERS,
    END_HELP_PIECES,
    OWNER_LEFT_PIECES,
    TAKE_OVER_SHARE_SECONDS,
    SeedPolicy,
)
from hfpeer.transfer.picker.source_state import RangeRequest
from hfpeer.transfer.picker.swarm_rules import FORMING_SECONDS
from hfpeer.transfer.sources.tiers import Tier

PIECE = 8
SEED = "seed"
PEER_LIMIT = 2


class Node:
    """A picker whose requests are carried out when its swarm says so."""

    def __init__(self, name: str, count: int, tier: Tier = Tier.PEER) -> None:
        self.name = name
        self.grid = PieceGrid(count * PIECE, PIECE)
        self.picker = Picker(self.grid, RangeSet(), seed_policy=SeedPolicy(Assignment(name, "blob", count)))
        self.picker.add_source(SEED, tier, 4)
        self.has = 0
        self.is_idle = False

    def map(self) -> PieceMap:
        bits = self.has.to_bytes(-(-self.grid.count // 8), "little")
        return PieceMap(self.grid.size_bytes, PIECE, 1, bits)

    def meet(self, other: Node) -> None:
        self.picker.add_source(other.name, Tier.PEER, PEER_LIMIT, other.map(), other.name)

    def requests(self, now: float) -> list[RangeRequest]:
        given = []
        while not self.is_idle and (request := self.picker.next_request(now)):
            given.append(request)
        return given

    def refuse(self, request: RangeRequest, now: float) -> None:
        self.picker.failed(request, "does not have these bytes now", now)

    def bring(self, request: RangeRequest, now: float) -> None:
        for piece in self.grid.pieces_touching(request.start, request.stop):
            self.has |= 1 << piece
        self.picker.received(request, request.remaining_bytes, now)
        self.picker.finished(request)


@dataclass
class Swarm:
    """Nodes that all know each other, one seed, and how often that was asked for each piece."""

    nodes: dict[str, Node]
    asked: Counter[int] = field(default_factory=Counter)
    now: float = 100.0

    @classmethod
    def of(cls, names: Iterable[str], count: int, tier: Tier = Tier.PEER) -> Swarm:
        swarm = cls({})
        for name in names:
            swarm.join(Node(name, count, tier))
        return swarm

    def join(self, node: Node) -> None:
        for other in self.nodes.values():
            other.meet(node)
            node.meet(other)
        self.nodes[node.name] = node

    def leave(self, name: str) -> None:
        del self.nodes[name]
        for other in self.nodes.values():
            other.picker.swarm.note_left(name)

    def round(self, seconds: float = 0.0) -> None:
        """All nodes begin requests and tell of them, all bytes come, and all nodes tell of that."""
        requests = []
        for node in self.nodes.values():
            for request in node.requests(self.now):
                requests.append((node, request))
                if request.source == SEED:
                    self.asked.update(node.grid.pieces_touching(request.start, request.stop))
            self._tell(node)
        self.now += seconds
        for node, request in sorted(requests, key=lambda of_node: of_node[1].is_cut_through):
            if not request.is_cut_through or self._comes_to(request):
                node.bring(request, self.now)
            else:
                node.refuse(request, self.now)
        for node in self.nodes.values():
            self._tell(node)

    def _comes_to(self, request: RangeRequest) -> bool:
        """Whether the leecher that was asked to pass a piece on really got it."""
        return bool(self.nodes[request.source].has >> request.start // PIECE & 1)

    def run(self, seconds: float = 0.0, max_rounds: int = 500) -> None:
        for _ in range(max_rounds):
            if all(node.picker.is_complete for node in self.nodes.values() if not node.is_idle):
                return
            self.round(seconds)
        raise AssertionError("it never ends")

    def _tell(self, node: Node) -> None:
        for other in self.nodes.values():
            if other is not node:
                other.picker.swarm.note_news(node.name, node.has, node.picker.swarm.claims())


def named(count: int) -> list[str]:
    return [f"node-{number}" for number in range(count)]


WHERE_NO_SEED_HELPS = st.one_of(
    st.tuples(st.integers(2, 9), st.integers(1, END_HELP_DIVISOR - 1), st.just(Tier.PEER)),
    st.tuples(st.integers(2, END_HELP_LEECHERS), st.integers(1, 70), st.just(Tier.PEER)),
    st.tuples(st.integers(2, 9), st.integers(1, 70), st.sampled_from([Tier.MIRROR, Tier.ORIGIN])),
)


@given(WHERE_NO_SEED_HELPS)
def test_no_piece_is_asked_of_the_seed_twice(world: tuple[int, int, Tier]) -> None:
    nodes, count, tier = world
    swarm = Swarm.of(named(nodes), count, tier)
    swarm.run()
    assert swarm.asked == Counter(range(count))


@pytest.mark.parametrize("tier", Tier)
def test_a_node_asks_a_seed_for_few_pieces_at_a_time_each_its_own(tier: Tier) -> None:
    swarm = Swarm.of(named(3), 60, tier)
    node = swarm.nodes["node-0"]
    share = Assignment("node-0", "blob", 60).within(["node-1", "node-2"], 1)
    requests = node.requests(swarm.now)
    assert 1 <= len(requests) <= tier.swarm_requests
    for request in requests:
        (piece,) = node.grid.pieces_touching(request.start, request.stop)
        assert share >> piece & 1


def test_the_share_of_a_leecher_that_leaves_falls_to_the_others_at_once() -> None:
    swarm = Swarm.of(named(4), 64)
    for _ in range(3):
        swarm.round()
    swarm.leave("node-2")
    swarm.run()
    assert set(swarm.asked) == set(range(64))
    assert sum(swarm.asked.values()) <= 64 + 3, "only pieces that no other node has are asked for again"


def test_the_share_of_an_idle_leecher_is_taken_over_after_a_while() -> None:
    swarm = Swarm.of(named(4), 64)
    swarm.nodes["node-2"].is_idle = True
    for _ in range(60):
        swarm.round()
    share = Assignment("node-2", "blob", 64).within(["node-0", "node-1", "node-3"], 1)
    first = [piece for piece in range(64) if share >> piece & 1][:OWNER_LEFT_PIECES]
    assert set(swarm.asked) == set(range(64)) - set(first), "at first its next pieces are left to its owner"
    wake_at = swarm.nodes["node-0"].picker.wake_at(swarm.now)
    assert wake_at is not None
    assert wake_at <= swarm.now + TAKE_OVER_SHARE_SECONDS
    swarm.now += TAKE_OVER_SHARE_SECONDS
    swarm.run(0.01)
    assert swarm.asked == Counter(range(64)), "then the second owner asks for it, and no other"


def test_one_slow_leecher_does_not_keep_the_others_from_hashing() -> None:
    swarm, count = Swarm.of(named(4), 256), 256
    slow = swarm.nodes["node-2"]
    lags = []
    for turn in range(count):
        slow.is_idle = turn % 8 > 0
        swarm.round()
        others = [node.has for node in swarm.nodes.values() if node is not slow]
        lags += [has.bit_length() - lowest(~has) for has in others]
        if all(has.bit_count() == count for has in others):
            break
    assert max(lags) < 96, "its next two are left to it for eight rounds each"
    assert max(swarm.asked.values()) == 1


def test_at_the_end_a_seed_on_the_lan_helps_with_pieces_that_one_leecher_has() -> None:
    swarm = Swarm.of(named(END_HELP_LEECHERS + 1), END_HELP_PIECES * END_HELP_DIVISOR)
    swarm.run(0.01)
    twice = [piece for piece, times in swarm.asked.items() if times > 1]
    assert twice and sum(swarm.asked.values()) <= 1.1 * END_HELP_PIECES * END_HELP_DIVISOR
    far = Swarm.of(named(END_HELP_LEECHERS + 1), END_HELP_PIECES * END_HELP_DIVISOR, tier=Tier.MIRROR)
    far.run(0.01)
    assert set(far.asked.values()) == {1}, "a hub does not"


def test_the_first_missing_piece_does_not_wait_for_all_rarer_pieces() -> None:
    node, left, right = (Node(f"node-{number}", 110) for number in range(3))
    left.has = 1 | ((1 << 50) - 1) << 10
    right.has = 1 | ((1 << 50) - 1) << 60
    node.meet(left)
    node.meet(right)
    asked: list[int] = []
    while 0 not in asked:
        for request in node.requests(100.0):
            asked += node.grid.pieces_touching(request.start, request.stop)
            node.bring(request, 100.0)
    assert len(asked) < 20


@given(st.integers(2, 6), st.floats(0.01, 0.2))
def test_when_all_is_slow_few_pieces_are_asked_of_the_seed_twice(nodes: int, round_seconds: float) -> None:
    swarm = Swarm.of(named(nodes), 48)
    swarm.run(round_seconds)
    assert sum(swarm.asked.values()) <= 1.1 * 48


def test_a_late_node_gets_the_pieces_of_its_leechers_from_them() -> None:
    swarm = Swarm.of(named(2), 40)
    for _ in range(8):
        swarm.round()
    swarm.join(Node("late", 40))
    swarm.run()
    assert swarm.nodes["late"].picker.is_complete
    assert swarm.asked == Counter(range(40))


def test_the_pieces_that_a_leecher_has_or_claims_are_not_asked_of_the_seed() -> None:
    node, leecher = Node("node-0", 30), Node("node-1", 30)
    node.meet(leecher)
    node.picker.swarm.note_news("node-1", (1 << 10) - 1, ((1 << 20) - 1) & ~((1 << 10) - 1))
    asked = []
    for _ in range(100):
        for request in node.requests(100.0):
            if request.is_cut_through:
                node.refuse(request, 100.0)
                continue
            asked.append((request.source, request.start // PIECE))
            node.bring(request, 100.0)
    assert {piece for source, piece in asked if source == "node-1"} == set(range(10))
    assert all(piece >= 20 for source, piece in asked if source == SEED)
    node.picker.swarm.note_left("node-1")
    for _ in range(100):
        for request in node.requests(100.0):
            node.bring(request, 100.0)
    assert node.picker.is_complete


def test_a_leecher_without_new_pieces_is_asked_for_those_that_it_is_just_getting() -> None:
    node, leecher = Node("node-0", 30), Node("node-1", 30)
    node.meet(leecher)
    node.picker.swarm.note_news("node-1", 0b1, 0b110)
    asked = [request for request in node.requests(100.0) if request.source == "node-1"]
    assert [(request.start // PIECE, request.is_cut_through) for request in asked] == [(0, False), (1, True)]
    node.refuse(asked[1], 100.0)
    assert node.picker.sources["node-1"].is_sound(100.0), "that it did not pass it on is not held against it"
    asked = [request for request in node.requests(100.0) if request.source == "node-1"]
    assert [request.start // PIECE for request in asked] == [2], (
        "and it is not asked for that again as long as it claims it"
    )
    node.refuse(asked[0], 100.0)
    node.picker.swarm.note_news("node-1", 0b10, 0)
    asked = [request for request in node.requests(100.0) if request.source == "node-1"]
    assert [(request.start // PIECE, request.is_cut_through) for request in asked] == [(1, False)]


def test_a_piece_is_coming_when_all_its_missing_bytes_are_requested_from_a_seed() -> None:
    node = Node("node-0", 12)
    request = node.requests(100.0)[0]
    assert node.picker.swarm.is_coming(request.start, request.stop)
    node.picker.received(request, 3, 100.0)
    assert node.picker.swarm.is_coming(request.start, request.stop)
    assert node.picker.swarm.is_coming(request.start, request.start + 3), "it is here already"
    node.picker.failed(request, "broke", 100.0)
    assert not node.picker.swarm.is_coming(request.start, request.stop)
    leecher = Node("node-1", 12)
    leecher.has = 1 << request.start // PIECE
    node.meet(leecher)
    node.picker.remove_source(SEED, "left")
    (request,) = node.requests(100.0)
    assert not node.picker.swarm.is_coming(request.start, request.stop), "bytes from a leecher are not passed on"


def test_nodes_ask_a_leecher_for_different_pieces_that_only_it_has() -> None:
    swarm = Swarm.of(named(5), 64)
    contribution = swarm.nodes["node-0"]
    contribution.is_idle = True
    contribution.has = (1 << 64) - 1 & ~1
    swarm._tell(contribution)
    others = (node for node in swarm.nodes.values() if node is not contribution)
    asked = [request.start for node in others for request in node.requests(swarm.now) if request.source == "node-0"]
    assert len(asked) == 4 * PEER_LIMIT
    assert len(set(asked)) == len(asked)


def test_claims_are_the_pieces_that_are_requested_from_seeds() -> None:
    node, leecher = Node("node-0", 12), Node("node-1", 12)
    leecher.has = 0b1100
    node.meet(leecher)
    requests = node.requests(100.0)
    at_seed = {request.start // PIECE for request in requests if request.source == SEED}
    assert at_seed
    assert len(requests) > len(at_seed)
    assert node.picker.swarm.claims() == sum(1 << piece for piece in at_seed)
    for request in requests:
        node.bring(request, 100.0)
    assert node.picker.swarm.claims() == 0


def test_before_leechers_can_be_known_each_request_is_for_one_piece() -> None:
    node = Node("node-0", 12)
    assert {request.stop - request.start for request in node.requests(100.0)} == {PIECE}


@given(st.integers(1, 40), st.lists(st.sampled_from(["request", "bring", "fail", "wait"]), max_size=60))
def test_without_leechers_a_seed_policy_soon_changes_no_request(count: int, acts: list[str]) -> None:
    grid = PieceGrid(count * PIECE, PIECE)
    pickers = [Picker(grid, RangeSet(), seed_policy=own) for own in (None, SeedPolicy(Assignment("me", "blob", count)))]
    said: list[list[tuple[str, int, int]]] = [[], []]
    for picker, requests in zip(pickers, said, strict=True):
        assert picker.next_request(100.0) is None
        now = 100.0 + FORMING_SECONDS
        picker.add_source("mirror", Tier.MIRROR, 2)
        picker.add_source("origin", Tier.ORIGIN, 2)
        for act in acts:
            running = list(picker.requests.values())
            if act == "request" and (request := picker.next_request(now)):
                requests.append((request.source, request.start, request.stop))
            elif act == "bring" and running:
                picker.received(running[0], running[0].remaining_bytes, now)
                picker.finished(running[0])
            elif act == "fail" and running:
                picker.failed(running[0], "broke", now)
            elif act == "wait":
                now += 1.0
    assert said[0] == said[1]
