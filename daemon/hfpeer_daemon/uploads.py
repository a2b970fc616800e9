"""How many bodies are sent at once, to whom, and who waits for a turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hfpeer.errors import Unreachable


class UploadLine:
    """At most `max_active` uploads, at most `max_waiting` that wait for their turn, each `max_wait_seconds`.

    One peer has at most `max_per_peer` turns at a time, a quarter of all unless said otherwise, and as many that
    wait: the others' places are never all its own. Turns are given in the order of arrival. Belongs to one event loop.
    """

    def __init__(
        self,
        max_active: int = 32,
        max_waiting: int = 64,
        max_wait_seconds: float = 5.0,
        retry_after_seconds: float = 2.0,
        max_per_peer: int | None = None,
    ) -> None:
        self.max_active = max_active
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._retry_after_seconds = retry_after_seconds
        self._max_per_peer = max_per_peer or max(1, max_active // 4)
        self._turns = asyncio.Semaphore(max_active)
        self._turns_of: dict[str, asyncio.Semaphore] = {}
        self._present: Counter[str] = Counter()
        """Uploads and waiting ones, by peer."""
        self.waiting = 0
        self._is_closed = False
        self.active = 0

    @asynccontextmanager
    async def turn(self, peer: str) -> AsyncIterator[None]:
        """Holds one of the places while the block runs; `peer` names who is sent to.

        Raises Unreachable (with a time to come back) when full.
        """
        self._refuse_crowd(peer)
        self._present[peer] += 1
        own = self._turns_of.setdefault(peer, asyncio.Semaphore(self._max_per_peer))
        try:
            await self._wait_for_turn(own)
            self.active += 1
            try:
                if self._is_closed:
                    raise self._refusal("This node is stopping.")
                yield
            finally:
                self.active -= 1
                self._turns.release()
                own.release()
        finally:
            self._leave(peer)

    def close(self) -> None:
        """Refuses everybody from now on, also those who wait already; those who have their turn keep it."""
        self._is_closed = True

    def _refuse_crowd(self, peer: str) -> None:
        if self._present[peer] >= 2 * self._max_per_peer:
            raise self._refusal("This node is sending you as much at once as it may.")
        must_wait = self._turns.locked() or self._present[peer] >= self._max_per_peer
        if must_wait and self.waiting >= self._max_waiting:
            raise self._refusal("This node is sending to as many others as it may, and more are waiting.")

    async def _wait_for_turn(self, own: asyncio.Semaphore) -> None:
        if not own.locked() and not self._turns.locked():
            await self._acquire(own)  # does not wait: a time limit would cost a task
            return
        self.waiting += 1
        try:
            await asyncio.wait_for(self._acquire(own), self._max_wait_seconds)
        except asyncio.TimeoutError as error:
            raise self._refusal("This node is sending to as many others as it may.") from error
        finally:
            self.waiting -= 1

    async def _acquire(self, own: asyncio.Semaphore) -> None:
        """A turn of the peer's own first, so that one peer's crowd stands in nobody's way."""
        await own.acquire()
        try:
            await self._turns.acquire()
        except BaseException:
            own.release()
            raise

    def _leave(self, peer: str) -> None:
        self._present[peer] -= 1
        if not self._present[peer]:
            del self._present[peer], self._turns_of[peer]

    def _refusal(self, message: str) -> Unreachable:
        return Unreachable(message, hint="Ask again, or ask another.", retry_after_seconds=self._retry_after_seconds)
