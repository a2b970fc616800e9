"""Bounds the uploads at one time, queues peers that wait for an upload slot, and shares the slots out fairly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from hfpeer.budgets import UPLOAD_SHARE_SECONDS, UPLOAD_STALL_SECONDS
from hfpeer.errors import Unreachable

_Task: TypeAlias = "asyncio.Task[Any] | None"


class UploadSlots:
    """At most `max_active` uploads; at most `max_waiting` requests wait for a slot, each `max_wait_seconds`.

    One peer has at most `max_per_peer` slots (by default a quarter of all) and as many waiting requests, so that it
    cannot take all. A free slot goes to the waiting peer with the fewest. After a wait of `share_seconds`, a peer takes
    a slot from the peer with the most, if that has at least two more: its oldest upload is cancelled. Belongs to one
    event loop.
    """

    def __init__(
        self,
        max_active: int = 32,
        max_waiting: int = 64,
        max_wait_seconds: float = 5.0,
        retry_after_seconds: float = 2.0,
        max_per_peer: int | None = None,
        share_seconds: float = UPLOAD_SHARE_SECONDS,
    ) -> None:
        self.max_active = max_active
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._retry_after_seconds = retry_after_seconds
        self._max_per_peer = max_per_peer or max(1, max_active // 4)
        self._share_seconds = share_seconds
        self._uploads: dict[str, dict[object, _Task]] = {}
        """Uploads under way by peer, oldest first; None for an upload that was cancelled."""
        self._waiters: dict[str, dict[asyncio.Future[None], _Task]] = {}
        """Waiting requests by peer, in the order in which peers with equally many uploads get slots."""
        self.active = 0
        self.waiting = 0
        self._is_closed = False
        self._last_wanted_at = float("-inf")

    @asynccontextmanager
    async def acquire(self, peer: str) -> AsyncIterator[None]:
        """Holds a slot while the block runs. `peer` is the peer that gets the body. The task may be cancelled to give
        the slot to another peer.

        Raises Unreachable with `retry_after_seconds` if no slot comes free.
        """
        self._refuse_if_full(peer)
        task = asyncio.current_task()
        slot: object = object()
        if self.active < self.max_active and self._count(peer) < self._max_per_peer:
            self._occupy(peer, slot, task)
        else:
            slot = await self._wait_for_slot(peer, task)
        try:
            if self._is_closed:
                raise self._refusal("This node is stopping.")
            yield
        finally:
            self._release(peer, slot)

    def is_wanted(self) -> bool:
        """Whether a request was waiting within the last UPLOAD_STALL_SECONDS while all slots were taken: one that gave
        up comes again. Thread-safe."""
        return time.monotonic() - self._last_wanted_at < UPLOAD_STALL_SECONDS

    def close(self) -> None:
        """Refuses all new and waiting requests from now on. Uploads under way keep their slots."""
        self._is_closed = True

    def _count(self, peer: str) -> int:
        return len(self._uploads.get(peer, ()))

    def _refuse_if_full(self, peer: str) -> None:
        count = self._count(peer)
        if count + len(self._waiters.get(peer, ())) >= 2 * self._max_per_peer:
            raise self._refusal("This node is already sending you its maximum of bodies at once.")
        must_wait = self.active >= self.max_active or count >= self._max_per_peer
        if must_wait and self.waiting >= self._max_waiting:
            self._note_wanted()
            raise self._refusal("All upload slots of this node are taken, and others are waiting.")

    async def _wait_for_slot(self, peer: str, task: _Task) -> object:
        """The key of the slot that was assigned."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.setdefault(peer, {})[waiter] = task
        self.waiting += 1
        self._note_wanted()
        sharing = loop.call_later(self._share_seconds, self._preempt_for, peer, waiter)
        try:
            await asyncio.wait([waiter], timeout=self._max_wait_seconds)
            if not waiter.done():
                raise self._refusal("All upload slots of this node are taken.")
        except BaseException:
            if waiter.done():
                self._release(peer, waiter)
            raise
        finally:
            sharing.cancel()
            self._note_wanted()
            self.waiting -= 1
            self._forget_waiter(peer, waiter)
        return waiter

    def _occupy(self, peer: str, slot: object, task: _Task) -> None:
        self._uploads.setdefault(peer, {})[slot] = task
        self.active += 1

    def _release(self, peer: str, slot: object) -> None:
        del self._uploads[peer][slot]
        if not self._uploads[peer]:
            del self._uploads[peer]
        self.active -= 1
        self._assign_free_slots()

    def _assign_free_slots(self) -> None:
        while self.active < self.max_active:
            peers = [peer for peer in self._waiters if self._count(peer) < self._max_per_peer]
            if not peers:
                return
            peer = min(peers, key=self._count)
            waiters = self._waiters.pop(peer)
            waiter = next(iter(waiters))
            self._occupy(peer, waiter, waiters.pop(waiter))
            if waiters:
                self._waiters[peer] = waiters  # behind the others
            waiter.set_result(None)

    def _forget_waiter(self, peer: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(peer)
        if waiters is not None:
            waiters.pop(waiter, None)
            if not waiters:
                del self._waiters[peer]

    def _preempt_for(self, peer: str, waiter: asyncio.Future[None]) -> None:
        """Cancels the oldest upload of the peer with the most, if that has at least two more than `peer`."""
        if waiter.done() or self.active < self.max_active:
            return
        largest = max(self._uploads, key=self._count)
        if self._count(largest) < self._count(peer) + 2:
            return
        uploads = self._uploads[largest]
        for slot, task in uploads.items():
            if task is not None:
                uploads[slot] = None
                task.cancel()
                return

    def _note_wanted(self) -> None:
        if self.active >= self.max_active:
            self._last_wanted_at = time.monotonic()

    def _refusal(self, message: str) -> Unreachable:
        return Unreachable(
            message, hint="Ask again, or ask another node.", retry_after_seconds=self._retry_after_seconds
        )
