"""The operations of a node: one interface, implemented by the node in a process and by the control client.

Requests and results are plain frozen values that cross the control socket as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from hfpeer.control.asker import Asker
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.transfer.events import Finished, OnEvent, Resolved

if TYPE_CHECKING:  # an add has to start quickly, and needs none of these
    from hfpeer.control.followed import FollowedRepo as FollowedRepo
    from hfpeer.control.results import AdoptReport as AdoptReport
    from hfpeer.control.results import CachedFile as CachedFile
    from hfpeer.control.results import CachedRevision as CachedRevision
    from hfpeer.control.results import CacheReport as CacheReport
    from hfpeer.control.results import CleanReport as CleanReport
    from hfpeer.control.results import CleanRequest as CleanRequest
    from hfpeer.control.results import Forgotten as Forgotten
    from hfpeer.control.results import Holding as Holding
    from hfpeer.control.results import ListedCommit as ListedCommit
    from hfpeer.control.results import ListedFile as ListedFile
    from hfpeer.control.results import NodeStatus as NodeStatus
    from hfpeer.control.results import PeerStatus as PeerStatus
    from hfpeer.control.results import Provenance as Provenance
    from hfpeer.control.results import Published as Published
    from hfpeer.control.results import RepairReport as RepairReport
    from hfpeer.control.results import VerifyReport as VerifyReport
    from hfpeer.control.transfers import HistoryEntry as HistoryEntry
    from hfpeer.control.transfers import TransferStatus as TransferStatus
from hfpeer.names import MAIN

RESULTS = [
    "AdoptReport",
    "CachedFile",
    "CachedRevision",
    "CacheReport",
    "FollowedRepo",
    "Forgotten",
    "CleanReport",
    "CleanRequest",
    "HistoryEntry",
    "Holding",
    "ListedCommit",
    "ListedFile",
    "NodeStatus",
    "PeerStatus",
    "Provenance",
    "Published",
    "RepairReport",
    "TransferStatus",
    "VerifyReport",
]
"""Importable from here. The module `results`, which defines them, is loaded when one is first used."""


def __getattr__(name: str) -> Any:
    if name not in RESULTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hfpeer.control import results

    return getattr(results, name)


PRIORITIES = ("high", "normal", "low")
"""The priorities of transfers in the queue."""


@dataclass(frozen=True)
class OtherNode:
    """Another node, as the user calls it. `key` is its node id, or its address while that is unknown."""

    name: str
    key: str


@dataclass(frozen=True)
class AddRequest:
    """Add files of a repo at a revision to the cache.

    Empty `files`, `optional` and `include` mean the whole repo. Globs are fnmatch patterns over paths in which `*`
    crosses `/`, and a trailing `/` means all below, as in huggingface_hub. `is_local_only` uses the cache alone;
    without `uses_peers` only upstreams are asked. `trusts_peers` takes a manifest without a proof from a peer, and what
    most peers say of a revision. `token` replaces the node's own; an empty one makes the request anonymous.

    `from_peers` are addresses of peers, known or not, that are asked before all other sources; with `only_from_peers`
    no other source is asked. `modelscope` is a repo at ModelScope, OWNER/NAME, that may have the same files: for this
    request it is a source, whatever the settings say. `optional` files are added if the commit has them; they alone may
    be no file at all. Without `makes_links` the files in the snapshot are regular files.

    `resolved` is an earlier answer for the revision, which is then not asked again. `asked_by` decides nothing.

    `node` is the node that is to do it; None is this one. `told_as` is the name that another node has for the commit
    `revision`: it counts as a peer's word.
    """

    repo: RepoId
    revision: Revision = MAIN
    files: tuple[FilePath, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    is_local_only: bool = False
    uses_peers: bool = True
    trusts_peers: bool = False
    token: str | None = None
    from_peers: tuple[str, ...] = ()
    only_from_peers: bool = False
    modelscope: str = ""
    optional: tuple[FilePath, ...] = ()
    makes_links: bool = True
    resolved: Resolved | None = None
    node: OtherNode | None = None
    told_as: Revision | None = None
    asked_by: Asker = field(default=Asker(), compare=False)


@dataclass(frozen=True)
class AttachRequest:
    """Follow the transfer with this id, without a say in whether it goes on."""

    id: int


@dataclass(frozen=True)
class VerifyRequest:
    """Say what is wrong in the cache: in these repos, or in all.

    `is_quick` looks at names, links and sizes only. `is_again` hashes also the files whose earlier verdict holds.
    """

    repos: tuple[RepoId, ...] = ()
    is_quick: bool = False
    is_again: bool = False


@dataclass(frozen=True)
class AdoptPlace:
    """A folder or file of another tool, by its whole path. `is_named`: the user named it, so its revisions may be
    copied; those of others are installed only if that takes no space."""

    tool: str
    path: str
    is_named: bool = False


@dataclass(frozen=True)
class AdoptRequest:
    """Look at places of other tools, hash their files once, and install the revisions whose lists are proved or known.

    `way` is copy, link or move (`cache.adopted.TakeBy`). With `repo` only files that may be of it at `revision` count,
    by their sizes. `is_dry_run` lists the files and changes nothing.
    """

    places: tuple[AdoptPlace, ...]
    repo: RepoId | None = None
    revision: Revision = MAIN
    way: str = "copy"
    is_dry_run: bool = False


@dataclass(frozen=True)
class ToldRef:
    """A ref as the user tells it."""

    name: Revision
    commit: Commit


@dataclass(frozen=True)
class RepairRequest:
    """Verify these repos, or all, and make right what is wrong.

    `is_quick` and `is_again` are as in `VerifyRequest`; with `is_quick` only what is linked is hashed. `is_dry_run`
    changes nothing and gives the plan. Without `uses_wan` no hub is asked. If more than `max_wan_bytes` have to come
    over the WAN, none of them is fetched; None is no limit. `refs` are written for the only repo of `repos`.
    With `verifies_others` the cache folders that are only read are verified too; only the first is repaired.
    """

    repos: tuple[RepoId, ...] = ()
    is_quick: bool = False
    is_again: bool = False
    is_dry_run: bool = False
    uses_wan: bool = True
    max_wan_bytes: int | None = None
    refs: tuple[ToldRef, ...] = ()
    verifies_others: bool = True


@dataclass(frozen=True)
class PublishRequest:
    """Make a commit of this folder, an absolute path, and put it into the cache as `repo`. A name that is known already
    is refused, unless `is_forced`."""

    folder: str
    repo: RepoId
    is_forced: bool = False


FollowedRequest: TypeAlias = (
    "AddRequest | AttachRequest | VerifyRequest | RepairRequest | AdoptRequest | PublishRequest"
)
"""The request of an operation that sends events before its result."""


class Operations(Protocol):
    """A node, in this process or behind the control socket. Every method can raise the errors of `hfpeer.errors`."""

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        """Resolve, list, fetch, verify, install. Cancelling stops the fetch and keeps the pieces that came.

        In a daemon it is a transfer, and an equal request that runs already is joined. A caller that vanishes without
        cancelling leaves it to the daemon. Raises TransferCancelled.
        """
        ...

    async def begin_transfer(self, request: AddRequest, priority: str = "normal") -> TransferStatus:
        """Puts an add into the queue, or finds it there, and returns at once. `priority` is high, normal or low. Raises
        NotRunning in a node that is no daemon."""
        ...

    async def attach(self, request: AttachRequest, on_event: OnEvent) -> Finished:
        """Follow a transfer to its end; cancelling only stops to follow. Raises NotFound, TransferCancelled, and the
        error with which the transfer failed."""
        ...

    async def leave_transfer(self, id: int, follower: int) -> str:
        """Stop to follow a transfer. If no other caller of `add` waits for it, and it was not begun with
        `begin_transfer`, it is paused. Returns its state then."""
        ...

    async def list_transfers(self) -> list[TransferStatus]:
        """The transfers that are not over, and those that were done in the last day; in the order in which they run."""
        ...

    async def change_transfers(self, ids: tuple[int, ...], change: str) -> list[TransferStatus]:
        """Change transfers: pause, resume, cancel, or move them to be the first or the last of the queue. Returns what
        they are then. Raises NotFound, before any is changed, for one that is not there or over."""
        ...

    async def history(self, since: float = 0.0) -> list[HistoryEntry]:
        """The adds that are over, and files that were fetched for callers of the endpoint, oldest first; those that
        ended after `since`, in seconds since the epoch."""
        ...

    async def follow_repo(self, wanted: FollowedRepo) -> FollowedRepo:
        """Fetch new commits of a revision by itself from now on, or change how. Raises InvalidName for a commit, and
        StorageError."""
        ...

    async def unfollow_repo(self, repo: RepoId, revision: Revision | None = None) -> list[FollowedRepo]:
        """Fetch new commits no longer: of one revision, or of all. Returns those that were followed. Raises
        NotFound."""
        ...

    async def list_followed(self) -> list[FollowedRepo]:
        """All that are followed, by name."""
        ...

    async def list_commit(self, request: AddRequest) -> ListedCommit:
        """Resolve and list as `add` does, and say which of the files are in the cache. Fetches none of them."""
        ...

    async def verify(self, request: VerifyRequest, on_event: OnEvent) -> VerifyReport:
        """Check the cache, without a network and without a change. Cancelling it keeps the verdicts until then. Raises
        NotFound for a repo that is not there."""
        ...

    async def repair(self, request: RepairRequest, on_event: OnEvent) -> RepairReport:
        """Verify the cache and repair it: from files of this machine, then from peers, then from upstreams. Cancelling
        it keeps what was repaired.

        Raises NotFound. What cannot be repaired is in the report.
        """
        ...

    async def adopt(self, request: AdoptRequest, on_event: OnEvent) -> AdoptReport:
        """Make files of other tools known, so that an add takes their bytes. Cancelling it keeps what is known until
        then. Raises NotFound for a place that is not there."""
        ...

    async def forget_adopted(self, places: tuple[str, ...] = ()) -> Forgotten:
        """Forget the files of places, or all; no file is touched."""
        ...

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        """The cached revisions: all, those of a repo, or one with its files. Raises NotFound."""
        ...

    async def cache_report(self) -> CacheReport:
        """All that lies in the cache: revisions, leftovers, and the space of each kind."""
        ...

    async def clean(self, request: CleanRequest) -> CleanReport:
        """Remove things from the cache, or tell what would go. Raises NotFound if nothing that it names is there."""
        ...

    async def search(
        self, repo: RepoId | None, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        """Which peers have a repo, a revision or files of it. Without a repo: what each peer with a catalog has, as the
        peers said last; they are not asked again."""
        ...

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        """Where the bytes of a cached revision came from; with `files` only of those. Raises NotFound."""
        ...

    async def publish(self, request: PublishRequest, on_event: OnEvent) -> Published:
        """Make a commit of a folder and put it into the cache, shared. The folder is hashed, then copied; the progress
        of each begins at 0.

        Raises NameTaken if the cache, a hub or a peer has a repo of this name that this node did not publish, unless
        the request is forced.
        """
        ...

    async def add_peer(self, address: str) -> PeerStatus:
        """Add a static peer, `HOST` or `HOST:PORT`, to the settings. Returns its status: whether it answers."""
        ...

    async def remove_peer(self, address: str) -> None:
        """Remove a static peer from the settings. Raises NotFound if it is not there."""
        ...

    async def list_peers(self) -> list[PeerStatus]:
        """All known peers."""
        ...

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        """Override whether peers may have a repo; None removes the override. Raises NotFound."""
        ...

    async def status(self) -> NodeStatus:
        """The state of the node."""
        ...
