"""What this node shows to its peers: shared revisions, their manifests and refs, and the bytes of their blobs.

Everything here reads; nothing changes state but the count of what was sent. Only what the store says is shared is
shown, and of a blob that is still being fetched only what is on disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing

from hfpeer.cache.store import BlobFile, Store
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.operations import CachedRevision, SharedBlob
from hfpeer.ranges import PIECE_SIZE_BYTES, PieceGrid, RangeSet
from hfpeer.transfer.fetch import BlobFetch
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.herald import Herald, Told
from hfpeer.wire import CatalogueMessage, NodeMessage, PieceMap, PieceNews, RefMessage, RevisionMessage


class OpenBlob:
    """A SharedBlob: an open file, and what fetches it where it is still partial."""

    def __init__(self, fd: int, size_bytes: int, fetch: BlobFetch | None) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        self._fetch = fetch

    def present(self) -> RangeSet | None:
        return self._fetch.present() if self._fetch is not None else None

    def is_coming(self, start: int, stop: int) -> bool:
        return self._fetch is not None and self._fetch.is_coming(start, stop)

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        return stop if self._fetch is None else self._fetch.await_readable(start, stop, seconds)

    def close(self) -> None:
        os.close(self.fd)


class NodeHoldings:
    """Implements `operations.Holdings` over the store and the fetches under way."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        identity: Callable[[], NodeMessage],
        alive_addresses: Callable[[], list[str]],
    ) -> None:
        self._store = store
        self._fetches = fetches
        self._identity = identity
        self._alive_addresses = alive_addresses
        self._heralds: dict[int, Herald] = {}

    @property
    def identity(self) -> NodeMessage:
        return self._identity()

    async def catalogue(self) -> CatalogueMessage:
        generation = self._store.generation
        revisions = await asyncio.to_thread(self._store.revisions)
        return CatalogueMessage(generation, tuple(self._to_message(r) for r in revisions if r.is_shared))

    async def peer_addresses(self) -> list[str]:
        return self._alive_addresses()

    async def shared_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        def load() -> Manifest | None:
            return self._store.load_manifest(repo, commit) if self._store.is_shared(repo) else None

        return await asyncio.to_thread(load)

    async def shared_ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        def read() -> RefMessage | None:
            known = self._store.read_ref(repo, revision) if self._store.is_shared(repo) else None
            return known and RefMessage(*known)

        return await asyncio.to_thread(read)

    def open_shared(self, digest: Digest) -> SharedBlob | None:
        return self._open_growing(digest) or next(self.open_all_shared([digest]))

    def open_all_shared(self, digests: Sequence[Digest]) -> Iterator[SharedBlob | None]:
        found = self._store.shared_blobs(digests)
        for digest in digests:
            yield _open_whole(found[digest]) if digest in found else self._open_growing(digest)

    def _open_growing(self, digest: Digest) -> SharedBlob | None:
        """What is there of a blob that is being fetched."""
        fetch = self._fetches.find(digest)
        if fetch is None or not self._store.is_shared(fetch.blob.repo):
            return None
        return _open(fetch.partial.path, fetch.blob.size_bytes, fetch)

    async def piece_map(self, digest: Digest) -> PieceMap | None:
        fetch = self._fetches.find(digest)
        if fetch is not None:
            return fetch.piece_map() if await self._is_shared(fetch) else None
        whole = await asyncio.to_thread(self._store.shared_blob, digest)
        if whole is None:
            return None
        return PieceMap(whole.size_bytes, PIECE_SIZE_BYTES, PieceGrid(whole.size_bytes).count, None)

    async def follow(
        self, digest: Digest, asked_by: str, until: asyncio.Event
    ) -> AsyncGenerator[PieceMap | PieceNews, None]:
        self._fetches.heard_of(digest, asked_by)
        told = self._fetches.told(digest)
        if told is not None and await self._is_shared(told):
            async with aclosing(self._herald(told, until).lines()) as lines:
                async for line in lines:
                    yield line
        whole = await self.piece_map(digest)
        if whole is not None and whole.bits is None:
            yield whole

    def _herald(self, told: Told, until: asyncio.Event) -> Herald:
        """The herald of a fetch; of those whose fetch has ended none is kept."""
        self._heralds = {key: herald for key, herald in self._heralds.items() if not herald.told.result.done()}
        return self._heralds.setdefault(id(told), Herald(told, until))

    async def _is_shared(self, fetch: Told) -> bool:
        return await asyncio.to_thread(self._store.is_shared, fetch.blob.repo)

    def note_sent(self, size_bytes: int) -> None:
        self._store.note_sent(size_bytes)

    def _to_message(self, revision: CachedRevision) -> RevisionMessage:
        repo = RepoId.parse(revision.repo, revision.type)
        refs = {}
        for name in revision.refs:
            known = self._store.read_ref(repo, Revision(name))
            if known is not None:
                refs[name] = known[1]
        return RevisionMessage(
            repo=repo,
            commit=Commit(revision.commit),
            is_complete=revision.is_complete is True,
            files=revision.files,
            size_bytes=revision.size_bytes,
            refs=refs,
        )


def _open_whole(blob: BlobFile) -> SharedBlob | None:
    return _open(blob.path, blob.size_bytes, None)


def _open(path: os.PathLike[str], size_bytes: int, fetch: BlobFetch | None) -> SharedBlob | None:
    try:
        return OpenBlob(os.open(path, os.O_RDONLY | os.O_CLOEXEC), size_bytes, fetch)
    except OSError:
        return None
