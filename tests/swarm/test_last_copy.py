"""The last copy on the LAN stays, whichever node removes it, also when several do at once."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.machine import Machine, Machines, Ran
from fakes.waiting import wait_until

pytestmark = pytest.mark.slow
WEIGHTS = os.urandom(300_000)


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Machine]]:
    """Three nodes without a hub, by node id, the lowest first. Each knows the others."""
    with Machines(tmp_path_factory.mktemp("lan")) as machines:
        nodes: list[Machine] = []
        for name in ("a", "b", "c"):
            node = machines.make(name, upstreams="", peers=[other.address for other in nodes])
            node.start()
            nodes.append(node)
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.do("peer", "add", other.address)
                    node.wait_until_it_knows(other)
        yield sorted(nodes, key=lambda node: str(node.do("status")["node_id"]))


@pytest.fixture
def spread(lan: list[Machine], tmp_path: Path) -> Callable[..., str]:
    """`spread("acme/x", 2)`: a repo that the first two nodes have; its commit."""

    def spread(name: str, number: int) -> str:
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(WEIGHTS + name.encode())
        (folder / "config.json").write_text(f'{{"name": "{name}"}}')
        commit = str(lan[0].do("model", "publish", str(folder), "--as", name)["commit"])
        for node in lan[1:number]:
            node.do("model", "add", "-r", name, "-v", commit)
        wait_until(lambda: not any(is_read(node, name) for node in lan[:number]), "its readers have closed it")
        return commit

    return spread


def holds(node: Machine, commit: str) -> bool:
    return any(one["commit"] == commit and one["is_complete"] for one in node.do("model", "ls"))


def is_read(node: Machine, name: str) -> bool:
    return "in_use" in kept(node.hfpeer("cache", "rm", name, "--dry-run"))


def kept(ran: Ran) -> list[str]:
    return [one["reason"] for one in ran.document["kept"]]


def test_a_copy_that_a_peer_has_goes_and_the_last_one_stays_unless_it_is_forced(
    lan: list[Machine], spread: Callable[..., str]
) -> None:
    commit = spread("acme/pair", 2)
    first, second, _ = lan
    told = first.hfpeer("cache", "rm", "acme/pair", "--dry-run")
    assert (told.code, len(told.document["steps"]), kept(told)) == (0, 1, [])
    gone = first.hfpeer("cache", "rm", "acme/pair")
    assert (gone.code, gone.document["freed_bytes"] > len(WEIGHTS)) == (0, True)
    assert "2 of 2 known peers answered" in gone.document["lan"]
    for words in (["cache", "rm", "acme/pair"], ["model", "rm", "-r", "acme/pair"], ["cache", "rm", commit[:12]]):
        refused = second.hfpeer(*words)
        assert (refused.code, kept(refused)) == (3, ["last_copy"])
        assert "the last copy on the LAN" in refused.document["kept"][0]["sentence"]
    assert holds(second, commit)
    first.do("model", "add", "-r", "acme/pair", "-v", commit)
    wait_until(lambda: not is_read(second, "acme/pair"), "the first has closed it")
    assert second.hfpeer("cache", "rm", "acme/pair").code == 0, "a peer has it again"
    assert first.hfpeer("cache", "rm", "acme/pair", "--force").code == 0
    assert not any(holds(node, commit) for node in lan)


def test_a_file_and_an_old_revision_are_protected_too(lan: list[Machine], spread: Callable[..., str]) -> None:
    commit = spread("acme/single", 1)
    refused = lan[0].hfpeer("cache", "rm", "hf://acme/single/model.safetensors")
    assert (refused.code, kept(refused)) == (3, ["last_copy"])
    pruned = lan[0].hfpeer("cache", "prune", "--all", "--older-than", "0", "-y")
    assert pruned.code == 0 and "last_copy" in kept(pruned)
    assert holds(lan[0], commit)
    lan[0].do("cache", "rm", "acme/single", "--force")


def test_what_is_gone_in_part_at_a_peer_is_no_copy(lan: list[Machine], spread: Callable[..., str]) -> None:
    commit = spread("acme/part", 2)
    lan[1].do("cache", "rm", "hf://acme/part/config.json")
    refused = lan[0].hfpeer("cache", "rm", "acme/part")
    assert (refused.code, kept(refused)) == (3, ["last_copy"])
    assert holds(lan[0], commit)
    for node in lan[:2]:
        node.do("cache", "rm", "acme/part", "--force")


@pytest.mark.parametrize("number", [2, 3])
def test_of_nodes_that_remove_it_at_once_the_one_with_the_lowest_id_keeps_it(
    lan: list[Machine], spread: Callable[..., str], number: int
) -> None:
    name = f"acme/race{number}"
    commit = spread(name, number)
    begun = [node.begin_hfpeer("cache", "rm", name) for node in lan[:number]]
    ended = [node.finish(process) for node, process in zip(lan, begun, strict=False)]
    left = [node for node in lan if holds(node, commit)]
    assert len(left) == 1, "the last copies were all removed, or several stayed"
    assert sorted(ran.code for ran in ended) == [0] * (number - 1) + [3]
    left[0].do("cache", "rm", name, "--force")


def test_while_no_peer_answers_what_only_this_node_made_stays(lan: list[Machine], spread: Callable[..., str]) -> None:
    commit = spread("acme/alone", 2)
    pids = [node.pid for node in lan[1:]]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        refused = lan[0].hfpeer("cache", "rm", "acme/alone")
        assert (refused.code, kept(refused)) == (3, ["unknown_copies"])
        assert "no peer answers" in refused.document["lan"]
    finally:
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGCONT)
    assert holds(lan[0], commit)
    lan[1].do("cache", "rm", "acme/alone")
    lan[0].do("cache", "rm", "acme/alone", "--force")


def test_a_blob_that_a_peer_is_being_sent_stays_until_it_has_it(lan: list[Machine], spread: Callable[..., str]) -> None:
    commit = spread("acme/sent", 2)
    digest = next(
        one["digest"]
        for one in lan[0].do("model", "ls", "-r", "acme/sent", "-v", commit)["listing"]
        if one["path"] == "model.safetensors"
    )
    connection = http.client.HTTPConnection(lan[0].address, timeout=20)
    connection.request("GET", f"/blobs/{digest}")
    response = connection.getresponse()
    refused = lan[0].hfpeer("cache", "rm", "acme/sent")
    assert (refused.code, kept(refused)) == (3, ["in_use"])
    assert response.read()[: len(WEIGHTS)] == WEIGHTS
    connection.close()
    wait_until(lambda: lan[0].hfpeer("cache", "rm", "acme/sent").code == 0, "the reader is gone")
    lan[1].do("cache", "rm", "acme/sent", "--force")


def test_a_single_machine_cleans_and_says_what_no_hub_has(tmp_path: Path) -> None:
    with HubSimulator() as hub, Machines(tmp_path / "m") as machines:
        hub.put_repo("model", "acme/open", {"w.bin": Lfs(WEIGHTS)})
        alone = machines.make("alone", upstreams=f"origin={hub.endpoint}")
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "config.json").write_text("{}")

        def remove(*words: str) -> Any:
            alone.do("model", "add", "-r", "acme/open")
            alone.do("model", "publish", str(folder), "--as", "team/mine")
            told = alone.hfpeer("cache", "rm", "acme/open", "team/mine", "--dry-run").document
            notes = {step["name"].split(" ")[0]: step["notes"][0] for step in told["steps"]}
            assert notes == {
                "acme/open": f"{hub.endpoint} listed it to everybody",
                "team/mine": "published here; no hub has it",
            }
            done = alone.hfpeer("cache", "rm", "acme/open", "team/mine")
            assert (done.code, done.document["kept"]) == (0, [])
            return done.document["lan"]

        assert "No daemon runs here" in remove()
        alone.start()
        assert remove() == "No peer is known, so no copy elsewhere was looked for."


def test_without_a_daemon_the_configured_peers_are_asked(lan: list[Machine], spread: Callable[..., str]) -> None:
    commit = spread("acme/off", 2)
    third = lan[2]
    third.do("model", "add", "-r", "acme/off", "-v", commit)
    third.stop()
    try:
        gone = third.hfpeer("cache", "rm", "acme/off")
        assert gone.code == 0
        assert "2 of 2 known peers answered. No daemon runs here" in gone.document["lan"]
    finally:
        third.start()
        for other in lan[:2]:
            third.wait_until_it_knows(other)
    lan[1].do("cache", "rm", "acme/off")
    lan[0].do("cache", "rm", "acme/off", "--force")


def test_a_peer_answers_which_blobs_it_has_and_only_what_it_shares(
    lan: list[Machine], spread: Callable[..., str]
) -> None:
    commit = spread("acme/asked", 1)
    listing = lan[0].do("model", "ls", "-r", "acme/asked", "-v", commit)["listing"]
    digests = sorted(one["digest"] for one in listing)

    def ask() -> Any:
        connection = http.client.HTTPConnection(lan[0].address, timeout=10)
        connection.request("GET", f"/copies?digests={','.join([*digests, 'sha256:' + '0' * 64])}")
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return answer.status, document

    assert ask() == (200, {"held": digests, "leaving": []})
    lan[0].do("model", "unshare", "-r", "acme/asked")
    assert ask() == (200, {"held": [], "leaving": []})
    lan[0].do("cache", "rm", "acme/asked", "--force")
