"""Simulates hundreds of nodes that fetch one blob: the real picker, on links that only cost time.

    python -m bench.simulation
    python -m bench.simulation --nodes 100 --source seed wan --churn 0 0.1 0.3

A discrete-event simulation. Each node has a link of the same rate in each direction, follows some neighbours, and tells
them every 0.1 s the pieces that it got and those that it claims. A sender sends pieces in the order of the requests at
the full rate of its link; a receiver receives them one after the other at the rate of its own. A cut-through piece is
sent when all of it has come. All nodes know the one seed, or, with `--source wan`, the origin, whose link is `--wan`
times as fast as the others. Churn is the part of the nodes that dies at random moments within the lower bound of the
time; as many others join.
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

from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.picker.assignment import Assignment
from hfpeer.transfer.picker.bitfield import pieces_of
from hfpeer.transfer.picker.membership import Membership
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.seed_policy import SeedPolicy
from hfpeer.transfer.picker.source_state import RangeRequest
from hfpeer.transfer.sources.tiers import Tier
from hfpeer.transfer.swarm.broadcast import NEWS_SECONDS, FollowerState

LATENCY_SECONDS = 0.0005
GRACE_SECONDS = 0.15
"""Seconds for which a node listens before its first request."""
SPREAD_SECONDS = 0.2
"""Seconds within which all nodes start."""
TICK_SECONDS = 0.25
WAKE_SECONDS = 0.02
"""Seconds between news and the decision on the next request. It saves computing and changes no result."""
FOLLOW_SILENCE_SECONDS = 15.0
"""Seconds after which followers notice that a node hangs."""
MAX_REQUESTS = 8
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
    """Sends a piece of each request in turn."""

    clock: Clock
    seconds_per_byte: float
    sent_bytes: int = 0
    is_down: bool = False
    is_hung: bool = False
    _queue: deque[tuple[Node, RangeRequest]] = field(default_factory=deque)
    _is_busy: bool = False

    def ask(self, node: Node, request: RangeRequest) -> None:
        self._queue.append((node, request))
        if not self._is_busy:
            self._send_next()

    def break_off(self) -> None:
        self.is_down = True
        for node, request in self._queue:
            node.breaks(request)
        self._queue.clear()

    def _send_next(self) -> None:
        self._is_busy = False
        while self._queue and not self.is_down and not self.is_hung:
            node, request = self._queue.popleft()
            if node.wants(request):
                self._is_busy = True
                size = min(MIB, request.stop - request.position)
                self.sent_bytes += size
                self.clock.after(size * self.seconds_per_byte, partial(self._sent, node, request, size))
                return

    def _sent(self, node: Node, request: RangeRequest, size_bytes: int) -> None:
        node.link_receives(request, size_bytes)
        self._send_next()


class Node:
    """A node that fetches the blob, from its start until it has the blob or dies."""

    def __init__(self, lan: Lan, name: str) -> None:
        self.lan, self.clock, self.name = lan, lan.clock, name
        self.membership = Membership(name, "blob", 1)
        seed_policy = SeedPolicy(Assignment(name, "blob", lan.grid.count), self.membership)
        self.picker = Picker(lan.grid, RangeSet(), seed_policy=seed_policy)
        self.up = Uplink(lan.clock, lan.seconds_per_byte)
        self.chosen: list[Node] = []
        self.followed: set[str] = set()
        self.followers: dict[str, Node] = {}
        self.started_at = self.ended_at = -1.0
        self.is_dead = False
        self.messages = 0
        self._has = self._told = self._claimed = 0
        self._telling = FollowerState()
        self._asked_for: dict[int, list[tuple[Node, RangeRequest]]] = {}
        """By piece, the cut-through requests that wait for it."""
        self._down_free_at = 0.0
        self._is_waking = False

    @property
    def is_running(self) -> bool:
        return self.started_at >= 0 and not self.is_dead

    def start(self) -> None:
        if self.is_dead:
            return
        self.started_at = self.clock.now
        tier = Tier.ORIGIN if self.lan.options.source == "wan" else Tier.PEER
        self.picker.add_source(SOURCE, tier, tier.blob_requests)
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
        self.picker.add_source(other.name, Tier.PEER, Tier.PEER.blob_requests, pieces, other.name)
        if not is_whole:
            self.membership.note_leecher(other.name, self.clock.now)
            self.membership.update(other.membership.heartbeats(self.clock.now), self.clock.now)
            self.picker.swarm.note_news(other.name, 0, other._claimed)
        self._wake_soon()

    def die(self) -> None:
        """Nothing comes from it any more. Its followers notice at once, or late if it hangs."""
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
            other.picker.swarm.note_left(self.name)
            other.membership.note_left(self.name)

    # Requests

    def wake(self) -> None:
        """Begins all requests that are possible now."""
        self._is_waking = False
        if self.ended_at >= 0 or self.is_dead or self.clock.now < self.started_at + GRACE_SECONDS:
            return
        while len(self.picker.requests) < MAX_REQUESTS and (request := self.picker.next_request(self.clock.now)):
            self._ask(request)

    def _ask(self, request: RangeRequest) -> None:
        uplink = self.lan.uplink(request.source)
        if uplink.is_down:
            self.breaks(request)
        elif request.is_cut_through:
            self.clock.after(LATENCY_SECONDS, lambda: self.lan.nodes[request.source].pass_on(self, request))
        else:
            self.clock.after(LATENCY_SECONDS, lambda: uplink.ask(self, request))

    def pass_on(self, node: Node, request: RangeRequest) -> None:
        """Another node requests a piece that this node claims; it is sent as soon as it is here."""
        if self._has >> request.position // MIB & 1:
            self.up.ask(node, request)
        elif self.is_dead or not self.picker.swarm.is_coming(request.position, request.stop):
            node.breaks(request)
        else:
            self._asked_for.setdefault(request.position // MIB, []).append((node, request))

    def _look_again(self) -> None:
        """Breaks off the cut-through requests for pieces that do not come any more."""
        waiting, self._asked_for = self._asked_for, {}
        for node, request in (asked for of_piece in waiting.values() for asked in of_piece):
            self.pass_on(node, request)

    def wants(self, request: RangeRequest) -> bool:
        return request.number in self.picker.requests and not self.is_dead

    def breaks(self, request: RangeRequest) -> None:
        if self.wants(request):
            self.picker.failed(request, "broke off", self.clock.now)

    def link_receives(self, request: RangeRequest, size_bytes: int) -> None:
        """A piece has left its sender; it arrives when the link of this node is free."""
        free_at = self._down_free_at + size_bytes * self.lan.seconds_per_byte
        self._down_free_at = max(self.clock.now + LATENCY_SECONDS, free_at)
        self.clock.after(self._down_free_at - self.clock.now, lambda: self._received(request, size_bytes))

    def _received(self, request: RangeRequest, size_bytes: int) -> None:
        if not self.wants(request):
            return
        piece = request.position // MIB
        self._has |= 1 << piece
        for node, asked in self._asked_for.pop(piece, ()):
            self.up.ask(node, asked)
        self.picker.received(request, min(size_bytes, request.remaining_bytes), self.clock.now)
        if request.remaining_bytes:
            self._ask(request)
        else:
            self.picker.finished(request)
        if self.picker.is_complete and self.ended_at < 0:
            self.ended_at = self.clock.now
            self.lan.unfinished -= 1
        self.wake()

    def _tick(self) -> None:
        for request, reason in self.picker.overdue(self.clock.now):
            self.picker.overtaken(request, reason, self.clock.now)
        self._look_again()
        self.wake()
        if self.ended_at < 0 and not self.is_dead:
            due = self.picker.wake_at(self.clock.now) or self.clock.now + TICK_SECONDS
            self.clock.after(min(TICK_SECONDS, max(0.01, due - self.clock.now)), self._tick)

    # News

    def _tell_news(self) -> None:
        if self.is_dead:
            return
        now = self.clock.now
        added, claimed = self._has & ~self._told, self.picker.swarm.claims()
        self.membership.set_candidate(self.ended_at < 0)
        members = self.membership.heartbeats(now)
        news = self._telling.fresh(PieceNews(pieces_of(added), pieces_of(claimed), members=members), now)
        if news is not None:
            for other in self.followers.values():
                if other.is_running and other.ended_at < 0:
                    other.receive_news(self, added, claimed, news.members)
            self._told, self._claimed = self._has, claimed
        for name in self.membership.to_follow(now):
            if name not in self.followed and self.lan.nodes[name].is_running:
                self.follow(self.lan.nodes[name])
        if self.ended_at < 0 or added:
            self.clock.after(NEWS_SECONDS, self._tell_news)

    def receive_news(self, other: Node, added: int, claimed: int, members: Mapping[str, int]) -> None:
        self.messages += 1
        self.membership.update(members, self.clock.now)
        self.picker.swarm.note_news(other.name, added, claimed)
        if other.ended_at >= 0:
            self.picker.add_source(other.name, Tier.PEER, Tier.PEER.blob_requests)
        self._wake_soon()

    def _wake_soon(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            self.clock.after(WAKE_SECONDS, self.wake)


class Lan:
    """All nodes, and the source of the blob."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.clock = options, Clock()
        self.grid = PieceGrid(options.pieces * MIB)
        self.seconds_per_byte = 8 / (options.mbit * 1e6)
        rate = options.wan if options.source == "wan" else 1.0
        self.source = Uplink(self.clock, self.seconds_per_byte / rate)
        self.bound_seconds = self.grid.size_bytes * self.seconds_per_byte / min(1.0, rate)
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
        """Each node chooses the nodes that it follows."""
        nodes = list(self.nodes.values())
        for node in nodes:
            others = random.sample(nodes, min(len(nodes), neighbours + 1))
            node.chosen = [other for other in others if other is not node][:neighbours]

    def report(self) -> Report:
        """The figures of the run."""
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
    """Times are relative to the lower bound, `copies` are the bytes that the source sent relative to the size of the
    blob, `messages` are those that a node received."""

    finished: int
    alive: int
    slowest: float
    median: float
    copies: float
    messages: float


def simulate(options: argparse.Namespace) -> Report:
    """One run with `options.nodes` nodes."""
    random.seed(options.seed)
    lan = Lan(options)
    lan.clock.run(lambda: not lan.unfinished, 20 * lan.bound_seconds)
    return lan.report()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--pieces", type=int, default=256, help="of 1 MiB each (default: 256)")
    parser.add_argument("--neighbours", type=int, default=16)
    parser.add_argument("--source", nargs="+", choices=("seed", "wan"), default=["wan"], help="the source of the blob")
    parser.add_argument("--mbit", type=float, default=200.0, help="rate of a link (default: 200)")
    parser.add_argument("--wan", type=float, default=0.5, help="rate of the WAN over that of a link (default: 0.5)")
    parser.add_argument("--churn", type=float, nargs="+", default=[0.0, 0.1], help="part that dies and is replaced")
    parser.add_argument("--hang", type=float, default=0.3, help="part of those that hang instead")
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
