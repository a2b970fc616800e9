"""A transfer as the queue keeps it, and what happens to it. Pure: each change gives a new value.

Times are seconds since the epoch, because they must outlive the process and the boot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hfpeer.control.operations import AddRequest
from hfpeer.control.transfers import (
    CANCELLED,
    DONE,
    FAILED,
    PAUSED,
    QUEUED,
    RUNNING,
    WAITING,
    HistoryEntry,
    TransferProblem,
    TransferStatus,
)
from hfpeer.errors import HfpeerError, Locked, Unreachable
from hfpeer.transfer.events import Event, Finished, NodeTold, Planned, Progressed, Resolved

NODE_TOKEN, ANONYMOUS, CALLER_TOKEN = "node", "anonymous", "caller"
"""The token of a request: the login of the node, none, or one that the caller brought, which is not kept."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 15.0, 300.0
"""Seconds until a transfer that no source could give is tried again. They double with each failure."""
RETRYING_SECONDS = 7 * 24 * 3600.0
"""Seconds for which a transfer is tried again and again."""
AWAITING_NODE_SECONDS = 24 * 3600.0
"""The same for one that another node is asked to do: for so long it is asked again when it returns."""
MAX_KILLS = 5
"""A transfer that was running when the daemon was killed, this many times without new bytes, fails: it may be the
cause."""


@dataclass(frozen=True)
class Transfer:
    """An add in the queue. Its `request` has no token; `token` says whose it was.

    `place` orders those of one priority. `seconds` is the time in which it ran; the bytes are of all ended runs, and of
    the one under way as of the last note. `failures` are those in a row, since `failing_since`. `finished` is the
    result of one that is done. `state_there` is its state at the node that is asked to do it.
    """

    id: int
    request: AddRequest
    added_at: float
    state: str = QUEUED
    priority: str = "normal"
    place: int = 0
    is_detached: bool = False
    token: str = NODE_TOKEN
    ended_at: float | None = None
    seconds: float = 0.0
    failures: int = 0
    failing_since: float | None = None
    next_try_at: float | None = None
    kills: int = 0
    files: int = 0
    size_bytes: int | None = None
    present_bytes: int = 0
    bytes_by_source: dict[str, int] = field(default_factory=dict)
    bytes_by_kind: dict[str, int] = field(default_factory=dict)
    problem: TransferProblem | None = None
    finished: Finished | None = None
    state_there: str = ""

    @property
    def is_elsewhere(self) -> bool:
        """Whether another node is asked to do it."""
        return self.request.node is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is fetched unless the user says so."""
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def came_bytes(self) -> int:
        """The bytes that came over a network for it."""
        return sum(self.bytes_by_kind.values())

    @property
    def commit(self) -> str:
        return self.request.resolved.commit if self.request.resolved is not None else ""


def is_same_add(one: AddRequest, other: AddRequest) -> bool:
    """Whether two requests ask for the same, whatever their tokens."""
    return one.repo == other.repo and _anonymous(one) == _anonymous(other)


def _anonymous(request: AddRequest) -> AddRequest:
    return replace(request, token=None, resolved=None)


def new_transfer(id: int, request: AddRequest, now: float, priority: str = "normal", *, is_detached: bool) -> Transfer:
    """A transfer that has not begun, without the token of its request."""
    kept, token = without_token(request)
    return Transfer(id, kept, now, priority=priority, place=id, is_detached=is_detached, token=token)


def without_token(request: AddRequest) -> tuple[AddRequest, str]:
    """The request as it may be written to the disk, and whose token it had."""
    whose = NODE_TOKEN if request.token is None else CALLER_TOKEN if request.token else ANONYMOUS
    return replace(request, token=None), whose


# What happens to a transfer


def queued(transfer: Transfer) -> Transfer:
    """To be started when its turn comes; earlier failures are forgotten."""
    fresh = replace(transfer, state=QUEUED, failures=0, failing_since=None, next_try_at=None, kills=0)
    return replace(fresh, ended_at=None, problem=None, finished=None)


def started(transfer: Transfer) -> Transfer:
    return replace(transfer, state=RUNNING, next_try_at=None, state_there="")


def heard(transfer: Transfer, before: Transfer, event: Event) -> Transfer:
    """After an event of its run, which began with `before`. The first commit is pinned: a later run goes on with it."""
    if isinstance(event, Resolved):
        return replace(transfer, request=replace(transfer.request, resolved=event))
    if isinstance(event, NodeTold):
        return replace(
            transfer,
            kills=0,
            state_there=event.state,
            files=event.files,
            size_bytes=event.size_bytes,
            present_bytes=event.present_bytes,
        )
    if isinstance(event, Planned):
        present = event.size_bytes - event.missing_bytes + event.kept_bytes
        return replace(transfer, files=event.files, size_bytes=event.size_bytes, present_bytes=present)
    return _progressed(transfer, before, event) if isinstance(event, Progressed) else transfer


def _progressed(transfer: Transfer, before: Transfer, event: Progressed) -> Transfer:
    """With the bytes of this run added to those that came before it. A run with new bytes is not to blame for the end
    of the daemon."""
    return replace(
        transfer,
        kills=0 if event.present_bytes > transfer.present_bytes else transfer.kills,
        present_bytes=event.present_bytes,
        bytes_by_source=_sum(before.bytes_by_source, event.bytes_by_source),
        bytes_by_kind=_sum(before.bytes_by_kind, event.bytes_by_kind),
    )


def paused(transfer: Transfer) -> Transfer:
    return replace(transfer, state=PAUSED, next_try_at=None)


def cancelled(transfer: Transfer, now: float) -> Transfer:
    return replace(transfer, state=CANCELLED, ended_at=now, next_try_at=None)


def done(transfer: Transfer, before: Transfer, finished: Finished, now: float) -> Transfer:
    return replace(
        transfer,
        state=DONE,
        ended_at=now,
        failures=0,
        problem=None,
        next_try_at=None,
        files=finished.files,
        size_bytes=finished.size_bytes,
        present_bytes=finished.size_bytes,
        bytes_by_source=_sum(before.bytes_by_source, finished.bytes_by_source),
        bytes_by_kind=_sum(before.bytes_by_kind, finished.bytes_by_kind),
        finished=finished,
    )


def failed(transfer: Transfer, problem: TransferProblem, now: float, *, is_retried: bool) -> Transfer:
    """After an error. With `is_retried` it waits for its next try, as long as RETRYING_SECONDS allow."""
    failures, since = transfer.failures + 1, transfer.failing_since or now
    retrying_seconds = AWAITING_NODE_SECONDS if transfer.is_elsewhere else RETRYING_SECONDS
    if is_retried and now - since < retrying_seconds:
        next_try_at = now + retry_seconds(failures)
        return replace(
            transfer, state=WAITING, failures=failures, failing_since=since, next_try_at=next_try_at, problem=problem
        )
    return replace(
        transfer, state=FAILED, failures=failures, failing_since=since, next_try_at=None, problem=problem, ended_at=now
    )


def taken_up(transfer: Transfer, now: float) -> Transfer:
    """As a daemon finds it at its start. A running one was cut off by the end of the daemon before."""
    if transfer.state != RUNNING:
        return transfer
    kills = transfer.kills + 1
    if kills < MAX_KILLS:
        return replace(transfer, state=QUEUED, kills=kills)
    problem = TransferProblem(
        "internal",
        f"The daemon was cut off {kills} times while this ran, and no byte came.",
        f"`hfpeer daemon logs` may say why; `hfpeer transfers resume {transfer.id}` tries it again.",
        HfpeerError.exit_code,
    )
    return replace(transfer, state=FAILED, kills=kills, problem=problem, ended_at=now)


def is_temporary(error: BaseException) -> bool:
    """Whether a later try may succeed although nothing is changed here."""
    return isinstance(error, (Unreachable, Locked))


def problem_of(error: BaseException) -> TransferProblem:
    """An error as commands print it."""
    if isinstance(error, HfpeerError):
        return TransferProblem(error.code, error.message, error.hint, error.exit_code)
    return TransferProblem("internal", "Something went wrong inside hfpeer.", "`hfpeer daemon logs` says more.", 1)


def retry_seconds(failures: int) -> float:
    """Seconds from a failure to the next try; `failures` in a row, 1 and up."""
    return float(min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 10)))


# What others see of it


def status_of(transfer: Transfer, progress: Progressed | NodeTold | None = None) -> TransferStatus:
    """The transfer for people; `progress` is of the run under way."""
    request, finished = transfer.request, transfer.finished
    return TransferStatus(
        id=transfer.id,
        repo=str(request.repo),
        revision=request.revision,
        commit=transfer.commit,
        state=transfer.state,
        priority=transfer.priority,
        asked_by=request.asked_by,
        added_at=transfer.added_at,
        is_detached=transfer.is_detached,
        present_bytes=transfer.present_bytes,
        size_bytes=transfer.size_bytes,
        files=transfer.files,
        rate_bytes_per_second=progress.rate_bytes_per_second if progress else 0.0,
        bytes_by_source=transfer.bytes_by_source,
        bytes_by_kind=transfer.bytes_by_kind,
        tries=transfer.failures,
        next_try_at=transfer.next_try_at,
        problem=transfer.problem,
        snapshot=finished.snapshot if finished is not None else "",
        node=_node_of(transfer),
        state_there=transfer.state_there,
    )


def entry_of(transfer: Transfer, now: float) -> HistoryEntry:
    """A transfer that is over, for the history."""
    return HistoryEntry(
        id=transfer.id,
        repo=str(transfer.request.repo),
        revision=transfer.request.revision,
        commit=transfer.commit,
        outcome=transfer.state,
        asked_by=transfer.request.asked_by,
        began_at=transfer.added_at,
        ended_at=transfer.ended_at or now,
        seconds=round(transfer.seconds, 3),
        files=transfer.files,
        size_bytes=transfer.size_bytes or 0,
        bytes_by_source=transfer.bytes_by_source,
        bytes_by_kind=transfer.bytes_by_kind,
        saved_bytes=transfer.bytes_by_kind.get("peer", 0),
        problem=transfer.problem,
        node=_node_of(transfer),
    )


def _node_of(transfer: Transfer) -> str:
    return transfer.request.node.name if transfer.request.node is not None else ""


def _sum(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    names = dict.fromkeys((*before, *now))
    return {name: before.get(name, 0) + now.get(name, 0) for name in names}
