"""The fetches under way in a node: one per blob, however many want it.

Whoever asks for a blob joins the fetch that runs for it; the last one to lose interest stops it. A fetch ends with
the blob published, so that joining and finding it in the cache come to the same. What it cost is accounted for once,
however it ends and however many waited.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from hfpeer.cache.blobs import PartialBlob
from hfpeer.cache.store import Store
from hfpeer.errors import Locked
from hfpeer.names import Digest
from hfpeer.transfer.events import Event, Listener
from hfpeer.transfer.fetch import BlobFetch
from hfpeer.transfer.herald import Told
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.scout import Scout, Watch
from hfpeer.transfer.sources import WantedBlob

LOCK_POLL_SECONDS = 0.25
LOCK_PATIENCE_SECONDS = 10.0
Result = TypeVar("Result")


@dataclass
class _Running:
    """One fetch and those who wait for it."""

    task: asyncio.Task[FetchReport]
    listeners: list[Listener] = field(default_factory=list)
    partial: PartialBlob | None = None
    fetch: BlobFetch | None = None
    is_ending: bool = False
    is_published: bool = False
    watch: Watch | None = None
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, event: Event) -> None:
        for listener in list(self.listeners):
            listener(event)


class Fetches:
    """Belongs to one event loop."""

    def __init__(self, store: Store, own_id: str, *, patience_seconds: float) -> None:
        """`own_id` is the node's, by which it shares blobs out with others that want them."""
        self._store = store
        self.own_id = own_id
        self._patience_seconds = patience_seconds
        self._running: dict[Digest, _Running] = {}
        self._told: dict[Digest, tuple[Told, Watch]] = {}

    @property
    def are_under_way(self) -> bool:
        """Whether anything is being fetched."""
        return bool(self._running or self._told)

    @contextlib.contextmanager
    def telling(self, told: Told, watch: Watch) -> Iterator[None]:
        """While the block runs, peers can follow what it tells, and are followed in turn when they do."""
        digest = told.blob.digest
        self._told.setdefault(digest, (told, watch))
        try:
            yield
        finally:
            if digest in self._told and self._told[digest][0] is told:
                del self._told[digest]

    def told(self, digest: Digest) -> Told | None:
        """What can be followed under a digest: a fetch of a blob, or a lot."""
        return self._told[digest][0] if digest in self._told else self.find(digest)

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

    def heard_of(self, digest: Digest, node_id: str) -> None:
        """A peer has asked for a blob: if it is being fetched here, that peer may be a fellow, and is asked now."""
        running = self._running.get(digest)
        watch = running.watch if running is not None else None
        if digest in self._told:
            watch = self._told[digest][1]
        if watch is not None:
            watch.heard_of(node_id)

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
        while (running := self._running.get(blob.digest)) is not None and running.is_ending:
            await asyncio.wait([running.task])
        if running is None:
            running = self._begin(blob, scout, asks_peers=asks_peers)
        running.listeners.append(listener)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.listeners.remove(listener)
            if not running.listeners:
                running.is_ending = True
                await _cancel(running.task)

    def _begin(self, blob: WantedBlob, scout: Scout, *, asks_peers: bool) -> _Running:
        task = asyncio.create_task(self._run(blob, scout, asks_peers=asks_peers), name=f"fetch {blob.path}")
        running = self._running[blob.digest] = _Running(task)
        task.add_done_callback(lambda _: self._running.pop(blob.digest, None))
        return running

    async def _run(self, blob: WantedBlob, scout: Scout, *, asks_peers: bool) -> FetchReport:
        running = self._running[blob.digest]
        try:
            if not await self._open_partial(blob, running):
                return FetchReport()
            assert running.partial is not None
            fetch = running.fetch = BlobFetch(
                blob, running.partial, running.tell, patience_seconds=self._patience_seconds, own_id=self.own_id
            )
            running.is_open.set()
            running.watch = scout.watch(fetch) if asks_peers else None
            await self._until_right(fetch, running.watch, scout)
            await self._publish(running.partial, blob)
            running.is_published = True
            return fetch.report
        finally:
            running.is_open.set()
            await _in_thread(self._let_go, running)

    async def _publish(self, partial: PartialBlob, blob: WantedBlob) -> None:
        """Publishes as soon as the Hub client's lock is free. A client that reads this very blob from us into the same
        cache holds it until it has all of it; then the blob is found in its place. One that holds it for long is
        fetching the blob by itself, and is not waited for."""
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Locked):
                await _in_thread(self._store.publish_blob, partial, blob.repo, 0.0)
                return
            await asyncio.sleep(LOCK_POLL_SECONDS)
        await _in_thread(self._store.publish_blob, partial, blob.repo)

    async def _until_right(self, fetch: BlobFetch, watch: Watch | None, scout: Scout) -> None:
        """Returns when the partial is verified."""
        try:
            if watch is not None:
                await watch.settle()
            scout.add_upstreams(fetch)
            fetch.start()
            await asyncio.wrap_future(fetch.result)
        finally:
            if watch is not None:
                await watch.stop()

    def _let_go(self, running: _Running) -> None:
        if running.fetch is not None:
            running.fetch.stop()
            running.fetch.report.note_in(self._store)
            self._keep_record(running.fetch, is_verified=running.is_published)
        if running.partial is not None:
            running.partial.close()

    def _keep_record(self, fetch: BlobFetch, *, is_verified: bool) -> None:
        record = fetch.report.record(fetch.blob, fetch.partial.sources(), fetch.discarded, is_verified=is_verified)
        self._store.note_fetches([record])

    async def _open_partial(self, blob: WantedBlob, running: _Running) -> bool:
        """Opens the partial, once no other process has it; False when the other one has finished the blob."""

        def open_it() -> None:
            running.partial = self._store.open_partial(blob.digest, blob.size_bytes)

        while True:
            with contextlib.suppress(Locked):
                await _in_thread(open_it)
                return True
            await asyncio.sleep(LOCK_POLL_SECONDS)
            if await asyncio.to_thread(self._store.find_blob, blob.digest, blob.repo) is not None:
                return False


async def _in_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """Like `asyncio.to_thread`, but a cancellation waits until the function has returned.

    What two threads must not do at once, such as publishing a partial and closing it, stays in order.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # looked at, so that nobody is told that it was not
        raise cancelled
    return work.result()


async def _cancel(task: asyncio.Task[object]) -> None:
    """Cancels a task and waits until it has let go of everything; its outcome is of no interest any more."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
