"""The events of a transfer: facts in the past tense, ready for JSON.

They go from the fetch up to the command line, and through the control socket as one JSON object a line. They carry no
decisions. Only progress events may be dropped or merged on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeAlias

WAN_KINDS = ("mirror", "modelscope", "origin")
"""The kinds of source that are reached over the WAN."""


@dataclass(frozen=True)
class Event:
    """The base of all events; `kind` is its name on the wire."""

    kind: ClassVar[str] = "event"

    def to_json(self) -> dict[str, Any]:
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True)
class TransferJoined(Event):
    """The add is transfer `id` of the daemon, and the command its follower number `follower`. `state` is one of
    `control.transfers`; with `is_new` the command began it. `is_detached`: it goes on without followers."""

    kind: ClassVar[str] = "transfer_joined"
    id: int
    follower: int
    state: str
    is_new: bool
    is_detached: bool = False


@dataclass(frozen=True)
class TransferLeft(Event):
    """The command has stopped to follow the transfer, which is in this state now."""

    kind: ClassVar[str] = "transfer_left"
    id: int
    state: str


@dataclass(frozen=True)
class Asking(Event):
    """Hubs are being asked, and have not answered for a moment."""

    kind: ClassVar[str] = "asking"
    hubs: tuple[str, ...]


@dataclass(frozen=True)
class Resolved(Event):
    """The revision was resolved. `voice` and `hubs` are values of `precedence`: the party that decided, and the outcome
    of asking hubs. `age_seconds` is the age of an old answer, if known; `hubs_said` is why the hubs did not decide.
    """

    kind: ClassVar[str] = "resolved"
    repo: str
    revision: str
    commit: str
    answered_by: str
    age_seconds: float | None = None
    voice: str = "hub"
    hubs: str = "answered"
    hubs_said: str = ""


@dataclass(frozen=True)
class CheckBegan(Event):
    """Hashing of files began that other tools put into the cache, or that `hfpeer adopt` knows elsewhere; only then do
    they count as present."""

    kind: ClassVar[str] = "check_began"
    files: int
    size_bytes: int


@dataclass(frozen=True)
class Planned(Event):
    """The manifest is known, and with it the files and bytes that are missing. `unmatched` are globs of the request
    that match no file. Of `missing_bytes`, `kept_bytes` are in partials of this cache already."""

    kind: ClassVar[str] = "planned"
    repo: str
    commit: str
    files: int
    size_bytes: int
    missing_files: int
    missing_bytes: int
    manifest_from: str
    is_proved: bool
    unmatched: tuple[str, ...] = ()
    kept_bytes: int = 0


@dataclass(frozen=True)
class FileProgress:
    """The bytes of one file that are on disk now."""

    path: str
    present_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Progressed(Event):
    """The state of the transfer, a few times a second: totals, files in flight, bytes by source and by kind of it."""

    kind: ClassVar[str] = "progressed"
    present_bytes: int
    size_bytes: int
    rate_bytes_per_second: float
    bytes_by_source: dict[str, int]
    rate_by_source: dict[str, float]
    files: tuple[FileProgress, ...]
    files_done: int
    files_total: int
    bytes_by_kind: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceFailed(Event):
    """A source failed, stalled or lied. The bytes that it gave before are kept unless `was_lying`."""

    kind: ClassVar[str] = "source_failed"
    source: str
    path: str
    reason: str
    was_lying: bool = False


@dataclass(frozen=True)
class NamedPeerSilent(Event):
    """A peer that the request names does not answer; the request goes on without it. `reason` is a sentence."""

    kind: ClassVar[str] = "named_peer_silent"
    address: str
    reason: str


@dataclass(frozen=True)
class WaitBegan(Event):
    """A site or a hub asked for a rest, or failed for a moment; the work goes on after it. `reason` is a sentence.

    For a hub that limits requests: its name, and `until` when, in seconds since the epoch. The work goes on elsewhere.
    """

    kind: ClassVar[str] = "wait_began"
    reason: str
    hub: str = ""
    until: float | None = None


@dataclass(frozen=True)
class NodeTold(Event):
    """Another node, which was asked to do an add, says how far it is. `state` is one of `control.transfers`."""

    kind: ClassVar[str] = "node_told"
    node: str
    state: str
    present_bytes: int = 0
    size_bytes: int | None = None
    files: int = 0
    rate_bytes_per_second: float = 0.0


@dataclass(frozen=True)
class Finished(Event):
    """All requested files are visible. `bytes_by_source` counts the bytes that crossed a network for this add.
    `answered_by`, `voice` and `age_seconds` are as in `Resolved`. Two parts of `reused_bytes`: `adopted_bytes` came
    from files of other tools, `copied_bytes` from other cache folders of this node. `notes` are sentences on what was
    passed over in the cache. `kept_bytes` were in partials of this cache before. `wan_bytes` of these
    files crossed the WAN: for this add, for another one that it waited for, or for an earlier one that did not end.
    """

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
    answered_by: str = ""
    voice: str = ""
    age_seconds: float | None = None
    adopted_bytes: int = 0
    copied_bytes: int = 0
    notes: tuple[str, ...] = ()
    kept_bytes: int = 0
    wan_bytes: int | None = None

    @property
    def wan_saved_bytes(self) -> int:
        """The bytes that did not cross the WAN: all but those from mirrors, ModelScope and the origin."""
        received = sum(self.bytes_by_kind.get(kind, 0) for kind in WAN_KINDS)
        return max(0, self.size_bytes - (received if self.wan_bytes is None else self.wan_bytes))


OnEvent: TypeAlias = "Callable[[Event], None]"
"""Called with each event, from any thread; it must return at once and not raise."""

KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        *(TransferJoined, TransferLeft, Asking, Resolved, CheckBegan, Planned),
        *(Progressed, SourceFailed, NamedPeerSilent, WaitBegan, NodeTold, Finished),
    )
}


def from_json(document: dict[str, Any]) -> Event:
    """The event that `to_json` wrote. Raises KeyError or TypeError for anything else."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items() if name != "event"
    }
    if isinstance(fields.get("files"), tuple):
        fields["files"] = tuple(FileProgress(**file) for file in fields["files"])
    return KINDS[document["event"]](**fields)
