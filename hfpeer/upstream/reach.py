"""Asks several hubs for one thing: in order, but without waiting long for one that is silent.

A firewall that drops packets, or a proxy that answers nothing, makes each request last until its time limit. So the
next hub is asked beside one that has not answered after a moment, and a hub that stays silent is passed over for a
while by the whole node. A hub that answered a moment ago gets all the time that it needs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from hfpeer.errors import AccessDenied, CorruptData, HfpeerError, NotFound, Unreachable
from hfpeer.net.tasks import end_tasks
from hfpeer.upstream.responses.refusals import outage

TICK_SECONDS = 0.25


class Ticks(NamedTuple):
    """How long a request waits: for its connection, and with a connection for an answer."""

    unconnected: int
    unanswered: int


UNTIL_NEXT = Ticks(2, 4)
"""After these the next hub is asked too. More than one: a busy event loop is no silence."""
UNTIL_SILENT = Ticks(6, 8)
"""After these a hub counts as silent, unless it is the last resort."""
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
        self._took_connection = False
        """Whether the silent hub accepted the connection."""
        self._overtaken = 0
        self.attempts = 0
        """Counts the connections that were begun."""
        self.connections = 0
        """Counts the requests that had a connection."""
        self.answers = 0
        """Counts the responses that have begun."""

    def note_attempt(self) -> None:
        self.attempts += 1

    def note_connection(self) -> None:
        self.connections += 1
        if not self._took_connection:
            self._silent_since = None

    def note_silence(self, *, took_connection: bool = False) -> None:
        if not self.silent_for_seconds:
            self._silent_since, self._took_connection = self._clock(), took_connection

    def note_overtaken(self, *, took_connection: bool) -> None:
        """Another hub answered, which was asked later because this one did not. Twice in a row is a silence."""
        self._overtaken += 1
        if self._overtaken >= 2:
            self.note_silence(took_connection=took_connection)

    def note_answer(self) -> None:
        """A response has begun."""
        self.answers += 1
        self._overtaken = 0
        self._answered_at, self._failed_at, self._silent_since = self._clock(), None, None

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

    @property
    def is_alive(self) -> bool:
        """Whether it answered a moment ago, so that it gets all the time that it needs."""
        seconds = self.answered_seconds_ago
        return seconds is not None and seconds < SILENT_SECONDS

    def silence(self, name: str) -> HfpeerError:
        """The error of a silent hub of this name."""
        seconds = self.silent_for_seconds
        when = f" ({seconds:.0f} s ago)" if seconds >= 1 else ""
        if self._took_connection:
            return outage(name, f"accepted a connection and sent no answer{when}", hint=SILENCE_HINT)
        return outage(name, f"did not accept a connection{when}", hint=SILENCE_HINT)


class Asked(Protocol):
    """The part of an upstream that this module needs."""

    @property
    def name(self) -> str: ...

    @property
    def reach(self) -> Reach: ...


Hub = TypeVar("Hub", bound=Asked)


class _Request(Generic[Hub]):
    """A request under way, and the ticks that it has passed without an answer."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._before = (hub.reach.attempts, hub.reach.connections, hub.reach.answers)
        self._ticks = 0

    def tick(self) -> None:
        """Counts a tick, if the request waits for the hub and not for this machine."""
        self._ticks += self.hub.reach.attempts > self._before[0] or self.is_connected

    @property
    def is_connected(self) -> bool:
        return self.hub.reach.connections > self._before[1]

    def lacks_answer_after(self, ticks: Ticks) -> bool:
        reach = self.hub.reach
        if reach.answers > self._before[2] or (self.is_connected and reach.is_alive):
            return False
        return self._ticks >= (ticks.unanswered if self.is_connected else ticks.unconnected)


async def first_success(
    hubs: Sequence[Hub], ask: Callable[[Hub], Awaitable[Result]], *, is_last_resort: bool
) -> tuple[Result, Hub] | list[tuple[Hub, HfpeerError]]:
    """The first result without an error of UPSTREAM_ERRORS, and its hub; else the error of each hub, in their order.

    As the last resort, silent hubs are asked too, for as long as their own time limits allow; but one that has used
    them up a moment ago gets no more time than others get at first.
    """

    def is_patient(hub: Hub) -> bool:
        seconds = hub.reach.failed_seconds_ago
        return is_last_resort and (seconds is None or seconds >= SILENT_SECONDS)

    errors: dict[int, tuple[Hub, HfpeerError]] = {}
    waiting = deque(enumerate(hubs))
    running: dict[asyncio.Future[Result], tuple[int, _Request[Hub]]] = {}
    try:
        while waiting or running:
            if waiting and all(request.lacks_answer_after(UNTIL_NEXT) for _, request in running.values()):
                number, hub = waiting.popleft()
                if hub.reach.silent_for_seconds and not is_last_resort:
                    errors[number] = (hub, hub.reach.silence(hub.name))
                else:
                    running[asyncio.ensure_future(ask(hub))] = (number, _Request(hub))
                continue
            done, _ = await asyncio.wait(running, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task in done]:
                number, request = running.pop(task)
                try:
                    result = task.result()
                    _note_overtaken([one for _, one in running.values()])
                    return result, request.hub
                except UPSTREAM_ERRORS as error:
                    errors[number] = (request.hub, error)
            for task, (number, request) in [] if done else list(running.items()):
                request.tick()
                if request.lacks_answer_after(UNTIL_SILENT) and not is_patient(request.hub):
                    await end_tasks([task])
                    del running[task]
                    request.hub.reach.note_silence(took_connection=request.is_connected)
                    errors[number] = (request.hub, request.hub.reach.silence(request.hub.name))
        return [errors[number] for number in sorted(errors)]
    finally:
        await end_tasks(running)


def _note_overtaken(requests: Sequence[_Request[Any]]) -> None:
    for request in requests:
        if request.lacks_answer_after(UNTIL_NEXT):
            request.hub.reach.note_overtaken(took_connection=request.is_connected)
