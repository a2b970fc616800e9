"""The operations on transfers of one node. In a node that is no daemon, an add runs at once and the queue is only
read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfpeer.control.asker import Asker
from hfpeer.control.operations import PRIORITIES, AddRequest, AttachRequest, HistoryEntry, TransferStatus
from hfpeer.control.transfers import CHANGES, QUEUED, RUNNING, WAITING
from hfpeer.errors import InvalidName, NotRunning
from hfpeer.node.operations.transfers import queue
from hfpeer.node.operations.transfers.caller_fetches import CallerFetches
from hfpeer.node.operations.transfers.history import History
from hfpeer.node.operations.transfers.journal import Journal
from hfpeer.node.operations.transfers.recorded import add_recorded
from hfpeer.node.operations.transfers.runs import RunAdd
from hfpeer.node.operations.transfers.transfer import status_of
from hfpeer.transfer.events import Finished, OnEvent
from hfpeer.transfer.sources.sources import WantedBlob

if TYPE_CHECKING:
    from hfpeer.node.operations.transfers.transfers import Transfers


class TransferOperations:
    """Belongs to one event loop. After `start` it is that of a daemon."""

    def __init__(self, home: Path, run_add: RunAdd, at_once: int) -> None:
        self._run_add = run_add
        self._at_once = at_once
        self._journal, self._history = Journal(home), History(home)
        self.for_callers = CallerFetches(self._history)
        self._transfers: Transfers | None = None

    async def start(self) -> None:
        """Takes up the queue."""
        from hfpeer.node.operations.transfers.transfers import Transfers  # only a daemon has a queue that runs

        self._transfers = Transfers(self._run_add, self._journal, self._history, self._at_once)
        await self._transfers.start()

    async def stop(self) -> None:
        if self._transfers is not None:
            await self._transfers.stop()

    @property
    def under_way(self) -> tuple[TransferStatus, ...]:
        """The transfers that run, or will by themselves."""
        listed = [] if self._transfers is None else self._transfers.listed()
        return tuple(one for one in listed if one.state in (RUNNING, QUEUED, WAITING))

    def retry_soon(self) -> None:
        """A source may have come."""
        if self._transfers is not None:
            self._transfers.retry_soon()

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        """See `Operations.add`. An add from the cache alone fetches nothing, so it is no transfer."""
        if request.is_local_only:
            return await self._run_add(request, on_event)
        if self._transfers is None:
            return await add_recorded(self._run_add, self._history, request, on_event)
        return await self._transfers.add(request, on_event)

    async def begin(self, request: AddRequest, priority: str) -> TransferStatus:
        """See `Operations.begin_transfer`."""
        if priority not in PRIORITIES:
            raise InvalidName(f"{priority!r} is no priority.", hint=f"Use {', '.join(PRIORITIES)}.", value=priority)
        return await self._running("no add can go on in the background").begin(request, priority)

    async def begin_unattended(self, request: AddRequest, priority: str = "normal") -> TransferStatus:
        """See `Transfers.begin_unattended`."""
        return await self._running("no add can go on in the background").begin_unattended(request, priority)

    async def attach(self, request: AttachRequest, on_event: OnEvent) -> Finished:
        return await self._running("no transfer is under way").attach(request, on_event)

    async def leave(self, id: int, follower: int) -> str:
        return await self._running("no transfer is under way").leave(id, follower)

    async def listed(self) -> list[TransferStatus]:
        """See `Operations.list_transfers`."""
        if self._transfers is not None:
            return self._transfers.listed()
        found, _ = await asyncio.to_thread(self._journal.read)
        return [status_of(one) for one in queue.in_order(found)]

    async def change(self, ids: Sequence[int], change: str) -> list[TransferStatus]:
        """See `Operations.change_transfers`."""
        if change not in CHANGES:
            raise InvalidName(f"{change!r} is no change of a transfer.", hint=f"Use {', '.join(CHANGES)}.")
        return await self._running("no transfer can be changed").change(ids, change)

    async def history(self, since: float) -> list[HistoryEntry]:
        """See `Operations.history`."""
        return await asyncio.to_thread(self._history.since, since)

    def _running(self, what: str) -> Transfers:
        if self._transfers is None:
            raise NotRunning(f"No daemon runs, so {what}.", hint="hfpeer daemon start")
        return self._transfers


def status_of_file(blob: WantedBlob, present_bytes: int, bytes_by_source: dict[str, int]) -> TransferStatus:
    """A file that is fetched for a caller of the endpoint, for people."""
    return TransferStatus(
        0,
        str(blob.repo),
        blob.commit,
        blob.commit,
        RUNNING,
        asked_by=Asker("endpoint"),
        present_bytes=present_bytes,
        size_bytes=blob.size_bytes,
        files=1,
        bytes_by_source=bytes_by_source,
        path=blob.path,
    )
