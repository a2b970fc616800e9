"""Brings files of a commit into the cache: missing files are fetched, and each file is installed when it is verified.

Orders the work of one add: files whose blobs are cached are linked first, then small files are fetched as a bundle,
beside a few large ones at a time. It resolves no name and writes no ref.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, CorruptData, HfpeerError, Unreachable
from hfpeer.language.amounts import counted
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Digest
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES
from hfpeer.system.cancellation import check_stop, in_thread
from hfpeer.transfer.events import Event, FileProgress, OnEvent, Progressed, SourceFailed
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.small.fetch import BundleFetch, is_small
from hfpeer.transfer.small.verified import VerifiedBlob, is_right
from hfpeer.transfer.sources.local_files import read_small
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.sources.tiers import SourceKind
from hfpeer.transfer.swarm.finder import PeerFinder

LARGE_AT_ONCE = 3
"""At most this many large files at a time."""
LOCAL_TOGETHER = 64
"""At most this many small files of this machine are put into the cache together."""
PROGRESS_SECONDS = 0.25
SUM_SECONDS = 5.0
"""Seconds between two counts of the files that are here, which take longer the more there are."""
RATE_WINDOW_SECONDS = 3.0


@dataclass
class FetchTotals:
    """The cost of an add so far, over all its blobs."""

    bytes_by_source: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, SourceKind] = field(default_factory=dict)
    refetched_bytes: int = 0
    local_bytes: int = 0
    """Bytes that came from files of this machine."""
    liars: set[str] = field(default_factory=set)
    small_bytes_by_kind: dict[str, int] = field(default_factory=dict)

    def add(self, report: FetchReport, *, is_small: bool = False) -> None:
        for name, size_bytes in report.bytes_by_source.items() if is_small else ():
            kind = report.kinds[name]
            self.small_bytes_by_kind[kind] = self.small_bytes_by_kind.get(kind, 0) + size_bytes
        for name, size_bytes in report.bytes_by_source.items():
            self.bytes_by_source[name] = self.bytes_by_source.get(name, 0) + size_bytes
        self.kinds.update(report.kinds)
        self.refetched_bytes += report.refetched_bytes
        self.local_bytes += report.local_bytes

    @property
    def bytes_by_kind(self) -> dict[str, int]:
        return _by_kind(self.bytes_by_source, self.kinds)


class SnapshotTransfer:
    """One add of `files` of `manifest`. To be made before the cache is searched for the files; call `run` once."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        finder: PeerFinder,
        manifest: Manifest,
        files: Sequence[ManifestFile],
        on_event: OnEvent,
        *,
        makes_links: bool = True,
    ) -> None:
        self._store = store
        self._ingester = store.ingester.with_links(makes_links)
        self._fetches = fetches
        self._finder = finder
        self._manifest = manifest
        self._files: dict[Digest, ManifestFile] = {}
        """By digest: its first file."""
        self._twins: dict[Digest, list[ManifestFile]] = {}
        """By digest: its other files. Mostly there are none, and a list for each of many files takes much memory."""
        for file in files:
            if self._files.setdefault(file.digest, file) is not file:
                self._twins.setdefault(file.digest, []).append(file)
        self._progress = _Progress(files)
        self._tell = on_event
        self._kept_count = fetches.kept_count
        self._fetching: list[Digest] = []
        self._small: BundleFetch | None = None
        self._summed_at: float | None = None
        self.totals = FetchTotals()
        self.failures: dict[Digest, HfpeerError] = {}
        """Why large blobs could not be had."""

    async def run(self, missing: Sequence[ManifestFile], right: Collection[Digest] = ()) -> None:
        """Fetches and installs. `missing` are the files whose blobs are not in the cache, each digest once; `right` are
        the digests that `Inventory.verified_in` has just seen.

        Raises what stopped it. A blob that no source can give does not stop the others; a disk that cannot take them
        does. Raises BrokenCache if another process has removed some of the files meanwhile.
        """
        wanted = [self._wanted(file) for file in missing]
        await in_thread(self._install, self._here(wanted), right)
        ticker = asyncio.create_task(self._report_progress())
        try:
            await self._fetch_all(wanted)
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            if self._summed_at is not None:
                await asyncio.to_thread(self._sum_up)
            self._on_event(self._progressed())
        if missing:
            await in_thread(self._refuse_gaps)

    def _refuse_gaps(self) -> None:
        """Blocking. Raises BrokenCache for files that are no longer in the snapshot."""
        repo, snapshot = self._manifest.repo, self._store.snapshot_path(self._manifest.repo, self._manifest.commit)
        files = self._files_of(self._files)
        gone = [file.path for file in files if not os.path.exists(f"{snapshot}/{file.path}")]  # noqa: PTH110  many files
        if gone:
            names = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
            raise BrokenCache(
                f"Another command removed {len(gone):,} of {counted(len(files), 'file')} of {repo} during this add: "
                f"{names}.",
                hint="Run the add again: it fetches what is gone.",
                repo=str(repo),
                paths=gone[:100],
            )

    def _here(self, wanted: Sequence[WantedBlob]) -> list[Digest]:
        """The digests of this add that are not wanted, because they are in the cache."""
        absent = {blob.digest for blob in wanted}
        return [digest for digest in self._files if digest not in absent]

    def _files_of(self, digests: Iterable[Digest]) -> list[ManifestFile]:
        """The files of this add that have these digests."""
        if not self._twins:
            return [self._files[digest] for digest in digests]
        return [file for digest in digests for file in (self._files[digest], *self._twins.get(digest, ()))]

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

    # Large files

    async def _fetch_large(self, blob: WantedBlob, slots: asyncio.Semaphore) -> None:
        async with slots:
            self._fetching.append(blob.digest)
            try:
                report = await self._fetches.fetch(blob, self._finder, self._on_event)
            except HfpeerError as error:
                self.failures[blob.digest] = error
                raise
            finally:
                self._fetching.remove(blob.digest)
            self.totals.add(report)
            await in_thread(self._install, [blob.digest])

    # Small files

    async def _fetch_small(self, wanted: Sequence[WantedBlob]) -> None:
        found = await in_thread(self._take_small, wanted)
        if found:
            wanted = [blob for blob in wanted if blob.digest not in found]
        if not wanted:
            return
        small = self._small = self._bundle(wanted)
        try:
            await self._fetches.fetch_bundle(small, self._finder)
        finally:
            self._small = None
            self.totals.add(small.report, is_small=True)
            self.totals.add(small.joined, is_small=True)

    def _bundle(self, wanted: Sequence[WantedBlob]) -> BundleFetch:
        """The fetch of small blobs. With peers it follows the small blobs of the whole commit."""
        all_small: dict[Digest, None] = {}
        if self._finder.asks_peers:
            files = (file for file in self._manifest.files if file.size_bytes <= MAX_BATCH_BLOB_BYTES)
            all_small = dict.fromkeys(file.digest for file in files)
        missing = {blob.digest for blob in wanted}
        return self._fetches.bundle(
            wanted,
            self._keep,
            self._find,
            self._on_event,
            all_small=list(all_small),
            here=[digest for digest in all_small if digest in self._files and digest not in missing],
        )

    def _take_small(self, wanted: Sequence[WantedBlob]) -> Collection[Digest]:
        """Blocking: keeps the small blobs that files of this machine have."""
        found: set[Digest] = set()
        bodies: dict[Digest, bytes] = {}
        for blob in wanted:
            check_stop()
            right = (data for data in read_small(blob, self._finder.local_files(blob)) if is_right(blob, data))
            if (data := next(right, None)) is not None:
                bodies[blob.digest] = data
            if len(bodies) >= LOCAL_TOGETHER or (bodies and blob is wanted[-1]):
                self._ingest(bodies)
                self.totals.local_bytes += sum(map(len, bodies.values()))
                found |= bodies.keys()
                bodies = {}
        return found

    def _keep(self, blobs: Sequence[VerifiedBlob]) -> None:
        """Puts small blobs into the cache and installs their files."""
        bodies = {one.blob.digest: one.data for one in blobs}
        given = {one.blob.digest for one in blobs if one.is_given}
        self._ingest(bodies, given)

    def _ingest(self, bodies: Mapping[Digest, bytes], given: Collection[Digest] = ()) -> None:
        """Puts small blobs into the cache and installs their files."""
        files = self._files_of(bodies)
        self._ingester.ingest_files(self._manifest.repo, self._manifest.commit, files, bodies, given)
        now = time.monotonic()
        if self._summed_at is None or now - self._summed_at > SUM_SECONDS:
            self._summed_at = now
            self._sum_up()
        self._progress.installed(files)

    def _sum_up(self) -> None:
        self._ingester.sum_up(self._manifest.repo, self._manifest.commit)

    def _find(self, blobs: Sequence[WantedBlob]) -> Collection[Digest]:
        """Installs the small blobs that another fetch has brought since the add looked for them."""
        if self._fetches.kept_count == self._kept_count:
            return ()
        files = [self._files[blob.digest] for blob in blobs]
        absent = {file.digest for file in self._store.inventory.missing(files)}
        unverified = {blob.digest for blob in self._store.inventory.unverified_of(files)}
        here = [file.digest for file in files if file.digest not in absent | unverified]
        self._install(here)
        return here

    # Installing

    def _install(self, digests: Sequence[Digest], right: Collection[Digest] = ()) -> None:
        """Blocking: links the files whose blobs are in the cache."""
        files = self._files_of(digests)
        if files:
            self._ingester.install(self._manifest.repo, self._manifest.commit, files, right=right)
        self._progress.installed(files)

    # Events

    def _on_event(self, event: Event) -> None:
        if isinstance(event, SourceFailed) and event.was_lying:
            self.totals.liars.add(event.source)
        self._tell(event)

    async def _report_progress(self) -> None:
        while True:
            self._on_event(self._progressed())
            await asyncio.sleep(PROGRESS_SECONDS)

    def _progressed(self) -> Event:
        running = []
        by_source, kinds = dict(self.totals.bytes_by_source), dict(self.totals.kinds)
        for digest in self._fetching:
            file = self._files[digest]
            running.append(FileProgress(str(file.path), self._fetches.present_bytes(digest), file.size_bytes))
            _add(by_source, self._fetches.bytes_by_source(digest))
            kinds.update(self._fetches.kinds(digest))
        if self._small is not None:
            for report in (self._small.report, self._small.joined):
                _add(by_source, dict(report.bytes_by_source))
                kinds.update(report.kinds)
        return self._progress.event(running, by_source, _by_kind(by_source, kinds))


class _Progress:
    """How much of an add is done. Thread-safe."""

    def __init__(self, files: Sequence[ManifestFile]) -> None:
        self._files_total = len(files)
        self._size_bytes = sum({file.digest: file.size_bytes for file in files}.values())
        self._lock = threading.Lock()
        self._done_files = 0
        self._done_bytes = 0
        self._done: set[Digest] = set()
        self._rate = _Rate()

    def installed(self, files: Sequence[ManifestFile]) -> None:
        with self._lock:
            self._done_files += len(files)
            new = {file.digest: file.size_bytes for file in files if file.digest not in self._done}
            self._done_bytes += sum(new.values())
            self._done |= new.keys()

    def event(self, running: Sequence[FileProgress], by_source: dict[str, int], by_kind: dict[str, int]) -> Progressed:
        """`running` are the large files on their way, `by_source` and `by_kind` all bytes that came until now."""
        rates = self._rate.of(by_source)
        with self._lock:
            done_files, done_bytes = self._done_files, self._done_bytes
        return Progressed(
            present_bytes=done_bytes + sum(file.present_bytes for file in running),
            size_bytes=self._size_bytes,
            rate_bytes_per_second=sum(rates.values()),
            bytes_by_source=by_source,
            rate_by_source=rates,
            files=tuple(running),
            files_done=done_files,
            files_total=self._files_total,
            bytes_by_kind=by_kind,
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


def _by_kind(by_source: Mapping[str, int], kinds: Mapping[str, SourceKind]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, size_bytes in by_source.items():
        if name in kinds:  # a source that gave its first bytes just now may not be counted yet
            totals[kinds[name]] = totals.get(kinds[name], 0) + size_bytes
    return totals


def _add(totals: dict[str, int], more: dict[str, int]) -> None:
    for name, size_bytes in more.items():
        totals[name] = totals.get(name, 0) + size_bytes


async def _all_or_worst(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Waits for all tasks, or until one fails with an error that stops the others too. Raises the first failure."""
    first: HfpeerError | None = None
    for finished in asyncio.as_completed(tasks):
        try:
            await finished
        except (Unreachable, CorruptData) as error:
            first = first or error
    if first is not None:
        raise first
