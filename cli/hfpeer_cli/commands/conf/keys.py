"""`hfpeer conf ls`, `get`, `set`, `reset`: any setting by its key."""

from __future__ import annotations

import click

from hfpeer.config.keys import Key
from hfpeer.config.settings import KEYS, find_key, setting_text, setting_value
from hfpeer_cli.commands.conf.folders import keep_cache_in
from hfpeer_cli.commands.conf.writing import note_restart, print_value, write
from hfpeer_cli.grammar import FOLDER, Verb, Word, pass_invocation
from hfpeer_cli.grammar.completions import complete_key
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.screen.tables import exact, name, words

COLUMNS = (exact("KEY"), name("VALUE", least=16), words("FROM"), words("WHAT IT DOES", rank=1, least=40))
KEY = Word("key", find_key, complete_key)


@click.command("ls", cls=Verb, examples=["hfpeer conf ls", "hfpeer conf ls --json"])
@pass_invocation
def ls(invocation: Invocation) -> None:
    """List every setting: its value, where that comes from, what it does."""
    settings = invocation.settings
    facts = [
        {
            "key": key.name,
            "value": setting_value(settings, key),
            "from": settings.origins[key.name],
            "summary": key.summary,
        }
        for key in KEYS.values()
    ]
    rows = [
        (key.name, setting_text(settings, key) or "-", settings.origins[key.name], key.summary) for key in KEYS.values()
    ]
    invocation.output.table(COLUMNS, rows, facts)


@click.command("get", cls=Verb, examples=["hfpeer conf get upstreams"])
@click.argument("key", type=KEY)
@pass_invocation
def get(invocation: Invocation, key: Key) -> None:
    """Print the value of a setting."""
    print_value(invocation, key)


@click.command(
    "set",
    cls=Verb,
    examples=[
        "hfpeer conf set lan.listen 192.168.1.10:9437",
        "hfpeer conf set upstreams origin=https://huggingface.co",
    ],
)
@click.argument("key", type=KEY)
@click.argument("value")
@click.option("--force", is_flag=True, help="Write it also if the daemon could not start with it now.")
@pass_invocation
def set_(invocation: Invocation, key: Key, value: str, force: bool) -> None:
    """Change a setting in the file.

    A value that would break the next start is refused: an address that is taken or not this machine's, a file that
    cannot be read, a folder that can be no cache.
    """
    if key.name == "cache" and value and not force:
        keep_cache_in(invocation, FOLDER.convert(value, None, None))
        return
    write(invocation, key, value, is_tried=not force)
    note_restart(invocation)


@click.command("reset", cls=Verb, examples=["hfpeer conf reset upstreams"])
@click.argument("key", type=KEY)
@pass_invocation
def reset(invocation: Invocation, key: Key) -> None:
    """Take a setting out of the file, so that its default holds."""
    write(invocation, key, None)
    note_restart(invocation)
