"""Transfers of a real daemon: they outlive terminals, kills and restarts, and fetch nothing twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from fakes.endpoint import endpoint_of
from fakes.hub import HubSimulator, Lfs, faults
from fakes.machine import HFPEER, Machine, Machines
from fakes.waiting import wait_until

Put = Callable[..., str]
MB = 1_000_000
SIZE_BYTES = 24 * MB
IN_FLIGHT_BYTES = 16 * MB
"""More than the pieces of eight workers of 1 MiB, and what lay in the sockets."""


def has_part(machine: Machine, part: float) -> bool:
    return machine.present_bytes() >= part * SIZE_BYTES


def listed(machine: Machine) -> dict[str, dict[str, Any]]:
    return {one["repo"]: one for one in machine.do("transfers", "--all")}


def is_done(machine: Machine, repo: str) -> bool:
    found = listed(machine).get(repo)
    assert found is None or found["state"] != "failed", found
    return found is not None and found["state"] == "done"


def test_a_transfer_outlives_its_terminal_and_a_killed_daemon_and_nothing_comes_twice(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    commit = put("acme/outlives", SIZE_BYTES)
    machine = machines.make("outlives", upstreams=f"origin={hub.endpoint}")
    machine.start()
    with hub.throttled(8 * MB):
        adding = machine.begin(*HFPEER, "model", "add", "-r", "acme/outlives")
        wait_until(partial(has_part, machine, 0.2), "a fifth of it is there")
        adding.send_signal(signal.SIGHUP)
        assert machine.finish(adding).code == -signal.SIGHUP
        before_bytes = machine.present_bytes()
        wait_until(lambda: machine.present_bytes() > before_bytes + 2 * MB, "the daemon goes on")
        machine.kill()
        hub.put_repo("model", "acme/outlives", {"config.json": b"{}", "model.safetensors": Lfs(os.urandom(1000))})
        kept_bytes = machine.present_bytes()
        machine.start()
        (one,) = listed(machine).values()
        assert (one["id"], one["asked_by"]["via"], one["is_detached"]) == (1, "cli", False)
    wait_until(partial(is_done, machine, "acme/outlives"), "it ends by itself", 60)
    one = listed(machine)["acme/outlives"]
    assert (one["commit"], one["present_bytes"] == one["size_bytes"]) == (commit, True)
    assert (machine.cache / "models--acme--outlives" / "snapshots" / commit / "model.safetensors").exists()
    assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES + IN_FLIGHT_BYTES
    (entry,) = machine.do("history")
    assert (entry["id"], entry["outcome"], entry["commit"]) == (1, "done", commit)
    assert SIZE_BYTES - kept_bytes <= entry["bytes_by_kind"]["origin"] <= hub.body_bytes_sent("/repos/*")
    assert "transfer 1 (acme/outlives at " in machine.log and "is taken up again" in machine.log
    # The name means another commit by now. The old transfer has not put it back.
    again = machine.do("model", "add", "-r", "acme/outlives")
    assert again["commit"] != commit
    machine.stop()


def test_ctrl_c_pauses_and_the_same_command_or_resume_goes_on(machines: Machines, hub: HubSimulator, put: Put) -> None:
    put("acme/stopped", SIZE_BYTES)
    machine = machines.make("stopped", upstreams=f"origin={hub.endpoint}")
    machine.start()
    with hub.throttled(16 * MB):
        adding = machine.begin(*HFPEER, "model", "add", "-r", "acme/stopped")
        wait_until(partial(has_part, machine, 0.2), "a fifth of it is there")
        adding.send_signal(signal.SIGINT)
        ran = machine.finish(adding)
        assert (ran.code, "`hfpeer transfers resume 1`" in ran.err) == (130, True), ran
        assert listed(machine)["acme/stopped"]["state"] == "paused"
        assert machine.status().transfers == ()
        machine.do("daemon", "restart")
        assert listed(machine)["acme/stopped"]["state"] == "paused"
        assert machine.do("transfers", "resume", "1")[0]["state"] in ("queued", "running")
        attached = machine.do("transfers", "attach", "1")
    assert (attached["repo"], attached["size_bytes"]) == ("acme/stopped", listed(machine)["acme/stopped"]["size_bytes"])
    assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES + IN_FLIGHT_BYTES
    machine.stop()


def test_two_commands_share_a_transfer_and_one_of_them_may_leave(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    put("acme/shared", SIZE_BYTES)
    machine = machines.make("sharing", upstreams=f"origin={hub.endpoint}")
    machine.start()
    with hub.throttled(8 * MB):
        first = machine.begin(*HFPEER, "model", "add", "-r", "acme/shared")
        wait_until(partial(has_part, machine, 0.1), "some of it is there")
        second = machine.begin(*HFPEER, "model", "add", "-r", "acme/shared")
        wait_until(lambda: listed(machine)["acme/shared"]["state"] == "running", "it runs")
        wait_until(lambda: "Transfer 1" in peeked(second), "the second command follows it")
        first.send_signal(signal.SIGINT)
        ran = machine.finish(first)
        assert (ran.code, "transfer 1 is running" in ran.err) == (130, True), ran
    ran = machine.finish(second)
    assert ran.code == 0, ran
    assert [one["id"] for one in listed(machine).values()] == [1]
    assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES + MB
    machine.stop()


def peeked(process: Any) -> str:
    """What a program has written on stderr until now; `finish` gives the rest."""
    os.set_blocking(process.stderr.fileno(), False)
    text = process.stderr.read() or ""
    os.set_blocking(process.stderr.fileno(), True)
    return str(text)


def test_adds_in_the_background_run_within_the_bound_and_are_tried_again_when_the_hub_is_back(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    for number in range(3):
        put(f"acme/queued{number}", MB)
    machine = machines.make("queueing", upstreams=f"origin={hub.endpoint}", HFPEER_TRANSFERS_AT_ONCE="1")
    machine.start()
    gone = hub.inject(faults.status(503))
    ids = [machine.do("model", "add", "-r", f"acme/queued{number}", "-d")["id"] for number in range(3)]
    wait_until(lambda: listed(machine)["acme/queued0"]["state"] == "waiting", "the first waits for its next try")
    one = listed(machine)["acme/queued0"]
    assert (one["tries"], one["problem"]["exit_code"]) == (1, 6), one
    gone.remove()
    machine.do("transfers", "resume", "--all")
    wait_until(lambda: all(is_done(machine, f"acme/queued{number}") for number in range(3)), "all are done", 60)
    assert sorted(entry["id"] for entry in machine.do("history")) == ids
    machine.stop()


def test_what_tools_read_through_the_endpoint_is_in_the_history_and_the_log(
    machines: Machines, hub: HubSimulator, pegasus: Machine, put: Put
) -> None:
    commit = put("acme/read", MB)
    machine = machines.make("reading", upstreams=f"origin={hub.endpoint}", peers=[pegasus.address])
    machine.start()
    machine.wait_until_it_knows(pegasus)
    endpoint = endpoint_of(machine)
    for path in ("config.json", "model.safetensors"):
        assert endpoint.get(f"/acme/read/resolve/{commit}/{path}").status == 200
    contact = machine.status().contacts[urlsplit(hub.endpoint).netloc]
    assert contact.kind == "origin" and contact.answered_seconds_ago is not None and contact.failed_seconds_ago is None
    wait_until(lambda: "peer pegasus (" in machine.log, "the log tells of the peer")
    machine.do("daemon", "restart")  # at the end of a daemon, nothing is waited for
    (entry,) = machine.do("history")
    assert (entry["id"], entry["repo"], entry["commit"], entry["files"]) == (0, "acme/read", commit, 2)
    assert entry["asked_by"] == {"via": "endpoint", "user": "", "host": "", "program": "test/1"}
    assert entry["bytes_by_kind"] == {"origin": entry["size_bytes"]}
    assert f"endpoint: fetched 2 files of acme/read at {commit[:12]} for test/1" in machine.log
    assert "has come, found by static" in machine.log
    machine.stop()
