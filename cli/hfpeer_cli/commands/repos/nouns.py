"""`hfpeer model|dataset|space`: one set of verbs for the three types of repo."""

from __future__ import annotations

from hfpeer.names import RepoType
from hfpeer_cli.commands.datasets.convert import convert
from hfpeer_cli.commands.datasets.prepared import add_prepared
from hfpeer_cli.commands.repos.add import define_add
from hfpeer_cli.commands.repos.listing import define_ls, define_search
from hfpeer_cli.commands.repos.publishing import define_publish, define_share
from hfpeer_cli.commands.repos.removing import define_rm
from hfpeer_cli.grammar import Noun

EXAMPLE_REPOS = {
    RepoType.MODEL: "Qwen/Qwen3-0.6B",
    RepoType.DATASET: "rajpurkar/squad",
    RepoType.SPACE: "gradio/hello_world",
}


def make_noun(type: RepoType) -> Noun:
    """The noun of one type of repo, with all its verbs."""
    example = EXAMPLE_REPOS[type]
    noun = Noun(
        type.value,
        help=f"{type.value.capitalize()} repos in the Hugging Face cache, on this machine and on the LAN.",
        no_args_is_help=True,
        examples=[f"hfpeer {type.value} add -r {example}", f"hfpeer {type.value} ls -r {example} -v main"],
    )
    for define in (define_add, define_ls, define_rm, define_search, define_publish, define_share):
        define(noun, type, f"hfpeer {type.value}", example)
    if type is RepoType.DATASET:
        add_prepared(noun, f"hfpeer {type.value}", example)
        noun.add_command(convert)
    return noun


def __getattr__(name: str) -> Noun:
    """`model`, `dataset` and `space`: each is made when it is first used, because a command uses one."""
    if name not in set(RepoType):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_noun(RepoType(name))
