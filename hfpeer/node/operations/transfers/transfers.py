"""The transfers of a daemon: begins them, follows them, and takes them up again after a restart.

A transfer that a caller waits for runs at once; the others of the queue run a few at a time. A caller that vanishes
leaves its transfer running; a caller that leaves in order pauses it, unless another waits. `transfer` and `queue`
decide, `journal` keeps the queue.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from hfpeer.budgets import MAX_REQUESTED_TRANSFERS
from hfpeer.control.operations import AddRequest, AttachRequest
from hfpeer.control.transfers import DONE, PAUSED, QUEUED, RUNNING, WAITING, TransferStatus
from hfpeer.errors import HfpeerError, NotFound, StorageError, TransferCancelled, Unreachable, from_problem
from hfpeer.net.tasks import end_tasks
from hfpeer.node.operations.transfers import queue, sentences
from hfpeer.node.operations.transfers import transfer as steps
from hfpeer.node.operations.transfers.history import History
from hfpeer.node.operations.transfers.journal import Journal
from hfpeer.node.operations.transfers.live import Live
from hfpeer.node.operations.transfers.notes import Notes
from hfpeer.node.operations.transfers.runs import RunAdd, Runs
from hfpeer.node.operations.transfers.transfer import Transfer
from hfpeer.transfer.events import Finished, OnEvent, WaitBegan

LOOK_SECONDS = 30.0
"""At most this many seconds between two looks at the queue: the clock may jump, or the machine have slept."""
RETRY_PAUSE_SECONDS = 5.0
"""Seconds after a failure in which a peer that comes does not make it be tried again."""

_log = logging.getLogger(__name__)


class Transfers:
    """Belongs to one event loop. `run_add` does the work of one add; `at_once` is how many of the queue may run."""

    def __init__(
        self,
        run_add: RunAdd,
        journal: Journal,
        history: History,
        at_once: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._notes = Notes(journal)
        self._runs = Runs(run_add, self._notes, history, clock, self._run_ended)
        self._at_once = at_once
        self._clock = clock
        self._lives: dict[int, Live] = {}
        self._last_id = 0
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def start(self) -> None:
        """Takes up what the journal has. A journal that cannot be read is left alone, and the queue begins empty."""
        try:
            found, self._last_id = await self._notes.open()
        except StorageError as error:
            _log.error("The queue of transfers cannot be read: %s", error.message)
            found = []
        now = self._clock()
        for transfer in found:
            live = self._lives[transfer.id] = Live(steps.taken_up(transfer, now))
            if transfer.state == RUNNING:
                _log.info("%s is taken up again", sentences.named(transfer))
                self._notes.write_soon(live)
        self._keeper = asyncio.create_task(self._keep_going(), name="transfers")

    async def stop(self) -> None:
        """Ends every run. The next daemon takes up the running transfers."""
        self._is_stopping = True
        await end_tasks([] if self._keeper is None else [self._keeper])
        running = [live for live in self._lives.values() if live.task is not None]
        for live in running:
            if live.transfer.state == RUNNING:
                live.transfer = replace(live.transfer, state=QUEUED)
        await end_tasks([live.task for live in running if live.task is not None])
        for live in running:
            self._notes.write_soon(live)
        await self._notes.written()

    # For callers

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        """See `Operations.add`. When this coroutine is cancelled, the transfer goes on."""
        live, is_new = self._enlist(request)
        follower = live.join(on_event, is_new=is_new, waits=True)
        self._look()
        try:
            return await follower.outcome
        finally:
            live.followers.leave(follower.number)

    async def begin(self, request: AddRequest, priority: str, *, finds_done: bool = False) -> TransferStatus:
        """See `Operations.begin_transfer`. With `finds_done` one that is done begins anew, under its id. Raises
        StorageError if it cannot be kept on the disk."""
        live, is_new = self._enlist(request, priority, is_detached=True, finds_done=finds_done)
        try:
            await self._notes.write(live.transfer)
        except StorageError:
            if is_new:
                del self._lives[live.transfer.id]
            raise
        self._look()
        return steps.status_of(live.transfer, live.progress)

    async def begin_unattended(self, request: AddRequest, priority: str) -> TransferStatus:
        """The same for a request that no user of this machine has typed. One that is not over stays as it is: what the
        owner has paused stays paused. Raises Unreachable for a request of another node while MAX_REQUESTED_TRANSFERS of
        such are not over."""
        live = self._same(request, finds_done=True)
        if live is not None and not live.transfer.is_over:
            return steps.status_of(live.transfer, live.progress)
        of_peers = sum(one.request.asked_by.via == "peer" and not one.is_over for one in self._transfers)
        if live is None and request.asked_by.via == "peer" and of_peers >= MAX_REQUESTED_TRANSFERS:
            raise Unreachable(f"This node has {of_peers:,} transfers already that other nodes asked for.")
        return await self.begin(request, priority, finds_done=True)

    async def attach(self, request: AttachRequest, on_event: OnEvent) -> Finished:
        """See `Operations.attach`."""
        live = self._get(request.id)
        transfer = live.transfer
        if transfer.finished is not None:
            return transfer.finished
        if transfer.is_over and transfer.problem is not None:
            problem = transfer.problem
            raise from_problem({"code": problem.code, "message": problem.message, "hint": problem.hint})
        follower = live.join(on_event, is_new=False, waits=False)
        try:
            return await follower.outcome
        finally:
            live.followers.leave(follower.number)

    async def leave(self, id: int, follower: int) -> str:
        """See `Operations.leave_transfer`."""
        live = self._lives.get(id)
        if live is None:
            return DONE
        live.followers.leave(follower)
        if not (live.transfer.is_detached or live.transfer.is_over or live.followers.are_waiting):
            await self._pause(live)
        return live.transfer.state

    def listed(self) -> list[TransferStatus]:
        """See `Operations.list_transfers`."""
        progress = {live.transfer.id: live.progress for live in self._lives.values()}
        return [steps.status_of(one, progress[one.id]) for one in queue.in_order(self._transfers)]

    async def change(self, ids: Sequence[int], change: str) -> list[TransferStatus]:
        """See `Operations.change_transfers`."""
        lives = [self._get(id) for id in dict.fromkeys(ids)]
        for live in lives:
            self._check(live.transfer, change)
        for live in lives:
            if change == "pause":
                await self._pause(live)
            elif change == "resume":
                self._resume(live)
            elif change == "cancel":
                await self._cancel(live)
            else:
                live.transfer = queue.moved(live.transfer, self._transfers, is_first=change == "first")
                self._notes.write_soon(live)
        self._look()
        return [steps.status_of(live.transfer, live.progress) for live in lives]

    def retry_soon(self) -> None:
        """A source may have come: the transfers that wait for one are tried again now."""
        now = self._clock()
        for live in self._lives.values():
            waiting = live.transfer
            failed_at = (waiting.next_try_at or now) - steps.retry_seconds(max(1, waiting.failures))
            if waiting.state == WAITING and now - failed_at >= RETRY_PAUSE_SECONDS:
                live.transfer = replace(waiting, next_try_at=now)
        self._look()

    # The queue

    @property
    def _transfers(self) -> list[Transfer]:
        return [live.transfer for live in self._lives.values() if not live.is_dropped]

    def _get(self, id: int) -> Live:
        if id not in self._lives:
            raise NotFound(
                f"There is no transfer {id}.",
                hint="`hfpeer transfers` lists them, `hfpeer history` those that are over.",
                id=id,
            )
        return self._lives[id]

    def _check(self, transfer: Transfer, change: str) -> None:
        """Raises NotFound for a change that makes no sense any more."""
        if transfer.state == DONE or (transfer.is_over and change not in ("resume", "cancel")):
            raise NotFound(
                f"Transfer {transfer.id} is over: it is {transfer.state}.",
                hint="`hfpeer transfers` lists those that are not.",
                id=transfer.id,
            )

    def _enlist(
        self, request: AddRequest, priority: str = "normal", *, is_detached: bool = False, finds_done: bool = False
    ) -> tuple[Live, bool]:
        """The transfer of a request, and whether it is new. A transfer that does not run begins anew."""
        live = self._same(request, finds_done=finds_done)
        if live is not None:
            if live.transfer.state != RUNNING:
                kept, token = steps.without_token(request)
                live.transfer = replace(steps.queued(live.transfer), request=kept, token=token)
                live.token = request.token
            if is_detached:
                live.transfer = replace(live.transfer, is_detached=True, priority=priority)
            self._notes.write_soon(live)
            return live, False
        if is_detached and sum(not one.is_over for one in self._transfers) >= queue.MAX_QUEUED:
            raise HfpeerError(
                f"{queue.MAX_QUEUED:,} transfers are in the queue already.", hint="`hfpeer transfers` lists them."
            )
        self._last_id += 1
        fresh = steps.new_transfer(self._last_id, request, self._clock(), priority, is_detached=is_detached)
        live = self._lives[fresh.id] = Live(fresh, request.token)
        if not is_detached:
            self._notes.write_soon(live)
        return live, True

    def _same(self, request: AddRequest, *, finds_done: bool = False) -> Live | None:
        """The transfer that does what a request asks for, or is to do it; with `finds_done` also one that has done
        it."""
        for live in self._lives.values():
            is_found = finds_done or live.transfer.state != DONE
            if not is_found or not steps.is_same_add(live.transfer.request, request):
                continue
            # A running one has a token of its own, and another token may see other things.
            if live.transfer.state != RUNNING or live.is_cut_off or live.request.token == request.token:
                return live
        return None

    def _look(self) -> None:
        """Begins what is to run now."""
        if self._is_stopping:
            return
        idle = {live.transfer.id: live for live in self._lives.values() if live.task is None}
        wanted = [live for live in idle.values() if live.transfer.state == QUEUED and live.followers.are_waiting]
        for live in wanted:
            self._runs.begin(live)
        for one in queue.startable(self._transfers, self._clock(), self._at_once):
            if one.id in idle:
                self._runs.begin(idle[one.id])
        self._changed.set()

    async def _keep_going(self) -> None:
        while True:
            for one in queue.expired(self._transfers, self._clock()):
                if one.id in self._lives:
                    self._notes.drop_soon(self._lives.pop(one.id))
            self._look()
            self._changed.clear()
            now = self._clock()
            due_at = queue.next_due_at(self._transfers, now)
            seconds = LOOK_SECONDS if due_at is None else min(LOOK_SECONDS, due_at - now)
            timer = asyncio.get_running_loop().call_later(seconds, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()

    def _run_ended(self, live: Live) -> None:
        if live.is_dropped:
            self._lives.pop(live.transfer.id, None)
        self._changed.set()

    async def _pause(self, live: Live) -> None:
        if live.transfer.state == PAUSED:
            return
        live.transfer = steps.paused(live.transfer)
        _log.info("%s is paused", sentences.named(live.transfer))
        await self._runs.end(live)
        live.followers.tell(WaitBegan(sentences.paused_notice(live.transfer.id)))
        self._notes.write_soon(live)

    def _resume(self, live: Live) -> None:
        if live.transfer.state not in (RUNNING, QUEUED):
            live.transfer = steps.queued(live.transfer)
            _log.info("%s is resumed", sentences.named(live.transfer))
            self._notes.write_soon(live)

    async def _cancel(self, live: Live) -> None:
        was_over = live.transfer.is_over
        live.transfer = steps.cancelled(live.transfer, self._clock())
        _log.info("%s is cancelled", sentences.named(live.transfer))
        await self._runs.end(live)
        live.followers.fail(
            TransferCancelled(
                f"Transfer {live.transfer.id} was cancelled.",
                hint="What has arrived is kept: the same command goes on from there.",
                id=live.transfer.id,
            )
        )
        if not was_over:
            await self._runs.remember(live)
        self._lives.pop(live.transfer.id, None)
        self._notes.drop_soon(live)
