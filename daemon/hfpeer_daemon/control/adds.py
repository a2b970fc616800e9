"""The operations that run in the daemon for commands: verifications, repairs, adoptions and publications, which equal
requests share, adds, and all others.

An operation lives as long as a command waits for it. When the last one leaves, it is cancelled. Cancelling an add does
not end it: the node has it as a transfer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

from hfpeer.control.operations import (
    AddRequest,
    AdoptReport,
    AdoptRequest,
    AttachRequest,
    FollowedRequest,
    Operations,
    Published,
    PublishRequest,
    RepairReport,
    RepairRequest,
    VerifyReport,
    VerifyRequest,
)
from hfpeer.errors import NotRunning
from hfpeer.net.tasks import end_tasks
from hfpeer.transfer.events import Event, Finished, Planned, Progressed, Resolved

Result = TypeVar("Result")
FollowedResult: TypeAlias = "Finished | VerifyReport | RepairReport | AdoptReport | Published"


class AddFollower:
    """A command that waits for an add: receives its events in order. Unread progress is replaced by newer progress."""

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
    """One running add and its followers."""

    def __init__(self, node: Operations, request: FollowedRequest) -> None:
        self._loop = asyncio.get_running_loop()
        self._followers: list[AddFollower] = []
        self._latest: dict[type[Event], Event] = {}
        self.task = self._loop.create_task(self._run(node, request))
        self.task.add_done_callback(self._end)

    async def _run(self, node: Operations, request: FollowedRequest) -> FollowedResult:
        if isinstance(request, VerifyRequest):
            return await node.verify(request, self._on_event)
        if isinstance(request, AdoptRequest):
            return await node.adopt(request, self._on_event)
        if isinstance(request, RepairRequest):
            return await node.repair(request, self._on_event)
        if isinstance(request, AttachRequest):
            return await node.attach(request, self._on_event)
        if isinstance(request, PublishRequest):
            return await node.publish(request, self._on_event)
        return await node.add(request, self._on_event)

    def join(self) -> AddFollower:
        """A new follower, which first receives the latest event of each kind."""
        follower = AddFollower()
        for event in self._latest.values():
            follower.put(event)
        self._followers.append(follower)
        return follower

    def leave(self, follower: AddFollower) -> bool:
        """Removes a follower. Returns whether it was the last one."""
        self._followers.remove(follower)
        return not self._followers

    async def result(self) -> FollowedResult:
        """Raises the exception of the add; NotRunning if the daemon ended it."""
        return await _outcome(self.task, "it was done")

    def _on_event(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        if isinstance(event, (Resolved, Planned, Progressed)):
            self._latest[type(event)] = event
        for follower in self._followers:
            follower.put(event)

    def _end(self, task: asyncio.Task[FollowedResult]) -> None:
        # After the events that other threads have already scheduled.
        self._loop.call_soon(self._end_followers)
        if not task.cancelled():
            task.exception()

    def _end_followers(self) -> None:
        for follower in self._followers:
            follower.end()


class Calls:
    """The operations that commands wait for, except adds. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, operation: Coroutine[Any, Any, Result], gone: Coroutine[Any, Any, None]) -> Result:
        """The result of an operation, or its exception. `gone` returns when the command stops waiting, which ends the
        operation. Raises NotRunning if the daemon ended it."""
        task = asyncio.ensure_future(operation)
        leaving = asyncio.ensure_future(gone)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks((task, leaving))
        return await _outcome(task, "this was done")

    async def stop(self) -> None:
        """Ends every operation and waits for it."""
        await end_tasks(list(self._running))


async def _outcome(task: asyncio.Task[Result], what: str) -> Result:
    """The result of a task, or its exception; raises NotRunning if the daemon ended it."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
        raise NotRunning(
            f"The daemon was stopped before {what}.",
            hint="Run the same command again: it continues where this one ended.",
        ) from None


class Adds:
    """All adds, verifications and repairs of a daemon. Belongs to one event loop."""

    def __init__(self, node: Operations) -> None:
        self._node = node
        self._running: dict[object, SharedAdd] = {}

    @asynccontextmanager
    async def follow(self, request: FollowedRequest) -> AsyncIterator[tuple[SharedAdd, AddFollower]]:
        """Starts the operation or joins a running one, and ends it when the last caller leaves the block. Each add is a
        call of its own: the node knows which are the same, and counts its callers."""
        key: object = object() if isinstance(request, (AddRequest, AttachRequest)) else request
        add = self._running.get(key)
        if add is None:
            add = self._running[key] = SharedAdd(self._node, request)
            add.task.add_done_callback(lambda _: self._forget(key, add))
        follower = add.join()
        try:
            yield add, follower
        finally:
            if add.leave(follower):
                self._forget(key, add)
                add.task.cancel()

    async def stop(self) -> None:
        """Ends every add and waits for it."""
        tasks = [add.task for add in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: object, add: SharedAdd | None) -> None:
        if self._running.get(key) is add:
            del self._running[key]
