"""The run of a transfer: an add, its events, its end, and what becomes of the transfer then."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from hfpeer.control.operations import AddRequest
from hfpeer.control.transfers import RUNNING, WAITING
from hfpeer.errors import AccessDenied, HfpeerError, RepoNotFound
from hfpeer.net.tasks import end_tasks
from hfpeer.node.operations.transfers import sentences
from hfpeer.node.operations.transfers import transfer as steps
from hfpeer.node.operations.transfers.history import History
from hfpeer.node.operations.transfers.live import Live
from hfpeer.node.operations.transfers.notes import Notes
from hfpeer.node.operations.transfers.transfer import Transfer
from hfpeer.transfer.events import (
    Event,
    Finished,
    NodeTold,
    OnEvent,
    Planned,
    Progressed,
    Resolved,
    SourceFailed,
    WaitBegan,
)

NOTE_SECONDS = 10.0
"""Seconds between two notes on the disk of how far a transfer is."""
END_SECONDS = 2.0
"""At most this many seconds `end` waits until the fetch has let go."""
RunAdd: TypeAlias = "Callable[[AddRequest, OnEvent], Awaitable[Finished]]"

_log = logging.getLogger(__name__)


class Runs:
    """Begins and ends the runs. Belongs to one event loop. `on_end` is called after each run."""

    def __init__(
        self,
        run_add: RunAdd,
        notes: Notes,
        history: History,
        clock: Callable[[], float],
        on_end: Callable[[Live], None],
    ) -> None:
        self._run_add = run_add
        self._notes = notes
        self._history = history
        self._clock = clock
        self._on_end = on_end
        self._ending: set[asyncio.Task[None]] = set()

    def begin(self, live: Live) -> None:
        live.transfer = steps.started(live.transfer)
        _log.info("%s", sentences.began(live.transfer))
        live.task = asyncio.create_task(self._run(live), name=f"transfer {live.transfer.id}")
        self._notes.write_soon(live)

    async def end(self, live: Live) -> None:
        """Ends the run, if there is one, and waits until the fetch has let go. The state was set before."""
        if live.task is not None:
            ending = asyncio.create_task(end_tasks([live.task]))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.wait([ending], timeout=END_SECONDS)

    async def remember(self, live: Live) -> None:
        """Puts the transfer into the history. If it is resumed, its next entry counts only later bytes."""
        entry = steps.entry_of(live.transfer, self._clock())
        live.transfer = replace(live.transfer, seconds=0.0, bytes_by_source={}, bytes_by_kind={})
        await asyncio.to_thread(self._history.note, entry)

    async def _run(self, live: Live) -> None:
        before, began_at, thread = live.transfer, time.monotonic(), threading.get_ident()

        def on_event(event: Event) -> None:
            if threading.get_ident() == thread:
                self._hear(live, before, event)
            if isinstance(event, SourceFailed):
                _log.info("%s", sentences.source_failed(before, event))
            live.followers.tell(event)

        try:
            try:
                finished = await self._run_add(live.request, on_event)
            finally:
                live.transfer = replace(live.transfer, seconds=before.seconds + time.monotonic() - began_at)
        except HfpeerError as error:
            await self._fail(live, error)
        except Exception as error:  # noqa: BLE001  a bug in an add ends that add alone
            _log.exception("%s met a bug", sentences.named(live.transfer))
            await self._fail(live, error)
        else:
            await self._finish(live, before, finished)
        finally:
            live.task = live.progress = None
            live.followers.forget_progress()
            self._on_end(live)

    def _hear(self, live: Live, before: Transfer, event: Event) -> None:
        """Takes up an event that came in the event loop: all that change the transfer do."""
        kills = live.transfer.kills
        live.transfer = steps.heard(live.transfer, before, event)
        if isinstance(event, Resolved):
            self._notes.write_soon(live)
        elif isinstance(event, Planned) and event.missing_files:
            _log.info("%s", sentences.planned(live.transfer, event))
        elif isinstance(event, (Progressed, NodeTold)):
            live.progress = event
            if kills != live.transfer.kills or time.monotonic() - live.noted_at >= NOTE_SECONDS:
                self._notes.write_soon(live, is_synced=False)

    async def _finish(self, live: Live, before: Transfer, finished: Finished) -> None:
        live.transfer = steps.done(live.transfer, before, finished, self._clock())
        live.is_dropped = not (live.transfer.came_bytes or live.transfer.is_detached)
        live.followers.finish(finished)
        if not live.is_dropped:
            _log.info("%s", sentences.done(live.transfer))
            await self.remember(live)
            self._notes.write_soon(live)
        else:  # all of it was here: nothing to tell
            self._notes.drop_soon(live)

    async def _fail(self, live: Live, error: Exception) -> None:
        transfer, problem = live.transfer, steps.problem_of(error)
        if transfer.state != RUNNING:  # it was paused or cancelled at that moment
            return
        if live.is_cut_off and isinstance(error, (AccessDenied, RepoNotFound)):
            problem = sentences.token_problem(transfer.id, transfer.request.repo)
            live.transfer = replace(steps.paused(transfer), problem=problem)
        else:
            is_left_alone = transfer.is_detached or not live.followers.are_waiting
            is_retried = is_left_alone and steps.is_temporary(error)
            live.transfer = steps.failed(transfer, problem, self._clock(), is_retried=is_retried)
        is_waiting = live.transfer.state == WAITING
        seconds = steps.retry_seconds(live.transfer.failures) if is_waiting else None
        _log.info("%s", sentences.failed(live.transfer, problem, seconds))
        live.followers.fail(error, only_waiting=is_waiting)
        if seconds is not None:
            live.followers.tell(WaitBegan(sentences.retry_notice(problem.message, seconds)))
        if live.transfer.is_over:
            await self.remember(live)
        self._notes.write_soon(live)
