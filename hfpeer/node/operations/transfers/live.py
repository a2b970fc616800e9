"""A transfer in the process of the daemon: its state, its token, and the callers that follow it.

Belongs to one event loop, but events may come from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hfpeer.control.operations import AddRequest
from hfpeer.node.operations.transfers import transfer as steps
from hfpeer.node.operations.transfers.transfer import Transfer
from hfpeer.transfer.events import (
    Event,
    Finished,
    NodeTold,
    OnEvent,
    Planned,
    Progressed,
    Resolved,
    TransferJoined,
)


@dataclass(eq=False)
class Follower:
    """One caller. With `waits` the transfer runs for it; else it only looks on. `outcome` ends when it need not follow
    any longer."""

    number: int
    on_event: OnEvent
    waits: bool
    outcome: asyncio.Future[Finished] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Followers:
    """All followers of a transfer. A new one receives the latest event of each kind that tells a state."""

    def __init__(self) -> None:
        self._all: tuple[Follower, ...] = ()
        self._latest: dict[type[Event], Event] = {}
        self._count = 0

    @property
    def are_waiting(self) -> bool:
        """Whether the transfer runs for any of them."""
        return any(follower.waits for follower in self._all)

    def join(self, on_event: OnEvent, first: Callable[[int], Event], *, waits: bool) -> Follower:
        """A new follower; `first` makes its first event from its number."""
        self._count += 1
        follower = Follower(self._count, on_event, waits)
        on_event(first(follower.number))
        for event in self._latest.values():
            on_event(event)
        self._all += (follower,)
        return follower

    def leave(self, number: int) -> None:
        """One follower less; it may have left already."""
        self._all = tuple(follower for follower in self._all if follower.number != number)

    def tell(self, event: Event) -> None:
        """Passes an event on. Thread-safe."""
        if isinstance(event, (Resolved, Planned, Progressed, NodeTold)):
            self._latest[type(event)] = event
        for follower in self._all:
            follower.on_event(event)

    def forget_progress(self) -> None:
        """A run has ended: the next one tells anew."""
        self._latest.clear()

    def finish(self, finished: Finished) -> None:
        for follower in self._all:
            if not follower.outcome.done():
                follower.outcome.set_result(finished)

    def fail(self, error: BaseException, *, only_waiting: bool = False) -> None:
        """Ends with an error: for all, or only for those that wait."""
        for follower in self._all:
            if not follower.outcome.done() and (follower.waits or not only_waiting):
                follower.outcome.set_exception(error)


@dataclass(eq=False)
class Live:
    """The state, the token and the followers of a transfer, and its run if it has one. `noted_at` is the time of the
    last note, by the monotonic clock. A transfer that `is_dropped` has left the list."""

    transfer: Transfer
    token: str | None = None
    followers: Followers = field(default_factory=Followers)
    task: asyncio.Task[None] | None = None
    progress: Progressed | NodeTold | None = None
    noted_at: float = 0.0
    is_dropped: bool = False

    @property
    def is_cut_off(self) -> bool:
        """Whether the token that it was begun with is no longer known."""
        return self.transfer.token == steps.CALLER_TOKEN and self.token is None

    @property
    def request(self) -> AddRequest:
        """The request with its token. Without the caller's token, the login of the node is used."""
        token = "" if self.transfer.token == steps.ANONYMOUS else self.token
        return replace(self.transfer.request, token=token)

    def join(self, on_event: OnEvent, *, is_new: bool, waits: bool) -> Follower:
        """A new follower, which is told first what it follows."""
        transfer = self.transfer

        def joined(number: int) -> TransferJoined:
            return TransferJoined(transfer.id, number, transfer.state, is_new, transfer.is_detached)

        return self.followers.join(on_event, joined, waits=waits)
