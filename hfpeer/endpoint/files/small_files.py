"""Small files for callers of the endpoint: fetched into memory, verified, handed out, and put into the cache later.

They are not put into the cache before they are handed out, because a caller with the same cache holds the Hub client's
lock on the file that it asks for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from hfpeer.cache.store import Store
from hfpeer.endpoint.files.streams import FileRequest, OnFetched
from hfpeer.errors import HfpeerError, Locked, Unreachable
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest
from hfpeer.net.singleflight import SingleFlight
from hfpeer.transfer.events import OnEvent
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.small.verified import VerifiedBlob
from hfpeer.transfer.sources.sources import WantedBlob

REST_SECONDS = 3.0
"""Seconds for which a caller waits for a hub that limits requests. After that it is told when to ask again."""
LOCK_POLL_SECONDS = 0.1
"""Seconds between two tries for a lock of another process, which cannot notify us."""
RECEIVERS = 16
"""At most this many small files are fetched at a time."""

_log = logging.getLogger(__name__)


class SmallFiles:
    """Belongs to one event loop. `install` is called with each file that is in the cache now, `on_fetched` after each
    fetch."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        install: Callable[[WantedBlob, ManifestFile], None],
        on_event: OnEvent,
        on_fetched: OnFetched,
    ) -> None:
        self._on_fetched = on_fetched
        self._store = store
        self._fetches = fetches
        self._install = install
        self._on_event = on_event
        self._once: SingleFlight[object, VerifiedBlob | None] = SingleFlight()
        self._ingesting: set[asyncio.Task[None]] = set()
        # Threads of their own: a wait for an upstream must not delay quick work.
        self._threads = ThreadPoolExecutor(RECEIVERS, "hfpeer-small")

    async def stop(self) -> None:
        """Ends every fetch. A file that was handed out and is not in the cache yet will not be there."""
        await self._once.stop()
        for task in list(self._ingesting):
            task.cancel()
        await asyncio.gather(*self._ingesting, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, request: FileRequest, *, kept_count: int) -> bytes | None:
        """The verified bytes; None if the blob came into the cache after `kept_count` was read from the fetches.

        A caller that may have `only_given` bytes gets those that a source gives openly, or that its own upstreams give.
        """
        digest = request.blob.digest
        came = self._fetches.find_small(digest)
        if came is None or (request.only_given and not came.is_given):
            # A mirror that sees tokens may give it to one caller and not to another.
            upstreams = tuple(id(source.upstream) for source in request.finder.upstreams)
            key = (digest, request.only_given and upstreams)
            came = await self._once.run(key, lambda: self._fetch(request, kept_count))
        return None if came is None else came.data

    def given_just_now(self, blob: WantedBlob) -> bytes | None:
        """The bytes of a file that was given openly and is being put into the cache. The file is there a moment before
        the catalog says how it came."""
        if blob.size_bytes == 0:
            return b""
        came = self._fetches.find_small(blob.digest)
        return came.data if came is not None and came.is_given else None

    async def _fetch(self, request: FileRequest, kept_count: int) -> VerifiedBlob | None:
        """Fetches a file, and begins to ingest it."""
        blob = request.blob
        if blob.size_bytes == 0:
            came = VerifiedBlob(blob, b"", "", "peer", is_given=True)
        else:
            got: list[VerifiedBlob] = []
            found: list[Digest] = []

            def find(blobs: Sequence[WantedBlob]) -> Collection[Digest]:
                if self._fetches.kept_count != kept_count and self._is_here(blob):
                    found.append(blob.digest)
                return found

            fetch = self._fetches.bundle(
                [blob],
                got.extend,
                find,
                self._on_event,
                only_given=request.only_given,
                is_kept_later=True,
                rest_seconds=REST_SECONDS,
            )
            try:
                await self._fetches.fetch_bundle(fetch, request.finder, follows=False, executor=self._threads)
            except BaseException:
                if got:
                    self._fetches.kept_later(blob.digest)
                raise
            self._on_fetched(request, fetch.report)
            if not got and found:
                return None
            if not got:
                raise Unreachable("The fetch was stopped.", hint="Ask again.")
            came = got[0]
        task = asyncio.create_task(self._ingest(request.file, came))
        self._ingesting.add(task)
        task.add_done_callback(self._ingesting.discard)
        return came

    def _is_here(self, blob: WantedBlob) -> bool:
        found = self._store.inventory.find(blob.digest, blob.repo)
        return found is not None and found.is_verified and found.size_bytes == blob.size_bytes

    async def _ingest(self, file: ManifestFile, came: VerifiedBlob) -> None:
        blob = came.blob
        try:
            # Polls, because another process's lock cannot notify us.
            while not await asyncio.to_thread(self._try_to_ingest, came):  # noqa: ASYNC110
                await asyncio.sleep(LOCK_POLL_SECONDS)
            self._install(blob, file)
        except HfpeerError as error:
            _log.warning("%s of %s was handed out but cannot be kept: %s", blob.path, blob.repo, error.message)
        finally:
            self._fetches.kept_later(blob.digest)

    def _try_to_ingest(self, came: VerifiedBlob) -> bool:
        blob = came.blob
        try:
            self._store.ingester.ingest_bytes(
                blob.digest, came.data, blob.repo, lock_timeout_seconds=0.0, is_given=came.is_given
            )
        except Locked:
            return False
        return True
