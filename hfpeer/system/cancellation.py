"""Stops work in threads: cancelling an asyncio task also stops the thread that works for it.

Long work calls `check_stop` at least every 16 MiB or 0.2 s. The flag that it checks is in the context of the thread.
A system call that hangs is not interrupted: for that the daemon ends its process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextvars import ContextVar
from functools import partial
from typing import TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(BaseException):
    """The work in this thread was cancelled. It is no Exception, so that handlers of errors let it pass."""


class Stop:
    """A flag that stops the work run under it, and under all flags with it as `parent`."""

    def __init__(self, parent: Stop | None = None) -> None:
        self._parent = parent
        self._is_set = False

    @property
    def is_set(self) -> bool:
        return self._is_set or (self._parent is not None and self._parent.is_set)

    def set(self) -> None:
        """Makes `check_stop` raise Stopped in every thread that works under this flag."""
        self._is_set = True

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Calls `function` in this thread under the flag. Raises Stopped when the flag is set."""
        token = _current.set(self)
        try:
            check_stop()
            return function(*arguments)
        finally:
            _current.reset(token)


_current: ContextVar[Stop | None] = ContextVar("stop", default=None)


def check_stop() -> None:
    """Raises Stopped if the work in this thread was cancelled."""
    stop = _current.get()
    if stop is not None and stop.is_set:
        raise Stopped


async def in_thread(
    function: Callable[..., Result], *arguments: object, executor: ThreadPoolExecutor | None = None
) -> Result:
    """Runs `function` in a thread of `executor`, or of the event loop's executor, and returns its result.

    A cancellation stops the work and waits until the thread has ended. Without that, the caller could close a partial
    that the thread is still ingesting.
    """
    stop = Stop()
    chosen: Executor | None = executor
    work = asyncio.get_running_loop().run_in_executor(chosen, partial(stop.run, function, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            stop.set()
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # retrieved, so that asyncio does not log it as never retrieved
        raise cancelled
    return work.result()


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int, name: str = "") -> list[Result]:
    """Runs `function` for each item in this many threads, and returns the results in order. Blocking.

    The first failure stops the other threads, as cancelling the caller does, and is raised when all have ended. Each
    thread takes its next item when it is ready: a pool would keep a Future for each of many items.
    """
    stop = Stop(_current.get())
    waiting = enumerate(items)
    taking = threading.Lock()
    results: dict[int, Result] = {}

    def work() -> None:
        while True:
            check_stop()
            with taking:
                number, item = next(waiting, (-1, None))
            if number < 0:
                return
            results[number] = function(cast("Item", item))

    with ThreadPoolExecutor(threads, name) as pool:
        try:
            running = [pool.submit(stop.run, work) for _ in range(threads)]
            for one in as_completed(running):
                one.result()
        except BaseException:
            stop.set()
            raise
    return [results[number] for number in range(len(results))]
