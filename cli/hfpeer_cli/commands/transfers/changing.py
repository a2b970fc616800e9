"""The verbs of `hfpeer transfers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from hfpeer.control.operations import AttachRequest, Operations
from hfpeer.control.transfers import DONE, FAILED, PAUSED, TransferStatus
from hfpeer.errors import NotFound
from hfpeer_cli.commands.transfers.listing import done_words, state_words
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.grammar.completions import complete_transfer
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.progress import summary, watching

Command = TypeVar("Command", bound=Callable[..., Any])
ID = click.IntRange(min=1)


def _ids(what: str) -> Callable[[Command], Command]:
    """The argument ID..., or --all."""

    def decorate(command: Command) -> Command:
        everything = click.option("--all", "takes_all", is_flag=True, help=f"All transfers that can be {what}.")
        return click.argument("ids", metavar="ID...", type=ID, nargs=-1, shell_complete=complete_transfer)(
            everything(command)
        )

    return decorate


@click.command("pause", cls=Verb, examples=["hfpeer transfers pause 7", "hfpeer transfers pause --all"])
@_ids("paused")
@pass_invocation
def pause(invocation: Invocation, ids: tuple[int, ...], takes_all: bool) -> None:
    """Stop transfers until you resume them.

    They stay stopped over restarts. What has arrived is kept.
    """
    _change(invocation, ids, "pause", (FAILED, DONE, PAUSED), takes_all=takes_all)


@click.command("resume", cls=Verb, examples=["hfpeer transfers resume 7", "hfpeer transfers resume --all"])
@_ids("resumed")
@pass_invocation
def resume(invocation: Invocation, ids: tuple[int, ...], takes_all: bool) -> None:
    """Let transfers go on.

    Those that are paused, have failed, or wait for their next try. They go on with the commit that they began with.
    """
    _change(invocation, ids, "resume", (DONE,), takes_all=takes_all)


@click.command("cancel", cls=Verb, examples=["hfpeer transfers cancel 7", "hfpeer transfers cancel 7 8 9"])
@_ids("cancelled")
@pass_invocation
def cancel(invocation: Invocation, ids: tuple[int, ...], takes_all: bool) -> None:
    """Take transfers out of the queue.

    What has arrived is kept: a later add goes on from there, and `hfpeer cache prune` removes it.
    """
    _change(invocation, ids, "cancel", (DONE,), takes_all=takes_all)


@click.command("move", cls=Verb, examples=["hfpeer transfers move 9 first", "hfpeer transfers move 9 last"])
@click.argument("id", metavar="ID", type=ID, shell_complete=complete_transfer)
@click.argument("place", metavar="first|last", type=click.Choice(["first", "last"]))
@pass_invocation
def move(invocation: Invocation, id: int, place: str) -> None:
    """Make a transfer the next one of the queue, or the last one.

    What runs goes on.
    """
    changed = invocation.run(lambda node: node.change_transfers((id,), place))
    invocation.output.result([_line(one) for one in changed], changed)


@click.command("attach", cls=Verb, examples=["hfpeer transfers attach 7"])
@click.argument("id", metavar="ID", type=ID, shell_complete=complete_transfer)
@click.pass_context
def attach(ctx: click.Context, id: int) -> None:
    """Show the progress of a transfer, and wait for its end.

    Ctrl-C stops only the showing. Prints the snapshot's folder, and ends as the add itself would. An add of another
    node is shown as by `add --on`.
    """
    invocation = ctx.ensure_object(Invocation)
    asked = [one for one in invocation.run(lambda node: node.list_transfers()) if one.id == id and one.node]
    if asked:
        from hfpeer_cli.commands.transfers.elsewhere import watch_to_end  # most transfers are of this node

        ctx.exit(watch_to_end(invocation, asked))
    invocation.when_interrupted = f"No longer watching: transfer {id} goes on."
    output = invocation.output
    with watching(output) as on_event:
        finished = invocation.run(lambda node: node.attach(AttachRequest(id), on_event))
    output.result(finished.snapshot, {**asdict(finished), "wan_saved_bytes": finished.wan_saved_bytes})
    if not output.is_json:
        output.note(summary(finished))


def _change(
    invocation: Invocation, ids: tuple[int, ...], change: str, but: tuple[str, ...], *, takes_all: bool
) -> None:
    """Changes the transfers that are named, or all `but` those in these states."""
    if takes_all == bool(ids):
        raise click.UsageError("Give the ids of transfers, or --all.")

    async def work(node: Operations) -> list[TransferStatus]:
        named = ids or tuple(one.id for one in await node.list_transfers() if one.state not in but)
        return await node.change_transfers(named, change) if named else []

    changed = invocation.run(work)
    if not changed:
        raise NotFound(f"There is no transfer to {change}.", hint="`hfpeer transfers` lists them.")
    invocation.output.result([_line(one) for one in changed], changed)


def _line(one: TransferStatus) -> str:
    done = done_words(one)
    where = f" on {one.node}" if one.node else ""
    return f"{one.id}  {one.repo}{where}: {state_words(one, 0.0)}{f', {done}' if done else ''}"
