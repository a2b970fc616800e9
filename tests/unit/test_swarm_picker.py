"""The picker among fellows: pickers of several nodes in lock-step, with nothing between them but news."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.errands import (
    HELPED_FELLOWS,
    LAST_PIECES,
    LAST_SHARE,
    OWNER_LEFT_PIECES,
    TAKE_OVER_SHARE_SECONDS,
    Errands,
)
from hfpeer.transfer.picker import COMPANY_SECONDS, HOLDER_ORDERS, Picker
from hfpeer.transfer.pieces import lowest
from hfpeer.transfer.shares import Shares
from hfpeer.transfer.standing import Order
from hfpeer.wire import PieceMap

PIECE = 8
HOLDER = "holder"
PEER_LIMIT = 2


class Node:
    """A picker whose orders are carried out when its swarm says so."""

    def __init__(self, name: str, count: int, tier: int = 0) -> None:
        self.name = name
        self.grid = PieceGrid(count * PIECE, PIECE)
        self.picker = Picker(self.grid, RangeSet(), errands=Errands(Shares(name, "blob", count)))
        self.picker.add_source(HOLDER, tier, 4)
        self.has = 0
        self.is_idle = False

    def map(self) -> PieceMap:
        bits = self.has.to_bytes(-(-self.grid.count // 8), "little")
        return PieceMap(self.grid.size_bytes, PIECE, 1, bits)

    def meet(self, other: Node) -> None:
        self.picker.add_source(other.name, 0, PEER_LIMIT, other.map(), other.name)

    def orders(self, now: float) -> list[Order]:
        given = []
        while not self.is_idle and (order := self.picker.next_order(now)):
            given.append(order)
        return given

    def refuse(self, order: Order, now: float) -> None:
        self.picker.failed(order, "does not have these bytes now", now)

    def bring(self, order: Order, now: float) -> None:
        for piece in self.grid.pieces_touching(order.start, order.stop):
            self.has |= 1 << piece
        self.picker.received(order, order.remaining_bytes, now)
        self.picker.finished(order)


@dataclass
class Swarm:
    """Nodes that all know each other, one holder, and how often that was asked for each piece."""

    nodes: dict[str, Node]
    asked: Counter[int] = field(default_factory=Counter)
    now: float = 100.0

    @classmethod
    def of(cls, names: Iterable[str], count: int, tier: int = 0) -> Swarm:
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
            other.picker.left(name)

    def round(self, seconds: float = 0.0) -> None:
        """Everybody orders, everybody hears of it, everything comes, everybody hears of that."""
        orders = []
        for node in self.nodes.values():
            for order in node.orders(self.now):
                orders.append((node, order))
                if order.source == HOLDER:
                    self.asked.update(node.grid.pieces_touching(order.start, order.stop))
            self._tell(node)
        self.now += seconds
        for node, order in sorted(orders, key=lambda ordered: ordered[1].is_cut_through):
            if not order.is_cut_through or self._comes_to(order):
                node.bring(order, self.now)
            else:
                node.refuse(order, self.now)
        for node in self.nodes.values():
            self._tell(node)

    def _comes_to(self, order: Order) -> bool:
        """Whether the fellow that was asked to pass a piece on really got it."""
        return bool(self.nodes[order.source].has >> order.start // PIECE & 1)

    def run(self, seconds: float = 0.0, max_rounds: int = 500) -> None:
        for _ in range(max_rounds):
            if all(node.picker.is_complete for node in self.nodes.values() if not node.is_idle):
                return
            self.round(seconds)
        raise AssertionError("it never ends")

    def _tell(self, node: Node) -> None:
        for other in self.nodes.values():
            if other is not node:
                other.picker.hear(node.name, node.has, node.picker.claims())


def named(count: int) -> list[str]:
    return [f"node-{number}" for number in range(count)]


WHERE_NO_HOLDER_HELPS = st.one_of(
    st.tuples(st.integers(2, 9), st.integers(1, LAST_SHARE - 1), st.just(0)),
    st.tuples(st.integers(2, HELPED_FELLOWS), st.integers(1, 70), st.just(0)),
    st.tuples(st.integers(2, 9), st.integers(1, 70), st.sampled_from([1, 2])),
)


@given(WHERE_NO_HOLDER_HELPS)
def test_no_piece_is_asked_of_the_holder_twice(world: tuple[int, int, int]) -> None:
    nodes, count, tier = world
    swarm = Swarm.of(named(nodes), count, tier)
    swarm.run()
    assert swarm.asked == Counter(range(count))


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_a_node_asks_a_holder_for_few_pieces_at_a_time_each_its_own(tier: int) -> None:
    swarm = Swarm.of(named(3), 60, tier)
    node = swarm.nodes["node-0"]
    share = Shares("node-0", "blob", 60).within(["node-1", "node-2"], 1)
    orders = node.orders(swarm.now)
    assert 1 <= len(orders) <= HOLDER_ORDERS[tier]
    for order in orders:
        (piece,) = node.grid.pieces_touching(order.start, order.stop)
        assert share >> piece & 1


def test_the_share_of_a_fellow_that_leaves_falls_to_the_others_at_once() -> None:
    swarm = Swarm.of(named(4), 64)
    for _ in range(3):
        swarm.round()
    swarm.leave("node-2")
    swarm.run()
    assert set(swarm.asked) == set(range(64))
    assert sum(swarm.asked.values()) <= 64 + 3, "at most what only the one that left had is asked for again"


def test_the_share_of_a_fellow_that_does_nothing_is_taken_over_after_a_while() -> None:
    swarm = Swarm.of(named(4), 64)
    swarm.nodes["node-2"].is_idle = True
    for _ in range(60):
        swarm.round()
    share = Shares("node-2", "blob", 64).within(["node-0", "node-1", "node-3"], 1)
    first = [piece for piece in range(64) if share >> piece & 1][:OWNER_LEFT_PIECES]
    assert set(swarm.asked) == set(range(64)) - set(first), "at first its next pieces are left to its owner"
    wake_at = swarm.nodes["node-0"].picker.wake_at(swarm.now)
    assert wake_at is not None
    assert wake_at <= swarm.now + TAKE_OVER_SHARE_SECONDS
    swarm.now += TAKE_OVER_SHARE_SECONDS
    swarm.run(0.01)
    assert swarm.asked == Counter(range(64)), "and then the second owner asks for it, and nobody else"


def test_one_slow_fellow_does_not_keep_the_others_from_hashing() -> None:
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


def test_at_the_end_a_holder_at_home_helps_with_what_one_fellow_alone_has() -> None:
    swarm = Swarm.of(named(HELPED_FELLOWS + 1), LAST_PIECES * LAST_SHARE)
    swarm.run(0.01)
    twice = [piece for piece, times in swarm.asked.items() if times > 1]
    assert twice and sum(swarm.asked.values()) <= 1.1 * LAST_PIECES * LAST_SHARE
    far = Swarm.of(named(HELPED_FELLOWS + 1), LAST_PIECES * LAST_SHARE, tier=1)
    far.run(0.01)
    assert set(far.asked.values()) == {1}, "a hub does not"


def test_the_first_piece_that_is_missing_does_not_wait_for_all_that_is_rarer() -> None:
    node, left, right = (Node(f"node-{number}", 110) for number in range(3))
    left.has = 1 | ((1 << 50) - 1) << 10
    right.has = 1 | ((1 << 50) - 1) << 60
    node.meet(left)
    node.meet(right)
    asked: list[int] = []
    while 0 not in asked:
        for order in node.orders(100.0):
            asked += node.grid.pieces_touching(order.start, order.stop)
            node.bring(order, 100.0)
    assert len(asked) < 20


@given(st.integers(2, 6), st.floats(0.01, 0.2))
def test_a_slow_world_takes_over_some_pieces_but_asks_few_twice(nodes: int, round_seconds: float) -> None:
    swarm = Swarm.of(named(nodes), 48)
    swarm.run(round_seconds)
    assert sum(swarm.asked.values()) <= 1.1 * 48


def test_one_that_joins_in_the_middle_gets_what_is_there_from_its_fellows() -> None:
    swarm = Swarm.of(named(2), 40)
    for _ in range(8):
        swarm.round()
    swarm.join(Node("late", 40))
    swarm.run()
    assert swarm.nodes["late"].picker.is_complete
    assert swarm.asked == Counter(range(40))


def test_what_a_fellow_has_or_claims_is_not_asked_of_the_holder() -> None:
    node, fellow = Node("node-0", 30), Node("node-1", 30)
    node.meet(fellow)
    node.picker.hear("node-1", (1 << 10) - 1, ((1 << 20) - 1) & ~((1 << 10) - 1))
    asked = []
    for _ in range(100):
        for order in node.orders(100.0):
            if order.is_cut_through:
                node.refuse(order, 100.0)
                continue
            asked.append((order.source, order.start // PIECE))
            node.bring(order, 100.0)
    assert {piece for source, piece in asked if source == "node-1"} == set(range(10))
    assert all(piece >= 20 for source, piece in asked if source == HOLDER)
    node.picker.left("node-1")
    for _ in range(100):
        for order in node.orders(100.0):
            node.bring(order, 100.0)
    assert node.picker.is_complete


def test_a_fellow_with_nothing_else_to_give_is_asked_for_what_it_is_just_getting() -> None:
    node, fellow = Node("node-0", 30), Node("node-1", 30)
    node.meet(fellow)
    node.picker.hear("node-1", 0b1, 0b110)
    asked = [order for order in node.orders(100.0) if order.source == "node-1"]
    assert [(order.start // PIECE, order.is_cut_through) for order in asked] == [(0, False), (1, True)]
    node.refuse(asked[1], 100.0)
    assert node.picker.sources["node-1"].is_sound(100.0), "that it did not pass it on is not held against it"
    asked = [order for order in node.orders(100.0) if order.source == "node-1"]
    assert [order.start // PIECE for order in asked] == [2], (
        "and it is not asked for that again as long as it claims it"
    )
    node.refuse(asked[0], 100.0)
    node.picker.hear("node-1", 0b10, 0)
    asked = [order for order in node.orders(100.0) if order.source == "node-1"]
    assert [(order.start // PIECE, order.is_cut_through) for order in asked] == [(1, False)]


def test_a_piece_is_on_its_way_when_all_that_is_missing_is_on_order_at_a_holder() -> None:
    node = Node("node-0", 12)
    order = node.orders(100.0)[0]
    assert node.picker.is_coming(order.start, order.stop)
    node.picker.received(order, 3, 100.0)
    assert node.picker.is_coming(order.start, order.stop)
    assert node.picker.is_coming(order.start, order.start + 3), "it is here already"
    node.picker.failed(order, "broke", 100.0)
    assert not node.picker.is_coming(order.start, order.stop)
    fellow = Node("node-1", 12)
    fellow.has = 1 << order.start // PIECE
    node.meet(fellow)
    node.picker.remove_source(HOLDER, "left")
    (order,) = node.orders(100.0)
    assert not node.picker.is_coming(order.start, order.stop), "what comes from a fellow is not passed on"


def test_nodes_ask_a_fellow_each_for_other_pieces_that_only_it_has() -> None:
    swarm = Swarm.of(named(5), 64)
    giver = swarm.nodes["node-0"]
    giver.is_idle = True
    giver.has = (1 << 64) - 1 & ~1
    swarm._tell(giver)
    others = (node for node in swarm.nodes.values() if node is not giver)
    asked = [order.start for node in others for order in node.orders(swarm.now) if order.source == "node-0"]
    assert len(asked) == 4 * PEER_LIMIT
    assert len(set(asked)) == len(asked)


def test_claims_are_what_is_on_order_at_holders_and_only_that() -> None:
    node, fellow = Node("node-0", 12), Node("node-1", 12)
    fellow.has = 0b1100
    node.meet(fellow)
    orders = node.orders(100.0)
    at_holder = {order.start // PIECE for order in orders if order.source == HOLDER}
    assert at_holder
    assert len(orders) > len(at_holder)
    assert node.picker.claims() == sum(1 << piece for piece in at_holder)
    for order in orders:
        node.bring(order, 100.0)
    assert node.picker.claims() == 0


def test_before_fellows_can_be_known_a_piece_is_asked_for_at_a_time() -> None:
    node = Node("node-0", 12)
    assert {order.stop - order.start for order in node.orders(100.0)} == {PIECE}


@given(st.integers(1, 40), st.lists(st.sampled_from(["order", "bring", "fail", "wait"]), max_size=60))
def test_a_lonely_node_soon_asks_as_one_that_shares_nothing(count: int, acts: list[str]) -> None:
    grid = PieceGrid(count * PIECE, PIECE)
    pickers = [Picker(grid, RangeSet(), errands=own) for own in (None, Errands(Shares("me", "blob", count)))]
    said: list[list[tuple[str, int, int]]] = [[], []]
    for picker, orders in zip(pickers, said, strict=True):
        assert picker.next_order(100.0) is None
        now = 100.0 + COMPANY_SECONDS
        picker.add_source("mirror", 1, 2)
        picker.add_source("origin", 2, 2)
        for act in acts:
            running = list(picker.orders.values())
            if act == "order" and (order := picker.next_order(now)):
                orders.append((order.source, order.start, order.stop))
            elif act == "bring" and running:
                picker.received(running[0], running[0].remaining_bytes, now)
                picker.finished(running[0])
            elif act == "fail" and running:
                picker.failed(running[0], "broke", now)
            elif act == "wait":
                now += 1.0
    assert said[0] == said[1]
