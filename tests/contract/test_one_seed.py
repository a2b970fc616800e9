"""One node that all others name is enough: who asks for peers is asked back, and told of. Without sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hfpeer.errors import PeerUnreachable
from hfpeer.net.address import Address
from hfpeer.peers import neighbourhood as neighbourhood_module
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.protocol.messages import NodeMessage
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION
from hfpeer.peers.table.catalogs import Catalog

NODES = 30


class Lan:
    """The nodes by address. A request is a call, which is counted at the node that is asked."""

    def __init__(self) -> None:
        self.nodes: dict[Address, Node] = {}
        self.now = 1000.0

    def node(self, number: int, hub: Address | None) -> Node:
        address = Address(f"10.0.0.{number}")
        self.nodes[address] = Node(self, number, address, [] if hub is None else [hub])
        return self.nodes[address]


class Node:
    def __init__(self, lan: Lan, number: int, address: Address, named: Sequence[Address]) -> None:
        self.address, self.lan = address, lan
        self.node_id = f"{number:032x}"
        self.requests: Counter[str] = Counter()
        self.neighbourhood = Neighbourhood(self.node_id, named, clock=lambda: lan.now, own_door=str(address.port))
        self.neighbourhood._clients = Clients(lan, address)  # type: ignore[assignment]

    @property
    def knows(self) -> set[Address]:
        return set(self.neighbourhood.alive_addresses())

    async def look_around(self) -> None:
        """It asks the peers that are due, and waits until all that follows from it is over."""
        await self.neighbourhood.refresh()


class Clients:
    def __init__(self, lan: Lan, own: Address) -> None:
        self.lan, self.own = lan, own

    def of(self, key: str, addresses: Sequence[Address]) -> Client:
        return Client(self.lan, self.own, addresses[0])

    async def drop(self, addresses: Iterable[Address]) -> None: ...

    async def aclose(self) -> None: ...


class Client:
    def __init__(self, lan: Lan, own: Address, address: Address) -> None:
        self.lan, self.own, self.address = lan, own, address

    async def ask(self, what: str) -> Node:
        await asyncio.sleep(0)
        if self.address not in self.lan.nodes:
            raise PeerUnreachable("The peer does not answer.")
        asked = self.lan.nodes[self.address]
        asked.requests[what] += 1
        return asked

    async def node(self, slot: Callable[[Address], Any]) -> tuple[Address, NodeMessage]:
        asked = await self.ask("node")
        return self.address, NodeMessage(asked.node_id, str(asked.address), "1", PROTOCOL_VERSION, 1)

    async def catalog(self, after: int | None) -> Catalog:
        await self.ask("catalog")
        return Catalog(1, ())

    async def peers(self, door: str) -> tuple[str, ...]:
        asked = await self.ask("peers")
        asked.neighbourhood.asked(self.own.host, door)
        return tuple(map(str, asked.neighbourhood.alive_addresses()))


@asynccontextmanager
async def star(count: int) -> AsyncIterator[list[Node]]:
    """All nodes name the first one, and it names none."""
    lan = Lan()
    hub = lan.node(1, None)
    nodes = [hub, *(lan.node(number, hub.address) for number in range(2, count + 1))]
    try:
        yield nodes
    finally:
        await asyncio.gather(*(node.neighbourhood.stop() for node in nodes))


async def look_around(nodes: Sequence[Node]) -> None:
    """They ask their peers, as every half a minute, and what follows from it ends."""
    await asyncio.gather(*(node.neighbourhood.refresh() for node in nodes))
    while probes := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        await asyncio.wait(probes)


def assert_all_know_all(nodes: Sequence[Node]) -> None:
    addresses = {node.address for node in nodes}
    assert all(node.knows == addresses - {node.address} for node in nodes)


async def test_a_star_becomes_a_lan_and_its_requests_stay_linear() -> None:
    async with star(NODES) as nodes:
        await look_around(nodes)
        assert len(nodes[0].knows) == NODES - 1, "the hub asks back all that asked it"
        nodes[0].lan.now += neighbourhood_module.GOSSIP_SECONDS
        await look_around(nodes)
        assert_all_know_all(nodes)
        for node in nodes:
            assert max(node.requests.values()) <= 3 * NODES, "each node asks a few times, not for each that it knows"
        before = sum(sum(node.requests.values()) for node in nodes)
        await look_around(nodes)
        after = sum(sum(node.requests.values()) for node in nodes)
        assert after - before == NODES * (NODES - 1), "nothing is left to tell"


async def test_those_that_come_one_after_the_other_know_each_other_at_once() -> None:
    async with star(5) as nodes:
        for node in nodes[1:]:
            await look_around([node])
        assert_all_know_all(nodes)


async def test_a_node_that_comes_back_is_known_at_once() -> None:
    async with star(2) as nodes:
        await look_around(nodes)
        hub, one = nodes
        hub.neighbourhood.left(one.node_id)
        assert hub.knows == set()
        hub.neighbourhood.asked(one.address.host, str(one.address.port))
        await look_around([])
        assert_all_know_all(nodes)


@pytest.mark.parametrize(
    "door",
    ["9437", "10.9.9.9:80", "1", "8.8.8.8:53", "127.0.0.1:80", "host.example:9437", "", "-1", "9" * 5000, "0", "99999"],
)
async def test_what_is_told_counts_only_when_it_answers_there(door: str) -> None:
    async with star(1) as (hub,):
        for host in ("10.7.7.7", "no address", ""):
            hub.neighbourhood.asked(host, door)
        await look_around([])
        assert hub.knows == set()
        assert {peer.address.host for peer in hub.neighbourhood.others()} <= {"10.7.7.7", "10.9.9.9"}


async def test_a_node_that_is_gone_is_told_to_no_other() -> None:
    async with star(3) as nodes:
        await look_around(nodes)
        hub, one, other = nodes
        del hub.lan.nodes[one.address]
        hub.lan.now += 61.0
        for _ in range(5):
            await look_around([hub, other])
            hub.lan.now += 61.0
        assert one.address not in hub.knows | other.knows
