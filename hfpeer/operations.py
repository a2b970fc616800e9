"""What a node can do: the one interface that the in-process node and the control client both implement.

Requests and answers are plain frozen values that cross the control socket as JSON unchanged. Nothing here does
any work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.transfer.events import Finished, Listener

if TYPE_CHECKING:  # a command is to begin at once: it makes one request, and knows nothing of Holdings
    import asyncio

    from hfpeer.manifest import Manifest
    from hfpeer.ranges import RangeSet
    from hfpeer.results import CachedFile as CachedFile
    from hfpeer.results import CachedRevision as CachedRevision
    from hfpeer.results import Holding as Holding
    from hfpeer.results import NodeStatus as NodeStatus
    from hfpeer.results import PeerStatus as PeerStatus
    from hfpeer.results import Provenance as Provenance
    from hfpeer.results import Published as Published
    from hfpeer.results import Removed as Removed
    from hfpeer.wire import CatalogueMessage, NodeMessage, PieceMap, PieceNews, RefMessage

MAIN = Revision("main")


RESULTS = ["CachedFile", "CachedRevision", "Holding", "NodeStatus", "PeerStatus", "Provenance", "Published", "Removed"]
"""Named here, but made in `results`, which is loaded when somebody names one."""


def __getattr__(name: str) -> Any:
    if name not in RESULTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hfpeer import results

    return getattr(results, name)


@dataclass(frozen=True)
class AddRequest:
    """Bring files of a repo at a revision into the cache.

    Empty `files` and `include` mean the whole repo. Globs are fnmatch patterns over paths in which `*` crosses
    `/`, and a trailing `/` means all below, as in huggingface_hub. `is_local_only` asks nobody but the cache;
    `uses_peers` False asks upstreams only. `trusts_peers` accepts a listing from a peer without proof. `token` acts
    instead of the node's own; an empty one is nobody's.
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


class Operations(Protocol):
    """A node, in this process or behind the control socket. Every method may raise the errors of `errors`."""

    async def add(self, request: AddRequest, on_event: Listener) -> Finished:
        """Resolve, prove, fetch, verify, publish. Cancelling it stops the fetch and keeps what came."""
        ...

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        """The cached revisions; with a repo only its own, with a revision that one with its listing."""
        ...

    async def remove(self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()) -> Removed:
        """Take a repo, one revision or some of its files out of the cache. Raises NotFound if it is not there."""
        ...

    async def search(
        self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        """Which peers have it."""
        ...

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        """Where the files of a cached revision come from, with `files` only those. Raises NotFound."""
        ...

    async def publish(self, folder: str, repo: RepoId) -> Published:
        """Make a commit of a folder and put it into the cache, shared."""
        ...

    async def add_peer(self, address: str) -> PeerStatus:
        """Remember a static peer, `HOST` or `HOST:PORT`, and say whether it answers."""
        ...

    async def remove_peer(self, address: str) -> None:
        """Forget a static peer. Raises NotFound if there is none."""
        ...

    async def list_peers(self) -> list[PeerStatus]: ...

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        """Set (or with None take back) the owner's word on whether peers may have a repo."""
        ...

    async def status(self) -> NodeStatus: ...


class SharedBlob(Protocol):
    """An open blob that peers may have: whole, or still being fetched. The holder must close it.

    Its file stays readable through `fd` after a rename or a removal.
    """

    fd: int
    size_bytes: int

    def present(self) -> RangeSet | None:
        """The bytes that can be sent now; None when the blob is whole and verified."""
        ...

    def is_coming(self, start: int, stop: int) -> bool:
        """Whether all that is missing of these bytes is on its way from a holder."""
        ...

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        """Blocking: how far the bytes from `start` can be sent, at most to `stop`. Waits so long for the first of them
        while they are on their way; `start` if they are not, or do not come."""
        ...

    def close(self) -> None: ...


class Holdings(Protocol):
    """What a node shows to its peers: only what is shared, never anything that changes state."""

    @property
    def identity(self) -> NodeMessage: ...

    async def catalogue(self) -> CatalogueMessage: ...

    async def peer_addresses(self) -> list[str]:
        """`HOST:PORT` of the peers that are alive."""
        ...

    async def shared_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None: ...

    async def shared_ref(self, repo: RepoId, revision: Revision) -> RefMessage | None: ...

    def open_shared(self, digest: Digest) -> SharedBlob | None:
        """Blocking; for a worker thread."""
        ...

    def open_all_shared(self, digests: Sequence[Digest]) -> Iterator[SharedBlob | None]:
        """The same for many, in order, each opened when it is asked for."""
        ...

    async def piece_map(self, digest: Digest) -> PieceMap | None:
        """What there is of a blob now; None if it is not shared."""
        ...

    def follow(self, digest: Digest, asked_by: str, until: asyncio.Event) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """What there is of a blob, and what comes of it for as long as it is being fetched and `until` is not set; the
        last map says when it is whole. Nothing if the blob is not shared. `asked_by` is the node id of the asker, ""
        if it says none: it wants the blob, and may have some of it."""
        ...

    def note_sent(self, size_bytes: int) -> None:
        """Count bytes that went to a peer. Thread-safe."""
        ...
