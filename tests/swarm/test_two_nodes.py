"""Two machines and their users: everything through the command line, between real daemons on loopback."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import hub_cache
from fakes.hub import HubSimulator
from fakes.machine import HFPEER, Machine, Machines, Ran
from fakes.network.relay import Relay
from fakes.peers import GoodPeer
from fakes.waiting import wait_until
from hfpeer.names import Commit, RepoId

Put = Callable[..., str]
NOBODY = "127.0.0.1:9"


def add(machine: Machine, repo: str, *words: str, kind: str = "model", **environ: Any) -> Ran:
    return machine.hfpeer(kind, "add", "-r", repo, *words, **environ)


def ask(address: str, path: str) -> tuple[int, bytes]:
    """What a stranger on the LAN is answered."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_served(machine: Machine, repo: str, commit: str) -> dict[str, bool]:
    """Whether a stranger is shown the repo, by each door that there is to it."""
    manifest = machine.do("model", "ls", "-r", repo, "-v", commit)
    digests = [file["digest"] for file in manifest["listing"]]
    address = machine.address
    catalog = ask(address, "/catalog")[1].decode()
    return {
        "catalog": commit in catalog or repo in catalog,
        "manifest": ask(address, f"/manifests/models/{repo}/{commit}")[0] == 200,
        "ref": ask(address, f"/refs/models/{repo}/main")[0] == 200,
        "blobs": any(ask(address, f"/blobs/{digest}")[0] == 200 for digest in digests),
        "pieces": any(ask(address, f"/blobs/{digest}/pieces")[0] == 200 for digest in digests),
        "batch": f"{digests[0]} -\n".encode() not in ask(address, f"/batch?digests={digests[0]}")[1],
    }


EVERYWHERE = dict.fromkeys(("catalog", "manifest", "ref", "blobs", "pieces", "batch"), True)
NOWHERE = dict.fromkeys(EVERYWHERE, False)


# Peers


def test_a_peer_is_added_listed_kept_over_a_restart_and_forgotten(machines: Machines, pegasus: Machine) -> None:
    lacerta = machines.make("lacerta")
    lacerta.start()
    added = lacerta.do("peer", "add", pegasus.address)
    assert (added["name"], added["state"], added["origin"]) == ("pegasus", "alive", "static")
    lacerta.do("daemon", "restart")
    lacerta.wait_until_it_knows(pegasus)
    lacerta.do("peer", "rm", pegasus.address)
    assert lacerta.do("peer", "ls") == []
    ran = lacerta.hfpeer("peer", "rm", pegasus.address)
    assert (ran.code, ran.problem["code"]) == (4, "not_found")
    lacerta.do("daemon", "restart")
    assert lacerta.do("peer", "ls") == []


def test_a_peer_that_does_not_answer_is_remembered_and_the_answer_says_so(machines: Machines) -> None:
    lyra = machines.make("lyra")
    lyra.start()
    ran = lyra.run(*HFPEER, "peer", "add", NOBODY)
    assert ran.code == 0
    assert f"Added {NOBODY}. It does not answer yet" in ran.out


def test_peers_of_peers_are_found(machines: Machines, pegasus: Machine, cygnus: Machine) -> None:
    vega = machines.make("vega", peers=[cygnus.address])
    vega.start()
    vega.wait_until_it_knows(pegasus)
    (found,) = (peer for peer in vega.do("peer", "ls") if peer["name"] == "pegasus")
    assert found["origin"] == "gossip"


def test_a_peer_that_says_goodbye_is_noticed_at_once(machines: Machines) -> None:
    altair, deneb = (machines.make(name, mdns=True) for name in ("altair", "deneb"))
    for machine in (altair, deneb):
        machine.start()
    altair.wait_until_it_knows(deneb)
    deneb.stop()
    altair.wait_until_it_knows(deneb, "gone", seconds=20)


def test_a_peer_that_dies_is_noticed_by_whoever_needs_it(machines: Machines, cygnus: Machine) -> None:
    mira = machines.make("mira")
    mira.start()
    cygnus.do("peer", "add", mira.address)
    assert cygnus.knows(mira)
    mira.kill()
    assert cygnus.found("model", "search", "-r", "acme/anything") == []
    wait_until(lambda: not cygnus.knows(mira), "mira is not taken for alive")


# Finding and getting


def test_search_says_which_peer_has_a_repo_a_revision_or_a_file(pegasus: Machine, cygnus: Machine, put: Put) -> None:
    commit = put("acme/found")
    pegasus.do("model", "add", "-r", "acme/found", "-f", "config.json")
    (part,) = cygnus.found("model", "search", "-r", "acme/found")
    assert (part["peer"], part["commit"], part["is_complete"]) == ("pegasus", commit, False)
    pegasus.do("model", "add", "-r", "acme/found")
    for words in ((), ("-v", "main"), ("-v", commit), ("-v", commit[:8])):
        (whole,) = cygnus.found("model", "search", "-r", "acme/found", *words)
        assert whole["is_complete"] and whole["refs"] == ["main"]
    (file,) = cygnus.found("model", "search", "-r", "acme/found", "-f", "nested/tokenizer.json", "-f", "nope")
    assert file["path"] == "nested/tokenizer.json"
    assert cygnus.found("model", "search", "-r", "acme/found", "-v", "other") == []
    assert cygnus.found("dataset", "search", "-r", "acme/found") == []


def test_a_published_folder_can_be_added_elsewhere_by_its_commit(
    pegasus: Machine, cygnus: Machine, tmp_path: Path
) -> None:
    folder = tmp_path / "my model"
    (folder / "deep" / "er").mkdir(parents=True)
    files = {"config.json": b"{}", "deep/er/vocab.txt": b"a\n" * 50_000, "weights.bin": os.urandom(11_000_000)}
    for name, body in files.items():
        (folder / name).write_bytes(body)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    published = pegasus.do("model", "publish", str(folder), "--as", "team/published")
    assert published["lfs_files"] == ["weights.bin"]
    again = pegasus.do("model", "publish", str(folder), "--as", "team/published")
    assert again["commit"] == published["commit"]

    added = cygnus.do("model", "add", "-r", "team/published", "-v", published["commit"])
    assert added["bytes_by_source"] == {"pegasus": published["size_bytes"]}
    (contribution,) = (peer for peer in cygnus.do("peer", "ls") if peer["name"] == "pegasus")
    assert contribution["received_bytes"] >= published["size_bytes"]
    for name, body in files.items():
        assert (Path(added["snapshot"]) / name).read_bytes() == body


def test_one_file_and_patterns_bring_nothing_else(cygnus: Machine, hub: HubSimulator, put: Put) -> None:
    put("acme/parts")
    added = cygnus.do("model", "add", "-r", "acme/parts", "-f", "config.json")
    assert names(added) == {"config.json"}
    added = cygnus.do("model", "add", "-r", "acme/parts", "--include", "*.json", "--exclude", "nested/")
    assert (names(added), added["reused_bytes"]) == ({"config.json"}, added["size_bytes"])
    added = cygnus.do("model", "add", "-r", "acme/parts", "--include", "*.json")
    assert names(added) == {"config.json", "nested/tokenizer.json"}
    assert hub.requests_for(listener="cdn") == []
    (cached,) = cygnus.found("model", "ls", "-r", "acme/parts")
    assert (cached["files"], cached["is_complete"]) == (2, False)


def names(added: dict[str, Any]) -> set[str]:
    snapshot = Path(added["snapshot"])
    return {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()}


def test_what_is_removed_is_gone_here_and_for_the_peers(pegasus: Machine, cygnus: Machine, put: Put) -> None:
    commit = put("acme/removed")
    pegasus.do("model", "add", "-r", "acme/removed")
    assert is_served(pegasus, "acme/removed", commit) == EVERYWHERE
    pegasus.do("model", "rm", "-r", "acme/removed", "--force")
    assert pegasus.hfpeer("model", "rm", "-r", "acme/removed").code == 4
    assert commit not in ask(pegasus.address, "/catalog")[1].decode()
    assert cygnus.found("model", "search", "-r", "acme/removed") == []


# What is served


def test_what_is_not_shared_is_served_by_no_door(pegasus: Machine, put: Put) -> None:
    commit = put("acme/public")
    pegasus.do("model", "add", "-r", "acme/public")
    assert is_served(pegasus, "acme/public", commit) == EVERYWHERE
    pegasus.do("model", "unshare", "-r", "acme/public")
    assert is_served(pegasus, "acme/public", commit) == NOWHERE
    pegasus.do("model", "share", "-r", "acme/public")
    assert is_served(pegasus, "acme/public", commit) == EVERYWHERE


@pytest.mark.parametrize("visibility", ["private", "gated"])
def test_a_token_reaches_the_origin_alone_and_what_it_brought_is_not_served(
    machines: Machines, hub: HubSimulator, mirror: HubSimulator, upstreams: str, put: Put, visibility: str
) -> None:
    """The machine has peers to ask too: one that records every request, and one behind a wire that is listened to."""
    commit = put(f"acme/{visibility}", visibility=visibility)
    neighbour = machines.make(f"neighbour-{visibility}")
    neighbour.start()
    with GoodPeer() as recorder, Relay(neighbour.address) as wire:
        owner = machines.make(f"owner-{visibility}", upstreams=upstreams, peers=[str(recorder.address), wire.address])
        owner.start()
        refused = add(owner, f"acme/{visibility}")
        assert refused.code == (4 if visibility == "private" else 5)
        assert "hfpeer auth login" in refused.problem["hint"]

        added = add(owner, f"acme/{visibility}", HF_TOKEN=hub.valid_token)
        assert added.code == 0, added.err
        assert list(added.document["bytes_by_kind"]) == ["origin"]
        assert is_served(owner, f"acme/{visibility}", commit) == NOWHERE

        recorder.assert_anonymous()
        assert recorder.requests and wire.asked
        assert b"authorization" not in bytes(wire.asked).lower() and hub.valid_token.encode() not in wire.asked
    assert {record.listener for record in hub.requests_with_token()} == {"hub"}
    assert mirror.requests_with_token() == mirror.requests_with_token(hub.valid_token) == []
    assert hub.valid_token not in owner.log


def test_a_token_goes_to_a_mirror_once_its_owner_says_so(
    machines: Machines, hub: HubSimulator, mirror: HubSimulator, upstreams: str, put: Put
) -> None:
    put("acme/opted", visibility="private")
    owner = machines.make("opted", upstreams=upstreams, HF_TOKEN=hub.valid_token)
    owner.do("conf", "set", "mirror.send_token", "true")
    assert owner.do("model", "add", "-r", "acme/opted")["bytes_by_kind"].keys() == {"mirror"}
    assert {record.listener for record in mirror.requests_with_token()} == {"hub"}


def test_what_nobody_has_been_asked_about_is_not_served_until_a_hub_calls_it_public(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    """A cache that another tool filled, while no hub can be reached; then one can."""
    bodies = {"config.json": b'{"by": "another tool"}'}
    commit = hub.put_repo("model", "acme/unasked", dict(bodies))
    put("acme/other")
    machine = machines.make("unasked", upstreams=f"origin={hub.endpoint}", HF_TOKEN=hub.valid_token)
    hub_cache.download(machine.cache, bodies, Commit(commit), RepoId.parse("acme/unasked"), tree=True)
    with hub.down():
        machine.start()
        (cached,) = machine.found("model", "ls", "-r", "acme/unasked")
        assert (cached["visibility"], cached["is_shared"]) == ("unknown", False)
        assert set(is_served(machine, "acme/unasked", commit).values()) == {False}
        machine.stop()
    machine.start()
    wait_until(lambda: is_served(machine, "acme/unasked", commit) | {"ref": True} == EVERYWHERE, "verified, shared")
    assert {record.authorization for record in hub.requests_for(f"/api/models/acme/unasked/revision/{commit}")} == {
        None
    }


# What goes wrong


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("-r", "acme/nowhere"), "repo_not_found"),
        (("-r", "acme/known", "-v", "no-such-branch"), "revision_not_found"),
        (("-r", "acme/known", "-v", "0" * 40), "revision_not_found"),
    ],
)
def test_what_no_hub_knows_is_exit_4_and_says_who_said_so(
    cygnus: Machine, hub: HubSimulator, mirror: HubSimulator, put: Put, words: tuple[str, ...], code: str
) -> None:
    put("acme/known")
    ran = cygnus.hfpeer("model", "add", *words)
    assert (ran.code, ran.problem["code"]) == (4, code)
    for simulator in (hub, mirror):
        assert simulator.endpoint.removeprefix("http://") in ran.problem["message"]


def test_a_file_that_the_commit_does_not_have_is_exit_4(cygnus: Machine, put: Put) -> None:
    commit = put("acme/lacking")
    ran = add(cygnus, "acme/lacking", "-f", "weights.gguf")
    assert (ran.code, ran.problem["code"]) == (4, "entry_not_found")
    assert "weights.gguf" in ran.problem["message"] and commit[:7] in ran.problem["message"]


def test_a_name_that_is_none_is_exit_2(cygnus: Machine) -> None:
    for words in (("-r", "a/b/c"), ("-r", "acme/x", "-v", "a..b"), ("-r", "acme/x", "-f", "../passwd")):
        assert cygnus.hfpeer("model", "add", *words).code == 2


def test_where_nobody_can_be_reached_is_exit_6_and_says_who_was_tried(
    cygnus: Machine, hub: HubSimulator, mirror: HubSimulator, put: Put
) -> None:
    commit = put("acme/far")
    with hub.down(), mirror.down():
        for revision in ("main", commit):
            ran = add(cygnus, "acme/far", "-v", revision)
            assert ran.code == 6
            for simulator in (hub, mirror):
                assert simulator.endpoint.removeprefix("http://") in ran.problem["message"]
            assert ran.problem["hint"]
    assert add(cygnus, "acme/far", "-v", commit).code == 0


# At the same time, and without a daemon


def test_two_adds_of_one_repo_at_once_fetch_it_once(
    cygnus: Machine, hub: HubSimulator, mirror: HubSimulator, put: Put
) -> None:
    put("acme/twice", 6_000_000)
    adding = [cygnus.begin_hfpeer("model", "add", "-r", "acme/twice") for _ in range(3)]
    ran = [cygnus.finish(process) for process in adding]
    assert [one.code for one in ran] == [0, 0, 0], ran
    assert len({one.document["snapshot"] for one in ran}) == 1
    lfs_bytes = sum(simulator.body_bytes_sent("/repos/*") for simulator in (hub, mirror))
    assert lfs_bytes < 6_000_000 * 1.9, "a part may come twice, where one of the hubs is slow"


def test_two_processes_without_a_daemon_fill_one_cache(
    machines: Machines, hub: HubSimulator, mirror: HubSimulator, upstreams: str, put: Put
) -> None:
    put("acme/shared", 6_000_000)
    alone = machines.make("alone", upstreams=upstreams)
    adding = [alone.begin_hfpeer("model", "add", "-r", "acme/shared") for _ in range(2)]
    ran = [alone.finish(process) for process in adding]
    assert [one.code for one in ran] == [0, 0], ran
    assert sorted(alone.blobs().values())[-1] == 6_000_000 and len(alone.blobs()) == 3
    again = alone.do("model", "add", "-r", "acme/shared", "--local-only")
    assert again["reused_bytes"] == again["size_bytes"]


def test_without_a_daemon_add_ls_and_rm_work_from_the_hubs(machines: Machines, upstreams: str, put: Put) -> None:
    commit = put("acme/alone", kind="dataset")
    user = machines.make("user", upstreams=upstreams)
    added = user.do("dataset", "add", "-r", "acme/alone")
    assert (added["commit"], set(added["bytes_by_kind"])) == (commit, {"mirror"})
    (cached,) = user.do("dataset", "ls")
    assert (cached["repo"], cached["is_complete"], cached["refs"]) == ("acme/alone", True, ["main"])
    removed = user.do("dataset", "rm", "-r", "acme/alone")
    assert (removed["freed_bytes"], user.blobs()) == (added["size_bytes"], {})
    assert user.pid is None and user.do("status")["is_daemon"] is False
