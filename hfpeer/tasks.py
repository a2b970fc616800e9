"""How asyncio tasks are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 1.0


async def end_tasks(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels tasks and waits until they have let go of everything; their outcome is of no interest any more.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes when its own work is just done, so a task
    that goes on is cancelled again. Source: CPython issue 86296.
    """
    going_on = {task for task in tasks if not task.done()}
    for_outcome = set(going_on)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=AGAIN_SECONDS)
    for task in for_outcome:
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is told that it was not
