"""Machines on a real switch, in network namespaces: they find each other by multicast and share what they have."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.lan import Host, Lan, why_not
from fakes.machine import Machine, Machines

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=f"no LAN can be built here: {why_not()}")]
FOUND_SECONDS = 2.0
SIZE_BYTES = 40_000_000


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(3) as lan:
        yield lan


def publish(machine: Machine, folder: Path) -> tuple[str, int]:
    """A model of that machine's own: its commit and size in bytes."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE_BYTES))
    published = machine.do("model", "publish", str(folder), "--as", "team/model")
    return published["commit"], published["size_bytes"]


def seconds_until_found(watcher: Machine, other: Machine, since: float) -> float:
    watcher.wait_until_it_knows(other, seconds=10)
    return time.monotonic() - since


def test_two_hosts_find_each_other_and_the_second_gets_the_model_from_the_first(
    lan: Lan, machines: Machines, tmp_path: Path
) -> None:
    pegasus, cygnus = (
        machines.make(name, mdns=True, host=host) for name, host in zip(("pegasus", "cygnus"), lan.hosts, strict=False)
    )
    pegasus.start()
    commit, size_bytes = publish(pegasus, tmp_path / "model")

    began_at = time.monotonic()
    cygnus.start()
    ready_at = time.monotonic()
    found = seconds_until_found(cygnus, pegasus, ready_at)
    was_found = seconds_until_found(pegasus, cygnus, ready_at)
    print(f"\nready after {ready_at - began_at:.2f} s; then finds in {found:.2f} s, found in {was_found:.2f} s")
    assert max(found, was_found) < FOUND_SECONDS

    added = cygnus.do("model", "add", "-r", "team/model", "-v", commit)
    assert added["bytes_by_source"] == {"pegasus": size_bytes}
    sent, _ = lan.hosts[0].counters()
    print(f"{size_bytes / 1e6:.0f} MB in {added['seconds']:.2f} s; {sent / size_bytes:.3f} of it crossed the wire")
    assert sent < size_bytes * 1.2

    lan.hosts[0].unplug()
    assert cygnus.do("model", "add", "-r", "team/model", "-v", commit)["reused_bytes"] == size_bytes


def test_an_add_right_after_the_start_already_finds_the_peer(lan: Lan, machines: Machines, tmp_path: Path) -> None:
    first = machines.make("early", mdns=True, host=lan.hosts[0])
    first.start()
    commit, size_bytes = publish(first, tmp_path / "model")
    second = machines.make("late", mdns=True, host=lan.hosts[1])
    second.start()
    assert second.do("model", "add", "-r", "team/model", "-v", commit)["bytes_by_source"] == {"early": size_bytes}


def test_a_host_with_several_interfaces_is_found_on_each_of_its_networks(
    lan: Lan, machines: Machines, tmp_path: Path
) -> None:
    """The first host also has a wire of its own to the third, which is not on the switch's network."""
    middle, left, right = lan.hosts
    connect(middle, right)
    subprocess.run(["ip", "-n", right.namespace, "link", "set", "eth0", "down"], check=True, timeout=30)
    hub, one, other = (
        machines.make(name, mdns=True, host=host)
        for name, host in (("both", middle), ("on-the-switch", left), ("on-the-wire", right))
    )
    hub.start()
    commit, size_bytes = publish(hub, tmp_path / "model")
    for machine in (one, other):
        machine.start()
        since = time.monotonic()
        print(f"\n{machine.name} finds it in {seconds_until_found(machine, hub, since):.2f} s")
        added = machine.do("model", "add", "-r", "team/model", "-v", commit)
        assert added["bytes_by_source"] == {"both": size_bytes}


def connect(one: Host, other: Host) -> None:
    """A second interface on each, `eth1`, with a network of its own between them."""
    ends = ["name", "eth1", "netns", other.namespace]
    subprocess.run(
        ["ip", "link", "add", "eth1", "netns", one.namespace, "type", "veth", "peer", *ends], check=True, timeout=30
    )
    for host, address in ((one, "10.78.0.1/24"), (other, "10.78.0.2/24")):
        for words in (["addr", "add", address, "brd", "+", "dev", "eth1"], ["link", "set", "eth1", "up"]):
            subprocess.run(["ip", "-n", host.namespace, *words], check=True, timeout=30)
