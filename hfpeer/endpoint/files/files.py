"""Files for callers of the endpoint: from the cache, from adopted files, small ones from memory, large ones while they
are fetched.

Every file that is fetched or adopted for a caller is also ingested and installed, as after an add.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hfpeer.cache.index.inventory import BlobFile
from hfpeer.cache.index.schema import AdoptedRow
from hfpeer.cache.store import Store
from hfpeer.endpoint.files.installer import Installer
from hfpeer.endpoint.files.reader import BlobReader, Checking, not_given
from hfpeer.endpoint.files.small_files import SmallFiles
from hfpeer.endpoint.files.streams import FileRequest, OnFetched, Streams, TakeRoom
from hfpeer.endpoint.files.unverified import ClientReads, UnverifiedReads
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.net.singleflight import SingleFlight
from hfpeer.ranges import ByteRange
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import Event, SourceFailed
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.small.fetch import is_small
from hfpeer.transfer.sources.sources import WantedBlob

HASHERS = 2
"""Number of threads that hash files of other programs."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _CachedBlob:
    """A blob in the cache: open as `fd`, or its bytes if it is verified and small; then `fd` is negative."""

    file: BlobFile
    fd: int
    is_installed: bool
    data: bytes | None = None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


@dataclass(frozen=True)
class _AdoptedBlob:
    """A file of another tool with the bytes of a blob, open as `fd`, and the rows of all such files."""

    fd: int
    rows: Sequence[AdoptedRow]


class Files:
    """Belongs to one event loop. `report_liar` is called, from any thread, with each source that gave wrong bytes;
    `on_installed` with each commit of which files have become visible, `on_fetched` after each fetch for a caller."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        report_liar: Callable[[str], None],
        on_installed: Callable[[RepoId, Commit], Awaitable[None]],
        take_room: TakeRoom,
        on_fetched: OnFetched,
    ) -> None:
        self._store = store
        self._fetches = fetches
        self._report_liar = report_liar
        self._unverified = UnverifiedReads()
        self._checks: SingleFlight[Digest, bool] = SingleFlight()
        self._installer = Installer(store, on_installed)
        self._streams = Streams(fetches, self._unverified, self._installer.add, self._on_event, take_room, on_fetched)
        self._small = SmallFiles(store, fetches, self._installer.add, self._on_event, on_fetched)
        # Threads of their own, because hashing for minutes must not delay short lookups.
        self._hashers = ThreadPoolExecutor(HASHERS, "hfpeer-check")

    @property
    def under_way(self) -> list[WantedBlob]:
        """The large files that are fetched for callers now."""
        return self._streams.blobs

    def has_wrong_bytes(self, client: str, digest: Digest) -> bool:
        """Whether a client was sent wrong bytes of a blob, so that it must be sent the whole blob again."""
        return self._unverified.has_wrong_bytes(client, digest)

    async def read(self, request: FileRequest) -> BlobReader | bytes:
        """A reader, or the verified bytes of a small file.

        Raises NoSourceLeft, CorruptData or StorageError if the file cannot be had, HubUnreachable if the caller may not
        have it.
        """
        blob = request.blob
        reads = self._unverified.of(request.client, blob.digest) if request.client else None
        while True:
            kept_count = self._fetches.kept_count
            found = await asyncio.to_thread(self._find, request)
            if isinstance(found, _CachedBlob):
                return await self._from_cache(found, request, reads)
            if found is not None:
                adopted = await self._from_adopted(found, request, reads)
                if adopted is None:
                    continue
                return adopted
            if is_small(blob):
                data = await self._small.read(request, kept_count=kept_count)
                if data is not None:
                    return data
            elif (reader := await self._streams.open(request, reads)) is not None:
                return reader

    async def stop(self) -> None:
        """Ends every fetch for callers; partials stay."""
        await self._streams.stop()
        await self._checks.stop()
        await self._small.stop()
        self._hashers.shutdown(wait=False, cancel_futures=True)
        await self._installer.stop()

    def _find(self, request: FileRequest) -> _CachedBlob | _AdoptedBlob | None:
        """The blob in the cache, open, or else in an adopted file. Blocking; one call for all, because thousands of
        small files are asked for."""
        blob = request.blob
        found = self._store.inventory.find(blob.digest, blob.repo)
        fd = None if found is None or found.size_bytes != blob.size_bytes else _open(found)
        if found is None or fd is None:
            # Nothing that was given openly: for a caller that may have only such bytes it is fetched.
            return None if request.only_given else self._find_adopted(blob)
        is_installed = self._store.snapshot_file(blob.repo, blob.commit, blob.path) is not None
        if found.is_verified and is_small(blob):
            data = os.pread(fd, blob.size_bytes, 0)
            os.close(fd)
            self._store.readers.note_use([blob.digest])
            return _CachedBlob(found, -1, is_installed, data) if len(data) == blob.size_bytes else None
        return _CachedBlob(found, fd, is_installed)

    async def _from_cache(
        self, cached: _CachedBlob, request: FileRequest, reads: ClientReads | None
    ) -> BlobReader | bytes:
        file = cached.file
        if request.only_given:
            fresh = self._small.given_just_now(request.blob)
            if fresh is not None:
                cached.close()
                return fresh
            published_in = request.blob.repo if request.grant.is_published else None
            if not await asyncio.to_thread(self._store.shared.is_blob_given, file, published_in):
                cached.close()
                raise not_given()
        if file.is_verified:
            if not cached.is_installed:
                self._installer.add(request.blob, request.file)
            return cached.data if cached.data is not None else self._reader(cached.fd, file, None, reads)
        check = self._checks.begin(file.digest, lambda: self._check(file))
        reader = self._reader(cached.fd, file, Checking(check, file.path.name), reads)
        check.add_done_callback(lambda _: reader.changed())
        return reader

    def _reader(self, fd: int, file: BlobFile, growing: Checking | None, reads: ClientReads | None) -> BlobReader:
        """A reader of a file in the cache, which no removal takes while it is open."""
        self._store.readers.begin(file.digest)

        async def end() -> None:
            self._store.readers.end(file.digest)

        return BlobReader(fd, file.size_bytes, growing, end, reads)

    def _find_adopted(self, blob: WantedBlob) -> _AdoptedBlob | None:
        rows = self._store.adopted.table.with_digests([blob.digest]).get(blob.digest, ())
        for row in rows:
            with contextlib.suppress(OSError):
                if row.size_bytes == blob.size_bytes:
                    return _AdoptedBlob(os.open(row.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), rows)
        return None

    async def _from_adopted(
        self, adopted: _AdoptedBlob, request: FileRequest, reads: ClientReads | None
    ) -> BlobReader | None:
        """A reader of an adopted file while its bytes come into the cache, where they are hashed; None if the cache, or
        the list of adopted files, is to be asked again."""
        blob = request.blob
        if is_small(blob):
            os.close(adopted.fd)
            await self._take(request, adopted.rows)
            return None
        check = self._checks.begin(blob.digest, lambda: self._take(request, adopted.rows))
        reader = BlobReader(adopted.fd, blob.size_bytes, Checking(check, str(blob.path)), _nothing, reads)
        check.add_done_callback(lambda _: reader.changed())
        return reader

    async def _take(self, request: FileRequest, rows: Sequence[AdoptedRow]) -> bool:
        """Takes the bytes of an adopted file into the cache; whether they were right. A file that gives none is
        forgotten, so that the blob is fetched."""
        blob = request.blob
        way = await in_thread(self._store.adopted.bring, request.file, blob.repo, rows, executor=self._hashers)
        if way is None:
            self._unverified.note_wrong(blob.digest, ByteRange(0, blob.size_bytes))
            await asyncio.to_thread(self._store.adopted.table.drop, [row.path for row in rows])
            return False
        self._installer.add(blob, request.file)
        return True

    async def _check(self, file: BlobFile) -> bool:
        """Hashes a file that another program put into the cache; whether it is right."""
        is_right = await in_thread(self._store.inventory.verify, file, executor=self._hashers)
        if not is_right:
            self._unverified.note_wrong(file.digest, ByteRange(0, file.size_bytes))
        return is_right

    def _on_event(self, event: Event) -> None:
        if isinstance(event, SourceFailed):
            _log.info("%s: %s %s", event.path, event.source, event.reason)
            if event.was_lying:
                self._report_liar(event.source)


def _open(file: BlobFile) -> int | None:
    try:
        return file.open()
    except OSError:
        return None


async def _nothing() -> None:
    """Called when the reader of an adopted file is closed: no removal of the cache takes such a file."""
