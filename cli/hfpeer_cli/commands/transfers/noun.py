"""`hfpeer transfers`: the queue of the daemon; without a verb it lists."""

from __future__ import annotations

import click

from hfpeer_cli.commands.transfers.changing import attach, cancel, move, pause, resume
from hfpeer_cli.commands.transfers.listing import print_list, watch_list
from hfpeer_cli.grammar import Noun, pass_invocation
from hfpeer_cli.interrupts import Interruptible
from hfpeer_cli.invocation import Invocation


class ListingNoun(Noun):
    """A noun that lists without a verb, and with `ls` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args[1:] if args[:1] in (["ls"], ["list"]) else args)


@click.group(
    "transfers",
    cls=ListingNoun,
    invoke_without_command=True,
    examples=[
        "hfpeer transfers",
        "hfpeer transfers --watch",
        "hfpeer transfers pause 7",
        "hfpeer transfers move 9 first",
    ],
)
@click.option("-w", "--watch", is_flag=True, help="Show them again and again, until Ctrl-C.")
@click.option("-a", "--all", "shows_all", is_flag=True, help="List also those that were done in the last day.")
@click.pass_context
@pass_invocation
def transfers(invocation: Invocation, ctx: click.Context, watch: bool, shows_all: bool) -> None:
    """Adds that run in the daemon, or wait in its queue.

    Each add through a daemon is a transfer. It goes on when its terminal is closed, and after a restart of the daemon
    or of the machine. Without a verb: a list of them. `hfpeer history` has those that are over.
    """
    if ctx.invoked_subcommand is not None:
        if watch or shows_all:
            raise click.UsageError("-w and -a are for the list, which has no verb.")
        return
    with Interruptible():
        if watch:
            watch_list(invocation, shows_all=shows_all)
        else:
            print_list(invocation, shows_all=shows_all)


for verb in (attach, pause, resume, cancel, move):
    transfers.add_command(verb)
