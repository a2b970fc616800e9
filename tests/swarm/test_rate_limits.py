"""A hub that limits requests, as users meet it: they are told until when, adds wait, and peers give meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fakes.endpoint import Endpoint
from fakes.hub import Content, HubSimulator, Lfs, faults
from fakes.machine import HFPEER, Machine, Machines
from fakes.waiting import wait_until

LONG, SECONDS = "600", 5
FAST_SECONDS = 60.0
"""Work beside a rest of ten minutes takes less than this."""


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        files: dict[str, Content] = {"config.json": b"{}", "model.safetensors": Lfs(os.urandom(3_000_000))}
        hub.put_repo("model", "acme/limited", files)
        yield hub


@pytest.fixture
def start(machines: Machines, hub: HubSimulator) -> Iterator[Callable[..., Machine]]:
    """Starts the daemon of a new machine with the hub as its origin."""
    started: list[Machine] = []

    def start(name: str, **options: Any) -> Machine:
        machine = machines.make(name, **{"upstreams": f"origin={hub.endpoint}", **options})
        machine.start()
        started.append(machine)
        return machine

    yield start
    for machine in started:
        machine.stop()


def limited(seconds: str, **where: Any) -> dict[str, Any]:
    return {"fault": faults.too_many_requests(retry_after=seconds), **where}


def add(machine: Machine, *words: str) -> subprocess.Popen[str]:
    return machine.begin(*HFPEER, "--json-lines", "model", "add", "-r", "acme/limited", *words)


def events(out: str, kind: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, out.splitlines()) if line.get("event") == kind]


def test_an_add_waits_says_until_when_and_status_says_it_too(hub: HubSimulator, start: Callable[..., Machine]) -> None:
    machine = start("patient", HFPEER_PATIENCE="1")
    began_at = time.time()
    hub.inject(**limited(str(SECONDS)), times=1)
    bodies = hub.inject(**limited(str(SECONDS), listener="cdn"), times=1)
    adding = add(machine)
    wait_until(lambda: bool(machine.status().notes), "the daemon knows of the limit")
    (note,) = machine.status().notes
    assert "limits requests until" in note
    bodies.wait_hit()
    ran = machine.finish(adding)
    assert ran.code == 0
    first, second = events(ran.out, "wait_began")
    assert first["hub"] == second["hub"] and "limits requests until" in first["reason"]
    assert began_at + SECONDS <= first["until"] < second["until"] <= time.time()
    wait_until(lambda: not machine.status().notes, "the limit is over")


def test_peers_give_while_the_hub_limits(hub: HubSimulator, start: Callable[..., Machine]) -> None:
    holder = start("holder")
    holder.do("model", "add", "-r", "acme/limited")
    seeker = start("seeker", peers=[holder.address])
    seeker.wait_until_it_knows(holder)
    hub.inject(**limited(LONG))
    began_at = time.monotonic()
    added = seeker.do("model", "add", "-r", "acme/limited")
    assert set(added["bytes_by_kind"]) == {"peer"}
    assert time.monotonic() - began_at < FAST_SECONDS


def test_a_mirror_that_limits_is_passed_over(hub: HubSimulator, start: Callable[..., Machine]) -> None:
    with HubSimulator(mirror_of=hub) as mirror:
        machine = start("with-a-mirror", upstreams=f"mirror={mirror.endpoint},origin={hub.endpoint}")
        mirror.inject(**limited(LONG, path="*/resolve/*"))
        began_at = time.monotonic()
        added = machine.do("model", "add", "-r", "acme/limited")
        assert set(added["bytes_by_kind"]) == {"origin"}
        assert time.monotonic() - began_at < FAST_SECONDS


def test_ctrl_c_ends_the_wait_at_once(hub: HubSimulator, start: Callable[..., Machine]) -> None:
    machine = start("interrupted")
    hub.inject(**limited(LONG))
    adding = add(machine)
    wait_until(lambda: bool(machine.status().notes), "the hub limits")
    began_at = time.monotonic()
    adding.send_signal(signal.SIGINT)
    assert machine.finish(adding).code == 130
    wait_until(lambda: not machine.status().transfers, "the daemon has stopped the add")
    assert time.monotonic() - began_at < FAST_SECONDS


def test_a_wait_that_is_too_long_is_told_and_ends_the_add(machines: Machines, hub: HubSimulator) -> None:
    machine = machines.make("impatient", upstreams=f"origin={hub.endpoint}", HFPEER_RATE_LIMIT_WAIT="300")
    hub.inject(**limited(LONG))
    ran = machine.hfpeer("model", "add", "-r", "acme/limited")
    assert (ran.code, ran.problem["code"]) == (6, "rate_limited")
    assert "limits requests until" in ran.problem["message"]
    assert "rate_limit.wait" in ran.problem["hint"]


def test_clients_of_the_endpoint_are_told_when_to_ask_again(hub: HubSimulator, start: Callable[..., Machine]) -> None:
    machine = start("endpoint")
    endpoint = Endpoint(f"http://{machine.status().listeners['endpoint']}")
    commit = endpoint.get("/api/models/acme/limited").document["sha"]
    hub.inject(**limited(LONG))
    for target in ("/api/models/acme/other", "/api/models?search=x", "/acme/other/resolve/main/config.json"):
        said = endpoint.get(target)
        assert said.status == 429, target
        assert 1 < int(said.headers["retry-after"]) <= int(LONG), target
    for name in ("config.json", "model.safetensors"):
        assert endpoint.head(f"/acme/limited/resolve/{commit}/{name}").status == 200
        said = endpoint.get(f"/acme/limited/resolve/{commit}/{name}")
        assert said.status == 429 and 1 < int(said.headers["retry-after"]) <= int(LONG), name
