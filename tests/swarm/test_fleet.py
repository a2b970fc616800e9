"""One command fills all machines: what each node is asked, and says, and does when it returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from fakes.hub import HubSimulator
from fakes.machine import Machine, Machines, Ran
from fakes.network.ports import free_ports
from fakes.waiting import wait_until

Put = Callable[..., str]
SIZE_BYTES = 3_000_000


def fleet(machines: Machines, hub: HubSimulator, prefix: str, **accepting: str) -> list[Machine]:
    """Machines that know each other; `accepting` is `accept_requests` by name."""
    ports = dict(zip(accepting, free_ports(len(accepting)), strict=True))
    made = []
    for name, accepts in accepting.items():
        others = [f"127.0.0.1:{port}" for other, port in ports.items() if other != name]
        machine = machines.make(
            f"{prefix}{name}",
            upstreams=f"origin={hub.endpoint}",
            peers=others,
            HFPEER_LAN_LISTEN=f"127.0.0.1:{ports[name]}",
            HFPEER_ACCEPT_REQUESTS=accepts,
        )
        machine.start()
        made.append(machine)
    for machine in made:
        for other in made:
            if other is not machine:
                machine.wait_until_it_knows(other)
    return made


def has(machine: Machine, repo: str, commit: str) -> bool:
    folder = machine.cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
    return (folder / "model.safetensors").exists() and (folder / "config.json").exists()


def rows(ran: Ran) -> dict[str, dict[str, Any]]:
    return {one["node"]: one for one in json.loads(ran.out)}


def test_one_command_fills_those_that_accept_names_those_that_refuse_and_reaches_one_that_returns(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    head, first, refusing, away = fleet(machines, hub, "a-", head="no", first="lan", refusing="no", away="lan")
    commit = put("acme/fleet", SIZE_BYTES)
    away.kill()
    ran = head.hfpeer("model", "add", "-r", "acme/fleet", "--on", "all")
    found = rows(ran)
    assert found.keys() == {"a-first", "a-refusing", "a-away"}
    assert (found["a-first"]["state"], found["a-first"]["commit"]) == ("done", commit), found
    assert found["a-refusing"]["problem"]["code"] == "request_refused"
    assert "accept_requests" in found["a-refusing"]["problem"]["message"]
    assert (found["a-away"]["state"], found["a-away"]["problem"]["code"]) == ("waiting", "peer_unreachable")
    assert ran.code in (5, 6)
    assert has(first, "acme/fleet", commit) and not has(head, "acme/fleet", commit)
    assert (first.cache / "models--acme--fleet" / "refs" / "main").read_text() == commit
    assert not refusing.blobs()
    assert any("accept_requests" in note and "a-head" in note for note in refusing.status().notes)
    (there,) = first.do("transfers", "--all")
    assert (there["asked_by"]["via"], there["asked_by"]["user"]) == ("peer", "a-head")
    assert first.do("history")[0]["asked_by"]["user"] == "a-head"
    (waiting,) = (one for one in head.do("transfers") if one["state"] == "waiting")
    assert (waiting["node"], waiting["repo"]) == ("a-away", "acme/fleet")
    head.wait_until_it_knows(away, "gone")
    away.start()
    wait_until(partial(has, away, "acme/fleet", commit), "it is asked when it returns", 60)
    assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES + 100_000
