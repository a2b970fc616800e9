"""Asks several hubs for one thing: in order, but without waiting long for one that accepts no connection.

A firewall that drops packets makes each connection attempt last until its time limit. So the next hub is asked beside
one that has no connection after a moment, and a hub that stays silent is passed over for a while by the whole node.
A hub that has accepted the connection gets all the time that it needs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from hfpeer.errors import AccessDenied, CorruptData, HfpeerError, NotFound, Unreachable
from hfpeer.net.tasks import end_tasks
from hfpeer.upstream.responses.refusals import outage

TICK_SECONDS = 0.25
TICKS_UNTIL_NEXT = 2
"""Ticks without a connection after which the next hub is asked too. More than one: a busy event loop is no silence."""
TICKS_UNTIL_SILENT = 6
"""Ticks without a connection after which a hub counts as silent, unless it is the last resort."""
SILENCE_HINT = (
    "Try again when the network is back; what has arrived is kept. On a machine without Internet, "
    "`hfpeer conf set offline true` asks peers alone."
)
SILENT_SECONDS = 30.0
"""Seconds for which a silent hub is passed over."""

Result = TypeVar("Result")
UPSTREAM_ERRORS = (NotFound, AccessDenied, Unreachable, CorruptData)
"""The answers and failures of a hub; other errors end the whole request."""


class Reach:
    """Whether one hub accepts connections. All views of an upstream share it; it belongs to their event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent_since: float | None = None
        self._answered_at: float | None = None
        self._failed_at: float | None = None
        self.attempts = 0
        """Counts the connections that were begun."""
        self.connections = 0
        """Counts the requests that had a connection."""

    def note_attempt(self) -> None:
        self.attempts += 1

    def note_connection(self) -> None:
        self.connections += 1
        self._silent_since = None

    def note_silence(self) -> None:
        if not self.silent_for_seconds:
            self._silent_since = self._clock()

    def note_answer(self) -> None:
        """A response has begun."""
        self._answered_at, self._failed_at = self._clock(), None

    def note_failure(self) -> None:
        """A request had no response."""
        self._failed_at = self._clock()

    @property
    def answered_seconds_ago(self) -> float | None:
        """Seconds since the last response; None if there was none."""
        return None if self._answered_at is None else self._clock() - self._answered_at

    @property
    def failed_seconds_ago(self) -> float | None:
        """Seconds since the last request without a response; None if a later one had a response."""
        return None if self._failed_at is None else self._clock() - self._failed_at

    @property
    def silent_for_seconds(self) -> float:
        """Seconds since the hub was found silent; 0 if it was not, or too long ago to count."""
        if self._silent_since is None:
            return 0.0
        seconds = self._clock() - self._silent_since
        return max(seconds, 0.001) if seconds < SILENT_SECONDS else 0.0


class Asked(Protocol):
    """The part of an upstream that this module needs."""

    @property
    def name(self) -> str: ...

    @property
    def reach(self) -> Reach: ...


Hub = TypeVar("Hub", bound=Asked)


class _Request(Generic[Hub]):
    """A request under way, and the ticks that it has passed without a connection."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._attempts_before = hub.reach.attempts
        self._connections_before = hub.reach.connections
        self._ticks = 0

    def tick(self) -> None:
        """Counts a tick, if the request waits for its connection and not for this machine."""
        self._ticks += self.hub.reach.attempts > self._attempts_before

    def lacks_connection_after(self, ticks: int) -> bool:
        return self._ticks >= ticks and self.hub.reach.connections == self._connections_before


async def first_success(
    hubs: Sequence[Hub], ask: Callable[[Hub], Awaitable[Result]], *, is_last_resort: bool
) -> tuple[Result, Hub] | list[tuple[Hub, HfpeerError]]:
    """The first result without an error of UPSTREAM_ERRORS, and its hub; else the error of each hub, in their order.

    As the last resort, silent hubs are asked too, for as long as their own time limits allow.
    """
    errors: dict[int, tuple[Hub, HfpeerError]] = {}
    waiting = deque(enumerate(hubs))
    running: dict[asyncio.Future[Result], tuple[int, _Request[Hub]]] = {}
    try:
        while waiting or running:
            if waiting and all(request.lacks_connection_after(TICKS_UNTIL_NEXT) for _, request in running.values()):
                number, hub = waiting.popleft()
                if hub.reach.silent_for_seconds and not is_last_resort:
                    errors[number] = (hub, _silence(hub))
                else:
                    running[asyncio.ensure_future(ask(hub))] = (number, _Request(hub))
                continue
            done, _ = await asyncio.wait(running, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task in done]:
                number, request = running.pop(task)
                try:
                    return task.result(), request.hub
                except UPSTREAM_ERRORS as error:
                    errors[number] = (request.hub, error)
            for task, (number, request) in [] if done else list(running.items()):
                request.tick()
                if request.lacks_connection_after(TICKS_UNTIL_SILENT) and not is_last_resort:
                    await end_tasks([task])
                    del running[task]
                    request.hub.reach.note_silence()
                    errors[number] = (request.hub, _silence(request.hub))
        return [errors[number] for number in sorted(errors)]
    finally:
        await end_tasks(running)


def _silence(hub: Asked) -> HfpeerError:
    seconds = hub.reach.silent_for_seconds
    when = f" ({seconds:.0f} s ago)" if seconds >= 1 else ""
    return outage(hub.name, f"did not accept a connection{when}", hint=SILENCE_HINT)
