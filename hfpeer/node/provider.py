"""The part of a node that peers see: shared revisions, their manifests and refs, and the bytes of their blobs.

It only reads; the one thing it changes is the count of bytes sent. It shows what `SharedBlobs` says is shared. Of a
blob that is still being fetched it gives the pieces on disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Literal

from hfpeer.cache.index.inventory import BlobFile
from hfpeer.cache.store import Store
from hfpeer.control.operations import CachedRevision
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.peers.notices import Notices
from hfpeer.peers.protocol.copies import CopiesMessage
from hfpeer.peers.protocol.messages import CatalogMessage, NodeMessage, RefMessage, RevisionMessage
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.peers.provider import SharedBlob
from hfpeer.ranges import PIECE_SIZE_BYTES, PieceGrid, RangeSet
from hfpeer.transfer.fetch.fetch import BlobFetch
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.swarm.broadcast import Broadcast, BroadcastFetch


class OpenBlob:
    """A SharedBlob: an open file, and the fetch of a blob that is still partial.

    `needs_given`: the blob is shared only because all of it was given openly. Then it is closed, and gives nothing
    more, as soon as bytes come that were not.
    """

    def __init__(
        self,
        fd: int,
        size_bytes: int,
        fetch: BlobFetch | None,
        *,
        needs_given: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.fd = fd
        self._on_close = on_close
        self.size_bytes = size_bytes
        self._fetch = fetch
        self._needs_given = needs_given

    def present(self) -> RangeSet | None:
        if self._fetch is None:
            return None
        present = self._fetch.present_for_peers()
        # After `present`: bytes that were not given openly are marked before they count as present.
        return RangeSet() if self._is_closed else present

    def is_coming(self, start: int, stop: int) -> bool:
        return self._fetch is not None and not self._is_closed and self._fetch.is_coming(start, stop)

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        if self._fetch is None:
            return stop
        readable = self._fetch.await_readable(start, stop, seconds)
        return start if self._is_closed else readable

    @property
    def _is_closed(self) -> bool:
        return self._needs_given and self._fetch is not None and not self._fetch.is_given

    def close(self) -> None:
        os.close(self.fd)
        self._on_close()


class NodeProvider:
    """Implements `Provider` over the store and the fetches under way."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        identity: Callable[[], NodeMessage],
        alive_addresses: Callable[[], list[str]],
        notices: Notices,
        on_asked: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._fetches = fetches
        self._identity = identity
        self._alive_addresses = alive_addresses
        self._notices = notices
        self.note_asked = on_asked
        self._broadcasts: dict[int, Broadcast] = {}

    @property
    def identity(self) -> NodeMessage:
        return self._identity()

    async def catalog(self) -> CatalogMessage:
        generation = self._store.generation
        revisions = await asyncio.to_thread(self._store.revisions.all)
        return CatalogMessage(generation, tuple(self._to_message(r) for r in revisions if r.is_shared))

    async def peer_addresses(self) -> list[str]:
        return self._alive_addresses()

    async def shared_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        def load() -> Manifest | None:
            return (
                self._store.manifests.load(repo, commit) if self._store.shared.is_commit_shared(repo, commit) else None
            )

        return await asyncio.to_thread(load)

    async def shared_ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        def read() -> RefMessage | None:
            refs = self._store.refs.read(repo, revision), self._store.refs.read_published(repo, revision)
            of_hub, published = [
                ref if ref and self._store.shared.is_commit_shared(repo, ref[0]) else None for ref in refs
            ]
            ref = of_hub or published
            return ref and RefMessage(*ref, published[0] if published else None)

        return await asyncio.to_thread(read)

    def open_shared(self, digest: Digest) -> SharedBlob | None:
        partial = self._open_partial(digest)
        if partial is not None:
            return partial
        found = self._store.shared.blob(digest)
        return self._open_partial(digest) if found is None else self._open_whole(found)

    def read_shared(self, digests: Sequence[Digest], max_bytes: int) -> Iterator[bytes | None]:
        found = self._store.shared.blobs(digests, looks=False)
        self._store.readers.note_use(found.keys())
        for digest in digests:
            blob = found.get(digest)
            body = blob.read() if blob is not None and blob.size_bytes <= max_bytes else None
            if blob is not None and body is None:  # it is not as it was last seen
                blob = self._store.shared.blob(digest)
                body = blob.read() if blob is not None and blob.size_bytes <= max_bytes else None
            yield body

    def _open_whole(self, blob: BlobFile) -> SharedBlob | None:
        try:
            fd = blob.open()
        except OSError:
            return None
        self._store.readers.begin(blob.digest)
        return OpenBlob(fd, blob.size_bytes, None, on_close=lambda: self._store.readers.end(blob.digest))

    def _open_partial(self, digest: Digest) -> SharedBlob | None:
        """The partial of a blob that is being fetched."""
        fetch = self._fetches.find(digest)
        if fetch is None:
            return None
        why = self._why_shared(fetch)
        if why is None:
            return None
        try:
            fd = fetch.partial.open_again()
        except OSError:
            return None
        return OpenBlob(fd, fetch.blob.size_bytes, fetch, needs_given=why == "given")

    async def piece_map(self, digest: Digest) -> PieceMap | None:
        fetch = self._fetches.find(digest)
        if fetch is not None and await self._is_shared(fetch):
            return fetch.piece_map()
        whole = await asyncio.to_thread(self._store.shared.blob, digest)
        if whole is None:
            return None
        return PieceMap(whole.size_bytes, PIECE_SIZE_BYTES, PieceGrid(whole.size_bytes).count, None)

    async def copies(self, digests: Sequence[Digest]) -> CopiesMessage:
        def find() -> CopiesMessage:
            held = frozenset(self._store.shared.blobs(digests))
            # After the blobs were found: one that is removed meanwhile is under notice.
            return CopiesMessage(held, frozenset(self._notices.among(held)))

        return await asyncio.to_thread(find)

    async def follow(
        self, digest: Digest, asked_by: str, until: asyncio.Event
    ) -> AsyncGenerator[PieceMap | PieceNews, None]:
        self._fetches.heard_of(digest, asked_by)
        fetch = self._fetches.told(digest)
        if fetch is not None and await self._is_shared(fetch):
            async with aclosing(self._broadcast(fetch, until).lines()) as lines:
                async for line in lines:
                    yield line
        whole = await self.piece_map(digest)
        if whole is not None and whole.bitfield is None:
            yield whole

    def _broadcast(self, fetch: BroadcastFetch, until: asyncio.Event) -> Broadcast:
        """The broadcast of a fetch; those of ended fetches are dropped."""
        self._broadcasts = {
            key: broadcast for key, broadcast in self._broadcasts.items() if not broadcast.fetch.result.done()
        }
        return self._broadcasts.setdefault(id(fetch), Broadcast(fetch, until))

    async def _is_shared(self, fetch: BroadcastFetch) -> bool:
        """Whether peers may follow a fetch of a blob, or of the small files of a commit."""
        return await asyncio.to_thread(self._why_shared, fetch) is not None

    def _why_shared(self, fetch: BroadcastFetch) -> Literal["public", "given"] | None:
        """Why peers may have the present bytes of a fetch; None if they may not.

        `public`: the blob, or the commit of the small files, is shared. `given`: all present bytes were given openly,
        and no hub has closed the repo.
        """
        blob = fetch.blob
        if isinstance(fetch, BlobFetch):
            is_public = self._store.shared.may_pass_on(blob.repo, blob.commit, blob.digest)
        else:
            is_public = self._store.shared.is_commit_shared(blob.repo, blob.commit)
        if is_public:
            return "public"
        return "given" if fetch.is_given and self._store.shared.may_pass_on_given(blob.repo) else None

    def note_sent(self, size_bytes: int) -> None:
        self._store.traffic.note_sent(size_bytes)

    def _to_message(self, revision: CachedRevision) -> RevisionMessage:
        repo = RepoId.parse(revision.repo, revision.type)
        refs = {}
        for name in revision.refs:
            of_name = (
                self._store.refs.read(repo, Revision(name)),
                self._store.refs.read_published(repo, Revision(name)),
            )
            for ref in filter(None, of_name):
                if ref[0] == revision.commit:
                    refs[name] = ref[1]
        return RevisionMessage(
            repo=repo,
            commit=Commit(revision.commit),
            is_complete=revision.is_complete is True,
            files=revision.files,
            size_bytes=revision.size_bytes,
            refs=refs,
            is_published=bool(revision.published_by),
        )
