"""What a transfer tells those who watch it: facts in the past tense, JSON-ready.

Events travel from the fetch up to the command line, through the control door as one JSON object a line. They
carry no decisions. A progress event may be dropped or merged by whoever passes it on; the others may not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True)
class Event:
    """The base of all events; `kind` is its name on the wire."""

    kind: ClassVar[str] = "event"

    def to_json(self) -> dict[str, Any]:
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Resolved(Event):
    """The revision was resolved. `age_seconds` is set when nobody could be asked now and an old answer was taken."""

    kind: ClassVar[str] = "resolved"
    repo: str
    revision: str
    commit: str
    answered_by: str
    age_seconds: float | None = None


@dataclass(frozen=True)
class CheckBegan(Event):
    """Files that other tools put into the cache are being hashed before they count as present."""

    kind: ClassVar[str] = "check_began"
    files: int
    size_bytes: int


@dataclass(frozen=True)
class Planned(Event):
    """The manifest is known: what there is and what has to be fetched."""

    kind: ClassVar[str] = "planned"
    repo: str
    commit: str
    files: int
    size_bytes: int
    missing_files: int
    missing_bytes: int
    manifest_from: str
    is_proved: bool


@dataclass(frozen=True)
class FileProgress:
    """Bytes of one file that are on disk now."""

    path: str
    present_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Progressed(Event):
    """A picture of the transfer now, a few times a second: totals, the files in flight, bytes by source so far."""

    kind: ClassVar[str] = "progressed"
    present_bytes: int
    size_bytes: int
    rate_bytes_per_second: float
    bytes_by_source: dict[str, int]
    rate_by_source: dict[str, float]
    files: tuple[FileProgress, ...]
    files_done: int
    files_total: int


@dataclass(frozen=True)
class SourceFailed(Event):
    """A source gave up, lied or fell behind; what it had given before is kept unless `was_lying`."""

    kind: ClassVar[str] = "source_failed"
    source: str
    path: str
    reason: str
    was_lying: bool = False


@dataclass(frozen=True)
class FileFinished(Event):
    """A file is verified and visible in the cache."""

    kind: ClassVar[str] = "file_finished"
    path: str
    size_bytes: int


@dataclass(frozen=True)
class Finished(Event):
    """Everything that was asked for is visible. Bytes by source count what crossed a wire for this add."""

    kind: ClassVar[str] = "finished"
    repo: str
    commit: str
    snapshot: str
    files: int
    size_bytes: int
    reused_bytes: int
    bytes_by_source: dict[str, int] = field(default_factory=dict)
    bytes_by_kind: dict[str, int] = field(default_factory=dict)
    refetched_bytes: int = 0
    seconds: float = 0.0

    @property
    def wan_saved_bytes(self) -> int:
        """What did not have to cross the WAN: all but what mirrors and the origin gave."""
        return self.size_bytes - self.bytes_by_kind.get("mirror", 0) - self.bytes_by_kind.get("origin", 0)


Listener: TypeAlias = Callable[[Event], None]
"""Called with each event, from any thread; it must return at once and not raise."""

KINDS: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Resolved, CheckBegan, Planned, Progressed, SourceFailed, FileFinished, Finished)
}


def from_json(document: dict[str, Any]) -> Event:
    """The event that `to_json` wrote. Raises KeyError or TypeError for anything else."""
    fields = {name: value for name, value in document.items() if name != "event"}
    if isinstance(fields.get("files"), list):
        fields["files"] = tuple(FileProgress(**file) for file in fields["files"])
    return KINDS[document["event"]](**fields)
