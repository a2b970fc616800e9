"""`hfpeer model|dataset|space`: one set of verbs for the three types of repo."""

from __future__ import annotations

import click

from hfpeer.names import RepoType
from hfpeer_cli.commands.repos.add import define_add
from hfpeer_cli.commands.repos.following import define_follow
from hfpeer_cli.commands.repos.listing import define_ls, define_search
from hfpeer_cli.commands.repos.pinning import define_pin
from hfpeer_cli.commands.repos.publishing import define_publish, define_share
from hfpeer_cli.commands.repos.removing import define_rm
from hfpeer_cli.grammar import Noun

EXAMPLE_REPOS = {
    RepoType.MODEL: "Qwen/Qwen3-0.6B",
    RepoType.DATASET: "rajpurkar/squad",
    RepoType.SPACE: "gradio/hello_world",
}


VERBS = (define_add, define_ls, define_rm, define_search)
"""The verbs that stand at the root too."""


def make_noun(type: RepoType) -> Noun:
    """The noun of one type of repo, with all its verbs."""
    prefix, example = f"hfpeer {type.value}", EXAMPLE_REPOS[type]
    noun = Noun(
        type.value,
        help=f"{type.value.capitalize()} repos in the Hugging Face cache, on this machine and on the LAN.",
        no_args_is_help=True,
        examples=[f"{prefix} add {example}", f"{prefix} ls {example}@main"],
    )
    for define in (*VERBS, define_publish, define_share, define_pin, define_follow):
        define(noun, type, prefix, example)
    if type is RepoType.DATASET:
        from hfpeer_cli.commands.datasets.convert import convert
        from hfpeer_cli.commands.datasets.prepared import add_prepared

        add_prepared(noun, prefix, example)
        noun.add_command(convert)
    return noun


def make_short_verbs() -> Noun:
    """The verbs at the root: for all types, a model where no type is said."""
    verbs = Noun("hfpeer")
    for define in VERBS:
        define(verbs, None, "hfpeer", EXAMPLE_REPOS[RepoType.MODEL])
    return verbs


def __getattr__(name: str) -> click.Command:
    """The three nouns, and the verbs of the root: each is made when it is first used, because a command uses one."""
    if name in set(RepoType):
        return make_noun(RepoType(name))
    if name in ("add", "ls", "rm", "search"):
        return make_short_verbs().commands[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
