"""Writes the journal of the queue beside the event loop, one line after the other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine

from hfpeer.errors import StorageError
from hfpeer.node.operations.transfers.journal import Journal
from hfpeer.node.operations.transfers.live import Live
from hfpeer.node.operations.transfers.transfer import Transfer

_log = logging.getLogger(__name__)


class Notes:
    """Belongs to one event loop. A transfer does not fail because it cannot be written: only `open` and `write`
    raise StorageError."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._turn = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()

    async def open(self) -> tuple[list[Transfer], int]:
        """See `Journal.open`."""
        return await asyncio.to_thread(self._journal.open)

    async def write(self, transfer: Transfer) -> None:
        """Returns when the transfer will outlive a power cut."""
        async with self._turn:
            await asyncio.to_thread(self._journal.write, transfer)

    def write_soon(self, live: Live, *, is_synced: bool = True) -> None:
        """Writes what a transfer is when it is the turn of this note, so that a later note is never overwritten."""
        live.noted_at = time.monotonic()
        self._begin(self._try_to_write(live, is_synced=is_synced))

    def drop_soon(self, live: Live) -> None:
        """Notes that a transfer has left the list. The end of its run does not end the note."""
        live.is_dropped = True
        self._begin(self._try_to_drop(live.transfer.id))

    async def written(self) -> None:
        """Returns when all notes until now are on the disk."""
        await asyncio.gather(*self._writes)

    def _begin(self, write: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _try_to_drop(self, id: int) -> None:
        async with self._turn:
            try:
                await asyncio.to_thread(self._journal.drop, id)
            except StorageError as error:
                _warn(error)

    async def _try_to_write(self, live: Live, *, is_synced: bool) -> None:
        async with self._turn:
            if not live.is_dropped:
                try:
                    await asyncio.to_thread(self._journal.write, live.transfer, is_synced=is_synced)
                except StorageError as error:
                    _warn(error)


def _warn(error: StorageError) -> None:
    _log.warning("The queue of transfers is not written: %s", error.message)
