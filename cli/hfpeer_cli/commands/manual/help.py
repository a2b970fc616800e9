"""`hfpeer help` and `hfpeer version`."""

from __future__ import annotations

from typing import Any

import click

import hfpeer
from hfpeer.language.near import near
from hfpeer_cli.commands.manual.topics import TOPICS, write_topic
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.grammar.verbs import refuse_unknown
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import JSON_VERSION

VERSION = "%(prog)s, version %(version)s"


class Page(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.4
    """A word of a command, or a topic."""

    name = "page"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        group = ctx.find_root().command
        for word in ctx.params.get("words") or ():
            found = group.get_command(ctx, word) if isinstance(group, click.Group) else None
            if found is None:
                return []
            group = found
        names = group.list_commands(ctx) if isinstance(group, click.Group) else []
        if group is ctx.find_root().command:
            names = [*names, *TOPICS]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class HelpVerb(Verb):
    """`help`, whose own help lists the topics."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Topics"):
            formatter.write_dl([(name, summary) for name, (summary, _) in TOPICS.items()])
        super().format_epilog(ctx, formatter)


@click.command(
    "help", cls=HelpVerb, examples=["hfpeer help", "hfpeer help model add", "hfpeer help exit-codes", "man hfpeer"]
)
@click.argument("words", nargs=-1, type=Page(), metavar="[COMMAND|TOPIC]...")
@click.option(
    "--man",
    "folder",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write all of the help as man pages below DIR, such as ~/.local/share/man.",
)
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...], folder: str | None) -> None:
    """Print the help of a command or a topic."""
    if folder is not None:
        from hfpeer_cli.commands.manual.pages import write_pages

        if words:
            raise click.UsageError("--man writes all pages: leave out the command.", ctx)
        click.echo(write_pages(ctx.find_root(), folder))
        return
    if len(words) == 1 and words[0] in TOPICS:
        formatter = ctx.make_formatter()
        write_topic(formatter, TOPICS[words[0]][1]())
        click.echo(formatter.getvalue().rstrip("\n"))
        return
    found = ctx.find_root()
    if words:
        refuse_unknown(found.command, found, words, near(words[0], TOPICS))
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
