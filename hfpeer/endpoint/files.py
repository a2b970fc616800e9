"""Files for callers of the endpoint: from the cache, or streamed while the node fetches them for everybody.

A blob is fetched once however many read it. It goes on for a little while after the last reader has left, because
clients come back, and readers of ranges come again and again; then it stops and keeps what came. What was fetched
is installed like any other.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from hfpeer.cache.store import BlobFile, Store
from hfpeer.endpoint.reading import Checking, Fetching, Reading
from hfpeer.endpoint.small import SmallFiles
from hfpeer.endpoint.suspicion import Suspicion
from hfpeer.errors import HfpeerError, Unreachable
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.ranges import ByteRange
from hfpeer.transfer.events import Event, SourceFailed
from hfpeer.transfer.fetch import BlobFetch
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.scout import Scout
from hfpeer.transfer.small import is_small
from hfpeer.transfer.sources import WantedBlob

LINGER_SECONDS = 15.0
GATHER_SECONDS = 0.1
"""How long new files of a commit are gathered before they are installed together."""
HASHERS = 2

_log = logging.getLogger(__name__)


@dataclass
class _Keeping:
    """A fetch for callers: the task that ends with the file installed, and how many read along."""

    blob: WantedBlob
    opened: asyncio.Future[BlobFetch | None]
    task: asyncio.Task[None] = field(init=False)
    readers: int = 0
    leaving: asyncio.TimerHandle | None = None
    noted: int = 0
    """How many of the fetch's finds of wrong bytes were told to suspicion."""


@dataclass(frozen=True)
class _Here:
    """A blob in the cache: open as `fd`, or its bytes if it is verified and small."""

    whole: BlobFile
    fd: int
    is_installed: bool
    data: bytes | None = None


class Files:
    """Belongs to one event loop. `blame` is told, from any thread, who gave wrong bytes; `on_installed`, of which
    commits files have become visible."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        blame: Callable[[str], None],
        on_installed: Callable[[RepoId, Commit], Awaitable[None]],
        *,
        patience_seconds: float,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self._store = store
        self._fetches = fetches
        self._blame = blame
        self._on_installed = on_installed
        self._to_install: dict[tuple[RepoId, Commit], list[ManifestFile]] = {}
        self._installing: asyncio.Task[None] | None = None
        self._linger_seconds = linger_seconds
        self._keeping: dict[Digest, _Keeping] = {}
        self._checking: dict[Digest, asyncio.Future[bool]] = {}
        self._small = SmallFiles(store, self._install, self._hear, patience_seconds=patience_seconds)
        # Threads of their own: what hashes for minutes must not keep the quick questions waiting.
        self._hashers = ThreadPoolExecutor(HASHERS, "hfpeer-check")
        self.suspicion = Suspicion()

    @property
    def under_way(self) -> tuple[str, ...]:
        """What is being fetched for callers now, for people."""
        return tuple(f"{keeping.blob.repo} {keeping.blob.path}" for keeping in self._keeping.values())

    async def read(self, blob: WantedBlob, file: ManifestFile, scout: Scout) -> Reading | bytes:
        """An open reading, or the verified bytes of a small file that came just now.

        Raises NoSourceLeft, CorruptData, StorageError when it can be had from nobody.
        """
        while True:
            here = await asyncio.to_thread(self._look, blob)
            if here is not None:
                return self._from_cache(here, blob, file)
            if is_small(blob):
                return await self._small.read(blob, file, scout)
            if (reading := await self._join(blob, file, scout)) is not None:
                return reading

    async def stop(self) -> None:
        """Ends every fetch for callers; what came is kept."""
        tasks: list[asyncio.Future[Any]] = [keeping.task for keeping in self._keeping.values()]
        tasks += self._checking.values()
        for keeping in self._keeping.values():
            if keeping.leaving is not None:
                keeping.leaving.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._small.stop()
        self._hashers.shutdown(wait=False, cancel_futures=True)
        if self._installing is not None:
            await self._installing

    # What is here

    def _look(self, blob: WantedBlob) -> _Here | None:
        """Blocking: the blob as it lies in the cache, open. All in one go: thousands of small files are asked for."""
        found = self._store.find_blob(blob.digest, blob.repo)
        fd = None if found is None or found.size_bytes != blob.size_bytes else _open(found.path)
        if found is None or fd is None:
            return None
        is_installed = self._store.snapshot_file(blob.repo, blob.commit, blob.path) is not None
        if found.is_verified and is_small(blob):
            data = os.pread(fd, blob.size_bytes, 0)
            os.close(fd)
            return _Here(found, -1, is_installed, data) if len(data) == blob.size_bytes else None
        return _Here(found, fd, is_installed)

    def _from_cache(self, here: _Here, blob: WantedBlob, file: ManifestFile) -> Reading | bytes:
        whole = here.whole
        if whole.is_verified:
            if not here.is_installed:
                self._install(blob, file)
            return here.data if here.data is not None else Reading(here.fd, whole.size_bytes, None, _nothing)
        task = self._check(whole)
        reading = Reading(here.fd, whole.size_bytes, Checking(task, whole.path.name), _nothing)
        task.add_done_callback(lambda _: reading.changed())
        return reading

    def _check(self, whole: BlobFile) -> asyncio.Future[bool]:
        """Hashes a file that others put there, once however many read it."""
        task = self._checking.get(whole.digest)
        if task is None:
            loop = asyncio.get_running_loop()
            hashing = loop.run_in_executor(self._hashers, self._store.verify, whole)
            task = self._checking[whole.digest] = asyncio.ensure_future(hashing)
            task.add_done_callback(lambda _: self._checked(whole))
        return task

    def _checked(self, whole: BlobFile) -> None:
        task = self._checking.pop(whole.digest)
        if not task.cancelled() and not task.exception() and not task.result():
            self.suspicion.found_wrong(whole.digest, ByteRange(0, whole.size_bytes))

    # What is large: streamed

    async def _join(self, blob: WantedBlob, file: ManifestFile, scout: Scout) -> Reading | None:
        """A reading of the running fetch; None if that has ended meanwhile with the blob in the cache."""
        keeping = self._keeping.get(blob.digest) or self._begin(blob, file, scout)
        self._enter(keeping)
        try:
            fetch = await asyncio.shield(keeping.opened)
            fd = None if fetch is None else await asyncio.to_thread(_open, fetch.partial.path)
            if fetch is None or fd is None:
                await _outcome(keeping.task)
                self._leave(blob.digest, keeping)
                return None
        except BaseException:
            self._leave(blob.digest, keeping)
            raise
        growth, opened = Fetching(fetch, keeping.task), fetch
        reading = Reading(fd, blob.size_bytes, growth, lambda: self._left(reading, opened, keeping))
        self._watch(reading, fetch, keeping)
        return reading

    def _watch(self, reading: Reading, fetch: BlobFetch, keeping: _Keeping) -> None:
        loop = asyncio.get_running_loop()

        def changed() -> None:
            self._note_wrong(fetch, keeping)
            reading.changed()

        fetch.join(reading.number, lambda: loop.call_soon_threadsafe(changed))
        keeping.task.add_done_callback(lambda _: reading.changed())

    async def _left(self, reading: Reading, fetch: BlobFetch, keeping: _Keeping) -> None:
        fetch.leave(reading.number)
        self._note_wrong(fetch, keeping)
        self._leave(keeping.blob.digest, keeping)

    def _begin(self, blob: WantedBlob, file: ManifestFile, scout: Scout) -> _Keeping:
        keeping = self._keeping[blob.digest] = _Keeping(blob, asyncio.get_running_loop().create_future())
        keeping.task = asyncio.create_task(self._keep(keeping, file, scout), name=f"keep {blob.path}")
        keeping.task.add_done_callback(lambda _: self._end(blob.digest, keeping))
        return keeping

    async def _keep(self, keeping: _Keeping, file: ManifestFile, scout: Scout) -> None:
        """Fetches, publishes and installs one blob."""
        blob = keeping.blob
        fetching = asyncio.ensure_future(self._fetches.fetch(blob, scout, self._hear, asks_peers=True))
        fetch = None
        try:
            fetch = await self._opened(blob.digest, fetching)
            keeping.opened.set_result(fetch)
            await fetching
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
            if fetch is not None:
                self._note_wrong(fetch, keeping)
        self.suspicion.verified(blob.digest)
        self._install(blob, file)

    async def _opened(self, digest: Digest, fetching: asyncio.Future[FetchReport]) -> BlobFetch | None:
        """The fetch once its partial is open; None if it ended before, because another process had the blob."""
        while not fetching.done():
            await asyncio.sleep(0)
            fetch = await self._fetches.opened(digest)
            if fetch is not None:
                return fetch
        return None

    def _note_wrong(self, fetch: BlobFetch, keeping: _Keeping) -> None:
        for part in fetch.discarded[keeping.noted :]:
            keeping.noted += 1
            self.suspicion.found_wrong(keeping.blob.digest, part)

    def _enter(self, keeping: _Keeping) -> None:
        keeping.readers += 1
        if keeping.leaving is not None:
            keeping.leaving.cancel()
            keeping.leaving = None

    def _leave(self, digest: Digest, keeping: _Keeping) -> None:
        keeping.readers -= 1
        if keeping.readers == 0 and not keeping.task.done():
            loop = asyncio.get_running_loop()
            keeping.leaving = loop.call_later(self._linger_seconds, self._give_up, digest, keeping)

    def _give_up(self, digest: Digest, keeping: _Keeping) -> None:
        if keeping.readers == 0:
            keeping.task.cancel()
            self._end(digest, keeping)

    def _end(self, digest: Digest, keeping: _Keeping) -> None:
        if self._keeping.get(digest) is keeping:
            del self._keeping[digest]
        if keeping.leaving is not None:
            keeping.leaving.cancel()
        if keeping.task.done():
            if not keeping.opened.done():
                keeping.opened.set_result(None)
            if not keeping.task.cancelled():
                keeping.task.exception()

    # Installing

    def _install(self, blob: WantedBlob, file: ManifestFile) -> None:
        """Soon, together with others of the commit that come at the same time."""
        self._to_install.setdefault((blob.repo, blob.commit), []).append(file)
        if self._installing is None or self._installing.done():
            self._installing = asyncio.create_task(self._install_all())

    async def _install_all(self) -> None:
        while self._to_install:
            await asyncio.sleep(GATHER_SECONDS)
            waiting, self._to_install = self._to_install, {}
            for (repo, commit), files in waiting.items():
                try:
                    await asyncio.to_thread(self._store.install, repo, commit, files)
                    await self._on_installed(repo, commit)
                except HfpeerError as error:
                    _log.warning("Files of %s at %s cannot be installed: %s", repo, commit.short, error.message)

    def _hear(self, event: Event) -> None:
        if isinstance(event, SourceFailed):
            _log.info("%s: %s %s", event.path, event.source, event.reason)
            if event.was_lying:
                self._blame(event.source)


async def _outcome(task: asyncio.Task[None]) -> None:
    """Waits for a task that others wait for too; raises what ended it."""
    await asyncio.wait([task])
    if task.cancelled():
        raise Unreachable("The fetch was stopped.", hint="Ask again: it continues where it was.")
    task.result()


def _open(path: os.PathLike[str]) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


async def _nothing() -> None:
    """What is to be done when a whole file is closed."""
