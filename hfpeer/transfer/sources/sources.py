"""The sources of a blob behind one interface: a peer, an upstream, or a repo at ModelScope.

A source opens ranges of a blob and nothing else. Hashing decides whether its bytes are right, never their sender.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hfpeer.modelscope.source import SiteCopy
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.net.body import Body, SourceFault
from hfpeer.peers.asking.peer_client import PeerClient
from hfpeer.peers.ranges.range_client import Batch
from hfpeer.ranges import PieceGrid
from hfpeer.transfer.sources.tiers import SourceKind, Tier
from hfpeer.upstream.upstream import Upstream


@dataclass(frozen=True, slots=True)
class WantedBlob:
    """A blob and one path in a repo that has it, for sources that know files rather than digests."""

    digest: Digest
    size_bytes: int
    repo: RepoId
    commit: Commit
    path: FilePath


class Source(Protocol):
    """Can give ranges of a blob. Thread-safe; `open_range` blocks."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> SourceKind: ...

    @property
    def address(self) -> str:
        """`HOST:PORT` or a URL."""
        ...

    @property
    def node_id(self) -> str:
        """The id of the node; "" for an upstream."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it gives the same to every asker: a peer on the network, or a mirror that sees no token. Never an
        origin, which decides by its own rules, nor a peer behind a Unix socket, which may give private bytes."""
        ...

    @property
    def tier(self) -> Tier:
        """Its place among the others: a peer that the request names is asked before all."""
        ...

    @property
    def takes_ranges(self) -> bool:
        """Whether it gives a range without the bytes before it, as far as is known."""
        ...

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        """The bytes `[start, stop)`. With `cut_through` the source also passes on bytes that it is just getting, as
        they come. Raises SourceFault."""
        ...

    def open_piece_digests(self, blob: WantedBlob, pieces: range) -> Body:
        """The `piece_digest` of each of these pieces, PIECE_DIGEST_BYTES each. Raises SourceFault."""
        ...


@dataclass(frozen=True)
class PeerSource:
    """A peer, asked by digest over the LAN."""

    name: str
    node_id: str
    client: PeerClient
    kind: SourceKind = "peer"
    takes_ranges: bool = True
    is_likely: bool = True
    """Its catalog or its announcement names the commit that is fetched."""
    is_named: bool = False

    @property
    def tier(self) -> Tier:
        return Tier.of("peer", is_named=self.is_named)

    @property
    def address(self) -> str:
        return str(self.client.address)

    @property
    def is_open(self) -> bool:
        return not self.client.address.is_socket

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        return self.client.open_range(blob.digest, start, stop, size_bytes=blob.size_bytes, cut_through=cut_through)

    def open_piece_digests(self, blob: WantedBlob, pieces: range) -> Body:
        return self.client.open_piece_digests(blob.digest, pieces, PieceGrid(blob.size_bytes).count)

    @property
    def batch_blobs(self) -> int:
        """At most this many blobs in a batch."""
        return self.client.batch_blobs

    def open_batch(self, digests: list[Digest]) -> Batch:
        """Many small blobs in one response; None for a blob that the peer does not have. Raises SourceFault."""
        return self.client.open_batch(digests)


@dataclass(frozen=True)
class UpstreamSource:
    """An upstream, asked by path at a commit over HTTP."""

    upstream: Upstream
    node_id: str = ""

    @property
    def tier(self) -> Tier:
        return Tier.of(self.kind)

    @property
    def name(self) -> str:
        return self.upstream.name

    @property
    def kind(self) -> SourceKind:
        return self.upstream.kind

    @property
    def address(self) -> str:
        return self.upstream.endpoint

    @property
    def takes_ranges(self) -> bool:
        return self.upstream.takes_ranges

    @property
    def is_open(self) -> bool:
        return self.kind == "mirror" and not self.upstream.may_send_token

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        return self.upstream.open_range(blob.repo, blob.commit, blob.path, start, stop, size_bytes=blob.size_bytes)

    def open_piece_digests(self, blob: WantedBlob, pieces: range) -> Body:
        raise SourceFault("knows no digests of pieces", is_permanent=True)


@dataclass(frozen=True)
class SiteSource:
    """A repo at ModelScope that has a file with the blob's sha256, whatever the path of the file there."""

    copy: SiteCopy
    tier: Tier
    kind: SourceKind = "modelscope"
    node_id: str = ""
    takes_ranges: bool = True
    is_open: bool = False
    """A site decides by its own rules, as an origin does."""

    @property
    def name(self) -> str:
        return self.copy.site

    @property
    def address(self) -> str:
        return self.copy.url

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        return self.copy.open_range(blob.digest, blob.size_bytes, start, stop)

    def open_piece_digests(self, blob: WantedBlob, pieces: range) -> Body:
        raise SourceFault("knows no digests of pieces", is_permanent=True)
