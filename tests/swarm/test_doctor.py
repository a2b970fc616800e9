"""The doctor on machines of a LAN with planted faults of the network, each found by name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.machine import Machine, Machines
from fakes.network.host import Host
from fakes.network.lan import Lan
from fakes.network.namespaces import CannotBuild

pytestmark = [pytest.mark.slow, pytest.mark.root]


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    try:
        with Lan(2) as lan:
            yield list(lan.hosts)
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.fixture
def machine(hosts: list[Host], tmp_path: Path) -> Iterator[Machine]:
    with Machines(tmp_path / "machines") as machines:
        yield machines.make("sick", mdns=True, host=hosts[0])


def findings(machine: Machine) -> list[dict[str, Any]]:
    ran = machine.hfpeer("doctor")
    assert ran.code in (0, 1), ran.err
    return list(json.loads(ran.out))


def finding(machine: Machine, check: str) -> dict[str, Any]:
    """The one finding on a thing that is not right."""
    (one,) = [one for one in findings(machine) if one["check"].startswith(check) and one["level"] != "ok"]
    return one


def ip(host: Host, *words: str) -> None:
    subprocess.run(["ip", "-n", host.namespace, *words], check=True, timeout=30)


def test_a_healthy_lan_has_no_fault(machine: Machine) -> None:
    found = findings(machine)
    assert [one for one in found if one["level"] == "fault" and one["check"] not in ("hubs",)] == []
    assert any(one["check"].startswith("multicast 10.") and one["level"] == "ok" for one in found)


def test_an_interface_without_multicast(machine: Machine, hosts: list[Host]) -> None:
    ip(hosts[0], "link", "set", "eth0", "multicast", "off")
    one = finding(machine, "multicast")
    assert (one["level"], one["hint"]) == ("fault", "`sudo ip link set eth0 multicast on`")


def test_a_firewall_that_drops_multicast_and_peers(machine: Machine, hosts: list[Host]) -> None:
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if nft is None:
        pytest.skip("nft is not installed")
    rules = "add table inet f; add chain inet f input { type filter hook input priority 0; policy drop; }"
    hosts[0].run([nft, rules])
    multicast = finding(machine, "multicast")
    assert (multicast["level"], "5353" in multicast["hint"]) == ("fault", True)
    wall = finding(machine, "firewall")
    assert "9437" in wall["hint"] and "nft" in wall["sentence"]


def test_no_interface_is_up(machine: Machine, hosts: list[Host]) -> None:
    ip(hosts[0], "link", "set", "eth0", "down")
    ip(hosts[0], "addr", "flush", "dev", "eth0")
    assert finding(machine, "addresses")["level"] == "fault"


def test_an_interface_of_containers_and_one_of_a_vpn(machine: Machine, hosts: list[Host]) -> None:
    ip(hosts[0], "link", "add", "containers", "type", "bridge")
    ip(hosts[0], "link", "add", "c1", "type", "veth", "peer", "c1-far")
    ip(hosts[0], "link", "set", "c1", "master", "containers")
    ip(hosts[0], "tuntap", "add", "eth7", "mode", "tap")
    for name, address in (("containers", "172.17.0.1/16"), ("eth7", "10.99.0.5/24")):
        ip(hosts[0], "addr", "add", address, "dev", name)
        ip(hosts[0], "link", "set", name, "up")
    said = [one["sentence"] for one in findings(machine) if one["check"] == "interfaces"]
    assert [one.split()[0] for one in said] == ["containers", "eth7"]
    (reached,) = [one["sentence"] for one in findings(machine) if one["check"] == "addresses"]
    assert hosts[0].ip in reached and "172.17" not in reached and "10.99" not in reached


@pytest.mark.parametrize("name", ["br-lan", "virbr0", "docker0"])
def test_a_bridge_to_the_outside_is_a_lan_whatever_its_name(machine: Machine, hosts: list[Host], name: str) -> None:
    ip(hosts[0], "addr", "flush", "dev", "eth0")
    ip(hosts[0], "link", "add", name, "type", "bridge")
    ip(hosts[0], "link", "set", "eth0", "master", name)
    ip(hosts[0], "addr", "add", f"{hosts[0].ip}/24", "dev", name)
    ip(hosts[0], "link", "set", name, "up")
    found = {one["check"]: one for one in findings(machine)}
    assert found["addresses"]["level"] == "ok" and hosts[0].ip in found["addresses"]["sentence"]
    assert "interfaces" not in found


def test_two_machines_hear_each_other(hosts: list[Host], tmp_path: Path) -> None:
    with Machines(tmp_path / "two") as machines:
        one, other = (machines.make(name, mdns=True, host=host) for name, host in zip("ab", hosts, strict=True))
        one.start()
        other.start()
        one.wait_until_it_knows(other)
        found = {each["check"]: each for each in findings(one)}
        assert found["peers"]["level"] == "ok"
        assert found["port lan"]["level"] == "ok"
        assert "heard 1 other machine" in found[f"multicast {hosts[0].ip}"]["sentence"]
