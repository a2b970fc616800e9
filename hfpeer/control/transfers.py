"""A transfer, which is an add that runs in the daemon, and an entry of the history, as callers see them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfpeer.control.asker import Asker

STATES = QUEUED, RUNNING, WAITING, PAUSED, FAILED, DONE, CANCELLED = (
    *("queued", "running", "waiting", "paused", "failed", "done", "cancelled"),
)
"""The states of a transfer. A waiting transfer has failed, and will be tried again by itself."""
CHANGES = ("pause", "resume", "cancel", "first", "last")


@dataclass(frozen=True)
class TransferProblem:
    """The error that ended a try, as commands print it."""

    code: str
    message: str
    hint: str | None
    exit_code: int


@dataclass(frozen=True)
class TransferStatus:
    """A transfer now. Times are seconds since the epoch.

    `commit` is empty and `size_bytes` None until they are known. `bytes_by_source` and `bytes_by_kind` count what came
    over a network, in all tries. `tries` failed in a row, and the next one is at `next_try_at`. A transfer that
    `is_detached` goes on when its followers leave. With `id` 0 it is a file that is fetched for a caller of the
    endpoint: its path is `path`.

    `node` is the name of the node that is asked to do it, and `state_there` its state at that node as it was told last;
    both are empty if this node does it.
    """

    id: int
    repo: str
    revision: str
    commit: str
    state: str
    priority: str = "normal"
    asked_by: Asker = field(default_factory=Asker)
    added_at: float = 0.0
    is_detached: bool = False
    present_bytes: int = 0
    size_bytes: int | None = None
    files: int = 0
    rate_bytes_per_second: float = 0.0
    bytes_by_source: dict[str, int] = field(default_factory=dict)
    bytes_by_kind: dict[str, int] = field(default_factory=dict)
    tries: int = 0
    next_try_at: float | None = None
    problem: TransferProblem | None = None
    snapshot: str = ""
    path: str = ""
    node: str = ""
    state_there: str = ""

    @property
    def left_seconds(self) -> float | None:
        """Seconds until it is done at the rate of now; None if that is not known."""
        if self.size_bytes is None or self.rate_bytes_per_second < 1:
            return None
        return (self.size_bytes - self.present_bytes) / self.rate_bytes_per_second


@dataclass(frozen=True)
class HistoryEntry:
    """An add that is over, or files of a commit that were fetched for a caller of the endpoint: then `id` is 0.

    `outcome` is done, failed or cancelled. `seconds` is the time in which it ran; `files` and `size_bytes` are those of
    the request, or, of the endpoint, what was fetched. Only bytes that came over a network are in `bytes_by_source` and
    `bytes_by_kind`. `node` is the name of the node that was asked to do it.
    """

    id: int
    repo: str
    revision: str
    commit: str
    outcome: str
    asked_by: Asker
    began_at: float
    ended_at: float
    seconds: float
    files: int
    size_bytes: int
    bytes_by_source: dict[str, int]
    bytes_by_kind: dict[str, int]
    saved_bytes: int
    """The bytes from peers: without them these would have come over the WAN."""
    problem: TransferProblem | None = None
    node: str = ""
