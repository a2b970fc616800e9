"""What a node says afterwards of where a model came from: real daemons, a hub, a peer that dies in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fakes.hub import HubSimulator, faults
from fakes.machine import Machine, Machines
from fakes.waiting import wait_until

Put = Callable[..., str]
MB = 1_000_000
SIZE_BYTES = 24 * MB


def why(machine: Machine, repo: str, *words: str) -> dict[str, Any]:
    """What `hfpeer why` says of each file, by path."""
    return {file["path"]: file for file in machine.do("why", repo, *words)}


def contributions(file: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {contribution["name"]: contribution for contribution in file["fetch"]["contributions"]}


def assert_covers_all_once(file: dict[str, Any]) -> None:
    parts = sorted(part for contribution in file["fetch"]["contributions"] for part in contribution["ranges"])
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == file["size_bytes"]


def test_a_peer_that_died_in_the_middle_and_the_hub_that_did_the_rest_are_both_named(
    machines: Machines, hub: HubSimulator, upstreams: str, put: Put
) -> None:
    commit = put("acme/why", SIZE_BYTES)
    giver = machines.make("giver", upstreams=upstreams, HFPEER_LIMIT_LAN_UP="8MB")
    giver.start()
    giver.do("model", "add", "-r", "acme/why")
    began_at = time.time()
    machine = machines.make("curious", upstreams=f"origin={hub.endpoint}", peers=[giver.address])
    machine.start()
    machine.wait_until_it_knows(giver)
    adding = machine.begin_hfpeer("model", "add", "-r", "acme/why", "-v", commit)
    wait_until(lambda: machine.present_bytes() >= SIZE_BYTES // 3, "a third of it is here")
    address = giver.address
    giver.kill()
    assert machine.finish(adding).code == 0

    file = why(machine, "acme/why", "model.safetensors", "-v", commit)["model.safetensors"]
    assert file["how"] == "fetched"
    assert began_at <= file["verified_at"] <= time.time()
    by_name = contributions(file)
    assert set(by_name) == {"giver", hub.endpoint.removeprefix("http://")}
    peer, origin = by_name["giver"], by_name[hub.endpoint.removeprefix("http://")]
    assert (peer["kind"], peer["network"], peer["address"], peer["interface"]) == ("peer", "lan", address, "lo")
    assert (origin["kind"], origin["address"]) == ("origin", hub.endpoint)
    assert peer["size_bytes"] > SIZE_BYTES // 6
    assert_covers_all_once(file)
    assert "giver" in {failure["source"] for failure in file["fetch"]["failures"]}

    before = why(machine, "acme/why", "-v", commit)
    assert {path: file["how"] for path, file in before.items()} == dict.fromkeys(before, "fetched")
    assert set(contributions(before["config.json"])) == {"giver"}
    machine.stop()
    machine.start()
    assert why(machine, "acme/why", "-v", commit) == before
    machine.stop()
    assert why(machine, "acme/why", "-v", commit) == before, "a node in the command's own process knows it too"


def test_what_was_wrong_and_came_again_is_told_with_its_range(
    machines: Machines, hub: HubSimulator, mirror: HubSimulator, put: Put, upstreams: str
) -> None:
    put("acme/lied", SIZE_BYTES)
    machine = machines.make("deceived", upstreams=upstreams)
    fault = mirror.inject(faults.corrupted(at=10), method="GET", listener="cdn")
    try:
        machine.start()
        machine.do("model", "add", "-r", "acme/lied")
    finally:
        fault.remove()
    file = why(machine, "acme/lied", "model.safetensors")["model.safetensors"]
    liars = {failure["source"] for failure in file["fetch"]["failures"] if failure["was_lying"]}
    assert liars == {mirror.endpoint.removeprefix("http://")}
    assert file["fetch"]["refetched_bytes"] > 0
    assert file["fetch"]["wrong_ranges"]
    assert_covers_all_once(file)


def test_a_file_that_another_tool_brought_was_found_and_what_is_removed_is_forgotten(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    put("acme/found", MB)
    first = machines.make("finder", upstreams=f"origin={hub.endpoint}")
    script = "import json,sys; from huggingface_hub import snapshot_download; "
    script += "print(json.dumps(snapshot_download(sys.argv[1])))"
    first.python(script, "acme/found", HF_ENDPOINT=hub.endpoint)
    files = why(first, "acme/found")
    assert {file["how"] for file in files.values()} == {"found"}
    assert {file["verified_at"] for file in files.values()} == {None}
    first.do("model", "add", "-r", "acme/found")
    files = why(first, "acme/found")
    assert {file["how"] for file in files.values()} == {"found"}
    assert None not in {file["verified_at"] for file in files.values()}, "the add has hashed them"

    first.do("model", "rm", "-r", "acme/found")
    first.do("model", "add", "-r", "acme/found")
    assert {file["how"] for file in why(first, "acme/found").values()} == {"fetched"}
    first.do("model", "rm", "-r", "acme/found")
    assert first.hfpeer("why", "acme/found").code == 4


def test_why_of_what_is_not_here_says_so(cygnus: Machine, put: Put) -> None:
    put("acme/known")
    cygnus.do("model", "add", "-r", "acme/known")
    refused = cygnus.hfpeer("why", "acme/known", "other.bin")
    assert refused.code == 4
    assert "other.bin" in refused.problem["message"]
    assert cygnus.hfpeer("why", "acme/nothing").code == 4
