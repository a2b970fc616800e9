"""Hundreds of nodes that want one blob, simulated: the real picker and the real shares, on links that only cost time.

    python bench/simulation.py
    python bench/simulation.py --nodes 100 --source holder wan --churn 0 0.1 0.3

A discrete-event simulation: each node has one link of the same rate each way, follows some neighbours, and tells them
every 0.1 s what it got and what it claims. Bytes go out in the order asked, a piece at a time, at the full rate of the
sender's link, and come in one after the other at that of the receiver's; what is passed on as it comes goes out here
when all of it has come. Everybody knows the one holder, or, when nobody has the blob, the hub, whose road is `--wan`
times as fast as a link. With churn that share of the nodes dies at random moments of the time that the bound takes, and
as many others join.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count, product

from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.company import Company
from hfpeer.transfer.errands import Errands
from hfpeer.transfer.fellows import Telling
from hfpeer.transfer.herald import NEWS_SECONDS
from hfpeer.transfer.picker import Picker
from hfpeer.transfer.pieces import pieces_of
from hfpeer.transfer.shares import Shares
from hfpeer.transfer.sources import CONNECTIONS
from hfpeer.transfer.standing import Order
from hfpeer.wire import PieceMap, PieceNews

LATENCY_SECONDS = 0.0005
GRACE_SECONDS = 0.15
"""How long a node listens before it asks for anything."""
SPREAD_SECONDS = 0.2
"""Within which all start."""
TICK_SECONDS = 0.25
WAKE_SECONDS = 0.02
"""How long after news a node looks what it can ask for; that saves computing, not time."""
FOLLOW_SILENCE_SECONDS = 15.0
"""After which one that hangs is missed."""
MAX_ORDERS = 8
PEER_LIMIT, HUB_LIMIT = CONNECTIONS["peer"], CONNECTIONS["origin"]
SOURCE = "source"


class Clock:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heappush(self._events, (self.now + seconds, next(self._numbers), act))

    def run(self, is_over: Callable[[], bool], limit_seconds: float) -> None:
        while self._events and self.now < limit_seconds and not is_over():
            self.now, _, act = heappop(self._events)
            act()


@dataclass
class Uplink:
    """Sends what is asked, a piece of each order in turn."""

    clock: Clock
    seconds_per_byte: float
    sent_bytes: int = 0
    is_down: bool = False
    is_hung: bool = False
    _line: deque[tuple[Node, Order]] = field(default_factory=deque)
    _is_busy: bool = False

    def ask(self, who: Node, order: Order) -> None:
        self._line.append((who, order))
        if not self._is_busy:
            self._send_next()

    def break_off(self) -> None:
        self.is_down = True
        for who, order in self._line:
            who.breaks(order)
        self._line.clear()

    def _send_next(self) -> None:
        self._is_busy = False
        while self._line and not self.is_down and not self.is_hung:
            who, order = self._line.popleft()
            if who.wants(order):
                self._is_busy = True
                size = min(MIB, order.stop - order.position)
                self.sent_bytes += size
                self.clock.after(size * self.seconds_per_byte, partial(self._sent, who, order, size))
                return

    def _sent(self, who: Node, order: Order, size_bytes: int) -> None:
        who.link_receives(order, size_bytes)
        self._send_next()


class Node:
    """One that wants the blob, from its start until it has it or dies."""

    def __init__(self, lan: Lan, name: str) -> None:
        self.lan, self.clock, self.name = lan, lan.clock, name
        self.company = Company(name, "blob", 1)
        errands = Errands(Shares(name, "blob", lan.grid.count), self.company)
        self.picker = Picker(lan.grid, RangeSet(), errands=errands)
        self.up = Uplink(lan.clock, lan.seconds_per_byte)
        self.chosen: list[Node] = []
        self.followed: set[str] = set()
        self.followers: dict[str, Node] = {}
        self.started_at = self.ended_at = -1.0
        self.is_dead = False
        self.messages = 0
        self._has = self._told = self._claimed = 0
        self._telling = Telling()
        self._asked_for: dict[int, list[tuple[Node, Order]]] = {}
        """By piece: who is to get it as soon as it has come."""
        self._down_free_at = 0.0
        self._is_waking = False

    @property
    def is_running(self) -> bool:
        return self.started_at >= 0 and not self.is_dead

    def start(self) -> None:
        if self.is_dead:
            return
        self.started_at = self.clock.now
        is_wan = self.lan.options.source == "wan"
        self.picker.add_source(SOURCE, 2 if is_wan else 0, HUB_LIMIT if is_wan else PEER_LIMIT)
        for other in self.chosen:
            if other.is_running:
                self.follow(other)
        for other in self.lan.nodes.values():
            if self in other.chosen and other.is_running:
                other.follow(self)
        self.clock.after(GRACE_SECONDS, self._tick)
        self.clock.after(random.random() * NEWS_SECONDS, self._tell_news)

    def follow(self, other: Node) -> None:
        """The other's map comes, and its news from now on."""
        self.followed.add(other.name)
        other.followers[self.name] = self
        grid, bits = self.lan.grid, other._has.to_bytes(-(-self.lan.grid.count // 8), "little")
        is_whole = other.ended_at >= 0
        pieces = PieceMap(grid.size_bytes, MIB, 1, None if is_whole else bits)
        self.picker.add_source(other.name, 0, PEER_LIMIT, pieces, other.name)
        if not is_whole:
            self.company.meet(other.name, self.clock.now)
            self.company.hear(other.company.told(self.clock.now), self.clock.now)
            self.picker.hear(other.name, 0, other._claimed)
        self._heard()

    def die(self) -> None:
        """From now on nothing comes from it; those who follow it notice at once, or when it has hung, late."""
        self.is_dead = True
        self.lan.unfinished -= self.ended_at < 0
        if random.random() < self.lan.options.hang:
            self.up.is_hung = True
            self.clock.after(FOLLOW_SILENCE_SECONDS, self._is_missed)
        else:
            self.up.break_off()
            self._look_again()
            self._is_missed()

    def _is_missed(self) -> None:
        for other in self.followers.values():
            other.picker.left(self.name)
            other.company.left(self.name)

    # What it asks for and gets

    def wake(self) -> None:
        """Orders what can be ordered now."""
        self._is_waking = False
        if self.ended_at >= 0 or self.is_dead or self.clock.now < self.started_at + GRACE_SECONDS:
            return
        while len(self.picker.orders) < MAX_ORDERS and (order := self.picker.next_order(self.clock.now)):
            self._ask(order)

    def _ask(self, order: Order) -> None:
        uplink = self.lan.uplink(order.source)
        if uplink.is_down:
            self.breaks(order)
        elif order.is_cut_through:
            self.clock.after(LATENCY_SECONDS, lambda: self.lan.nodes[order.source].pass_on(self, order))
        else:
            self.clock.after(LATENCY_SECONDS, lambda: uplink.ask(self, order))

    def pass_on(self, who: Node, order: Order) -> None:
        """Another asks for a piece that this one said it is just getting: it goes out as soon as it is here."""
        if self._has >> order.position // MIB & 1:
            self.up.ask(who, order)
        elif self.is_dead or not self.picker.is_coming(order.position, order.stop):
            who.breaks(order)
        else:
            self._asked_for.setdefault(order.position // MIB, []).append((who, order))

    def _look_again(self) -> None:
        """Who waits for what comes no more is told so."""
        waiting, self._asked_for = self._asked_for, {}
        for who, order in (asked for of_piece in waiting.values() for asked in of_piece):
            self.pass_on(who, order)

    def wants(self, order: Order) -> bool:
        return order.number in self.picker.orders and not self.is_dead

    def breaks(self, order: Order) -> None:
        if self.wants(order):
            self.picker.failed(order, "broke off", self.clock.now)

    def link_receives(self, order: Order, size_bytes: int) -> None:
        """The last byte of a piece has left its sender; it comes when the link has room for it."""
        free_at = self._down_free_at + size_bytes * self.lan.seconds_per_byte
        self._down_free_at = max(self.clock.now + LATENCY_SECONDS, free_at)
        self.clock.after(self._down_free_at - self.clock.now, lambda: self._received(order, size_bytes))

    def _received(self, order: Order, size_bytes: int) -> None:
        if not self.wants(order):
            return
        piece = order.position // MIB
        self._has |= 1 << piece
        for who, asked in self._asked_for.pop(piece, ()):
            self.up.ask(who, asked)
        self.picker.received(order, min(size_bytes, order.remaining_bytes), self.clock.now)
        if order.remaining_bytes:
            self._ask(order)
        else:
            self.picker.finished(order)
        if self.picker.is_complete and self.ended_at < 0:
            self.ended_at = self.clock.now
            self.lan.unfinished -= 1
        self.wake()

    def _tick(self) -> None:
        for order, reason in self.picker.overdue(self.clock.now):
            self.picker.overtaken(order, reason, self.clock.now)
        self._look_again()
        self.wake()
        if self.ended_at < 0 and not self.is_dead:
            due = self.picker.wake_at(self.clock.now) or self.clock.now + TICK_SECONDS
            self.clock.after(min(TICK_SECONDS, max(0.01, due - self.clock.now)), self._tick)

    # What it tells and hears

    def _tell_news(self) -> None:
        if self.is_dead:
            return
        now = self.clock.now
        added, claimed = self._has & ~self._told, self.picker.claims()
        self.company.stand(self.ended_at < 0)
        members = self.company.told(now)
        news = self._telling.fresh(PieceNews(pieces_of(added), pieces_of(claimed), company=members), now)
        if news is not None:
            for other in self.followers.values():
                if other.is_running and other.ended_at < 0:
                    other.hear(self, added, claimed, news.company)
            self._told, self._claimed = self._has, claimed
        for name in self.company.to_follow(now):
            if name not in self.followed and self.lan.nodes[name].is_running:
                self.follow(self.lan.nodes[name])
        if self.ended_at < 0 or added:
            self.clock.after(NEWS_SECONDS, self._tell_news)

    def hear(self, other: Node, added: int, claimed: int, members: Mapping[str, int]) -> None:
        self.messages += 1
        self.company.hear(members, self.clock.now)
        self.picker.hear(other.name, added, claimed)
        if other.ended_at >= 0:
            self.picker.add_source(other.name, 0, PEER_LIMIT)
        self._heard()

    def _heard(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            self.clock.after(WAKE_SECONDS, self.wake)


class Lan:
    """All nodes, and whoever has the blob."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.clock = options, Clock()
        self.grid = PieceGrid(options.pieces * MIB)
        self.seconds_per_byte = 8 / (options.mbit * 1e6)
        road = options.wan if options.source == "wan" else 1.0
        self.source = Uplink(self.clock, self.seconds_per_byte / road)
        self.bound_seconds = self.grid.size_bytes * self.seconds_per_byte / min(1.0, road)
        churning = round(options.churn * options.nodes)
        self.unfinished = options.nodes + churning
        self.nodes = {name: Node(self, name) for name in map("node-{}".format, range(self.unfinished))}
        self._introduce(options.neighbours)
        for number, node in enumerate(self.nodes.values()):
            is_late = number >= options.nodes
            self.clock.after(random.random() * (self.bound_seconds if is_late else SPREAD_SECONDS), node.start)
            if number < churning:
                self.clock.after(random.random() * self.bound_seconds, node.die)

    def uplink(self, name: str) -> Uplink:
        return self.source if name == SOURCE else self.nodes[name].up

    def _introduce(self, neighbours: int) -> None:
        """Each chooses whom it follows."""
        nodes = list(self.nodes.values())
        for node in nodes:
            others = random.sample(nodes, min(len(nodes), neighbours + 1))
            node.chosen = [other for other in others if other is not node][:neighbours]

    def report(self) -> Report:
        """What there is to say."""
        alive = [node for node in self.nodes.values() if not node.is_dead]
        ended = [node for node in alive if node.ended_at >= 0]
        times = sorted((node.ended_at - node.started_at) / self.bound_seconds for node in ended) or [0.0]
        return Report(
            finished=len(ended),
            alive=len(alive),
            slowest=times[-1],
            median=times[len(times) // 2],
            copies=self.source.sent_bytes / self.grid.size_bytes,
            messages=sum(node.messages for node in alive) / max(1, len(alive)),
        )


@dataclass(frozen=True)
class Report:
    """Times are over the bound, copies are what the holder or the hub sent over F, messages those a node heard."""

    finished: int
    alive: int
    slowest: float
    median: float
    copies: float
    messages: float


def simulate(options: argparse.Namespace) -> Report:
    """One run of a company of `options.nodes`."""
    random.seed(options.seed)
    lan = Lan(options)
    lan.clock.run(lambda: not lan.unfinished, 20 * lan.bound_seconds)
    return lan.report()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--pieces", type=int, default=256, help="of 1 MiB each (default: 256)")
    parser.add_argument("--neighbours", type=int, default=16)
    parser.add_argument("--source", nargs="+", choices=("holder", "wan"), default=["wan"], help="who has the blob")
    parser.add_argument("--mbit", type=float, default=200.0, help="rate of a link (default: 200)")
    parser.add_argument("--wan", type=float, default=0.5, help="rate of the WAN over that of a link (default: 0.5)")
    parser.add_argument("--churn", type=float, nargs="+", default=[0.0, 0.1], help="share that dies and is replaced")
    parser.add_argument("--hang", type=float, default=0.3, help="share of the dying that falls silent instead")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main() -> None:
    asked = parser().parse_args()
    print(f"{'nodes':>5}  source  churn  {'finished':>11}  slowest  median  copies  messages  CPU s")
    for nodes, source, churn in product(asked.nodes, asked.source, asked.churn):
        began_at = time.process_time()
        said = simulate(argparse.Namespace(**{**vars(asked), "nodes": nodes, "source": source, "churn": churn}))
        print(
            f"{nodes:5}  {source:6}  {churn:5.2f}  {said.finished:5}/{said.alive:5}  {said.slowest:7.2f}"
            f"  {said.median:6.2f}  {said.copies:6.3f}  {said.messages:8.0f}  {time.process_time() - began_at:5.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
