"""What names mean, between real daemons and hubs: who says so, who is believed, and what is told of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.endpoint import Endpoint, endpoint_of
from fakes.hub import HubSimulator
from fakes.machine import HFPEER, Machine, Machines, Ran
from fakes.waiting import wait_until

Put = Callable[..., str]


def add(machine: Machine, repo: str, *words: str, **environ: Any) -> Ran:
    return machine.hfpeer("model", "add", "-r", repo, *words, **environ)


def said(machine: Machine, *words: str, **environ: Any) -> Ran:
    """What a person is told: a command without --json."""
    return machine.run(*HFPEER, *words, **environ)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"of": "{tmp_path.name}"}}')
    return folder


@pytest.fixture(scope="module")
def endpoint(cygnus: Machine) -> Endpoint:
    return Endpoint(f"http://{cygnus.do('status')['listeners']['endpoint']}")


def publish(machine: Machine, folder: Path, name: str, *words: str) -> Any:
    return machine.do("model", "publish", str(folder), "--as", name, *words)


# Publishing


def test_a_name_that_a_hub_knows_is_refused_to_a_publisher(
    pegasus: Machine, hub: HubSimulator, put: Put, folder: Path
) -> None:
    put("acme/taken")
    ran = pegasus.hfpeer("model", "publish", str(folder), "--as", "acme/taken")
    assert (ran.code, ran.problem["code"]) == (5, "name_taken")
    assert "--force" in ran.problem["hint"]
    assert pegasus.found("model", "ls", "-r", "acme/taken") == []
    forced = publish(pegasus, folder, "acme/taken", "--force")
    (cached,) = pegasus.found("model", "ls", "-r", "acme/taken")
    assert (cached["commit"], cached["published_by"], cached["is_published_here"]) == (
        forced["commit"],
        "pegasus",
        True,
    )


def test_a_name_that_the_cache_or_a_peer_knows_is_refused_to_a_publisher(
    pegasus: Machine, machines: Machines, put: Put, folder: Path
) -> None:
    commit = put("acme/cached")
    pegasus.do("model", "add", "-r", "acme/cached")
    ran = pegasus.hfpeer("model", "publish", str(folder), "--as", "acme/cached")
    assert (ran.code, ran.problem["code"]) == (5, "name_taken")
    assert commit[:12] in ran.problem["message"]
    # A node without hubs, that knows it from its peer alone.
    naos = machines.make("naos", peers=[pegasus.address])
    naos.start()
    naos.wait_until_it_knows(pegasus)
    ran = naos.hfpeer("model", "publish", str(folder), "--as", "acme/cached")
    assert (ran.code, ran.problem["code"]) == (5, "name_taken")
    assert "pegasus" in ran.problem["message"]


def test_a_forced_publication_moves_the_name_for_other_tools_and_a_plain_one_does_not(
    pegasus: Machine, hub: HubSimulator, put: Put, folder: Path
) -> None:
    commit = put("acme/moved")
    pegasus.do("model", "add", "-r", "acme/moved")
    main = pegasus.cache / "models--acme--moved/refs/main"
    assert main.read_text() == commit
    forced = publish(pegasus, folder, "acme/moved", "--force")
    assert main.read_text() == forced["commit"]
    # A hub's word is still a hub's word: with it the name goes back.
    assert pegasus.do("model", "add", "-r", "acme/moved")["commit"] == commit
    assert main.read_text() == commit


def test_a_publication_is_marked_wherever_it_is_listed(
    pegasus: Machine, cygnus: Machine, machines: Machines, folder: Path
) -> None:
    published = publish(pegasus, folder, "team/marked")
    assert publish(pegasus, folder, "team/marked")["commit"] == published["commit"], "the own name is free to its owner"
    assert "complete, published" in said(pegasus, "model", "ls", "-r", "team/marked").out
    (found,) = cygnus.found("model", "search", "-r", "team/marked")
    assert (found["is_published"], found["refs"]) == (True, ["main"])
    assert "all of it, published" in said(cygnus, "model", "search", "-r", "team/marked").out


def test_where_no_hub_can_be_asked_a_publisher_is_told_so(machines: Machines, hub: HubSimulator, folder: Path) -> None:
    alone = machines.make("alone-publisher", upstreams=f"origin={hub.endpoint}")
    with hub.down():
        ran = said(alone, "model", "publish", str(folder), "--as", "team/unasked")
    assert ran.code == 0
    assert "could not be asked" in ran.err


# Finding what was published


def test_what_a_peer_published_is_added_by_its_name(pegasus: Machine, cygnus: Machine, folder: Path) -> None:
    published = publish(pegasus, folder, "team/found")
    assert cygnus.found("model", "search", "-r", "team/found")
    ran = said(cygnus, "model", "add", "-r", "team/found")
    assert ran.code == 0, ran.err
    assert f"is commit {published['commit'][:12]}, published by pegasus, on no hub." in ran.err
    (cached,) = cygnus.found("model", "ls", "-r", "team/found")
    assert (cached["published_by"], cached["is_published_here"]) == ("pegasus", False)
    ref = cygnus.cache / "models--team--found/refs/main"
    assert (ref.read_text(), ref.stat().st_mtime) == (published["commit"], 0), (
        "shown to tools that are offline, and dated"
    )
    again = cygnus.do("model", "add", "-r", "team/found")
    assert (again["voice"], again["answered_by"]) == ("published", "pegasus")
    ran = said(pegasus, "model", "add", "-r", "team/found")
    assert ", published by this node, on no hub." in ran.err


def test_what_a_peer_published_is_found_by_its_name_at_any_endpoint(
    pegasus: Machine, cygnus: Machine, endpoint: Endpoint, hub: HubSimulator, folder: Path
) -> None:
    """As `from_pretrained` does it: the name is redirected to the commit, and the file comes."""
    commit = publish(pegasus, folder, "team/served")["commit"]
    assert cygnus.found("model", "search", "-r", "team/served")
    found = endpoint.head("/team/served/resolve/main/config.json")
    assert (found.status, found.headers["x-repo-commit"]) == (307, commit), found
    assert "published by pegasus on the LAN, on no hub" in found.headers["x-hf-warning"]
    for _ in range(2):
        assert endpoint.get(found.headers["location"]).body == (folder / "config.json").read_bytes()
    assert endpoint.get("/api/models/team/served/revision/main").document["sha"] == commit
    with_token = endpoint.like(Authorization=f"Bearer {hub.valid_token}")
    assert with_token.head("/team/served/resolve/main/config.json").status == 307
    assert with_token.get(found.headers["location"]).body == (folder / "config.json").read_bytes()
    refs = endpoint.get("/api/models/team/served/refs")
    assert refs.status == 200, refs
    (main,) = refs.document["branches"]
    assert (main["name"], main["targetCommit"]) == ("main", commit)


def test_a_name_that_a_peer_published_holds_while_its_first_files_are_here(
    pegasus: Machine, machines: Machines, hub: HubSimulator, upstreams: str, folder: Path
) -> None:
    """An add marks the commit as published when it ends: before, and when it never ends, what has come must not pass
    for a repo that a hub once knew and hides now."""
    (folder / "model.bin").write_bytes(os.urandom(48 << 20))
    commit = publish(pegasus, folder, "team/half")["commit"]
    taker = machines.make("taker", upstreams=upstreams, peers=[pegasus.address], HFPEER_LIMIT_LAN_DOWN="1MB")
    endpoint = endpoint_of(taker)
    taker.wait_until_it_knows(pegasus)
    wait_until(lambda: taker.found("model", "search", "-r", "team/half"), "the publication is found")
    command = taker.begin_hfpeer("model", "add", "-r", "team/half")

    def small_file_is_here() -> bool:
        return [(one["files"], one["published_by"]) for one in taker.found("model", "ls", "-r", "team/half")] == [
            (1, "")
        ]

    wait_until(small_file_is_here, "the small file is here")
    refs = endpoint.get("/api/models/team/half/refs")
    assert refs.status == 200, refs
    with_token = endpoint.like(Authorization=f"Bearer {hub.valid_token}")
    for caller in (endpoint, with_token):
        found = caller.head("/team/half/resolve/main/config.json")
        assert (found.status, found.headers.get("x-repo-commit")) == (307, commit), found
    os.kill(command.pid, signal.SIGKILL)
    taker.finish(command)
    taker.stop()
    taker.environ.pop("HFPEER_LIMIT_LAN_DOWN")
    taker.start()
    taker.wait_until_it_knows(pegasus)
    again = taker.do("model", "add", "-r", "team/half")
    assert (again["commit"], again["voice"]) == (commit, "published")
    assert again["reused_bytes"] > 0
    (cached,) = taker.found("model", "ls", "-r", "team/half")
    assert cached["published_by"] == "pegasus"


def test_peers_that_publish_different_things_under_one_name_stop_tool_and_command(
    pegasus: Machine, machines: Machines, upstreams: str, folder: Path
) -> None:
    rigel = machines.make("rigel", upstreams=upstreams)
    rigel.start()
    ours = publish(pegasus, folder, "team/both")["commit"]
    (folder / "config.json").write_text("another")
    theirs = publish(rigel, folder, "team/both")["commit"]
    asker = machines.make("asker", upstreams=upstreams, peers=[pegasus.address, rigel.address])
    endpoint = endpoint_of(asker)
    for peer in (pegasus, rigel):
        asker.wait_until_it_knows(peer)
    ran = add(asker, "team/both")
    assert (ran.code, ran.problem["code"]) == (7, "contested_name")
    for word in ("pegasus", "rigel", ours, theirs):
        assert word in ran.problem["message"]
    refused = endpoint.head("/team/both/resolve/main/config.json")
    assert (refused.status, refused.code) == (409, None)
    assert ours in refused.headers["x-error-message"]
    assert add(asker, "team/both", "-v", theirs).code == 0
