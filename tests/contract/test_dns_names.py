"""DNS names behind which peers are: the records that are taken, the time of the next look-up, and the limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import dns.rcode
import pytest

from fakes.dns_records import DnsRecords
from hfpeer.budgets import MAX_NAME_ADDRESSES
from hfpeer.config.peer_names import DnsName
from hfpeer.net.address import Address
from hfpeer.peers.discovery import dns_names
from hfpeer.peers.discovery.dns_names import MAX_TTL_SECONDS, MIN_TTL_SECONDS, DnsNames, Lookup, look_up_once

PEERS, SERVICE = DnsName("peers.lab", 9437), DnsName("_hfpeer._tcp.lab", None)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DnsRecords]:
    async with DnsRecords({("peers.lab", "A"): ["10.0.0.1", "10.0.0.2"], ("peers.lab", "AAAA"): ["fd00::1"]}) as server:
        monkeypatch.setattr(dns_names, "_make_resolver", server.make_resolver)
        yield server


def lookup(name: DnsName = PEERS, accepts_loopback: bool = False) -> Lookup:
    return Lookup(name, accepts_loopback=accepts_loopback)


async def test_all_addresses_of_a_name_are_taken_and_hold_as_long_as_the_dns_says(server: DnsRecords) -> None:
    asking = lookup()
    assert set(map(str, await asking.addresses())) == {"10.0.0.1:9437", "10.0.0.2:9437", "[fd00::1]:9437"}
    assert (asking.wait_seconds, asking.problem) == (30, "")


@pytest.mark.parametrize(
    ("ttl", "waited"), [(0, MIN_TTL_SECONDS), (1, MIN_TTL_SECONDS), (20, 20), (600, MAX_TTL_SECONDS)]
)
async def test_a_name_is_looked_up_neither_all_the_time_nor_too_late(
    server: DnsRecords, ttl: int, waited: float
) -> None:
    server.ttl_seconds = ttl
    asking = lookup()
    await asking.addresses()
    assert asking.wait_seconds == waited


async def test_srv_records_give_each_host_its_port(server: DnsRecords) -> None:
    server.records = {
        ("_hfpeer._tcp.lab", "SRV"): ["0 0 9500 one.lab.", "5 0 9600 one.lab.", "0 0 9437 two.lab.", "0 0 1 ."],
        ("one.lab", "A"): ["10.0.0.1"],
        ("two.lab", "AAAA"): ["fd00::2"],
    }
    found = await lookup(SERVICE).addresses()
    assert set(map(str, found)) == {"10.0.0.1:9500", "10.0.0.1:9600", "[fd00::2]:9437"}
    assert server.asked.count(("one.lab", "A")) == 1


async def test_a_name_that_is_gone_has_no_addresses_and_that_is_said_with_what_helps(server: DnsRecords) -> None:
    asking = lookup()
    await asking.addresses()
    server.records = {("other.lab", "A"): ["10.0.0.9"]}
    assert await asking.addresses() == ()
    assert "hfpeer peer rm dns:peers.lab:9437" in asking.problem
    assert asking.wait_seconds == MIN_TTL_SECONDS


@pytest.mark.parametrize("kinds", [set(), {"A"}, {"AAAA"}, {"A", "AAAA"}])
async def test_a_dns_server_that_fails_takes_no_address_away(server: DnsRecords, kinds: set[str]) -> None:
    asking = lookup()
    before = await asking.addresses()
    server.fault, server.faulty_kinds = dns.rcode.SERVFAIL, kinds
    for _ in range(2):
        assert set(await asking.addresses()) == set(before)  # a DNS server gives them in any order
    assert "no DNS server answers" in asking.problem
    server.fault = None
    server.records = {("peers.lab", "A"): ["10.0.0.7"]}
    assert list(map(str, await asking.addresses())) == ["10.0.0.7:9437"] and not asking.problem


async def test_without_any_dns_server_the_addresses_stay_and_that_is_said(
    server: DnsRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = lookup()
    before = await asking.addresses()

    def no_server() -> None:
        raise OSError("no nameservers")

    monkeypatch.setattr(dns_names, "_make_resolver", no_server)
    assert set(await asking.addresses()) == set(before)
    assert "no DNS server" in asking.problem


async def test_the_dns_cannot_send_this_node_to_itself_to_all_or_to_a_clouds_secrets(server: DnsRecords) -> None:
    server.records = {
        ("peers.lab", "A"): ["127.0.0.1", "0.0.0.0", "224.0.0.251", "169.254.169.254", "10.0.0.1"],
        ("peers.lab", "AAAA"): ["::1", "::", "ff02::1", "fd00:ec2::254", "::ffff:127.0.0.1"],
    }
    assert list(map(str, await lookup().addresses())) == ["10.0.0.1:9437"]
    with_loopback = set(map(str, await lookup(accepts_loopback=True).addresses()))
    assert "127.0.0.1:9437" in with_loopback and "169.254.169.254:9437" not in with_loopback


async def test_a_name_has_a_largest_number_of_addresses_that_come_by_tcp(server: DnsRecords) -> None:
    server.records = {("peers.lab", "A"): [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(MAX_NAME_ADDRESSES + 50)]}
    assert len(await lookup().addresses()) == MAX_NAME_ADDRESSES


async def test_of_many_services_a_largest_number_of_hosts_is_looked_up(server: DnsRecords) -> None:
    count = MAX_NAME_ADDRESSES + 20
    server.records = {("_hfpeer._tcp.lab", "SRV"): [f"0 0 9437 n{n}.lab." for n in range(count)]}
    await lookup(SERVICE).addresses()
    assert len({name for name, kind in server.asked if kind == "A"}) == MAX_NAME_ADDRESSES


async def test_names_are_added_removed_and_tell_what_is_wrong_with_them(server: DnsRecords) -> None:
    told: list[tuple[DnsName, int]] = []
    names = DnsNames([PEERS], lambda name, addresses: told.append((name, len(addresses))), accepts_loopback=False)
    await names.start()
    try:
        assert await names.add(DnsName("nobody.lab", 9437)) == ()
        assert list(names.unresolved) == [DnsName("nobody.lab", 9437)]
        assert len(await names.add(PEERS)) == 3 and (PEERS, 3) in told
        assert await names.remove(PEERS) and not await names.remove(PEERS)
        assert await names.remove(DnsName("nobody.lab", 9437)) and not names.problems
    finally:
        await names.stop()


async def test_a_command_looks_up_all_names_once(server: DnsRecords) -> None:
    static = Address("10.9.9.9")
    found = await look_up_once([static, PEERS, SERVICE], accepts_loopback=False)
    assert found[0] == static and len(found) == 4
    assert len(server.asked) == len(set(server.asked))
    await asyncio.sleep(0)
