"""Every command that a hint or a message names exists, with its options and its setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hfpeer.config.settings import KEYS
from hfpeer_cli.root import HIDDEN, NOUNS
from hfpeer_cli.root import root as command_line
from project.sources import A_VALUE, texts_of_the_program

COMMAND = re.compile(r"(`?)\bhfpeer ((?:--?)?[a-zX][^`\n]*)")
SENTENCE_WORD = re.compile(
    r"alone|and|at|can|cannot|could|did|for|found|has|in|is|made|may|must|on|or|should|then|to|was|will|would|wrote|\w+(s|ed)"
)
"""A word that may follow `hfpeer` in a sentence about the program itself."""


def problem(is_quoted: bool, words: list[str]) -> str | None:
    """What is wrong with a command, given as the words after `hfpeer`; None if nothing is, or it is a sentence."""
    if words[0] == "--json":
        words = words[1:]
    if not is_quoted and words[0] not in {*NOUNS, *HIDDEN} and words[0] != A_VALUE:
        return None if SENTENCE_WORD.fullmatch(words[0]) else f"no command and no sentence: {words[0]}"
    if words[0] == A_VALUE:  # the type of a repo, as in f"hfpeer {repo.type.value} ls", or no command at all
        if len(words) == 1 or words[1] == A_VALUE or not is_quoted:
            return None
        words = ["model", *words[1:]]
    command: click.Command = command_line
    context = click.Context(command_line)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command: {words[0]}" if is_quoted or command is not command_line else None
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in parameter.opts}
    if is_quoted:
        unknown = [word for word in words if word.startswith("-") and word != "--" and word not in options]
        if unknown and "--" not in words:
            return f"no option: {unknown[0]}"
    takes_key = any(parameter.name == "key" for parameter in command.params)
    if takes_key and words and words[0].islower() and words[0] not in KEYS:
        return f"no setting: {words[0]}"
    return None


def named_commands(root: Path) -> Iterator[tuple[str, bool, list[str]]]:
    for place, text in texts_of_the_program(root):
        for match in COMMAND.finditer(text):
            yield place, bool(match[1]), [word.strip(".,:;)\"'") for word in match[2].split()]


@pytest.mark.parametrize(
    ("is_quoted", "text"),
    [(True, "share"), (True, "model erase"), (False, "share it"), (False, "conf set no.such VALUE"), (True, "env -x")],
)
def test_a_command_that_does_not_exist_is_found(is_quoted: bool, text: str) -> None:
    assert problem(is_quoted, text.split()) is not None


def test_every_command_that_is_named_exists(root: Path) -> None:
    named = list(named_commands(root))
    assert len(named) > 50
    checked = [(f"{place}: hfpeer {' '.join(words)}", problem(is_quoted, words)) for place, is_quoted, words in named]
    assert [(command, why) for command, why in checked if why] == []
