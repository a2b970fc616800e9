"""Large blobs, streamed to callers while they are fetched.

A blob is fetched once for all its readers. The fetch goes on for a while after the last reader has left, because
clients come back, and clients that read ranges come again and again. Then it stops, and the partial stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.grants import Grant
from hfpeer.endpoint.files.reader import BlobReader, Fetching, not_given
from hfpeer.endpoint.files.unverified import ClientReads, UnverifiedReads
from hfpeer.errors import HfpeerError, Unreachable
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest, RepoId
from hfpeer.transfer.events import OnEvent
from hfpeer.transfer.fetch.fetch import BlobFetch
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.swarm.finder import PeerFinder

TakeRoom: TypeAlias = Callable[[RepoId, Sequence[ManifestFile]], AbstractAsyncContextManager[object]]
"""Takes the space of files of a repo for a block. Raises NoSpace."""
LINGER_SECONDS = 15.0
"""Seconds that a fetch goes on after its last reader has left."""


@dataclass(frozen=True)
class FileRequest:
    """A file that a caller reads: the blob and its entry in the manifest, the sources, and what the caller may have.

    `client` tells one client program from another; empty if nothing need be remembered of what it was sent. `caller` is
    for people alone.
    """

    blob: WantedBlob
    file: ManifestFile
    finder: PeerFinder
    grant: Grant
    client: str = ""
    caller: Caller = field(default_factory=Caller)

    @property
    def only_given(self) -> bool:
        """Whether the caller may have only bytes that were given openly."""
        return self.grant is not Grant.ALL


@dataclass
class _Stream:
    """One fetch for all readers of a blob. `task` ends when the file is to be installed; `fetch` is None if it ended
    before it began, because another process had the blob."""

    blob: WantedBlob
    fetch: asyncio.Future[BlobFetch | None]
    task: asyncio.Task[None] = field(init=False)
    readers: int = 0
    stop_timer: asyncio.TimerHandle | None = None
    wrong_noted: int = 0
    """Number of the fetch's wrong ranges that were noted as unverified reads."""


OnFetched: TypeAlias = Callable[[FileRequest, FetchReport], None]
"""Called with each file of which bytes were fetched for a caller, and with the costs of the fetch."""


class Streams:
    """Belongs to one event loop. `install` is called for each file that was fetched; `take_room` takes the space of a
    file for as long as it is fetched. `on_fetched` is called after each fetch."""

    def __init__(
        self,
        fetches: Fetches,
        unverified: UnverifiedReads,
        install: Callable[[WantedBlob, ManifestFile], None],
        on_event: OnEvent,
        take_room: TakeRoom,
        on_fetched: OnFetched,
    ) -> None:
        self._fetches = fetches
        self._on_fetched = on_fetched
        self._take_room = take_room
        self._unverified = unverified
        self._install = install
        self._on_event = on_event
        self._streams: dict[Digest, _Stream] = {}

    @property
    def blobs(self) -> list[WantedBlob]:
        """The blobs that are fetched for callers now."""
        return [stream.blob for stream in self._streams.values()]

    async def open(self, request: FileRequest, reads: ClientReads | None) -> BlobReader | None:
        """A reader of the fetch, which is started if there is none. None if the fetch has ended meanwhile: then the
        blob is in the cache.

        Raises NoSourceLeft, CorruptData, StorageError, and HubUnreachable if the caller may not have these bytes.
        """
        running = self._running(request.blob.digest)
        if running is not None:
            try:
                reader = await self._enter(running, request, reads)
            except HfpeerError:
                if not running.task.done():
                    raise
                # It failed before this request received a byte: its sources may be right by now.
            else:
                if reader is not None:
                    reader.is_late = True
                return reader
        return await self._enter(self._running(request.blob.digest) or self._begin(request), request, reads)

    async def _enter(self, stream: _Stream, request: FileRequest, reads: ClientReads | None) -> BlobReader | None:
        stream.readers += 1
        if stream.stop_timer is not None:
            stream.stop_timer.cancel()
            stream.stop_timer = None
        try:
            fetch = await asyncio.shield(stream.fetch)
            if fetch is not None and request.only_given and not fetch.is_given:
                raise not_given()
            fd = None if fetch is None else await asyncio.to_thread(_open, fetch)
            if fetch is None or fd is None:
                await _outcome(stream.task)
                self._leave(stream)
                return None
        except BaseException:
            self._leave(stream)
            raise
        return self._reader(request, stream, fetch, fd, reads)

    async def stop(self) -> None:
        """Ends every fetch; the partials stay."""
        tasks = [stream.task for stream in self._streams.values()]
        for stream in self._streams.values():
            if stream.stop_timer is not None:
                stream.stop_timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reader(
        self, request: FileRequest, stream: _Stream, fetch: BlobFetch, fd: int, reads: ClientReads | None
    ) -> BlobReader:
        loop = asyncio.get_running_loop()
        growing = Fetching(fetch, stream.task, only_given=request.only_given)

        def changed() -> None:
            self._note_wrong(fetch, stream)
            reader.changed()

        async def closed() -> None:
            fetch.leave(reader.number)
            self._note_wrong(fetch, stream)
            self._leave(stream)

        reader = BlobReader(fd, request.blob.size_bytes, growing, closed, reads)
        fetch.join(reader.number, lambda: loop.call_soon_threadsafe(changed))
        stream.task.add_done_callback(lambda _: reader.changed())
        return reader

    def _running(self, digest: Digest) -> _Stream | None:
        stream = self._streams.get(digest)
        return None if stream is None or stream.task.done() else stream

    def _begin(self, request: FileRequest) -> _Stream:
        stream = _Stream(request.blob, asyncio.get_running_loop().create_future())
        self._streams[request.blob.digest] = stream
        stream.task = asyncio.create_task(self._run(stream, request), name=f"stream {request.blob.path}")
        stream.task.add_done_callback(lambda _: self._end(stream))
        return stream

    async def _run(self, stream: _Stream, request: FileRequest) -> None:
        """Fetches, ingests and installs one blob."""
        async with self._take_room(stream.blob.repo, [request.file]):
            await self._fetch(stream, request)
        self._unverified.note_verified(stream.blob.digest)
        self._install(stream.blob, request.file)

    async def _fetch(self, stream: _Stream, request: FileRequest) -> None:
        blob = stream.blob
        is_joined = self._fetches.is_fetching(blob.digest)
        fetching = asyncio.ensure_future(self._fetches.fetch(blob, request.finder, self._on_event))
        fetch = None
        try:
            fetch = await self._opened(blob.digest, fetching)
            stream.fetch.set_result(fetch)
            await fetching
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
            if fetch is not None:
                self._note_wrong(fetch, stream)
                if not is_joined:
                    self._on_fetched(request, fetch.report)

    async def _opened(self, digest: Digest, fetching: asyncio.Future[FetchReport]) -> BlobFetch | None:
        """The fetch once its partial is open; None if it ended before."""
        while not fetching.done():
            await asyncio.sleep(0)
            fetch = await self._fetches.opened(digest)
            if fetch is not None:
                return fetch
        return None

    def _note_wrong(self, fetch: BlobFetch, stream: _Stream) -> None:
        for part in fetch.discarded[stream.wrong_noted :]:
            stream.wrong_noted += 1
            self._unverified.note_wrong(stream.blob.digest, part)

    def _leave(self, stream: _Stream) -> None:
        stream.readers -= 1
        if stream.readers == 0 and not stream.task.done():
            loop = asyncio.get_running_loop()
            stream.stop_timer = loop.call_later(LINGER_SECONDS, self._stop_unread, stream)

    def _stop_unread(self, stream: _Stream) -> None:
        if stream.readers == 0:
            stream.task.cancel()
            self._end(stream)

    def _end(self, stream: _Stream) -> None:
        if self._streams.get(stream.blob.digest) is stream:
            del self._streams[stream.blob.digest]
        if stream.stop_timer is not None:
            stream.stop_timer.cancel()
        if stream.task.done():
            if not stream.fetch.done():
                stream.fetch.set_result(None)
            if not stream.task.cancelled():
                stream.task.exception()  # Retrieved, so that asyncio does not log it when no reader is left.


async def _outcome(task: asyncio.Task[None]) -> None:
    """Waits for a task that others wait for too; raises the error that ended it."""
    await asyncio.wait([task])
    if task.cancelled():
        raise Unreachable("The fetch was stopped.", hint="Ask again: it continues where it was.")
    task.result()


def _open(fetch: BlobFetch) -> int | None:
    try:
        return fetch.partial.open_again()
    except OSError:
        return None
