"""The results of operations, as plain frozen values that cross the control socket as JSON.

They are not in `operations`, because an add, which has to start quickly, needs none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hfpeer.adoption.results import AdoptReport as AdoptReport
from hfpeer.adoption.results import Forgotten as Forgotten
from hfpeer.cache.cleaning.facts import CacheReport as CacheReport
from hfpeer.cache.cleaning.facts import CleanReport as CleanReport
from hfpeer.cache.cleaning.planning.requests import CleanRequest as CleanRequest
from hfpeer.cache.records import CachedFile as CachedFile
from hfpeer.cache.records import CachedRevision as CachedRevision
from hfpeer.cache.records import Provenance as Provenance
from hfpeer.cache.repair.results import RepairReport as RepairReport
from hfpeer.cache.verify.findings import VerifyReport as VerifyReport
from hfpeer.control.followed import FollowedRepo as FollowedRepo
from hfpeer.control.transfers import HistoryEntry as HistoryEntry
from hfpeer.control.transfers import TransferStatus as TransferStatus


@dataclass(frozen=True)
class PeerStatus:
    """A peer as this node sees it. `state` is known, alive or gone; `origin` is static, dns, mdns, registry or gossip.

    Also a DNS name that has no address now: its state is unresolved, and `note` says why. `found_by` is the DNS name
    that lists a peer, else its origin.
    """

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
    found_by: str = ""


@dataclass(frozen=True)
class ListedFile:
    """A file of a commit. `is_present`: its bytes are in the cache; `is_selected`: the request selects it.

    `verified_at`: seconds since the epoch when its blob in the repo's own folder was last hashed and right, None if
    that is not known, or the blob has changed since.
    """

    path: str
    size_bytes: int
    digest: str
    is_present: bool
    is_selected: bool
    verified_at: float | None = None


@dataclass(frozen=True)
class ListedCommit:
    """A revision that was resolved and listed, with nothing fetched.

    `visibility` is as in `CachedRevision`. `unusable` are selected paths that this system cannot store.
    `submodules` are paths of other repos in this one.
    """

    repo: str
    type: str
    commit: str
    snapshot: str
    visibility: str
    is_proved: bool
    files: tuple[ListedFile, ...]
    unusable: tuple[str, ...] = ()
    submodules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holding:
    """A result of `search`: how much of a revision, or of the file `path`, a peer has.

    `is_published`: a node of the LAN published the commit, and no hub has it. `type` is model, dataset or space, and
    `node_id` that of the peer.
    """

    peer: str
    address: str
    repo: str
    commit: str
    refs: tuple[str, ...]
    is_complete: bool
    path: str = ""
    size_bytes: int | None = None
    is_published: bool = False
    type: str = "model"
    node_id: str = ""


@dataclass(frozen=True)
class HubContact:
    """When a hub of this `kind`, mirror or origin, answered a request of this process last, and when a request had no
    answer since; None if that has not happened."""

    kind: str
    answered_seconds_ago: float | None = None
    failed_seconds_ago: float | None = None


@dataclass(frozen=True)
class NodeStatus:
    """The state of a node. `received_bytes` counts by kind of source since the catalog was made. `transfers` are those
    that run or will by themselves, and the files that are fetched for callers of the endpoint. `notes` are sentences on
    problems. `holder`, of a node that is no daemon: the daemon that holds the home and does not answer, in words.
    Of `begun_blobs`, half-fetched ones with `begun_whole_bytes`, `kept_bytes` are here; they take `reserved_bytes`.
    `peer_bytes_by_month` came from peers: by month, such as 2026-11. Other machines reach it at `addresses`, the
    likeliest first; `contacts` are by the names of the upstreams. `passed_over` are the interfaces that lead to no LAN,
    each with an address.
    `read_caches` are the cache folders that it only reads: the reason why one is passed over, or empty.
    Of the volume of the cache, with `disk_bytes`, `free_bytes` are free; None if the system does not tell.
    `sent_bytes_per_second` is the rate to peers of the last ten seconds."""

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
    transfers: tuple[TransferStatus, ...] = ()
    is_daemon: bool = True
    notes: tuple[str, ...] = ()
    holder: str = ""
    begun_blobs: int = 0
    kept_bytes: int = 0
    begun_whole_bytes: int = 0
    reserved_bytes: int = 0
    peer_bytes_by_month: dict[str, int] = field(default_factory=dict)
    read_caches: dict[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    passed_over: dict[str, str] = field(default_factory=dict)
    contacts: dict[str, HubContact] = field(default_factory=dict)
    free_bytes: int | None = None
    disk_bytes: int | None = None
    sent_bytes_per_second: float = 0.0


@dataclass(frozen=True)
class Published:
    """A local folder that became a revision. `notes` are sentences on what could not be checked, and on why peers do
    not see it, unless it `is_shared`."""

    repo: str
    commit: str
    snapshot: str
    files: int
    size_bytes: int
    lfs_files: tuple[str, ...] = field(default_factory=tuple)
    notes: tuple[str, ...] = ()
    is_shared: bool = True
