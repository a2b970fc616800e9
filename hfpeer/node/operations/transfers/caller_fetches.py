"""Files that are fetched for callers of the endpoint: those of one commit for one program are one entry of the history.

A client asks for each file by itself, so an entry is written when the program has asked for nothing new for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hfpeer.budgets import MAX_GATHERED_FETCHES
from hfpeer.control.asker import Asker
from hfpeer.control.transfers import DONE, HistoryEntry
from hfpeer.names import Commit, RepoId
from hfpeer.node.operations.transfers import sentences
from hfpeer.node.operations.transfers.history import History
from hfpeer.transfer.report import FetchReport

if TYPE_CHECKING:
    from hfpeer.endpoint.files.streams import FileRequest

QUIET_SECONDS = 30.0
"""Seconds without a fetch after which an entry is written."""

_log = logging.getLogger(__name__)


@dataclass
class _Gathered:
    """The fetches of one commit for one program until now. Times are seconds since the epoch."""

    repo: RepoId
    commit: Commit
    asked_by: Asker
    began_at: float
    ended_at: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)
    by_source: dict[str, int] = field(default_factory=dict)
    by_kind: dict[str, int] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None

    def entry(self) -> HistoryEntry:
        return HistoryEntry(
            id=0,
            repo=str(self.repo),
            revision=self.commit,
            commit=self.commit,
            outcome=DONE,
            asked_by=self.asked_by,
            began_at=self.began_at,
            ended_at=self.ended_at,
            seconds=round(max(0.0, self.ended_at - self.began_at), 3),
            files=len(self.sizes),
            size_bytes=sum(self.sizes.values()),
            bytes_by_source=self.by_source,
            bytes_by_kind=self.by_kind,
            saved_bytes=self.by_kind.get("peer", 0),
        )


class CallerFetches:
    """Belongs to one event loop."""

    def __init__(self, history: History, clock: Callable[[], float] = time.time) -> None:
        self._history = history
        self._clock = clock
        self._gathered: dict[tuple[RepoId, Commit, Asker], _Gathered] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()

    @property
    def gathered(self) -> int:
        """The number of entries that are still gathered."""
        return len(self._gathered)

    def note(self, request: FileRequest, report: FetchReport) -> None:
        """A fetch for a caller has ended, as a whole or in part. One that gave no byte does not count."""
        if not any(report.bytes_by_source.values()):
            return
        blob, asked_by = request.blob, Asker("endpoint", host=request.caller.host, program=request.caller.program)
        key = (blob.repo, blob.commit, asked_by)
        found = self._gathered.get(key)
        if found is None:
            if len(self._gathered) >= MAX_GATHERED_FETCHES:
                self._write(next(iter(self._gathered)))
            found = self._gathered[key] = _Gathered(blob.repo, blob.commit, asked_by, report.began_at)
        found.sizes[blob.path] = blob.size_bytes
        for name, size_bytes in report.bytes_by_source.items():
            found.by_source[name] = found.by_source.get(name, 0) + size_bytes
            kind = report.kinds[name]
            found.by_kind[kind] = found.by_kind.get(kind, 0) + size_bytes
        found.ended_at = self._clock()
        if found.timer is not None:
            found.timer.cancel()
        found.timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._write, key)

    async def stop(self) -> None:
        """Writes what was gathered."""
        for key in list(self._gathered):
            self._write(key)
        await asyncio.gather(*self._writes)

    def _write(self, key: tuple[RepoId, Commit, Asker]) -> None:
        found = self._gathered.pop(key)
        if found.timer is not None:
            found.timer.cancel()
        _log.info("%s", sentences.fetched_for_caller(found.entry()))
        task = asyncio.create_task(self._keep(found.entry()))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _keep(self, entry: HistoryEntry) -> None:
        """Writes an entry; the entries come into the history in the order in which they ended."""
        async with self._writing:
            await asyncio.to_thread(self._history.note, entry)
