"""The noun `hfpeer cache`, with its verbs."""

from __future__ import annotations

from hfpeer_cli.commands.cache.cleaning import gc, prune, rm
from hfpeer_cli.commands.cache.listing import ls
from hfpeer_cli.commands.cache.space import du
from hfpeer_cli.grammar import Noun

cache = Noun(
    "cache",
    help="The Hugging Face cache as a whole: what lies in it, what it takes, what can go.",
    no_args_is_help=True,
    examples=["hfpeer cache ls", "hfpeer cache du", "hfpeer cache prune --dry-run"],
)
for verb in (ls, du, rm, prune, gc):
    cache.add_command(verb)
