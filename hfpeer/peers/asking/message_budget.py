"""Bounds the memory for the large messages of all peers together. A message that does not fit waits for another's
end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hfpeer.budgets import LARGE_MESSAGE_BYTES, MAX_LARGE_MESSAGES_BYTES


class MessageBudget:
    """Belongs to one event loop. Large messages are read at once up to `max_bytes`, and parsed one at a time."""

    def __init__(self, max_bytes: int = MAX_LARGE_MESSAGES_BYTES) -> None:
        self._max_bytes = self._free_bytes = max_bytes
        self._freed = asyncio.Condition()
        self._parsing = asyncio.Lock()

    @asynccontextmanager
    async def reading(self, size_bytes: int) -> AsyncIterator[None]:
        """Reserves `size_bytes` while a message is read and parsed; small messages need no reservation."""
        if size_bytes <= LARGE_MESSAGE_BYTES:
            yield
            return
        taken = min(size_bytes, self._max_bytes)
        async with self._freed:
            await self._freed.wait_for(lambda: self._free_bytes >= taken)
            self._free_bytes -= taken
        try:
            yield
        finally:
            self._free_bytes += taken
            async with self._freed:
                self._freed.notify_all()

    @asynccontextmanager
    async def parsing(self, size_bytes: int) -> AsyncIterator[None]:
        """Holds the one right to parse, which takes ten times the bytes of a message."""
        if size_bytes <= LARGE_MESSAGE_BYTES:
            yield
            return
        async with self._parsing:
            yield
