"""`hfpeer help` and `hfpeer version`."""

from __future__ import annotations

import click

import hfpeer
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import JSON_VERSION

VERSION = "%(prog)s, version %(version)s"


@click.command(
    "help",
    cls=Verb,
    examples=["hfpeer help", "hfpeer help model add"],
)
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of a command."""
    found = ctx.find_root()
    for word in words:
        group = found.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"`{found.command_path}` has no commands of its own.", ctx)
        name, command, _ = group.resolve_command(found, [word])
        assert command is not None
        found = click.Context(command, parent=found, info_name=name, help_option_names=ctx.help_option_names)
    click.echo(found.get_help())


@click.command("version", cls=Verb, examples=["hfpeer version", "hfpeer version --json"])
@pass_invocation
def version(invocation: Invocation) -> None:
    """Print the version; with --json also those of the JSON documents and of the protocols."""
    from hfpeer.control.codec import CONTROL_VERSION
    from hfpeer.peers.protocol.paths import PROTOCOL_VERSION

    document = {
        "version": hfpeer.__version__,
        "json_version": JSON_VERSION,
        "control_version": CONTROL_VERSION,
        "protocol_version": PROTOCOL_VERSION,
    }
    invocation.output.result(VERSION % {"prog": "hfpeer", "version": hfpeer.__version__}, document)
