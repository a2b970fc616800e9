"""An add that goes on without its command: begun with `--detach`, or left with Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hfpeer.transfer.events import TransferLeft

if TYPE_CHECKING:
    from hfpeer.control.operations import AddRequest
    from hfpeer.transfer.events import Event, OnEvent
    from hfpeer_cli.invocation import Invocation


def begin_detached(invocation: Invocation, request: AddRequest, priority: str) -> None:
    """Puts an add into the queue of the daemon, and prints its id."""
    begun = invocation.run(lambda node: node.begin_transfer(request, priority))
    output = invocation.output
    output.result(str(begun.id), begun)
    output.note(f"Transfer {begun.id}: {begun.repo} is {begun.state}. `hfpeer transfers attach {begun.id}` shows it.")


def telling_of_end(invocation: Invocation, on_event: OnEvent) -> OnEvent:
    """An on_event function that also chooses what is printed after Ctrl-C: what becomes of the transfer."""

    def hear(event: Event) -> None:
        if isinstance(event, TransferLeft):
            invocation.when_interrupted = _farewell(event)
        on_event(event)

    return hear


def _farewell(left: TransferLeft) -> str:
    if left.state == "paused":
        return (
            "Stopped. What has arrived is kept: the same command continues from there, or "
            f"`hfpeer transfers resume {left.id}`."
        )
    return f"No longer waiting: transfer {left.id} is {left.state}. `hfpeer transfers cancel {left.id}` ends it."
