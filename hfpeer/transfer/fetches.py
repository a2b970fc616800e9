"""The fetches under way in a node: one per blob, however many want it.

Whoever asks for a blob joins the fetch that runs for it; the last one to lose interest stops it. A fetch ends with
the blob published, so that joining and finding it in the cache come to the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hfpeer.cache.blobs import PartialBlob
from hfpeer.cache.store import Store
from hfpeer.errors import Locked
from hfpeer.names import Digest
from hfpeer.transfer.events import Event, Listener
from hfpeer.transfer.fetch import BlobFetch, FetchReport
from hfpeer.transfer.scout import Scout
from hfpeer.transfer.sources import WantedBlob

LOCK_POLL_SECONDS = 0.25


@dataclass
class _Running:
    """One fetch and those who wait for it."""

    task: asyncio.Task[FetchReport]
    listeners: list[Listener] = field(default_factory=list)
    fetch: BlobFetch | None = None
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, event: Event) -> None:
        for listener in list(self.listeners):
            listener(event)


class Fetches:
    """Belongs to one event loop."""

    def __init__(self, store: Store, *, patience_seconds: float) -> None:
        self._store = store
        self._patience_seconds = patience_seconds
        self._running: dict[Digest, _Running] = {}

    def present_bytes(self, digest: Digest) -> int:
        """How much of a blob that is being fetched is on disk; 0 when none is."""
        running = self._running.get(digest)
        return running.fetch.present_bytes if running and running.fetch else 0

    def bytes_by_source(self, digest: Digest) -> dict[str, int]:
        """What a running fetch got so far, by source name."""
        running = self._running.get(digest)
        return running.fetch.bytes_by_source() if running and running.fetch else {}

    def find(self, digest: Digest) -> BlobFetch | None:
        """The running fetch of a blob, for whoever serves or streams what it has so far."""
        running = self._running.get(digest)
        return running.fetch if running else None

    async def opened(self, digest: Digest) -> BlobFetch | None:
        """The fetch that runs for a blob, as soon as its partial is open; None when there is none (any more)."""
        running = self._running.get(digest)
        if running is None:
            return None
        await running.is_open.wait()
        return running.fetch

    async def fetch(self, blob: WantedBlob, scout: Scout, listener: Listener, *, asks_peers: bool) -> FetchReport:
        """Fetches, verifies and publishes a blob, or waits for the fetch that already does.

        Cancelling leaves the fetch to the others who wait, and stops it when there are none; what came is kept.
        Raises NoSourceLeft, CorruptData or StorageError.
        """
        running = self._running.get(blob.digest)
        if running is None:
            running = self._begin(blob, scout, asks_peers=asks_peers)
        running.listeners.append(listener)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.listeners.remove(listener)
            if not running.listeners:
                await _cancel(running.task)

    def _begin(self, blob: WantedBlob, scout: Scout, *, asks_peers: bool) -> _Running:
        task = asyncio.create_task(self._run(blob, scout, asks_peers=asks_peers), name=f"fetch {blob.path}")
        running = self._running[blob.digest] = _Running(task)
        task.add_done_callback(lambda _: self._end(blob.digest))
        return running

    def _end(self, digest: Digest) -> None:
        self._running.pop(digest).is_open.set()

    async def _run(self, blob: WantedBlob, scout: Scout, *, asks_peers: bool) -> FetchReport:
        partial = await self._open_partial(blob)
        if partial is None:
            return FetchReport()
        running = self._running[blob.digest]
        fetch = running.fetch = BlobFetch(blob, partial, running.tell, patience_seconds=self._patience_seconds)
        running.is_open.set()
        watcher: asyncio.Task[None] | None = None
        try:
            await scout.look(fetch, blob, asks_peers=asks_peers)
            fetch.start()
            if asks_peers:
                watcher = asyncio.create_task(scout.watch(fetch, blob))
            report = await asyncio.wrap_future(fetch.result)
            await self._publish(partial, blob)
            return report
        finally:
            if watcher is not None:
                await _cancel(watcher)
            await asyncio.to_thread(fetch.stop)
            await asyncio.to_thread(partial.close)

    async def _publish(self, partial: PartialBlob, blob: WantedBlob) -> None:
        """Publishes as soon as the Hub client's lock is free. A client that reads this very blob from us into the same
        cache holds it until it has all of it; then the blob is found in its place."""
        while True:
            try:
                await asyncio.to_thread(self._store.publish_blob, partial, blob.repo, lock_timeout_seconds=0.0)
                return
            except Locked:
                await asyncio.sleep(LOCK_POLL_SECONDS)

    async def _open_partial(self, blob: WantedBlob) -> PartialBlob | None:
        """The partial, once no other process has it; None when the other one has finished the blob."""
        while True:
            try:
                return await asyncio.to_thread(self._store.open_partial, blob.digest, blob.size_bytes)
            except Locked:
                await asyncio.sleep(LOCK_POLL_SECONDS)
            if await asyncio.to_thread(self._store.find_blob, blob.digest) is not None:
                return None


async def _cancel(task: asyncio.Task[object]) -> None:
    """Cancels a task and waits until it has let go of everything; its outcome is of no interest any more."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
