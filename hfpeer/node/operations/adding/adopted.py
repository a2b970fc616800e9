"""Takes the blobs of an add from files on this machine, and tells the progress: from other cache folders of the node,
and from files of other tools that it has adopted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from hfpeer.cache.disk.linking import HardLinks, OnChunk
from hfpeer.cache.index.schema import AdoptedRow
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, CorruptData
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest, RepoId
from hfpeer.system.cancellation import check_stop, in_threads
from hfpeer.transfer.events import CheckBegan, FileProgress, OnEvent, Progressed

SMALL_BYTES = 1024 * 1024
"""Files of at most this size are taken together: one sync for many."""
BATCH_FILES = 64
"""Small files in memory at a time."""
THREADS = 2
"""Files taken at a time: one is copied while another is hashed."""
TELL_SECONDS = 0.2
"""Seconds between two reports of progress."""


def take_adopted(store: Store, repo: RepoId, missing: Sequence[ManifestFile], on_event: OnEvent) -> list[ManifestFile]:
    """Puts those of the missing blobs into the cache whose bytes lie in adopted files. Returns their files; the others
    have to be fetched. Blocking. Raises NoSpace."""
    found = store.adopted.table.with_digests(file.digest for file in missing)
    wanted = [file for file in missing if file.digest in found]
    small = [file for file in wanted if file.size_bytes <= SMALL_BYTES]

    def take(file: ManifestFile, on_chunk: OnChunk) -> bool:
        return store.adopted.bring(file, repo, found[file.digest], on_chunk) is not None

    large = _taken([file for file in wanted if file.size_bytes > SMALL_BYTES], take, on_event)
    return [*_take_small(store, repo, small, found, on_event), *large]


def _take_small(
    store: Store,
    repo: RepoId,
    files: Sequence[ManifestFile],
    found: Mapping[Digest, Sequence[AdoptedRow]],
    on_event: OnEvent,
) -> list[ManifestFile]:
    """Takes small files, which are synced many together. Returns those that were taken."""
    if files:
        on_event(CheckBegan(len(files), sum(file.size_bytes for file in files)))
    taken: list[ManifestFile] = []
    for start in range(0, len(files), BATCH_FILES):
        check_stop()
        bodies: dict[Digest, bytes] = {}
        givers: list[tuple[ManifestFile, AdoptedRow]] = []
        for file in files[start : start + BATCH_FILES]:
            read = store.adopted.read(file, found[file.digest])
            if read is not None:
                bodies[file.digest] = read[0]
                givers.append((file, read[1]))
        store.ingester.ingest_many(repo, bodies)
        store.adopted.note(givers)
        taken += [file for file, _ in givers]
    return taken


def take_from_other_caches(
    store: Store,
    repo: RepoId,
    files: Sequence[ManifestFile],
    on_event: OnEvent,
    hard_links: HardLinks = HardLinks.NEVER,
) -> list[ManifestFile]:
    """Puts those blobs into the first cache folder that lie in others only, because the tools of the user look in the
    first. Returns their files; those with wrong bytes, or in a folder that fails, have to be fetched. Blocking. Raises
    NoSpace, BrokenCache."""

    def take(file: ManifestFile, on_chunk: OnChunk) -> bool:
        try:
            store.inventory.bring(file, repo, on_chunk, hard_links)
        except CorruptData:
            return False
        except BrokenCache:
            if store.caches.away.keys() == away:
                raise
            return False
        return True

    away = store.caches.away.keys()

    return _taken(store.inventory.elsewhere(files), take, on_event)


def _taken(
    wanted: Sequence[ManifestFile], take: Callable[[ManifestFile, OnChunk], bool], on_event: OnEvent
) -> list[ManifestFile]:
    """Calls `take` for each file, several at a time. Returns the files for which it returned True."""
    if not wanted:
        return []
    size_bytes = sum(file.size_bytes for file in wanted)
    on_event(CheckBegan(len(wanted), size_bytes))
    progress = _Progress(len(wanted), size_bytes, on_event)

    def take_one(file: ManifestFile) -> ManifestFile | None:
        is_taken = take(file, lambda count: progress.moved(file, count))
        progress.ended(file)
        return file if is_taken else None

    return [file for file in in_threads(take_one, wanted, THREADS, "take") if file is not None]


class _Progress:
    """Tells the progress as events. Thread-safe. Each byte counts half when it is copied and half when it is hashed."""

    def __init__(self, files: int, size_bytes: int, on_event: OnEvent) -> None:
        self._files, self._size_bytes, self._on_event = files, size_bytes, on_event
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[int, int]] = {}
        self._done_files = self._done_bytes = 0
        self._began_at = self._told_at = time.monotonic()

    def moved(self, file: ManifestFile, count: int) -> None:
        now = time.monotonic()
        with self._lock:
            done, size_bytes = self._under_way.get(file.path, (0, 2 * file.size_bytes))
            self._under_way[file.path] = (min(size_bytes, done + count), size_bytes)
            if now - self._told_at < TELL_SECONDS:
                return
            self._told_at = now
            files = tuple(FileProgress(path, done // 2, size // 2) for path, (done, size) in self._under_way.items())
            present = self._done_bytes + sum(file.present_bytes for file in files)
            rate = present / max(now - self._began_at, 1e-3)
            event = Progressed(present, self._size_bytes, rate, {}, {}, files, self._done_files, self._files)
        self._on_event(event)

    def ended(self, file: ManifestFile) -> None:
        with self._lock:
            self._under_way.pop(file.path, None)
            self._done_files += 1
            self._done_bytes += file.size_bytes
