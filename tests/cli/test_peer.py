"""peer and status: the peers, and the state of this node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.machine import Machines
from fakes.stub_node import PEGASUS, STATUS, StubNode
from hfpeer.control.results import HubContact
from hfpeer_cli.commands.node.peer import added_sentence
from hfpeer_cli.commands.node.status import describe

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (("gpu-3.local",), "gpu-3.local:9437"),
        (("10.0.0.2:9500",), "10.0.0.2:9500"),
        (("10.0.0.2", "-p", "9500"), "10.0.0.2:9500"),
        (("[fd00::2]:9500",), "[fd00::2]:9500"),
        (("fd00::2",), "[fd00::2]:9437"),
    ],
)
def test_a_peer_is_named_in_any_usual_way(hfpeer: Run, node: StubNode, words: tuple[str, ...], address: str) -> None:
    ran = hfpeer("peer", "add", *words)
    assert ran.code == 0
    assert node.calls == [("add_peer", {"address": address})]
    assert address in ran.out


def test_a_peer_that_does_not_answer_is_remembered_and_that_is_said() -> None:
    silent = replace(PEGASUS, state="known", note="The peer 192.168.1.20:9437 does not answer: connection refused.")
    assert added_sentence(silent) == ("Added 192.168.1.20:9437. It does not answer yet (connection refused).")
    assert added_sentence(replace(silent, note="")) == "Added 192.168.1.20:9437. It does not answer yet."


def test_an_address_where_another_program_answers_is_not_called_silent() -> None:
    other = replace(PEGASUS, state="known", note="The peer 192.168.1.20:9437 answers with status 404.")
    assert added_sentence(other) == "Added 192.168.1.20:9437. The peer 192.168.1.20:9437 answers with status 404."


def test_each_note_on_the_node_has_its_line(hfpeer: Run, node: StubNode) -> None:
    node.picture = replace(STATUS, notes=("One is wrong.", "Another is too."))
    lines = hfpeer("status").out.splitlines()
    assert lines[-2:] == ["note       One is wrong.", "           Another is too."]


def test_a_url_of_a_peer_is_answered_with_its_address(hfpeer: Run) -> None:
    ran = hfpeer("peer", "add", "http://192.168.1.20:9438/")
    assert (ran.code, "Leave out http://: `192.168.1.20:9438`." in ran.err) == (2, True)
    assert "Write HOST[:PORT]" in hfpeer("peer", "add", "ftp://192.168.1.20/x").err


def test_rm_of_a_peer_that_was_not_added_exits_4(hfpeer: Run) -> None:
    assert hfpeer("peer", "rm", "10.9.9.9").code == 4
    assert hfpeer("peer", "rm", "192.168.1.20").code == 0


@pytest.mark.slow
def test_peers_that_were_added_and_those_of_the_environment_add_up(tmp_path: Path) -> None:
    with Machines(tmp_path) as machines:
        machine = machines.make("adder", peers=["127.0.0.7"])
        machine.do("peer", "add", "127.0.0.8")
        machine.do("peer", "add", "127.0.0.9")
        machine.do("peer", "rm", "127.0.0.8")
        assert [peer["address"] for peer in machine.do("peer", "ls")] == ["127.0.0.7:9437", "127.0.0.9:9437"]
        assert machine.do("conf", "get", "peers")["from"] == "file and environment HFPEER_PEERS"
        refused = machine.hfpeer("peer", "rm", "127.0.0.7")
        assert refused.code == 4 and "HFPEER_PEERS" in refused.problem["message"]
        machine.environ["HFPEER_PEERS"] = ""
        assert [peer["address"] for peer in machine.do("peer", "ls")] == ["127.0.0.9:9437"]


def test_ls_shows_the_state_of_each_peer_and_the_bytes_from_it(hfpeer: Run) -> None:
    out = hfpeer("peer", "ls").out
    assert "pegasus  192.168.1.20:9437  alive" in out
    assert "5.0 MB" in out
    assert hfpeer("peer", "ls", "--json").document[0]["node_id"] == "n1"


def test_ls_without_peers_says_how_to_add_one(hfpeer: Run, node: StubNode) -> None:
    node.peers = {}
    ran = hfpeer("peer", "ls")
    assert (ran.code, ran.out) == (0, "")
    assert "hfpeer peer add HOST" in ran.err


def test_status_as_json_says_all_that_the_node_knows(hfpeer: Run) -> None:
    document = hfpeer("--json", "status").document
    assert document["node_id"] == "ab12"
    assert document["version"] == "0.1.0"
    assert document["listeners"] == {"lan": "0.0.0.0:9437"}
    assert document["peers"][0]["name"] == "pegasus"
    assert document["received_bytes"] == {"peer": 900_000, "mirror": 100_000, "origin": 0}


def test_status_for_people_says_where_it_listens_and_how_long_it_runs() -> None:
    text = "\n".join(describe(STATUS, now=7200.0))
    assert "runs for 2 h as process 77" in text
    assert "lan: 0.0.0.0:9437" in text
    assert "900.0 kB from peers, 100.0 kB from mirrors" in text


def test_status_tells_the_rate_of_sending_while_bytes_leave() -> None:
    assert "sent       7 B" in describe(replace(STATUS, sent_bytes=7), now=0.0)
    sending = replace(STATUS, sent_bytes=77_000_000_000, sent_bytes_per_second=12_000_000.0)
    assert "sent       77.0 GB; sending 12.0 MB/s now" in describe(sending, now=0.0)


def test_status_says_what_to_type_elsewhere_and_which_hubs_answer() -> None:
    contacts = {"m": HubContact("mirror", 3.0), "o": HubContact("origin", 7200.0, 12.0), "n": HubContact("mirror")}
    upstreams = {name: f"https://{name}" for name in (*contacts, "x")}
    contacts["x"] = HubContact("mirror", None, 5.0)
    picture = replace(STATUS, upstreams=upstreams, contacts=contacts, addresses=("192.168.1.5:9437", "10.0.0.5:9437"))
    lines = describe(picture, now=0.0)
    assert "elsewhere  hfpeer peer add 192.168.1.5" in lines
    assert [line[11:] for line in lines if "https://" in line] == [
        "m: https://m, mirror, answered 3.0 s ago",
        "o: https://o, origin, does not answer (asked 12 s ago; answered 2 h ago)",
        "n: https://n, mirror, not asked yet",
        "x: https://x, mirror, does not answer (asked 5.0 s ago; it never did)",
    ]
    elsewhere = describe(replace(picture, addresses=("10.0.0.5:9500",)), now=0.0)
    assert "elsewhere  hfpeer peer add 10.0.0.5:9500" in elsewhere
    assert not [line for line in describe(STATUS, now=0.0) if line.startswith("elsewhere")]


def test_status_without_a_daemon_says_so_and_is_no_failure(hfpeer: Run, node: StubNode) -> None:
    node.picture = replace(STATUS, is_daemon=False)
    ran = hfpeer("status")
    assert ran.code == 0
    assert "no daemon runs" in ran.out
