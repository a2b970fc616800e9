"""Limits between real nodes: an add takes as long as they say, and nobody is taken for slow because of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fakes.hub import HubSimulator
from fakes.machine import Machine, Machines

Put = Callable[..., str]
SIZE_BYTES = 40_000_000
LIMIT = "80mbit"
EXPECTED_SECONDS = SIZE_BYTES / 10e6


def assert_took_its_time(machine: Machine, repo: str) -> None:
    finished = machine.do("model", "add", "-r", repo)
    assert 0.95 * EXPECTED_SECONDS < finished["seconds"] < 1.9 * EXPECTED_SECONDS, "a busy machine is slower"
    assert finished["refetched_bytes"] == 0
    for file in machine.do("why", repo):
        assert file["fetch"]["failures"] == []


def test_what_comes_from_a_hub_keeps_to_the_limit(machines: Machines, hub: HubSimulator, put: Put) -> None:
    put("acme/slow-wan", SIZE_BYTES)
    machine = machines.make("frugal", upstreams=f"origin={hub.endpoint}", HFPEER_LIMIT_WAN_DOWN=LIMIT)
    machine.start()
    assert_took_its_time(machine, "acme/slow-wan")


@pytest.mark.parametrize("key", ["LAN_DOWN", "LAN_UP"])
def test_what_passes_between_peers_keeps_to_the_limit_at_either_end(
    machines: Machines, hub: HubSimulator, put: Put, key: str
) -> None:
    repo = f"acme/slow-{key.lower().replace('_', '-')}"
    put(repo, SIZE_BYTES)
    own: dict[str, Any] = {f"HFPEER_LIMIT_{key}": f"00:00-24:00={LIMIT}"}
    contribution = machines.make(f"giver-{key}", upstreams=f"origin={hub.endpoint}", **(own if key == "LAN_UP" else {}))
    contribution.start()
    contribution.do("model", "add", "-r", repo)
    taker = machines.make(
        f"taker-{key}",
        upstreams=f"origin={hub.endpoint}",
        peers=[contribution.address],
        **(own if key == "LAN_DOWN" else {}),
    )
    taker.start()
    taker.wait_until_it_knows(contribution)
    hub.clear()
    assert_took_its_time(taker, repo)
    assert hub.body_bytes_sent("/repos/*") == 0, "the limit of the LAN drives nobody to the WAN"


def test_a_limit_is_set_and_read_like_any_other_setting(machines: Machines) -> None:
    machine = machines.make("set")
    machine.do("conf", "set", "limit.lan_up", "08:00-18:00=100mbit, none")
    assert machine.do("conf", "get", "limit.lan_up")["value"] == "08:00-18:00=100mbit,none"
    refused = machine.hfpeer("conf", "set", "limit.lan_up", "fast")
    assert refused.code == 2
    assert "08:00-18:00=100mbit,none" in refused.problem["hint"]
