"""Asking once for what several want at the same moment, and remembering the last answers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Once:
    """Work under way, by key: whoever asks meanwhile waits for the same answer. Belongs to one event loop.

    The work goes on when those who wait go away, because the next one will ask the same.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def ask(self, key: Hashable, work: Callable[[], Awaitable[Value]]) -> Value:
        """What `work` gives or raises."""
        return await asyncio.shield(self.begin(key, work))

    def begin(self, key: Hashable, work: Callable[[], Awaitable[Value]]) -> asyncio.Task[Value]:
        """The task that does it, perhaps already running. Who waits for it must not cancel it."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(_run(work))
            task.add_done_callback(lambda done: self._end(key, done))
        return task

    async def stop(self) -> None:
        """Cancels what is under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()


async def _run(work: Callable[[], Awaitable[Value]]) -> Value:
    return await work()


class Recent(Generic[Key, Value]):
    """The values used last, by key: at most `limit`, or as many as weigh that much together."""

    def __init__(self, limit: int, weigh: Callable[[Value], int] = lambda value: 1) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        self.drop(key)
        self._values[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._limit and len(self._values) > 1:
            self.drop(next(iter(self._values)))

    def items(self) -> list[tuple[Key, Value]]:
        return list(self._values.items())

    def drop(self, key: Key) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._weight -= self._weigh(value)
