"""The options that name a repo, a revision and files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hfpeer.names import RepoType
from hfpeer_cli.grammar import FILE, REVISION, RepoWord

Command = TypeVar("Command", bound=Callable[..., Any])

RESUMES = "Interrupted. What has arrived is kept: the same command continues from there."


def repo_option(type: RepoType, *, is_required: bool = True) -> Callable[[Command], Command]:
    return click.option(
        "-r", "--repo", type=RepoWord(type), required=is_required, metavar="REPO", help="NAME or ORG/NAME."
    )


revision_option = click.option(
    "-v", "--revision", type=REVISION, metavar="REV", help="A branch, a tag, refs/pr/N or a commit id."
)
files_option = click.option(
    "-f", "--file", "files", type=FILE, multiple=True, metavar="FILE", help="Only this file. May be given many times."
)
