"""Several ways to one peer: the one that proves faster is used, and left when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hfpeer.names import Digest
from hfpeer.net.address import Address
from hfpeer.net.body import Body, SourceFault
from hfpeer.peers.interfaces import ways_among
from hfpeer.peers.ranges.ways import SILENT_SECONDS, TRY_AGAIN_SECONDS, Ways
from hfpeer.ranges import MIB

DIGEST = Digest("sha256", "0" * 64)
CHUNK_BYTES = MIB // 4


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Link:
    """A `RangeClient` at one address, whose bodies take the clock's time."""

    def __init__(self, clock: Clock, rate: float, fault: SourceFault | None = None) -> None:
        self.clock, self.rate, self.fault = clock, rate, fault
        self.asked = 0

    def open_range(self, digest: Digest, start: int, stop: int, **_: Any) -> Body:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return LinkBody(self, stop - start)


class LinkBody:
    def __init__(self, link: Link, size_bytes: int) -> None:
        self.link, self.left = link, size_bytes
        self.is_closed = False

    def readinto(self, view: memoryview) -> int:
        if self.link.fault is not None:
            raise self.link.fault
        size = min(CHUNK_BYTES, self.left, len(view))
        self.link.clock.now += size / self.link.rate
        self.left -= size
        return size

    def pass_over(self, view: memoryview) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ways_of(clock: Callable[[], float], *links: Link) -> Ways:
    return Ways(links, clock=clock)  # type: ignore[arg-type]


def fetch(ways: Ways, size_bytes: int = 16 * MIB) -> None:
    """What the picker does: the rest of a request that was no failure is requested again."""
    position, view = 0, memoryview(bytearray(MIB))
    while position < size_bytes:
        body = ways.open_range(DIGEST, position, size_bytes)
        try:
            while got := body.readinto(view[: size_bytes - position]):
                position += got
        except SourceFault as fault:
            if not fault.is_no_failure:
                raise
        finally:
            body.close()


@pytest.mark.parametrize("order", [(1, 100), (100, 1)])
def test_the_way_that_proves_faster_has_nearly_all_bytes(clock: Clock, order: tuple[int, int]) -> None:
    links = [Link(clock, rate * MIB) for rate in order]
    ways, began_at = ways_of(clock, *links), clock.now
    for _ in range(4):
        fetch(ways)
    assert clock.now - began_at < 3.0, "it takes 64 s the slow way"
    fast = links[order.index(100)]
    assert ways.fastest is fast  # type: ignore[comparison-overlap]
    slow = links[order.index(1)]
    assert slow.asked <= 2


def test_a_request_goes_on_along_a_way_that_becomes_known_meanwhile(clock: Clock) -> None:
    slow, fast = Link(clock, MIB), Link(clock, 100 * MIB)
    ways, began_at = ways_of(clock, slow), clock.now
    body, view = ways.open_range(DIGEST, 0, 64 * MIB), memoryview(bytearray(MIB))
    came = body.readinto(view)
    ways.use([slow, fast])  # type: ignore[list-item]
    with pytest.raises(SourceFault) as fault:
        while True:
            came += body.readinto(view)
    body.close()
    assert fault.value.is_no_failure and came < 4 * MIB
    fetch(ways, 64 * MIB - came)
    assert clock.now - began_at < 6.0, "it takes 64 s the slow way"


def test_a_way_that_is_no_longer_one_is_not_used(clock: Clock) -> None:
    first, second = Link(clock, MIB), Link(clock, MIB)
    ways = ways_of(clock, first, second)
    ways.use([second])  # type: ignore[list-item]
    fetch(ways)
    assert (first.asked, second.asked) == (0, 1)


def test_of_two_ways_alike_the_first_stays_in_use_and_the_other_is_tried_once_in_a_while(clock: Clock) -> None:
    first, second = Link(clock, 50 * MIB), Link(clock, 60 * MIB)
    ways = ways_of(clock, first, second)
    for _ in range(20):
        fetch(ways)
    assert min(first.asked, second.asked) <= 2
    before = first.asked + second.asked
    clock.now += TRY_AGAIN_SECONDS
    fetch(ways)
    fetch(ways)
    assert first.asked + second.asked - before >= 3


def test_a_way_that_becomes_slow_is_left(clock: Clock) -> None:
    first, second = Link(clock, 100 * MIB), Link(clock, 50 * MIB)
    ways = ways_of(clock, first, second)
    fetch(ways, 64 * MIB)
    fetch(ways, 64 * MIB)
    assert ways.fastest is first  # type: ignore[comparison-overlap]
    first.rate = MIB
    began_at = clock.now
    fetch(ways, 16 * MIB)
    assert clock.now - began_at < 5 and ways.fastest is second  # type: ignore[comparison-overlap]


def test_an_unreachable_way_is_passed_over_at_once_and_tried_again_later(clock: Clock) -> None:
    dead = Link(clock, MIB, SourceFault("no connection", is_unreachable=True))
    alive = Link(clock, 10 * MIB)
    ways = ways_of(clock, dead, alive)
    fetch(ways)
    fetch(ways)
    assert dead.asked == 1
    clock.now += 2 * TRY_AGAIN_SECONDS
    dead.fault = None
    fetch(ways)
    fetch(ways)
    assert dead.asked > 1


def test_when_all_ways_fail_the_first_fault_is_the_error_and_a_busy_peer_is_asked_only_once(clock: Clock) -> None:
    first, second = (Link(clock, MIB, SourceFault(name, is_unreachable=True)) for name in ("first", "second"))
    with pytest.raises(SourceFault, match="first"):
        fetch(ways_of(clock, first, second))
    assert (first.asked, second.asked) == (1, 1)
    busy, other = Link(clock, MIB, SourceFault("is busy", retry_after_seconds=2.0)), Link(clock, MIB)
    with pytest.raises(SourceFault, match="busy"):
        fetch(ways_of(clock, busy, other))
    assert other.asked == 0


def test_a_body_that_is_ended_for_another_reason_says_nothing_against_its_way(clock: Clock) -> None:
    first, second = Link(clock, 10 * MIB), Link(clock, 10 * MIB)
    ways = ways_of(clock, first, second)
    body = ways.open_range(DIGEST, 0, MIB)
    body.abort()
    first.fault = SourceFault("was aborted")
    with pytest.raises(SourceFault):
        body.readinto(memoryview(bytearray(10)))
    body.close()
    first.fault, second.rate = None, MIB
    fetch(ways)
    fetch(ways)
    assert first.asked > 1


def test_a_silent_way_is_passed_over_while_a_thread_waits_for_it(clock: Clock) -> None:
    first, second = Link(clock, 50 * MIB), Link(clock, 10 * MIB)
    ways = ways_of(clock, first, second)
    fetch(ways)
    fetch(ways)
    assert ways.fastest is first  # type: ignore[comparison-overlap]
    asked = first.asked
    with ways.waiting(ways._ways[0]):
        clock.now += SILENT_SECONDS
        fetch(ways)
        assert first.asked == asked
    fetch(ways)
    assert first.asked > asked


def test_a_spare_way_is_used_only_when_the_others_fail(clock: Clock) -> None:
    first, spare = Link(clock, MIB), Link(clock, 50 * MIB)
    ways = Ways([first], [spare], clock)  # type: ignore[list-item]
    fetch(ways)
    fetch(ways)
    assert spare.asked == 0
    first.fault = SourceFault("no connection", is_unreachable=True)
    fetch(ways)
    assert spare.asked > 0


class Adapter:
    def __init__(self, name: str, *ips: tuple[Any, int]) -> None:
        self.name, self.index = name, 1
        self.ips = [type("IP", (), {"ip": ip, "network_prefix": prefix}) for ip, prefix in ips]


def test_the_ways_are_addresses_in_networks_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [
        Adapter("lo", ("127.0.0.1", 8)),
        Adapter("eth0", ("10.8.0.2", 24), (("fd08::2", 0, 0), 64), (("fe80::2", 0, 2), 64)),
        Adapter("tb0", (("fd09::2", 0, 0), 64)),
    ]
    monkeypatch.setattr("hfpeer.peers.interfaces.ifaddr.get_adapters", lambda: adapters)

    def ways(*hosts: str) -> list[str]:
        return [address.host for address in ways_among([Address(host) for host in hosts])]

    assert ways("10.8.0.1", "fd08::1", "fd09::1") == ["10.8.0.1", "fd09::1"]
    assert ways("fd08::1", "fd08::3", "10.8.0.1", "10.8.0.9") == ["10.8.0.1", "10.8.0.9"]
    assert ways("10.20.0.1", "10.8.0.1", "fe80::1%eth0", "gpu-3.local", "127.0.0.1") == ["10.8.0.1"]
    assert ways("fd09::1", "fd09::3") == ["fd09::1"]
