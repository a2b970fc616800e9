"""What pushes and comparisons report, as plain frozen values, ready for JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from hfpeer.errors import HfpeerError

PushState: TypeAlias = Literal["pushed", "up to date", "planned", "skipped", "failed", "not begun"]


@dataclass(frozen=True)
class PushReport:
    """One repo that was pushed, or with `is_dry_run` would be.

    Of the selected files, `same_files` are there already. The blobs of others are stored there already
    (`stored_blobs`), whoever stored them, or are sent (`sent_blobs`); `plain_files` travel in the commit. `wire_bytes`
    are all bytes of blobs that went out, also of tries that failed. `replaced` had other bytes there, `extra` are there
    alone, `pruned` were removed there. `skipped` are files of the commit with the reason why they are not pushed.
    `commits` are ModelScope's ids. `is_stored_known` is false if the repo is not there yet, so that the site could not
    be asked which blobs it has.
    """

    repo: str
    type: str
    commit: str
    target: str
    site: str
    branch: str
    visibility: str
    files: int
    size_bytes: int
    same_files: int = 0
    same_bytes: int = 0
    stored_blobs: int = 0
    stored_bytes: int = 0
    sent_blobs: int = 0
    sent_bytes: int = 0
    plain_files: int = 0
    plain_bytes: int = 0
    wire_bytes: int = 0
    fetched_bytes: int = 0
    replaced: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    commits: tuple[str, ...] = ()
    is_created: bool = False
    is_dry_run: bool = False
    is_stored_known: bool = True
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> PushState:
        if self.is_dry_run:
            return "planned"
        return "pushed" if self.commits else "up to date"


@dataclass(frozen=True)
class PushOutcome:
    """One line of a list: its report, or the reason why there is none. `problem` is the error as JSON."""

    repo: str
    target: str
    state: PushState
    report: PushReport | None = None
    reason: str = ""
    problem: dict[str, Any] | None = None
    exit_code: int = 0

    @classmethod
    def failed(cls, repo: str, target: str, error: HfpeerError) -> PushOutcome:
        """A line whose push ended with an error."""
        return cls(repo, target, "failed", None, error.message, error.to_problem(), error.exit_code)


@dataclass(frozen=True)
class CopyReport:
    """A repo of the Hub beside one at ModelScope, file by file, by size and sha256.

    `different` have other bytes there, `absent` are not there, `extra` are there alone. `untold` are those of
    `different` whose sha256 the site does not tell.
    """

    repo: str
    type: str
    commit: str
    target: str
    site: str
    branch: str
    files: int
    size_bytes: int
    same_files: int
    different: tuple[str, ...]
    absent: tuple[str, ...]
    extra: tuple[str, ...]
    untold: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 if every file is there with the right bytes; 7 for wrong bytes, 4 for a file that is not there."""
        if self.different:
            return 7
        return 4 if self.absent else 0
