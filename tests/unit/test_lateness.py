"""A slow node costs its piece, not the time of all who want the blob."""

from __future__ import annotations

from hfpeer.ranges import PieceGrid, RangeSet
from hfpeer.transfer.errands import Errands
from hfpeer.transfer.lateness import FEW_PIECES, LATE_IN_A_ROW, LATE_SECONDS
from hfpeer.transfer.overdue import WORSE_TIER_PATIENCE
from hfpeer.transfer.picker import Picker
from hfpeer.transfer.shares import Shares
from hfpeer.transfer.standing import Order
from hfpeer.wire import PieceMap

PIECE = 1024
COUNT = 64
QUICK = 0.1
AFTER = LATE_SECONDS + 0.01
SLOW, SOUND, HUB = "slow", "sound", "hub"


class Node:
    """A picker that has learnt what is usual: pieces take QUICK seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.grid = PieceGrid(COUNT * PIECE, PIECE)
        self.picker = Picker(self.grid, RangeSet(), errands=Errands(Shares("me", "blob", COUNT)))
        self.tell(SOUND, range(FEW_PIECES))
        for _ in range(FEW_PIECES):
            self.bring(self.order())

    def tell(self, name: str, pieces: range) -> None:
        bits = sum(1 << piece for piece in pieces).to_bytes(-(-COUNT // 8), "little")
        self.picker.add_source(name, 0, 1, PieceMap(self.grid.size_bytes, PIECE, 1, bits), name)

    def order(self) -> Order:
        order = self.picker.next_order(self.now)
        assert order is not None
        return order

    def order_at_hub(self) -> Order | None:
        """The next order, when fellows that claim pieces pass none of them on."""
        while (order := self.picker.next_order(self.now)) is not None and order.is_cut_through:
            self.picker.failed(order, "does not have these bytes now", self.now)
        return order

    def bring(self, order: Order, seconds: float = QUICK) -> None:
        self.now += seconds
        self.picker.received(order, order.remaining_bytes, self.now)
        self.picker.finished(order)

    def end_late(self) -> list[str]:
        """Ends what is overdue; whose it was."""
        late = self.picker.overdue(self.now)
        for order, reason in late:
            self.picker.overtaken(order, reason, self.now)
        return [order.source for order, _ in late]


def test_a_piece_that_takes_much_longer_than_usual_is_got_elsewhere() -> None:
    node = Node()
    node.tell(SLOW, range(20, 24))
    late = node.order()
    node.tell(SOUND, range(20, 24))
    node.now += AFTER
    assert node.end_late() == [SLOW]
    again = node.order()
    assert (again.source, again.start, again.stop) == (SOUND, late.start, late.stop)


def test_a_piece_is_waited_for_while_nobody_else_has_it() -> None:
    node = Node()
    node.tell(SLOW, range(20, 24))
    node.order()
    node.now += AFTER
    assert node.end_late() == []


def test_one_late_piece_is_not_held_against_its_source_but_many_are() -> None:
    node = Node()
    node.tell(SLOW, range(20, 40))
    for count in range(1, LATE_IN_A_ROW + 1):
        assert node.order().source == SLOW
        node.tell(SOUND, range(40))
        node.now += AFTER
        assert node.end_late() == [SLOW]
        node.tell(SOUND, range(0))
        assert node.picker.sources[SLOW].is_sound(node.now) == (count < LATE_IN_A_ROW)


def test_a_piece_in_time_makes_up_for_late_ones() -> None:
    node = Node()
    node.tell(SLOW, range(20, 40))
    for _ in range(2 * LATE_IN_A_ROW):
        node.order()
        node.tell(SOUND, range(40))
        node.now += AFTER
        node.end_late()
        node.tell(SOUND, range(0))
        node.bring(node.order())
        assert node.picker.sources[SLOW].is_sound(node.now)


def test_what_only_a_slow_fellow_has_is_got_over_the_wan_after_longer() -> None:
    node = Node()
    node.tell(SLOW, range(COUNT))
    late = node.order()
    node.picker.add_source(HUB, 1, 4)
    node.now += AFTER
    assert node.end_late() == []
    node.now += (WORSE_TIER_PATIENCE - 1) * LATE_SECONDS
    assert node.end_late() == [SLOW]
    asked = set()
    for _ in range(20):
        while order := node.picker.next_order(node.now):
            asked.add((order.source, order.start))
        node.now += QUICK
    assert (HUB, late.start) in asked
    assert [start for source, start in asked if source == HUB] == [late.start]


def test_a_claim_that_leads_to_nothing_counts_no_more() -> None:
    node = Node()
    node.tell(SLOW, range(0))
    node.picker.add_source(HUB, 1, 1)
    node.picker.hear(SLOW, 0, (1 << COUNT) - 1)
    for _ in range(FEW_PIECES):
        assert node.order_at_hub() is None
        node.now += QUICK
    node.picker.hear(SLOW, 0, (1 << COUNT // 2) - 1)
    for _ in range(FEW_PIECES - 1):
        if order := node.order_at_hub():
            node.bring(order)
        node.now += QUICK
    assert not any(node.picker.present.covers(*node.grid.range_of(piece)) for piece in range(FEW_PIECES, COUNT // 2))
    node.now += 10.0
    while (order := node.order_at_hub()) or node.now < 150.0:
        if order:
            node.bring(order)
        node.now += QUICK
    assert node.picker.is_complete
