"""The grammar of the command line: nouns and verbs, the words of a line, and what a shell can complete.

What is named here is imported when it is first used: `hfpeer -h` needs no type of an argument.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfpeer_cli.grammar.repos import Repos as Repos
    from hfpeer_cli.grammar.repos import globs_of as globs_of
    from hfpeer_cli.grammar.repos import missing_repo as missing_repo
    from hfpeer_cli.grammar.repos import takes_repos as takes_repos
    from hfpeer_cli.grammar.verbs import COMPLETION_VARIABLE as COMPLETION_VARIABLE
    from hfpeer_cli.grammar.verbs import EXIT_CODES as EXIT_CODES
    from hfpeer_cli.grammar.verbs import Noun as Noun
    from hfpeer_cli.grammar.verbs import Verb as Verb
    from hfpeer_cli.grammar.verbs import pass_invocation as pass_invocation
    from hfpeer_cli.grammar.words import FILE as FILE
    from hfpeer_cli.grammar.words import FOLDER as FOLDER
    from hfpeer_cli.grammar.words import PEER as PEER
    from hfpeer_cli.grammar.words import PORT as PORT
    from hfpeer_cli.grammar.words import REVISION as REVISION
    from hfpeer_cli.grammar.words import SIZE as SIZE
    from hfpeer_cli.grammar.words import Word as Word
    from hfpeer_cli.grammar.words import type_option as type_option

_REPOS = ("Repos", "globs_of", "missing_repo", "takes_repos")
_VERBS = ("COMPLETION_VARIABLE", "EXIT_CODES", "Noun", "Verb", "pass_invocation")
_WORDS = ("FILE", "FOLDER", "PEER", "PORT", "REVISION", "SIZE", "Word", "type_option")


def __getattr__(name: str) -> Any:
    places = {"repos": _REPOS, "verbs": _VERBS, "words": _WORDS}
    for module, names in places.items():
        if name in names:
            return getattr(import_module(f"hfpeer_cli.grammar.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
