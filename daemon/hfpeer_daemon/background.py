"""The adds that run in the daemon, each shared by all who asked for the same.

An add lives as long as somebody waits for it: the last to leave cancels it, and what came stays on disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hfpeer.errors import NotRunning
from hfpeer.operations import AddRequest, Operations
from hfpeer.transfer.events import Event, Finished, Planned, Progressed, Resolved


class Watcher:
    """One who waits for an add: its events in order. Progress that nobody has read yet is replaced by newer."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._has_news = asyncio.Event()
        self._is_over = False

    def put(self, event: Event) -> None:
        if self._events and isinstance(event, Progressed) and isinstance(self._events[-1], Progressed):
            self._events.pop()
        self._events.append(event)
        self._has_news.set()

    def end(self) -> None:
        self._is_over = True
        self._has_news.set()

    async def events(self) -> AsyncIterator[Event]:
        """Every event until the add is over."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._is_over:
                return
            self._has_news.clear()
            await self._has_news.wait()


class SharedAdd:
    """One running add and those who watch it."""

    def __init__(self, node: Operations, request: AddRequest) -> None:
        self._loop = asyncio.get_running_loop()
        self._watchers: list[Watcher] = []
        self._story: dict[type[Event], Event] = {}
        self.task = self._loop.create_task(node.add(request, self._hear))
        self.task.add_done_callback(self._end)

    def join(self) -> Watcher:
        """A new watcher, who first hears where the add stands."""
        watcher = Watcher()
        for event in self._story.values():
            watcher.put(event)
        self._watchers.append(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> bool:
        """Whether that was the last one."""
        self._watchers.remove(watcher)
        return not self._watchers

    async def result(self) -> Finished:
        """Raises what the add raised; NotRunning if the daemon ended it."""
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if not self.task.cancelled():
                raise
            raise NotRunning(
                "The daemon was stopped before everything had come.",
                hint="Run the same command again: it continues where this one ended.",
            ) from None

    def _hear(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._tell, event)

    def _tell(self, event: Event) -> None:
        if isinstance(event, (Resolved, Planned, Progressed)):
            self._story[type(event)] = event
        for watcher in self._watchers:
            watcher.put(event)

    def _end(self, task: asyncio.Task[Finished]) -> None:
        # Events that other threads handed over before the end come first.
        self._loop.call_soon(self._end_watchers)
        if not task.cancelled():
            task.exception()

    def _end_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.end()


class Adds:
    """All adds of a daemon. Belongs to one event loop."""

    def __init__(self, node: Operations) -> None:
        self._node = node
        self._running: dict[AddRequest, SharedAdd] = {}

    @asynccontextmanager
    async def watch(self, request: AddRequest) -> AsyncIterator[tuple[SharedAdd, Watcher]]:
        """Starts the add or joins the one that runs; who leaves the block last ends it."""
        add = self._running.get(request)
        if add is None:
            add = self._running[request] = SharedAdd(self._node, request)
            add.task.add_done_callback(lambda _: self._forget(request, add))
        watcher = add.join()
        try:
            yield add, watcher
        finally:
            if add.leave(watcher):
                self._forget(request, add)
                add.task.cancel()

    async def stop(self) -> None:
        """Ends every add and waits for it."""
        tasks = [add.task for add in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, request: AddRequest, add: SharedAdd | None) -> None:
        if self._running.get(request) is add:
            del self._running[request]
