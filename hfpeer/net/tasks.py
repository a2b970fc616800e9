"""Ends asyncio tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

RECANCEL_SECONDS = 1.0


async def end_tasks(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels tasks and waits until they have ended; their results and exceptions are ignored.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation that arrives when its own work has just ended, so a
    task that is still running is cancelled again. Source: CPython issue 86296.
    """
    going_on = {task for task in tasks if not task.done()}
    for_outcome = set(going_on)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=RECANCEL_SECONDS)
    for task in for_outcome:
        if not task.cancelled():
            task.exception()  # read, so that asyncio does not log that it never was
