"""A command line over a stub node, run as `hfpeer` runs it but in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from fakes.json_schema import check_document, check_event
from fakes.stub_node import StubNode
from hfpeer.transfer.events import Event
from hfpeer_cli import output
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.main import main


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of one command line."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        return json.loads(self.err)


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def documents_have_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds each document, and each event, that a command in this process prints to the published schema."""
    to_json = output.to_json

    def checked(document: object) -> str:
        text = to_json(document)
        check_document(click.get_current_context().command_path.split()[1:], json.loads(text))
        return text

    tell = output.Output.event

    def checked_event(self: output.Output, event: Event) -> None:
        check_event(event.to_json())
        tell(self, event)

    monkeypatch.setattr(output, "to_json", checked)
    monkeypatch.setattr(output.Output, "event", checked_event)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which everything hfpeer owns lies in a temporary folder."""
    return {
        "HFPEER_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_DATASETS_CACHE": str(tmp_path / "datasets"),
    }


@pytest.fixture
def node() -> StubNode:
    return StubNode()


@pytest.fixture
def hfpeer(node: StubNode, environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """`hfpeer("model", "ls")`: runs the command line in this process over the stub node."""

    def run(*words: str) -> Ran:
        invocation = Invocation(environ=environ, open_session=node.session)
        with pytest.raises(SystemExit) as exit:
            main(words, invocation)
        out, err = capsys.readouterr()
        assert isinstance(exit.value.code, int)
        return Ran(exit.value.code, out, err)

    return run
