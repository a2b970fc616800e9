"""The two kinds of source a blob can come from, behind one interface: a peer, or an upstream hub.

A source opens ranges of a blob and nothing else; whether its bytes are right is decided by hashing, never by who
sent them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.peers.bodies import Batch
from hfpeer.peers.client import PeerClient
from hfpeer.upstream.hub import Upstream
from hfpeer.wire import Body

SourceKind: TypeAlias = Literal["peer", "mirror", "origin"]
TIERS: dict[SourceKind, int] = {"peer": 0, "mirror": 1, "origin": 2}
CONNECTIONS: dict[SourceKind, int] = {"peer": 1, "mirror": 4, "origin": 4}


@dataclass(frozen=True)
class WantedBlob:
    """A blob and one place in a repo where it lies, for sources that know files rather than digests."""

    digest: Digest
    size_bytes: int
    repo: RepoId
    commit: Commit
    path: FilePath


class Source(Protocol):
    """Something that can give ranges of a blob. Thread-safe; `open_range` blocks."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> SourceKind: ...

    @property
    def address(self) -> str:
        """Where it is: `HOST:PORT` or a URL."""
        ...

    @property
    def node_id(self) -> str:
        """The id of the node it is; "" for a hub."""
        ...

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        """The bytes `[start, stop)`; with `cut_through` also what the source is just getting itself, as it comes.
        Raises SourceFault."""
        ...


@dataclass(frozen=True)
class PeerSource:
    """A peer: asked by digest, over the LAN."""

    name: str
    node_id: str
    client: PeerClient
    kind: SourceKind = "peer"
    is_likely: bool = True
    """It seems to have the commit for which it was looked up."""

    @property
    def address(self) -> str:
        return str(self.client.address)

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        return self.client.open_range(blob.digest, start, stop, size_bytes=blob.size_bytes, cut_through=cut_through)

    def open_batch(self, digests: list[Digest]) -> Batch:
        """Many small blobs in one answer; None for what the peer does not have. Raises SourceFault."""
        return self.client.open_batch(digests)


@dataclass(frozen=True)
class UpstreamSource:
    """A hub: asked by path at a commit, over HTTP."""

    upstream: Upstream
    node_id: str = ""

    @property
    def name(self) -> str:
        return self.upstream.name

    @property
    def kind(self) -> SourceKind:
        return self.upstream.kind

    @property
    def address(self) -> str:
        return self.upstream.endpoint

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        return self.upstream.open_range(blob.repo, blob.commit, blob.path, start, stop, size_bytes=blob.size_bytes)
