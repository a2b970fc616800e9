"""Holds what a command prints with `--json` to the published schema, and to nothing but it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import click
from jsonschema import Draft202012Validator

from docs.made.documents import DOCUMENTS, SEVERAL, schema
from hfpeer_cli.root import PLURALS, root


def check_document(words: Sequence[str], document: Any) -> None:
    """Raises AssertionError for a document that is not that of the command, or has fields that the schema lacks."""
    command = command_of(words)
    assert command in DOCUMENTS, f"docs/made/documents.py names no document of `hfpeer {command} --json`"
    wrong = _faults(command, document)
    is_of_several = wrong and isinstance(document, list) and command.split()[-1] in SEVERAL
    if is_of_several:
        wrong = [fault for one in document for fault in _faults("", one) and _faults(command, one)]
    assert not wrong, f"hfpeer {command} --json: {'; '.join(wrong[:3])}"


def check_event(document: Any) -> None:
    """The same for a line of `--json-lines` that tells an event."""
    wrong = _faults("event", json.loads(json.dumps(document)))
    assert not wrong, f"event {document.get('event')}: {'; '.join(wrong[:3])}"


def check_output(words: Sequence[str], stdout: str) -> None:
    """The same for what a command of another process wrote, if it was asked for JSON and printed any."""
    if "--json" in words and stdout.strip():
        check_document(words, json.loads(stdout))


def command_of(words: Sequence[str]) -> str:
    """The words that name the command: `model ls`, also for `models`."""
    found: list[str] = []
    command: click.Command = root
    context = click.Context(root)
    for word in words:
        below = command.get_command(context, word) if isinstance(command, click.Group) else None
        if below is not None:
            command = below
            found.append(below.name or word)
    return " ".join([*found, "ls"] if words[0] in PLURALS and len(found) == 1 else found)


def _faults(command: str, document: Any) -> list[str]:
    """What is wrong with a document; that of no command is a repo that failed."""
    errors = _validator(command).iter_errors(document)
    return [f"{'/'.join(map(str, error.path))}: {_deepest(error).message[:300]}" for error in errors]


def _deepest(error: Any) -> Any:
    return _deepest(max(error.context, key=lambda one: len(one.path))) if error.context else error


@cache
def _validator(command: str) -> Draft202012Validator:
    found = schema()
    for one in found["$defs"].values():
        one["additionalProperties"] = False
    kind = found["properties"][command] if command else {"$ref": "#/$defs/FailedRepo"}
    return Draft202012Validator({**kind, "$defs": found["$defs"]})
