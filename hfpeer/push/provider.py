"""What a push shows to the node at the far end: the pushed revisions, and nothing else.

The user has named them, so visibility does not matter here. The door over it must be a private one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

from hfpeer.cache.index.inventory import BlobFile
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.peers.protocol.copies import CopiesMessage
from hfpeer.peers.protocol.messages import CatalogMessage, NodeMessage, RefMessage, RevisionMessage
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import PIECE_SIZE_BYTES, PieceGrid, RangeSet
from hfpeer.version import __version__


class WholeBlob:
    """An open blob, all of which can be sent. Implements `SharedBlob`."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = fd
        self.size_bytes = size_bytes

    def present(self) -> RangeSet | None:
        return None

    def is_coming(self, start: int, stop: int) -> bool:
        return False

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        return stop

    def close(self) -> None:
        os.close(self.fd)


class PushProvider:
    """Implements `Provider` over some manifests and their blobs. It has a node id of its own, so that the far end does
    not take it for the LAN door of this node, which refuses what is not public."""

    def __init__(self, name: str, manifests: Sequence[Manifest], blobs: Mapping[Digest, BlobFile]) -> None:
        """`name` is that of this node, for people."""
        self._manifests = {(manifest.repo, manifest.commit): manifest for manifest in manifests}
        self._blobs = blobs
        run_id = secrets.token_hex(8)
        self.identity = NodeMessage(run_id, name, __version__, PROTOCOL_VERSION, 1, run_id)

    async def catalog(self) -> CatalogMessage:
        revisions = [
            RevisionMessage(repo, commit, False, len(manifest.files), manifest.size_bytes, {})
            for (repo, commit), manifest in self._manifests.items()
        ]
        return CatalogMessage(1, tuple(revisions))

    async def peer_addresses(self) -> list[str]:
        return []

    def note_asked(self, host: str, door: str) -> None:
        """Nothing: the door is a socket for one node."""

    async def shared_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        return self._manifests.get((repo, commit))

    async def shared_ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        return None

    def open_shared(self, digest: Digest) -> WholeBlob | None:
        blob = self._blobs.get(digest)
        if blob is None:
            return None
        try:
            return WholeBlob(blob.open(), blob.size_bytes)
        except OSError:
            return None

    def read_shared(self, digests: Sequence[Digest], max_bytes: int) -> Iterator[bytes | None]:
        blobs = (self._blobs.get(digest) for digest in digests)
        return (blob.read() if blob is not None and blob.size_bytes <= max_bytes else None for blob in blobs)

    async def piece_map(self, digest: Digest) -> PieceMap | None:
        blob = self._blobs.get(digest)
        if blob is None:
            return None
        return PieceMap(blob.size_bytes, PIECE_SIZE_BYTES, PieceGrid(blob.size_bytes).count, None)

    async def copies(self, digests: Sequence[Digest]) -> CopiesMessage:
        """None: no node may rely on what this door gives, which closes with the push."""
        return CopiesMessage(frozenset(), frozenset())

    async def follow(
        self, digest: Digest, asked_by: str, until: asyncio.Event
    ) -> AsyncGenerator[PieceMap | PieceNews, None]:
        whole = await self.piece_map(digest)
        if whole is not None:
            yield whole

    def note_sent(self, size_bytes: int) -> None:
        pass
