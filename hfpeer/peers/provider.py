"""The part of a node that its peers can see, as a Protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from hfpeer.names import Commit, Digest, RepoId, Revision

if TYPE_CHECKING:  # a command makes one request and ends; it needs none of these imports
    import asyncio

    from hfpeer.manifest import Manifest
    from hfpeer.peers.protocol.copies import CopiesMessage
    from hfpeer.peers.protocol.messages import CatalogMessage, NodeMessage, RefMessage
    from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
    from hfpeer.peers.protocol.remote_adds import AddProgress, AddTerms
    from hfpeer.ranges import RangeSet


class SharedBlob(Protocol):
    """An open blob that peers may have, whole or still being fetched. Its user closes it.

    Its file stays readable through `fd` after a rename or a removal.
    """

    fd: int
    size_bytes: int

    def present(self) -> RangeSet | None:
        """The bytes that can be sent now; None if the blob is whole and verified."""
        ...

    def is_coming(self, start: int, stop: int) -> bool:
        """Whether all missing bytes of this range are on their way from a seed."""
        ...

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        """Blocking: the offset up to which bytes from `start` can be sent, at most `stop`. Waits up to `seconds` for
        the first of them while they are on their way. Returns `start` if they are not, or do not come."""
        ...

    def close(self) -> None: ...


class Provider(Protocol):
    """The part of a node that its peers see: only shared things, and nothing that changes state."""

    @property
    def identity(self) -> NodeMessage: ...

    async def catalog(self) -> CatalogMessage: ...

    async def peer_addresses(self) -> list[str]:
        """`HOST:PORT` of the peers that are alive."""
        ...

    def note_asked(self, host: str, door: str) -> None:
        """A node at the IP address `host` asked for peers and told its door, see DOOR_HEADER."""
        ...

    async def shared_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None: ...

    async def shared_ref(self, repo: RepoId, revision: Revision) -> RefMessage | None: ...

    def open_shared(self, digest: Digest) -> SharedBlob | None:
        """Blocking; for a worker thread."""
        ...

    def read_shared(self, digests: Sequence[Digest], max_bytes: int) -> Iterator[bytes | None]:
        """Blocking: the bytes of whole blobs, in order; None for one that peers may not have, that is not whole, or
        that has more than `max_bytes`. Each is read when the iterator reaches it."""
        ...

    async def piece_map(self, digest: Digest) -> PieceMap | None:
        """The pieces of a blob now; None if it is not shared."""
        ...

    async def copies(self, digests: Sequence[Digest]) -> CopiesMessage:
        """Which of these blobs the node has whole, verified and shared, and which of those it is about to remove."""
        ...

    def follow(self, digest: Digest, asked_by: str, until: asyncio.Event) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """The piece map of a blob, then its news while it is being fetched and `until` is not set; the last map says
        when it is whole. Nothing if the blob is not shared. `asked_by` is the node id of the follower, "" if unknown:
        it wants the blob, and may have some pieces."""
        ...

    def note_sent(self, size_bytes: int) -> None:
        """Counts bytes that went to a peer. Thread-safe."""
        ...


class AddTaker(Protocol):
    """The part of a node that takes requests of other nodes to add something, if its owner allows that."""

    def terms(self) -> AddTerms:
        """What the owner allows."""
        ...

    async def take(self, body: bytes, *, sender: str, host: str, signed: str) -> AddProgress:
        """Begins the add that a request asks for, or finds it. `sender` is a node id that nothing proves, `host` the
        address that the request came from, `signed` its SIGNATURE_HEADER. Raises RequestRefused, InvalidName, and
        Unreachable while too many are under way."""
        ...

    async def progress(self, ticket: str, wait_seconds: float) -> AddProgress | None:
        """How far an add is that was taken with this ticket, when it is over or after so long. None for a ticket that
        this run of the node does not know."""
        ...
