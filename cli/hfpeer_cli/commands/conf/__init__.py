"""`hfpeer conf`: the settings, their values, and where each value comes from."""

from __future__ import annotations

import click

from hfpeer.config.settings import KEYS
from hfpeer_cli.commands.conf.folders import cache
from hfpeer_cli.commands.conf.keys import get, ls, reset, set_
from hfpeer_cli.commands.conf.port import port
from hfpeer_cli.grammar import Noun


class Conf(Noun):
    """The noun `conf`, which knows the settings."""

    def meant(self, ctx: click.Context, word: str) -> list[str]:
        return [f"{verb} {word}" for verb in ("get", "set")] if word in KEYS else super().meant(ctx, word)


conf = Conf(
    "conf",
    help="Settings: the file in HFPEER_HOME, which the environment overrides.",
    no_args_is_help=True,
    examples=["hfpeer conf ls", "hfpeer conf cache set /data/hub", "hfpeer conf set mdns false"],
)
for verb in (ls, get, set_, reset, cache, port):
    conf.add_command(verb)
