"""The fetches under way in a node: one for each blob, however many callers want it.

A caller that asks for a blob joins the fetch that runs for it, and the last caller to leave stops it. A fetch ends with
the blob in the cache, so joining it and finding the blob there come to the same. Small blobs are fetched in bundles,
which differ from caller to caller; `in_flight` sees to it that two of these never request the same blob. The cost
of a fetch is accounted for once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.cache.store import Store
from hfpeer.errors import Locked
from hfpeer.names import Digest
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.events import Event, OnEvent
from hfpeer.transfer.fetch.fetch import BlobFetch
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.small.bundle import Bundle
from hfpeer.transfer.small.fetch import BundleFetch
from hfpeer.transfer.small.in_flight import InFlight
from hfpeer.transfer.small.keeper import Find, Keep
from hfpeer.transfer.small.verified import VerifiedBlob
from hfpeer.transfer.sources.local_files import fill, has_only_files, spans_of_files
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.sources.tiers import SourceKind
from hfpeer.transfer.swarm.broadcast import BroadcastFetch
from hfpeer.transfer.swarm.finder import PeerFinder
from hfpeer.transfer.swarm.follower import PeerFollower

LOCK_POLL_SECONDS = 0.25
"""Seconds between two tries for a lock of another process, which cannot notify us."""
LOCK_PATIENCE_SECONDS = 10.0
"""Seconds that the Hub client's lock on a blob is waited for."""
MAX_BUNDLE_PEERS = 4
"""At most this many peers that are no leechers are asked for a bundle."""
LEECHER_GRACE_SECONDS = 0.15
"""Seconds that peers have to say that they fetch the same bundle."""


@dataclass
class _Running:
    """The fetch of one blob and the callers that wait for it."""

    task: asyncio.Task[FetchReport]
    on_events: list[OnEvent] = field(default_factory=list)
    partial: PartialBlob | None = None
    fetch: BlobFetch | None = None
    is_ending: bool = False
    is_ingested: bool = False
    follower: PeerFollower | None = None
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, event: Event) -> None:
        for on_event in list(self.on_events):
            on_event(event)


class Fetches:
    """Belongs to one event loop."""

    def __init__(self, store: Store, own_id: str, limits: StallLimits) -> None:
        """`own_id` is the id of this node, by which it shares work out with other nodes."""
        self._store = store
        self._own_id = own_id
        self._limits = limits
        self._credits = Credits()
        self._in_flight = InFlight()
        self._running: dict[Digest, _Running] = {}
        self._broadcasts: dict[Digest, tuple[BroadcastFetch, PeerFollower]] = {}
        """The bundles that peers can follow, by their digest."""

    @property
    def are_under_way(self) -> bool:
        """Whether anything is being fetched."""
        return bool(self._running or self._broadcasts)

    # For peers and for progress

    def told(self, digest: Digest) -> BroadcastFetch | None:
        """The fetch that peers can follow under a digest, of a blob or of a bundle."""
        return self._broadcasts[digest][0] if digest in self._broadcasts else self.find(digest)

    def heard_of(self, digest: Digest, node_id: str) -> None:
        """A peer has asked for a blob or a bundle: if it is being fetched here, the peer may be a leecher, and is
        asked now."""
        running = self._running.get(digest)
        follower = running.follower if running is not None else None
        if digest in self._broadcasts:
            follower = self._broadcasts[digest][1]
        if follower is not None:
            follower.heard_of(node_id)

    def present_bytes(self, digest: Digest) -> int:
        """How much of a blob that is being fetched is on disk; 0 if there is no fetch."""
        running = self._running.get(digest)
        return running.fetch.present_bytes if running and running.fetch else 0

    def bytes_by_source(self, digest: Digest) -> dict[str, int]:
        """The bytes that a running fetch got so far, by source name."""
        running = self._running.get(digest)
        return running.fetch.bytes_by_source() if running and running.fetch else {}

    def received_now(self) -> dict[str, int]:
        """The bytes that all running fetches of blobs got so far, by source name. The statistics count them when the
        fetches end."""
        totals: dict[str, int] = {}
        for digest in tuple(self._running):
            for name, size_bytes in self.bytes_by_source(digest).items():
                totals[name] = totals.get(name, 0) + size_bytes
        return totals

    def is_fetching(self, digest: Digest) -> bool:
        """Whether a fetch of a blob is under way."""
        return digest in self._running

    def kinds(self, digest: Digest) -> dict[str, SourceKind]:
        """The kinds of the sources of a running fetch, by source name."""
        running = self._running.get(digest)
        return dict(running.fetch.report.kinds) if running and running.fetch else {}

    # Bundles of small blobs

    @property
    def kept_count(self) -> int:
        """How many small blobs have come into the cache; see `InFlight.kept_count`."""
        return self._in_flight.kept_count

    def find_small(self, digest: Digest) -> VerifiedBlob | None:
        """A small blob that came and is not in the cache yet."""
        return self._in_flight.find(digest)

    def kept_later(self, digest: Digest) -> None:
        """A small blob that was fetched with `is_kept_later` is in the cache now, or never will be."""
        self._in_flight.kept(None, [digest])

    def bundle(
        self,
        wanted: Sequence[WantedBlob],
        keep: Keep,
        find: Find,
        on_event: OnEvent,
        *,
        all_small: Sequence[Digest] = (),
        here: Sequence[Digest] = (),
        only_given: bool = False,
        is_kept_later: bool = False,
        rest_seconds: float | None = None,
    ) -> BundleFetch:
        """A fetch of small blobs, for `fetch_bundle`; see `BundleFetch`.

        Peers follow it, and are followed, if it has `all_small`, the small blobs of the commit in order; `here` are
        those of them that are in the cache. It waits `rest_seconds` for upstreams that limit requests, if given.
        """
        return BundleFetch(
            wanted,
            keep,
            on_event,
            find=find,
            patience_seconds=self._limits.patience_seconds,
            rest_seconds=self._limits.rest_seconds if rest_seconds is None else rest_seconds,
            bundle=Bundle(all_small, [blob.digest for blob in wanted], here, self._own_id) if all_small else None,
            credits=self._credits,
            in_flight=self._in_flight,
            only_given=only_given,
            is_kept_later=is_kept_later,
        )

    async def fetch_bundle(
        self,
        fetch: BundleFetch,
        finder: PeerFinder,
        *,
        follows: bool = True,
        executor: ThreadPoolExecutor | None = None,
    ) -> None:
        """Runs a fetch from `bundle` to its end, in a thread of `executor`. Cancelling ends it; blobs that came stay.

        Without `follows` peers are asked, but neither follow nor are followed. Raises what `BundleFetch.run` raises.
        """
        follower = finder.follow(fetch, self._credits) if follows else None
        if follower is None:
            await self._run_bundle(fetch, finder, executor)
            return
        try:
            with self._broadcasting(fetch, follower):
                await follower.answers(LEECHER_GRACE_SECONDS)
                await self._run_bundle(fetch, finder, executor)
        finally:
            await follower.stop()

    @contextlib.contextmanager
    def _broadcasting(self, fetch: BroadcastFetch, follower: PeerFollower) -> Iterator[None]:
        """While the block runs, peers can follow the fetch, and are followed in turn when they do. Of two adds of a
        commit at the same time, they follow the first."""
        digest = fetch.blob.digest
        self._broadcasts.setdefault(digest, (fetch, follower))
        try:
            yield
        finally:
            if digest in self._broadcasts and self._broadcasts[digest][0] is fetch:
                del self._broadcasts[digest]

    async def _run_bundle(self, fetch: BundleFetch, finder: PeerFinder, executor: ThreadPoolExecutor | None) -> None:
        peers = [peer for peer in finder.peers_for(fetch.first) if not fetch.is_leecher(peer.name)]
        work = partial(fetch.run, peers[:MAX_BUNDLE_PEERS], finder.upstreams)
        running = asyncio.get_running_loop().run_in_executor(executor, work)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            fetch.cancel()
            await asyncio.gather(running, return_exceptions=True)
            raise
        finally:
            await asyncio.to_thread(fetch.report.note_in, self._store)

    # Blobs, each by itself

    def find(self, digest: Digest) -> BlobFetch | None:
        """The running fetch of a blob, to serve or stream the bytes that it has so far."""
        running = self._running.get(digest)
        return running.fetch if running else None

    async def opened(self, digest: Digest) -> BlobFetch | None:
        """The fetch that runs for a blob, as soon as its partial is open; None if there is none, or none any more."""
        running = self._running.get(digest)
        if running is None:
            return None
        await running.is_open.wait()
        return running.fetch

    async def fetch(self, blob: WantedBlob, finder: PeerFinder, on_event: OnEvent) -> FetchReport:
        """Fetches, verifies and ingests a blob, or waits for the fetch that already does.

        Cancelling leaves the fetch to the other callers, and stops it when there are none; pieces that came stay.
        Raises NoSourceLeft, CorruptData or StorageError.
        """
        while (running := self._running.get(blob.digest)) is not None and running.is_ending:
            await asyncio.wait([running.task])
        if running is None:
            running = self._begin(blob, finder)
        running.on_events.append(on_event)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.on_events.remove(on_event)
            if not running.on_events:
                running.is_ending = True
                await _cancel(running.task)

    def _begin(self, blob: WantedBlob, finder: PeerFinder) -> _Running:
        task = asyncio.create_task(self._run(blob, finder), name=f"fetch {blob.path}")
        running = self._running[blob.digest] = _Running(task)
        task.add_done_callback(lambda _: self._running.pop(blob.digest, None))
        return running

    async def _run(self, blob: WantedBlob, finder: PeerFinder) -> FetchReport:
        running = self._running[blob.digest]
        try:
            if await asyncio.to_thread(self._is_here, blob) or not await self._open_partial(blob, running):
                return FetchReport()
            assert running.partial is not None
            if await in_thread(self._fill, running.partial, blob, finder):
                return await self._ingest_local(running, running.partial, blob)
            fetch = running.fetch = BlobFetch(
                blob,
                running.partial,
                running.tell,
                limits=self._limits,
                own_id=self._own_id,
                credits=self._credits,
            )
            running.is_open.set()
            running.follower = finder.follow(fetch, self._credits)
            await self._until_right(fetch, running.follower, finder, blob)
            fetch.report.local_bytes = sum(span.size_bytes for span in spans_of_files(running.partial))
            await self._ingest(running.partial, blob)
            running.is_ingested = True
            return fetch.report
        finally:
            running.is_open.set()
            await in_thread(self._let_go, running)

    @staticmethod
    def _fill(partial: PartialBlob, blob: WantedBlob, finder: PeerFinder) -> bool:
        """Blocking: takes from files of this machine what they have of a blob. Whether that is the right blob."""
        return fill(partial, finder.local_files(blob))

    async def _ingest_local(self, running: _Running, partial: PartialBlob, blob: WantedBlob) -> FetchReport:
        """Ingests a blob that came from files of this machine, without asking any other source."""
        report = FetchReport(local_bytes=sum(span.size_bytes for span in spans_of_files(partial)))
        record = report.record(blob, partial.sources(), (), is_verified=True)
        await self._ingest(partial, blob)
        running.is_ingested = True
        await in_thread(self._store.history.note, [record])
        return report

    async def _ingest(self, partial: PartialBlob, blob: WantedBlob) -> None:
        """Publishes as soon as the Hub client's lock is free. A client that reads this very blob from us into the same
        cache holds the lock until it has all of it; then the blob is found in its place. A client that holds the lock
        for long fetches the blob itself, and is not waited for."""
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Locked):
                await in_thread(self._store.ingester.ingest_blob, partial, blob.repo, 0.0)
                return
            await asyncio.sleep(LOCK_POLL_SECONDS)
        await in_thread(self._store.ingester.ingest_blob, partial, blob.repo)

    async def _until_right(
        self, fetch: BlobFetch, follower: PeerFollower | None, finder: PeerFinder, blob: WantedBlob
    ) -> None:
        """Returns when the partial is verified."""
        try:
            if follower is not None:
                await follower.settle()
            for upstream in finder.upstreams:
                fetch.add_source(upstream)
            for copy in await finder.sites(blob):
                fetch.add_source(copy)
            fetch.start()
            await asyncio.wrap_future(fetch.result)
        finally:
            if follower is not None:
                await follower.stop()

    def _let_go(self, running: _Running) -> None:
        if running.fetch is not None:
            running.fetch.stop()
            running.fetch.report.note_in(self._store)
            self._keep_record(running.fetch, is_verified=running.is_ingested)
        if running.partial is not None:
            is_worthless = not running.is_ingested and has_only_files(running.partial)
            (running.partial.remove if is_worthless else running.partial.close)()

    def _keep_record(self, fetch: BlobFetch, *, is_verified: bool) -> None:
        record = fetch.report.record(fetch.blob, fetch.partial.sources(), fetch.discarded, is_verified=is_verified)
        self._store.history.note([record])

    def _is_here(self, blob: WantedBlob) -> bool:
        """Blocking: whether another fetch has brought the blob since the caller looked."""
        found = self._store.inventory.find(blob.digest, blob.repo)
        return found is not None and found.is_verified and found.size_bytes == blob.size_bytes

    async def _open_partial(self, blob: WantedBlob, running: _Running) -> bool:
        """Opens the partial once no other process has it. False if the other process has finished the blob."""

        def open_it() -> None:
            running.partial = self._store.open_partial(blob.digest, blob.size_bytes)

        while True:
            with contextlib.suppress(Locked):
                await in_thread(open_it)
                return True
            await asyncio.sleep(LOCK_POLL_SECONDS)
            if await asyncio.to_thread(self._store.inventory.find, blob.digest, blob.repo) is not None:
                return False


async def _cancel(task: asyncio.Task[object]) -> None:
    """Cancels a task and waits until it has let go of everything; its outcome is ignored."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
