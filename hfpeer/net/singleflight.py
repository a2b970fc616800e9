"""Single flight: callers that want the same work at the same time share one task. Belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from hfpeer.net.tasks import end_tasks

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class SingleFlight(Generic[Key, Result]):
    """The work under way, by key.

    The work goes on when its callers are cancelled, because the next caller will ask for the same.
    """

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Task[Result]] = {}

    async def run(self, key: Key, work: Callable[[], Awaitable[Result]]) -> Result:
        """Returns or raises what `work` does. Starts it if no work with this key is under way."""
        return await asyncio.shield(self.begin(key, work))

    def begin(self, key: Key, work: Callable[[], Awaitable[Result]]) -> asyncio.Task[Result]:
        """The task that does the work, started now or earlier. Callers must not cancel it."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(_run(work), name=f"single flight {key}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._end(key, done))
        return task

    async def stop(self) -> None:
        """Cancels all work and waits until it has ended."""
        await end_tasks(list(self._running.values()))

    def _end(self, key: Key, task: asyncio.Task[Result]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # Retrieved, so that asyncio does not log it when no caller is left.


async def _run(work: Callable[[], Awaitable[Result]]) -> Result:
    return await work()
