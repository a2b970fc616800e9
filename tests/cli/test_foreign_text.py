"""Text from peers, hubs and repos on the user's terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.node import TRANSFER
from fakes.stub_node import FINISHED, PEGASUS, STATUS, TINY, StubNode
from hfpeer.control.operations import CachedFile, Holding, Provenance
from hfpeer.errors import NotFound

Run = Callable[..., Any]
BAD = "a\x1b]0;owned\x07\nError: forged\u202e\x9b2J"
SHOWN = r"a\x1b]0;owned\x07\nError: forged\u202e\x9b2J"


def _name_a_file(node: StubNode) -> None:
    node.cached = [replace(TINY, listing=(CachedFile(BAD, 5, "sha256:..", True),))]


def _name_a_peer(node: StubNode) -> None:
    node.peers = {PEGASUS.address: replace(PEGASUS, name=BAD)}
    node.picture = replace(STATUS, peers=(replace(PEGASUS, name=BAD),), transfers=(replace(TRANSFER, repo=BAD),))


def _name_a_contribution(node: StubNode) -> None:
    node.finished = replace(FINISHED, bytes_by_source={BAD: 900_000})


def _find_at_a_peer(node: StubNode) -> None:
    node.found = [Holding(BAD, "192.168.1.20:9437", BAD, TINY.commit, (BAD,), True)]


def _tell_where_from(node: StubNode) -> None:
    node.provenance = [Provenance("acme/tiny", TINY.commit, BAD, "sha256:..", 5, "fetched", None)]


def _say_no(node: StubNode) -> None:
    node.broken = NotFound(f"The hub says {BAD}.", hint=f"Do {BAD}.")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_name_a_file, ("model", "ls", "-r", "acme/tiny", "-v", "main")),
        (_name_a_peer, ("peer", "ls")),
        (_name_a_peer, ("status",)),
        (_name_a_contribution, ("model", "add", "-r", "acme/tiny")),
        (_find_at_a_peer, ("model", "search", "-r", "acme/tiny")),
        (_tell_where_from, ("why", "acme/tiny")),
        (_say_no, ("model", "add", "-r", "acme/tiny")),
    ],
)
def test_no_control_character_reaches_a_terminal(
    hfpeer: Run, node: StubNode, prepare: Callable[[StubNode], None], words: tuple[str, ...]
) -> None:
    prepare(node)
    ran = hfpeer(*words)
    said = ran.out + ran.err
    assert SHOWN[:8] in said
    assert not {character for character in said if not character.isprintable()} - {"\n"}
    assert not [line for line in said.splitlines() if line.startswith("Error: forged")]


def test_json_has_the_text_unchanged(hfpeer: Run, node: StubNode) -> None:
    _name_a_file(node)
    ran = hfpeer("--json", "model", "ls", "-r", "acme/tiny", "-v", "main")
    assert json.dumps(BAD, ensure_ascii=False) in ran.out
