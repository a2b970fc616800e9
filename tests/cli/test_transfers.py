"""`hfpeer transfers`, `hfpeer history` and `add --detach`: words, JSON and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.node import TRANSFER
from fakes.stub_node import COMMIT, STATUS, StubNode
from hfpeer.control.asker import Asker
from hfpeer.control.operations import AttachRequest
from hfpeer.control.transfers import HistoryEntry, TransferProblem, TransferStatus
from hfpeer.errors import NotRunning, TransferCancelled
from hfpeer.transfer.events import Planned, TransferJoined, TransferLeft
from hfpeer_cli.commands.transfers.history import entry_row
from hfpeer_cli.commands.transfers.listing import state_words, transfer_row

Run = Callable[..., Any]
BIG = replace(
    TRANSFER,
    id=7,
    repo="acme/big",
    commit=COMMIT,
    present_bytes=450_000_000,
    size_bytes=1_000_000_000,
    rate_bytes_per_second=110e6,
    bytes_by_source={"h2": 3, "h3": 2, "hub": 1, "quiet": 0},
)
PROBLEM = TransferProblem("no_source_left", "No source answers.", "Wait for the network.", 6)
FAILED = replace(BIG, id=8, state="failed", rate_bytes_per_second=0.0, problem=PROBLEM)
ENTRY = HistoryEntry(
    id=7,
    repo="acme/big",
    revision="main",
    commit=COMMIT,
    outcome="done",
    asked_by=Asker("cli", "ann", "10.0.0.7"),
    began_at=0.0,
    ended_at=60.0,
    seconds=12.0,
    files=5,
    size_bytes=1_000_000_000,
    bytes_by_source={"h2": 900_000_000},
    bytes_by_kind={"peer": 900_000_000, "origin": 100_000_000},
    saved_bytes=900_000_000,
)


# add --detach


def test_detach_prints_the_id_alone_and_returns(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("model", "add", "-r", "acme/big", "-d", "--priority", "high")
    assert (ran.code, ran.out) == (0, "1\n")
    assert "Transfer 1: acme/big is queued. `hfpeer transfers attach 1` shows it." in ran.err
    name, arguments = node.calls[-1]
    assert (name, arguments["priority"], str(arguments["request"].repo)) == ("begin_transfer", "high", "acme/big")


def test_detach_takes_several_repos(hfpeer: Run) -> None:
    ran = hfpeer("add", "acme/big", "datasets/acme/rows@v1", "-d")
    assert (ran.code, ran.out, "2 repos queued." in ran.err) == (0, "1\n2\n", True)
    assert [one["repo"] for one in hfpeer("add", "acme/big", "acme/small", "-d", "--json").document] == [
        "acme/big",
        "acme/small",
    ]


def test_detach_as_json_is_the_transfer(hfpeer: Run) -> None:
    ran = hfpeer("dataset", "add", "-r", "acme/rows", "--detach", "--json")
    assert (ran.document["id"], ran.document["repo"], ran.document["state"]) == (1, "datasets/acme/rows", "queued")
    assert ran.err == ""


@pytest.mark.parametrize("option", [("--local-dir", "x"), ("--cache", "x"), ("--local-only",)])
def test_detach_is_refused_with_what_only_a_command_can_do(hfpeer: Run, node: StubNode, option: tuple[str]) -> None:
    ran = hfpeer("model", "add", "-r", "acme/big", "-d", *option)
    assert (ran.code, node.sessions) == (2, 0)


def test_detach_without_a_daemon_says_what_to_do(hfpeer: Run, node: StubNode) -> None:
    node.failure = NotRunning("No daemon runs, so no add can go on in the background.", hint="hfpeer daemon start")
    ran = hfpeer("model", "add", "-r", "acme/big", "-d", "--json")
    assert (ran.code, ran.problem["code"], ran.problem["hint"]) == (9, "not_running", "hfpeer daemon start")


def test_an_add_tells_the_daemon_who_asks(hfpeer: Run, node: StubNode, environ: dict[str, str]) -> None:
    environ |= {"USER": "ann", "SSH_CONNECTION": "10.0.0.7 1 10.0.0.1 22"}
    hfpeer("model", "add", "-r", "acme/tiny")
    assert node.calls[-1][1]["request"].asked_by == Asker("cli", "ann", "10.0.0.7")


# An add that joins, resumes, or is stopped


def test_an_add_of_what_runs_already_says_so(hfpeer: Run, node: StubNode) -> None:
    node.events = [TransferJoined(7, 2, "running", is_new=False)]
    assert "Transfer 7 does this already: it is running." in hfpeer("model", "add", "-r", "acme/tiny").err
    node.events = [TransferJoined(7, 2, "queued", is_new=False)]
    assert "Going on with transfer 7 of an earlier add." in hfpeer("model", "add", "-r", "acme/tiny").err
    node.events = [TransferJoined(7, 1, "queued", is_new=True)]
    assert "Transfer 7" not in hfpeer("model", "add", "-r", "acme/tiny").err


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("paused", "the same command continues from there, or `hfpeer transfers resume 7`."),
        ("running", "No longer waiting: transfer 7 is running. `hfpeer transfers cancel 7` ends it."),
    ],
)
def test_ctrl_c_says_what_becomes_of_the_transfer(hfpeer: Run, node: StubNode, state: str, sentence: str) -> None:
    node.events, node.failure = [TransferLeft(7, state)], KeyboardInterrupt()  # type: ignore[assignment]
    ran = hfpeer("model", "add", "-r", "acme/tiny")
    assert (ran.code, ran.err.splitlines()[-1].endswith(sentence)) == (130, True), ran.err


def test_a_transfer_that_another_command_cancels_ends_the_add(hfpeer: Run, node: StubNode) -> None:
    node.failure = TransferCancelled("Transfer 7 was cancelled.", hint="The same command goes on from there.")
    ran = hfpeer("model", "add", "-r", "acme/tiny", "--json")
    assert (ran.code, ran.problem["code"]) == (1, "cancelled")


def test_events_as_lines_have_the_id(hfpeer: Run, node: StubNode) -> None:
    node.events = [TransferJoined(7, 1, "queued", is_new=True), Planned("acme/tiny", COMMIT, 1, 9, 1, 9, "h", True)]
    lines = [json.loads(line) for line in hfpeer("model", "add", "-r", "acme/tiny", "--json-lines").out.splitlines()]
    assert (lines[0]["event"], lines[0]["id"]) == ("transfer_joined", 7)


# transfers


def test_the_list_says_how_far_how_fast_how_long_and_from_whom(hfpeer: Run, node: StubNode) -> None:
    node.transfers = [BIG, FAILED, replace(BIG, id=9, state="done")]
    ran = hfpeer("transfers")
    head, first, second = ran.out.splitlines()
    assert head.split() == ["ID", "REPO", "COMMIT", "STATE", "DONE", "RATE", "LEFT", "FROM"]
    for text in ("7", "acme/big", COMMIT[:12], "running", "45% of 1.0 GB", "110.0 MB/s", "0:05", "h2, h3, 1 more"):
        assert text in first
    assert "failed (6)" in second
    assert ran.err.splitlines() == ["8: No source answers.", "   Wait for the network."]
    assert " 9 " not in ran.out and len(hfpeer("transfers", "-a").out.splitlines()) == 4


def test_the_list_as_json_has_all_facts(hfpeer: Run, node: StubNode) -> None:
    node.transfers = [BIG, FAILED]
    ran = hfpeer("transfers", "--json")
    first, second = ran.document
    assert (first["id"], first["state"], first["present_bytes"], first["size_bytes"]) == (7, "running", 450e6, 1e9)
    assert (second["problem"]["exit_code"], ran.err) == (6, "")


def test_an_empty_list_says_where_to_look(hfpeer: Run) -> None:
    ran = hfpeer("transfers")
    assert (ran.code, ran.out) == (0, "")
    assert "No transfer is under way. `hfpeer history`" in ran.err
    assert hfpeer("transfers", "--json").document == []


def test_states_say_what_people_ask_next() -> None:
    assert state_words(replace(BIG, state="waiting", next_try_at=130.0), 100.0) == "again in 30 s"
    assert state_words(replace(BIG, state="queued", priority="high"), 0.0) == "queued, high"
    assert transfer_row(TransferStatus(3, "acme/new", "main", "", "queued"))[2:] == ("main", "queued", "", "", "", "")


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_a_verb_takes_several_ids(hfpeer: Run, node: StubNode, verb: str) -> None:
    node.transfers = [BIG, FAILED]
    ran = hfpeer("transfers", verb, "7", "8")
    assert (ran.code, node.calls[-1]) == (0, ("change_transfers", {"ids": (7, 8), "change": verb}))
    assert ran.out.startswith("7  acme/big: running, 45% of 1.0 GB\n8  acme/big: failed (6)")


def test_all_means_those_that_can_be_changed(hfpeer: Run, node: StubNode) -> None:
    node.transfers = [BIG, FAILED, replace(BIG, id=9, state="done")]
    assert hfpeer("transfers", "pause", "--all").code == 0
    assert node.calls[-1] == ("change_transfers", {"ids": (7,), "change": "pause"})
    assert hfpeer("transfers", "cancel", "--all").code == 0
    assert node.calls[-1] == ("change_transfers", {"ids": (7, 8), "change": "cancel"})


def test_an_id_that_is_not_there_is_exit_4(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("transfers", "cancel", "5", "--json")
    assert (ran.code, ran.problem["code"]) == (4, "not_found")
    assert hfpeer("transfers", "pause", "--all").code == 4


@pytest.mark.parametrize(
    "words", [("pause",), ("pause", "7", "--all"), ("pause", "x"), ("move", "7", "up"), ("-w", "pause", "7")]
)
def test_malformed_words_are_exit_2_and_change_nothing(hfpeer: Run, node: StubNode, words: tuple[str, ...]) -> None:
    node.transfers = [BIG]
    assert (hfpeer("transfers", *words).code, node.calls) == (2, [])


def test_move_changes_the_place_in_the_queue(hfpeer: Run, node: StubNode) -> None:
    node.transfers = [BIG]
    assert hfpeer("transfers", "move", "7", "first").code == 0
    assert node.calls[-1] == ("change_transfers", {"ids": (7,), "change": "first"})


def test_attach_ends_as_the_add_itself(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("transfers", "attach", "7")
    assert (ran.code, ran.out.strip().endswith("ab" * 20)) == (0, True)
    assert [call for call in node.calls if call[0] != "list_transfers"] == [("attach", {"request": AttachRequest(7)})]


def test_status_shows_what_runs_and_how_fast(hfpeer: Run, node: StubNode) -> None:
    stream = replace(BIG, id=0, path="model.safetensors", rate_bytes_per_second=0.0)
    node.picture = replace(STATUS, transfers=(BIG, stream))
    out = hfpeer("status").out
    assert "fetching   7 acme/big: running, 45% of 1.0 GB, 110.0 MB/s, about 0:05 left" in out
    assert "acme/big model.safetensors (endpoint): running, 45% of 1.0 GB" in out


# history


def test_the_history_says_who_what_when_from_where_and_what_it_saved(hfpeer: Run, node: StubNode) -> None:
    node.entries = [ENTRY, replace(ENTRY, ended_at=120.0, outcome="failed", problem=PROBLEM)]
    ran = hfpeer("history")
    head, first, second = ran.out.splitlines()
    assert head.split() == ["WHEN", "REPO", "COMMIT", "FOR", "OUTCOME", "TOOK", "PEERS", "MIRRORS", "HUB"]
    for text in ("acme/big", COMMIT[:12], "ann from 10.0.0.7", "done", "12 s", "900.0 MB", "100.0 MB"):
        assert text in first
    assert "failed (6)" in second
    assert "2 entries: 2.0 GB came, 1.8 GB of it from peers." in ran.err
    assert hfpeer("history", "--json").document[0]["saved_bytes"] == 900_000_000


def test_the_history_is_cut_by_time_and_number(hfpeer: Run, node: StubNode) -> None:
    node.entries = [replace(ENTRY, id=id) for id in range(60)]
    assert [entry["id"] for entry in hfpeer("history", "-n", "2", "--json").document] == [58, 59]
    assert len(hfpeer("history", "-n", "0", "--json").document) == 60
    assert "10 earlier ones are not shown" in hfpeer("history").err
    assert hfpeer("history", "--since", "7d", "--json").document == []
    assert hfpeer("history", "--since", "soon").code == 2


def test_an_empty_history_says_so(hfpeer: Run) -> None:
    ran = hfpeer("history")
    assert (ran.code, ran.out, "Nothing was fetched." in ran.err) == (0, "", True)


def test_bytes_of_modelscope_count_as_those_of_a_mirror() -> None:
    row = entry_row(replace(ENTRY, bytes_by_kind={"mirror": 1_000_000, "modelscope": 2_000_000}))
    assert row[-3:] == ("", "3.0 MB", "")
