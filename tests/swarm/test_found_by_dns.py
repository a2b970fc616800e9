"""Machines on a LAN without multicast find each other by a real DNS server, and lose each other by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.machine import Machine, Machines
from fakes.network import namespaces
from fakes.network.dns import PROGRAM, DnsServer
from fakes.network.lan import Lan, why_not
from fakes.waiting import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(why_not(PROGRAM)), reason=f"no LAN with a DNS server can be built: {why_not(PROGRAM)}"),
]
TTL_SECONDS = 5
PROBE_SECONDS = 3.0
"""Seconds for the look-up itself and the first question to a new peer, on a busy machine."""
NAME = "dns:peers.lab:9437"


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Each test has its own: a machine of the same name has the same home."""
    with Machines(tmp_path / "machines") as machines:
        yield machines


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(3) as lan:
        for host in lan.hosts:
            host.block_multicast()
            namespaces.use_dns(host.namespace, lan.hosts[2].ip)
        yield lan


def rows(machine: Machine) -> dict[str, tuple[str, str, str]]:
    return {peer.name or peer.address: (peer.state, peer.origin, peer.found_by) for peer in machine.peers()}


def test_a_name_brings_its_peers_within_its_ttl_and_takes_them_away_again(
    lan: Lan, machines: Machines, tmp_path: Path
) -> None:
    first, second, third = lan.hosts
    pegasus, cygnus = (
        machines.make(name, mdns=True, host=host, peers=["dns:peers.lab"])
        for name, host in (("pegasus", first), ("cygnus", second))
    )
    with DnsServer(third, tmp_path, {}, TTL_SECONDS) as dns:
        pegasus.start()
        cygnus.start()
        wait_until(lambda: NAME in rows(pegasus), "the name without addresses is shown")
        assert rows(pegasus) == {NAME: ("unresolved", "dns", NAME)}
        assert any("hfpeer peer rm dns:peers.lab" in note for note in pegasus.status().notes)

        dns.say({"peers.lab": [first.ip, second.ip]})
        since = time.monotonic()
        pegasus.wait_until_it_knows(cygnus)
        cygnus.wait_until_it_knows(pegasus)
        seconds = time.monotonic() - since
        print(f"\nfound {seconds:.1f} s after the DNS knew; the TTL is {TTL_SECONDS} s")
        assert seconds < TTL_SECONDS + PROBE_SECONDS
        assert rows(pegasus) == {"cygnus": ("alive", "dns", NAME)}  # and not itself

        dns.kill()
        wait_until(lambda: any("no DNS server answers" in note for note in pegasus.status().notes), "that is told")
        assert rows(pegasus) == {"cygnus": ("alive", "dns", NAME)}

        dns.say({"peers.lab": [first.ip]})
        since = time.monotonic()
        wait_until(lambda: rows(pegasus) == {}, "the peer is gone with its address")
        print(f"gone {time.monotonic() - since:.1f} s after the DNS knew")
        assert not any("DNS" in note for note in pegasus.status().notes)


def test_srv_records_tell_the_ports_and_a_command_adds_and_removes_them(
    lan: Lan, machines: Machines, tmp_path: Path
) -> None:
    first, second, third = lan.hosts
    pegasus = machines.make("pegasus", host=first)
    cygnus = machines.make("cygnus", host=second, HFPEER_LAN_LISTEN="0.0.0.0:9555")
    with DnsServer(third, tmp_path, {}) as dns:
        dns.say({"gpu-2.lab": [second.ip]}, {"_hfpeer._tcp.lab": [("gpu-2.lab", 9555)]})
        pegasus.start()
        cygnus.start()
        added = pegasus.do("peer", "add", "srv:_hfpeer._tcp.lab")
        assert (added["state"], added["origin"]) == ("alive", "dns")
        (peer,) = pegasus.peers()
        assert (peer.name, peer.found_by) == ("cygnus", "srv:_hfpeer._tcp.lab")
        assert peer.address == f"{second.ip}:9555"
        assert "srv:_hfpeer._tcp.lab" in pegasus.run("cat", str(pegasus.home / "settings.toml")).out

        dns.say({"gpu-2.lab": [second.ip]}, {"_hfpeer._tcp.lab": [(".", 9555)]})  # RFC 2782: there is no such service
        wait_until(lambda: rows(pegasus) == {"srv:_hfpeer._tcp.lab": ("unresolved", "dns", "srv:_hfpeer._tcp.lab")})
        pegasus.do("peer", "rm", "srv:_hfpeer._tcp.lab")
        assert rows(pegasus) == {}
        assert pegasus.hfpeer("peer", "rm", "srv:_hfpeer._tcp.lab").code == 4


def test_a_command_without_a_daemon_asks_the_peers_behind_a_name(lan: Lan, machines: Machines, tmp_path: Path) -> None:
    first, second, third = lan.hosts
    pegasus = machines.make("pegasus", host=first, peers=["dns:peers.lab"])
    cygnus = machines.make("cygnus", host=second)
    with DnsServer(third, tmp_path, {"peers.lab": [second.ip]}):
        cygnus.start()
        (folder := tmp_path / "model").mkdir()
        (folder / "config.json").write_text("{}")
        pegasus.do("model", "publish", str(folder), "--as", "team/model")
        planned = pegasus.hfpeer("cache", "rm", "team/model", "--dry-run")
        assert "1 of 1 known peers answered" in planned.out, planned
