"""Bringing files of a commit into the cache: what is missing is fetched, what arrives is installed at once.

Owns the order of things for one add: what is there already is linked first, small files travel in batches, large
ones a few at a time; each file becomes visible when it is verified. It resolves nothing and writes no ref.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hfpeer.cache.store import Store
from hfpeer.errors import CorruptData, HfpeerError, Unreachable
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Digest
from hfpeer.transfer.events import Event, FileFinished, FileProgress, Listener, Progressed, SourceFailed
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.lots import Lot
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.scout import Scout
from hfpeer.transfer.small import SmallBlobs, is_small
from hfpeer.transfer.sources import PeerSource, SourceKind, WantedBlob
from hfpeer.wire import MAX_BATCH_BLOB_BYTES

LARGE_AT_ONCE = 3
PROGRESS_SECONDS = 0.25
RATE_WINDOW_SECONDS = 3.0
MAX_SMALL_PEERS = 4
FELLOW_GRACE_SECONDS = 0.15
"""How long peers are waited for that may want the same small files."""


@dataclass
class Tally:
    """What an add has cost so far, over all its blobs."""

    bytes_by_source: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, SourceKind] = field(default_factory=dict)
    refetched_bytes: int = 0
    liars: set[str] = field(default_factory=set)

    def add(self, report: FetchReport) -> None:
        for name, size_bytes in report.bytes_by_source.items():
            self.bytes_by_source[name] = self.bytes_by_source.get(name, 0) + size_bytes
        self.kinds.update(report.kinds)
        self.refetched_bytes += report.refetched_bytes

    @property
    def bytes_by_kind(self) -> dict[str, int]:
        by_kind: dict[str, int] = {}
        for name, size_bytes in self.bytes_by_source.items():
            kind = self.kinds[name]
            by_kind[kind] = by_kind.get(kind, 0) + size_bytes
        return by_kind


class SnapshotTransfer:
    """One add of `files` of `manifest`. Call `run` once."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        scout: Scout,
        manifest: Manifest,
        files: Sequence[ManifestFile],
        listener: Listener,
        *,
        asks_peers: bool,
        patience_seconds: float,
    ) -> None:
        self._store = store
        self._fetches = fetches
        self._scout = scout
        self._manifest = manifest
        self._files: dict[Digest, list[ManifestFile]] = {}
        for file in files:
            self._files.setdefault(file.digest, []).append(file)
        self._files_total = len(files)
        self._size_bytes = sum(files[0].size_bytes for files in self._files.values())
        self._fetching: list[Digest] = []
        self._tell = listener
        self._asks_peers = asks_peers
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._done_files = 0
        self._done_bytes = 0
        self._small: SmallBlobs | None = None
        self._rate = _Rate()
        self.tally = Tally()

    async def run(self, missing: Sequence[ManifestFile]) -> None:
        """Fetches and installs. `missing` are the files whose blobs are not in the cache, each digest once.

        Raises what stopped it. A blob that nobody can give does not stop the others; a disk that cannot take them
        does.
        """
        wanted = [self._wanted(file) for file in missing]
        absent = {blob.digest for blob in wanted}
        await self._install([digest for digest in self._files if digest not in absent])
        ticker = asyncio.create_task(self._report_progress())
        try:
            await self._fetch_all(wanted)
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            self._listener(self._progress())

    def _wanted(self, file: ManifestFile) -> WantedBlob:
        return WantedBlob(file.digest, file.size_bytes, self._manifest.repo, self._manifest.commit, file.path)

    async def _fetch_all(self, wanted: Sequence[WantedBlob]) -> None:
        slots = asyncio.Semaphore(LARGE_AT_ONCE)
        small = [blob for blob in wanted if is_small(blob)]
        tasks = [asyncio.create_task(self._fetch_large(blob, slots)) for blob in wanted if not is_small(blob)]
        if small:
            tasks.append(asyncio.create_task(self._fetch_small(small)))
        try:
            await _all_or_worst(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch_large(self, blob: WantedBlob, slots: asyncio.Semaphore) -> None:
        async with slots:
            self._fetching.append(blob.digest)
            try:
                report = await self._fetches.fetch(blob, self._scout, self._listener, asks_peers=self._asks_peers)
            finally:
                self._fetching.remove(blob.digest)
            self.tally.add(report)
            await self._install([blob.digest])

    async def _fetch_small(self, wanted: Sequence[WantedBlob]) -> None:
        small = self._small = SmallBlobs(
            wanted,
            self._keep_small,
            self._listener,
            patience_seconds=self._patience_seconds,
            lot=self._lot(wanted) if self._asks_peers else None,
        )
        if not self._asks_peers:
            await self._run_small(small, [])
            return
        watch = self._scout.watch(small)
        try:
            with self._fetches.telling(small, watch):
                await watch.answers(FELLOW_GRACE_SECONDS)
                peers = [peer for peer in self._scout.peers_for(wanted[0]) if not small.is_fellow(peer.name)]
                await self._run_small(small, peers[:MAX_SMALL_PEERS])
        finally:
            await watch.stop()

    def _lot(self, wanted: Sequence[WantedBlob]) -> Lot:
        """All small files of the commit; of those that were asked for, what is not wanted is here."""
        all_small = dict.fromkeys(
            file.digest for file in self._manifest.files if file.size_bytes <= MAX_BATCH_BLOB_BYTES
        )
        missing = {blob.digest for blob in wanted}
        here = [digest for digest in all_small if digest in self._files and digest not in missing]
        return Lot(list(all_small), missing, here, self._fetches.own_id)

    async def _run_small(self, small: SmallBlobs, peers: Sequence[PeerSource]) -> None:
        running = asyncio.create_task(asyncio.to_thread(small.run, peers, self._scout.upstreams))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            small.cancel()
            await asyncio.gather(running, return_exceptions=True)
            raise
        finally:
            self._small = None
            self.tally.add(small.report)
            await asyncio.to_thread(small.report.note_in, self._store)

    def _keep_small(self, blobs: Sequence[tuple[WantedBlob, bytes]]) -> None:
        bodies = {blob.digest: data for blob, data in blobs}
        files = [file for digest in bodies for file in self._files[digest]]
        self._store.publish_files(self._manifest.repo, self._manifest.commit, files, bodies)
        self._note_installed(list(bodies), files)

    def _listener(self, event: Event) -> None:
        if isinstance(event, SourceFailed) and event.was_lying:
            self.tally.liars.add(event.source)
        self._tell(event)

    async def _install(self, digests: Sequence[Digest]) -> None:
        await asyncio.to_thread(self._install_now, digests)

    def _install_now(self, digests: Sequence[Digest]) -> None:
        files = [file for digest in digests for file in self._files[digest]]
        if files:
            self._store.install(self._manifest.repo, self._manifest.commit, files)
        self._note_installed(digests, files)

    def _note_installed(self, digests: Sequence[Digest], files: Sequence[ManifestFile]) -> None:
        with self._lock:
            self._done_files += len(files)
            self._done_bytes += sum(self._files[digest][0].size_bytes for digest in digests)
        for file in files:
            self._listener(FileFinished(str(file.path), file.size_bytes))

    # Progress

    async def _report_progress(self) -> None:
        while True:
            self._listener(self._progress())
            await asyncio.sleep(PROGRESS_SECONDS)

    def _progress(self) -> Event:
        running = []
        by_source = dict(self.tally.bytes_by_source)
        present_bytes = self._done_bytes
        for digest in self._fetching:
            files = self._files[digest]
            here = self._fetches.present_bytes(digest)
            present_bytes += here
            running.append(FileProgress(str(files[0].path), here, files[0].size_bytes))
            _add(by_source, self._fetches.bytes_by_source(digest))
        if self._small is not None:
            _add(by_source, dict(self._small.report.bytes_by_source))
        rates = self._rate.of(by_source)
        return Progressed(
            present_bytes=present_bytes,
            size_bytes=self._size_bytes,
            rate_bytes_per_second=sum(rates.values()),
            bytes_by_source=by_source,
            rate_by_source=rates,
            files=tuple(running),
            files_done=self._done_files,
            files_total=self._files_total,
        )


class _Rate:
    """Bytes per second by source over the last few seconds."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, dict[str, int]]] = []

    def of(self, totals: dict[str, int]) -> dict[str, float]:
        now = time.monotonic()
        self._samples = [(at, old) for at, old in self._samples if now - at <= RATE_WINDOW_SECONDS]
        self._samples.append((now, totals))
        began_at, oldest = self._samples[0]
        seconds = max(now - began_at, PROGRESS_SECONDS)
        return {name: max(0, total - oldest.get(name, 0)) / seconds for name, total in totals.items()}


def _add(totals: dict[str, int], more: dict[str, int]) -> None:
    for name, size_bytes in more.items():
        totals[name] = totals.get(name, 0) + size_bytes


async def _all_or_worst(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Waits for all, unless one fails with something the others cannot outlive. Raises the first failure."""
    first: HfpeerError | None = None
    for finished in asyncio.as_completed(tasks):
        try:
            await finished
        except (Unreachable, CorruptData) as error:
            first = first or error
    if first is not None:
        raise first
