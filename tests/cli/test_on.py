"""`add --on` and `sync --on`: which nodes are asked for what, what is shown, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.node import COMMIT, TRANSFER
from fakes.stub_node import PEGASUS, StubNode
from hfpeer.control.asker import Asker
from hfpeer.control.operations import AddRequest, OtherNode, TransferStatus
from hfpeer.control.transfers import TransferProblem
from hfpeer_cli.commands.transfers.listing import node_words, transfer_row

Run = Callable[..., Any]
REFUSED = TransferProblem("request_refused", "gpu takes no requests.", "There: allow it.", 5)
AWAY = TransferProblem("peer_unreachable", "gpu is away.", None, 6)
CANCELLED = TransferProblem("cancelled", "gpu has cancelled it.", None, 1)
FULL = TransferProblem("storage", "gpu could not add it.", None, 8)


def asked(state: str, problem: TransferProblem | None = None, **changes: Any) -> TransferStatus:
    return replace(TRANSFER, repo="acme/tiny", node="pegasus", state=state, problem=problem, **changes)


class Fleet(StubNode):
    """A node whose transfers on others have these ends, in the order in which they begin."""

    ends: tuple[TransferStatus, ...] = ()
    requests: list[AddRequest]

    async def begin_transfer(self, request: AddRequest, priority: str = "normal") -> TransferStatus:
        self.requests.append(request)
        id = len(self.requests)
        self.transfers.append(replace(self.ends[id - 1], id=id))
        return replace(TRANSFER, id=id, state="queued", node="pegasus")


@pytest.fixture
def node() -> StubNode:
    fleet = Fleet()
    fleet.requests = []
    return fleet


def fleet_of(node: StubNode, *ends: TransferStatus) -> Fleet:
    assert isinstance(node, Fleet)
    node.ends = ends
    return node


def test_each_node_is_asked_for_the_commit_that_the_name_means_here(hfpeer: Run, node: StubNode) -> None:
    fleet = fleet_of(node, asked("done", size_bytes=5, present_bytes=5))
    ran = hfpeer("model", "add", "-r", "acme/tiny@dev", "--on", "pegasus", "--include", "*.bin")
    assert ran.code == 0, ran
    (request,) = fleet.requests
    assert request.node == OtherNode("pegasus", PEGASUS.node_id)
    assert (str(request.revision), request.told_as, request.include) == (COMMIT, "dev", ("*.bin",))
    assert request.token is None
    assert ran.out.splitlines()[1].split() == ["pegasus", "acme/tiny", "done", "100%", "of", "5", "B"]


def test_a_commit_that_is_typed_needs_no_answer(hfpeer: Run, node: StubNode) -> None:
    fleet = fleet_of(node, asked("done"))
    hfpeer("model", "add", "-r", "acme/tiny", "-v", COMMIT, "--on", "all")
    assert "list_commit" not in [name for name, _ in node.calls]
    assert (str(fleet.requests[0].revision), fleet.requests[0].told_as) == (COMMIT, None)


ENDS = {
    "refused": (asked("failed", REFUSED), 5),
    "away": (asked("waiting", AWAY), 6),
    "cancelled there": (asked("failed", CANCELLED), 1),
    "failed (8)": (asked("failed", FULL), 8),
}


@pytest.mark.parametrize("words", ENDS)
def test_the_exit_code_is_that_of_the_first_node_that_does_not_have_it(hfpeer: Run, node: StubNode, words: str) -> None:
    end, code = ENDS[words]
    node.peers["10.0.0.9:9437"] = replace(PEGASUS, name="cygnus", node_id="n2", address="10.0.0.9:9437")
    fleet_of(node, asked("done"), end)
    ran = hfpeer("model", "add", "-r", "acme/tiny", "--on", "all")
    assert (ran.code, words in ran.out) == (code, True), ran
    assert end.problem is not None and end.problem.message in ran.err
    assert (words == "away") == ("asked when it returns" in ran.err)


def test_json_lines_tell_each_change_and_the_result(hfpeer: Run, node: StubNode) -> None:
    fleet_of(node, asked("done", size_bytes=5, present_bytes=5, files=2))
    lines = [json.loads(line) for line in hfpeer("--json-lines", "add", "acme/tiny", "--on", "all").out.splitlines()]
    assert lines[0] == {
        "event": "node_told",
        "node": "pegasus",
        "state": "done",
        "present_bytes": 5,
        "size_bytes": 5,
        "files": 2,
        "rate_bytes_per_second": 0,
    }
    assert [one["state"] for one in lines[1]["result"]] == ["done"]


def test_detached_it_returns_at_once(hfpeer: Run, node: StubNode) -> None:
    fleet_of(node, asked("running"))
    ran = hfpeer("model", "add", "acme/tiny", "--on", "pegasus", "-d")
    assert (ran.code, ran.out.splitlines()[1].split()[:2]) == (0, ["1", "pegasus"])
    assert "list_transfers" not in [name for name, _ in node.calls]


def test_it_says_what_goes_on_after_ctrl_c(hfpeer: Run, node: StubNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    fleet_of(node, asked("running"))
    ran = hfpeer("model", "add", "acme/tiny", "--on", "pegasus")
    assert (ran.code, "the nodes go on" in ran.err) == (130, True)


@pytest.mark.parametrize("option", ["--local-only", "--no-peers", "--dry-run", "--trust-peers", "--cache=/x"])
def test_options_of_this_node_alone_do_not_go_with_it(hfpeer: Run, node: StubNode, option: str) -> None:
    assert hfpeer("model", "add", "acme/tiny", "--on", "all", option).code == 2
    assert node.sessions == 0


@pytest.mark.parametrize("names", ["", ",", " , "])
def test_names_of_no_node_are_no_add_on_this_one(hfpeer: Run, node: StubNode, names: str) -> None:
    ran = hfpeer("model", "add", "-r", "acme/tiny", "--on", names)
    assert ran.code == 2 and "names no node" in ran.err and not node.calls


def test_states_in_words() -> None:
    running = asked("running", state_there="paused")
    assert node_words(running) == "paused there"
    assert node_words(replace(running, state_there="")) == "asking"
    assert node_words(replace(running, state_there="running")) == "running"
    assert transfer_row(asked("waiting", AWAY))[1:4:2] == ("acme/tiny on pegasus", "waiting for pegasus")
    here = replace(TRANSFER, state="running", asked_by=Asker("peer", "head", "10.0.0.1"))
    assert transfer_row(here)[3] == "running, asked for by head"


def test_a_lock_file_is_asked_for_entry_by_entry(hfpeer: Run, node: StubNode, tmp_path: Any) -> None:
    lock = tmp_path / "models.lock"
    assert hfpeer("lock", "acme/tiny", "datasets/acme/set", "-o", str(lock)).code == 0
    fleet = fleet_of(node, asked("done"), asked("done"))
    assert hfpeer("sync", str(lock), "--on", "all").code == 0
    assert sorted((str(request.repo), str(request.revision)) for request in fleet.requests) == [
        ("acme/tiny", COMMIT),
        ("datasets/acme/set", COMMIT),
    ]
    assert {request.told_as for request in fleet.requests} == {None}
    assert hfpeer("sync", str(lock), "-d").code == 2


def test_the_names_of_nodes_are_completed_also_behind_a_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    from hfpeer_cli.grammar import completions

    others = [PEGASUS, replace(PEGASUS, name="cygnus"), replace(PEGASUS, name="")]
    monkeypatch.setattr(completions, "_of_daemon", lambda ctx, ask: others)
    ctx = click.Context(click.Command("add"))
    offered = {
        word: [item.value for item in completions.complete_nodes(ctx, word)] for word in ("", "peg", "pegasus,", "x,c")
    }
    assert offered == {
        "": ["all", "pegasus", "cygnus"],
        "peg": ["pegasus"],
        "pegasus,": ["pegasus,cygnus"],
        "x,c": ["x,cygnus"],
    }


@pytest.mark.parametrize("words", ENDS)
def test_attach_to_an_add_of_another_node_shows_it_as_add_on_does(hfpeer: Run, node: StubNode, words: str) -> None:
    end, code = ENDS[words]
    node.transfers = [replace(TRANSFER, id=6), replace(end, id=7)]
    ran = hfpeer("transfers", "attach", "7")
    assert (ran.code, words in ran.out) == (code, True), ran
    assert end.problem is not None and end.problem.message in ran.err
    assert [name for name, _ in node.calls] == ["list_transfers"] * len(node.calls)


def test_attach_to_an_add_of_another_node_tells_its_progress(hfpeer: Run, node: StubNode) -> None:
    node.transfers = [asked("done", id=7, size_bytes=5, present_bytes=5, state_there="done")]
    ran = hfpeer("transfers", "attach", "7")
    assert (ran.code, ran.err) == (0, "pegasus, acme/tiny: done\n")
    assert "100% of 5 B" in ran.out and "all of it was here" not in ran.err
    assert [one["node"] for one in hfpeer("transfers", "attach", "7", "--json").document] == ["pegasus"]
    lines = [json.loads(line) for line in hfpeer("transfers", "attach", "7", "--json-lines").out.splitlines()]
    assert [next(iter(line)) for line in lines] == ["event", "result"]
