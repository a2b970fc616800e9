"""Parts of several verbs of repos: the option that names files, and the sentence after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hfpeer.names import RepoType
from hfpeer_cli.grammar import FILE, Word, type_option
from hfpeer_cli.grammar.completions import complete_nodes

Command = TypeVar("Command", bound=Callable[..., Any])

RESUMES = "Interrupted. What has arrived is kept: the same command continues from there."

files_option = click.option(
    "-f", "--file", "files", type=FILE, multiple=True, metavar="FILE", help="Only this file. May be given many times."
)


def _named_nodes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str:
    if value is not None and not value.strip(" ,"):
        raise click.BadParameter("it names no node; `hfpeer peer ls` lists them.")
    return value or ""


on_option = click.option(
    "--on",
    type=Word("node", str, complete_nodes),
    callback=_named_nodes,
    metavar="all|NODE,…",
    help="Have these nodes do it, if `accept_requests` is set there. `all`: every other node that is known here.",
)


def any_type(type: RepoType | None) -> Callable[[Command], Command]:
    """Gives a verb that is for all types the option --type."""
    return type_option if type is None else lambda command: command


def address(example: str, type: RepoType | None) -> str:
    """The address of the page of a repo, as an example."""
    kind = "" if type in (None, RepoType.MODEL) else f"{RepoType(type).plural}/"
    return f"https://huggingface.co/{kind}{example}/tree/main"
