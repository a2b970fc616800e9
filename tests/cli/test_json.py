"""Commands print the documents that docs/schemas publishes; a fixture of conftest.py holds each to the schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.stub_node import COMMIT, PEGASUS, StubNode
from hfpeer.control.results import Holding

Run = Callable[..., Any]
LINES = """
add acme/tiny
model add acme/tiny
ls
model ls acme/tiny@main
rm acme/tiny -y
model publish model --as acme/own
model share acme/tiny
model unshare acme/tiny
model pin acme/tiny
model unpin acme/tiny
cache ls
cache du
cache rm acme/tiny -y
cache prune -y
cache gc
daemon stop
peer add 192.168.1.21
peer ls
peer rm 192.168.1.20:9437
env
conf ls
conf get patience
conf set patience 30
conf reset patience
conf port get
conf port set 9500
conf port reset
conf cache get
conf cache ls
conf cache set other
conf cache add more
conf cache rm more
conf cache reset
why acme/tiny
verify
have
have -o have.txt
modelscope logout
adopt --forget
status
uninstall --yes
version
"""


@pytest.mark.parametrize("words", LINES.strip().splitlines())
def test_a_document_has_its_schema(hfpeer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "hub", "more"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    if words.endswith(" unpin acme/tiny"):
        hfpeer("model", "pin", "acme/tiny")
    if words.endswith(" rm more"):
        hfpeer("conf", "cache", "add", "more")
    ran = hfpeer(*words.split(), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.document is not None


def test_what_peers_have_has_its_schema(hfpeer: Run, node: StubNode) -> None:
    node.found = [Holding("pegasus", PEGASUS.address, "acme/tiny", COMMIT, ("main",), True)]
    assert hfpeer("search", "acme/tiny", "--json").document[0]["peer"] == "pegasus"
