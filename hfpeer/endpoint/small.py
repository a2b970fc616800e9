"""Small files for callers of the endpoint: fetched whole into memory, verified, given out, and kept beside.

They are published behind the caller's back, because a caller with the same cache holds the Hub client's lock on the
very file that it asks for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from hfpeer.cache.store import Store
from hfpeer.endpoint.once import Once
from hfpeer.errors import HfpeerError, Locked, Unreachable
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest
from hfpeer.transfer.events import Listener
from hfpeer.transfer.scout import Scout
from hfpeer.transfer.small import SmallBlobs
from hfpeer.transfer.sources import PeerSource, UpstreamSource, WantedBlob

LOCK_POLL_SECONDS = 0.1
MAX_PEERS = 4
RECEIVERS = 16
"""Small files that are fetched at once."""

_log = logging.getLogger(__name__)


class SmallFiles:
    """Belongs to one event loop. `install` is told of each file that lies in the cache now."""

    def __init__(
        self,
        store: Store,
        install: Callable[[WantedBlob, ManifestFile], None],
        hear: Listener,
        *,
        patience_seconds: float,
    ) -> None:
        self._store = store
        self._install = install
        self._hear = hear
        self._patience_seconds = patience_seconds
        self._once = Once()
        self._fresh: dict[Digest, bytes] = {}
        self._publishing: set[asyncio.Task[None]] = set()
        self._running: set[SmallBlobs] = set()
        # Threads of their own: what waits for a hub must not keep the quick questions waiting.
        self._threads = ThreadPoolExecutor(RECEIVERS, "hfpeer-small")

    async def stop(self) -> None:
        """Ends every fetch; what was given out and is not in the cache yet is lost to it."""
        for small in list(self._running):
            small.cancel()
        for task in list(self._publishing):
            task.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)
        await self._once.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, blob: WantedBlob, file: ManifestFile, scout: Scout) -> bytes:
        fresh = self._fresh.get(blob.digest)
        if fresh is None:
            fresh = await self._once.ask(blob.digest, lambda: self._fetch(blob, file, scout))
        return fresh

    async def _fetch(self, blob: WantedBlob, file: ManifestFile, scout: Scout) -> bytes:
        """The verified bytes. They are published beside, because the caller may hold the Hub client's lock."""
        if blob.size_bytes == 0:
            data = b""
        else:
            peers = list(scout.peers_for(blob))[:MAX_PEERS]
            loop = asyncio.get_running_loop()
            data = await loop.run_in_executor(self._threads, self._fetch_now, blob, peers, scout.upstreams)
        self._fresh[blob.digest] = data
        task = asyncio.create_task(self._publish(blob, file, data))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)
        return data

    def _fetch_now(self, blob: WantedBlob, peers: Sequence[PeerSource], upstreams: Sequence[UpstreamSource]) -> bytes:
        got: list[bytes] = []
        small = SmallBlobs(
            [blob],
            lambda blobs: got.extend(data for _, data in blobs),
            self._hear,
            patience_seconds=self._patience_seconds,
        )
        self._running.add(small)
        try:
            small.run(peers, upstreams)
        finally:
            self._running.discard(small)
            small.report.note_in(self._store)
        if not got:
            raise Unreachable("The fetch was stopped.", hint="Ask again.")
        return got[0]

    async def _publish(self, blob: WantedBlob, file: ManifestFile, data: bytes) -> None:
        try:
            # The lock of another process rings no bell.
            while not await asyncio.to_thread(self._try_to_publish, blob, data):  # noqa: ASYNC110
                await asyncio.sleep(LOCK_POLL_SECONDS)
            self._install(blob, file)
        except HfpeerError as error:
            _log.warning("%s of %s was given out but could not be kept: %s", blob.path, blob.repo, error.message)
        finally:
            self._fresh.pop(blob.digest, None)

    def _try_to_publish(self, blob: WantedBlob, data: bytes) -> bool:
        try:
            self._store.publish_bytes(blob.digest, data, blob.repo, lock_timeout_seconds=0.0)
        except Locked:
            return False
        return True
