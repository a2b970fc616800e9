"""How many bodies are sent at once, and who waits for a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hfpeer.errors import Unreachable


class UploadLine:
    """At most `max_active` uploads, at most `max_waiting` that wait for their turn, each `max_wait_seconds`.

    Turns are given in the order of arrival. Belongs to one event loop.
    """

    def __init__(
        self,
        max_active: int = 32,
        max_waiting: int = 64,
        max_wait_seconds: float = 5.0,
        retry_after_seconds: float = 2.0,
    ) -> None:
        self.max_active = max_active
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._retry_after_seconds = retry_after_seconds
        self._turns = asyncio.Semaphore(max_active)
        self.waiting = 0
        self._is_closed = False
        self.active = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Holds one of the places while the block runs. Raises Unreachable (with a time to come back) when full."""
        await self._wait_for_turn()
        self.active += 1
        try:
            if self._is_closed:
                raise self._refusal("This node is stopping.")
            yield
        finally:
            self.active -= 1
            self._turns.release()

    def close(self) -> None:
        """Refuses everybody from now on, also those who wait already; those who have their turn keep it."""
        self._is_closed = True

    async def _wait_for_turn(self) -> None:
        if self._turns.locked() and self.waiting >= self._max_waiting:
            raise self._refusal("This node is sending to as many others as it may, and more are waiting.")
        self.waiting += 1
        try:
            await asyncio.wait_for(self._turns.acquire(), self._max_wait_seconds)
        except asyncio.TimeoutError as error:
            raise self._refusal("This node is sending to as many others as it may.") from error
        finally:
            self.waiting -= 1

    def _refusal(self, message: str) -> Unreachable:
        return Unreachable(message, hint="Ask again, or ask another.", retry_after_seconds=self._retry_after_seconds)
