"""An add in a command's own process: no transfer, but an entry of the history."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from hfpeer.control.operations import AddRequest
from hfpeer.errors import HfpeerError
from hfpeer.node.operations.transfers import transfer as steps
from hfpeer.node.operations.transfers.history import History
from hfpeer.node.operations.transfers.runs import RunAdd
from hfpeer.transfer.events import Event, Finished, OnEvent, Planned, Progressed, Resolved


async def add_recorded(run_add: RunAdd, history: History, request: AddRequest, on_event: OnEvent) -> Finished:
    """Runs an add. It gets an entry if anything came, or if it failed."""
    fresh = transfer = steps.new_transfer(0, request, time.time(), is_detached=False)
    began_at = time.monotonic()

    def note(event: Event) -> None:
        nonlocal transfer
        if isinstance(event, (Resolved, Planned, Progressed)):  # the others come from other threads
            transfer = steps.heard(transfer, fresh, event)
        on_event(event)

    try:
        finished = await run_add(request, note)
        transfer = steps.done(transfer, fresh, finished, time.time())
    except HfpeerError as error:
        transfer = steps.failed(transfer, steps.problem_of(error), time.time(), is_retried=False)
        raise
    except BaseException:
        transfer = steps.cancelled(transfer, time.time())
        raise
    else:
        return finished
    finally:
        if transfer.came_bytes or transfer.problem is not None:
            entry = steps.entry_of(replace(transfer, seconds=time.monotonic() - began_at), time.time())
            await asyncio.to_thread(history.note, entry)
