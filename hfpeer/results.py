"""What operations give back, but for the end of an add: plain frozen values that cross the control socket as JSON.

Apart from `operations`, because an add, which is to begin at once, needs none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hfpeer.cache.records import CachedFile as CachedFile
from hfpeer.cache.records import CachedRevision as CachedRevision
from hfpeer.cache.records import Provenance as Provenance
from hfpeer.cache.records import Removed as Removed


@dataclass(frozen=True)
class PeerStatus:
    """A peer as this node sees it. `state` is known, alive or gone; `origin` is static, mdns or gossip."""

    node_id: str
    name: str
    address: str
    state: str
    origin: str
    version: str = ""
    revisions: int = 0
    last_seen_seconds_ago: float | None = None
    received_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class Holding:
    """A peer's answer to `search`: how much of a revision it has. `path` is empty for a whole revision."""

    peer: str
    address: str
    repo: str
    commit: str
    refs: tuple[str, ...]
    is_complete: bool
    path: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True)
class NodeStatus:
    """The node in one picture. Bytes received are since the catalogue was made, by kind of source."""

    node_id: str
    name: str
    version: str
    pid: int
    home: str
    cache: str
    started_at: float
    listeners: dict[str, str]
    upstreams: dict[str, str]
    peers: tuple[PeerStatus, ...]
    received_bytes: dict[str, int]
    sent_bytes: int
    revisions: int
    files: int
    size_bytes: int
    unverified_files: int
    transfers: tuple[str, ...] = ()
    is_daemon: bool = True


@dataclass(frozen=True)
class Published:
    """A local folder that became a revision."""

    repo: str
    commit: str
    snapshot: str
    files: int
    size_bytes: int
    lfs_files: tuple[str, ...] = field(default_factory=tuple)
