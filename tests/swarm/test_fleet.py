"""One command fills all machines: what each node is asked, and says, and does when it returns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fakes.hub import HubSimulator
from fakes.machine import Machine, Machines, Ran
from fakes.network.ports import free_ports
from fakes.waiting import wait_until
from hfpeer.config.paths import Places
from hfpeer.control.client import ControlClient

Put = Callable[..., str]
SIZE_BYTES = 3_000_000


def fleet(machines: Machines, hub: HubSimulator, prefix: str, key: Path, **accepting: str) -> list[Machine]:
    """Machines that know each other and have one key; `accepting` is `accept_requests` by name."""
    key.write_text("a key of all machines")
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
            HFPEER_REQUEST_KEY_FILE=str(key),
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


def daemon(machine: Machine) -> ControlClient:
    """Its daemon, asked without the time that a command takes to start."""
    return ControlClient(Places(machine.home, machine.cache).control_socket)


def rows(ran: Ran) -> dict[str, dict[str, Any]]:
    return {one["node"]: one for one in json.loads(ran.out)}


def test_one_command_fills_those_that_accept_names_those_that_refuse_and_reaches_one_that_returns(
    machines: Machines, hub: HubSimulator, put: Put, tmp_path: Path
) -> None:
    accepting = {"head": "no", "first": "lan", "refusing": "no", "away": "signed"}
    head, first, refusing, away = fleet(machines, hub, "a-", tmp_path / "key", **accepting)
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
    (there,) = asyncio.run(daemon(first).list_transfers())
    assert (there.asked_by.via, there.asked_by.user) == ("peer", "a-head")
    (waiting,) = (one for one in asyncio.run(daemon(head).list_transfers()) if one.state == "waiting")
    assert (waiting.node, waiting.repo) == ("a-away", "acme/fleet")
    head.wait_until_it_knows(away, "gone")
    away.start()
    wait_until(partial(has, away, "acme/fleet", commit), "it is asked when it returns", 60)
    assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES + 100_000


def test_a_new_commit_of_a_followed_repo_comes_by_itself_and_a_restart_asks_nothing_again(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    commit = put("acme/followed", 300_000)
    machine = machines.make("following", upstreams=f"origin={hub.endpoint}")
    machine.start()
    machine.do("model", "follow", "-r", "acme/followed", "--every", "6h", "--limit", "1GB")
    wait_until(partial(has, machine, "acme/followed", commit), "its commit has come")
    wait_until(lambda: bool(asyncio.run(daemon(machine).history())), "the transfer is over")
    wait_until(lambda: asyncio.run(daemon(machine).list_followed())[0].checked_at > 0, "the look is noted")
    (before,) = asyncio.run(daemon(machine).list_followed())
    assert (before.commit, before.problem) == (commit, "")
    assert asyncio.run(daemon(machine).history())[-1].asked_by.via == "follow"
    machine.do("daemon", "restart")
    assert asyncio.run(daemon(machine).list_followed()) == [before]
