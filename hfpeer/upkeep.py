"""What a daemon does by itself: know the cache, verify it, learn what is public, prove it, and announce it.

One supervised loop a duty. Each works in small steps and yields to whatever a user waits for; a failure is logged
and tried again at the next round, never shown. None of them fetches what no user asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

from hfpeer.cache.store import BlobFile, Store
from hfpeer.errors import AccessDenied, CorruptData, HfpeerError, NotFound
from hfpeer.names import Commit, RepoId, Visibility
from hfpeer.tasks import end_tasks
from hfpeer.upstream.hubs import Hubs

SCAN_SECONDS = 30.0
VERIFY_SECONDS = 5.0
VERIFY_FILES, VERIFY_BYTES = 64, 4 * 1024 * 1024
"""How many files, or bytes of more than one, are verified in one step."""
INTRODUCE_SECONDS = 300.0
RETRY_SECONDS = 30.0
ANNOUNCE_SECONDS = 1.0
STALE_PARTIAL_SECONDS = 30 * 24 * 3600.0

_log = logging.getLogger(__name__)


class Upkeep:
    """The background duties of a daemon. `announce` is told the generation whenever it has grown."""

    def __init__(self, store: Store, hubs: Hubs, announce: Callable[[int], Awaitable[None]]) -> None:
        self._store = store
        self._hubs = hubs
        self._announce = announce
        self._announced: int | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._scanned = asyncio.Event()
        self._has_news = asyncio.Event()

    def start(self) -> None:
        duties = (
            (self._scan, SCAN_SECONDS),
            (self._verify, VERIFY_SECONDS),
            (self._introduce, RETRY_SECONDS),
            (self._announce_changes, ANNOUNCE_SECONDS),
        )
        self._tasks = [
            asyncio.create_task(self._supervise(duty, seconds), name=duty.__name__) for duty, seconds in duties
        ]

    async def stop(self) -> None:
        await end_tasks(self._tasks)

    async def scanned(self) -> None:
        """Waits until the cache has been looked at once."""
        await self._scanned.wait()

    async def _supervise(self, duty: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await duty()
            except HfpeerError as error:
                _log.info("%s: %s", duty.__name__, error.message)
            except Exception:  # noqa: BLE001  a duty must outlive whatever it meets
                _log.exception("%s failed", duty.__name__)
            await asyncio.sleep(seconds)

    async def _scan(self) -> None:
        if not self._scanned.is_set():
            await asyncio.to_thread(self._store.sweep_partials, STALE_PARTIAL_SECONDS)
        try:
            result = await asyncio.to_thread(self._store.scan)
            if result.changed_repos or not self._scanned.is_set():
                self._has_news.set()
        finally:
            self._scanned.set()

    async def _verify(self) -> None:
        await self._scanned.wait()
        while blobs := await asyncio.to_thread(self._store.unverified, VERIFY_FILES):
            for step in _steps(blobs):
                for blob in await asyncio.to_thread(self._store.verify_all, step):
                    _log.warning("%s does not hash to its name; it is not shared", blob.path)

    async def _introduce(self) -> None:
        """Makes what other tools put here known to peers: soon after a scan has found it, or a hub can be reached,
        and again from time to time for what no hub would speak of."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._has_news.wait(), INTRODUCE_SECONDS)
        self._has_news.clear()
        try:
            await self._ask_visibility()
            await self._prove()
        except HfpeerError:
            self._has_news.set()
            raise

    async def _ask_visibility(self) -> None:
        for repo in await self._repos():
            if await asyncio.to_thread(self._is_unknown, repo):
                try:
                    visibility, _ = await self._hubs.visibility(repo)
                except (NotFound, AccessDenied, CorruptData):
                    continue
                await asyncio.to_thread(self._store.set_visibility, repo, visibility)

    def _is_unknown(self, repo: RepoId) -> bool:
        return self._store.visibility(repo) is Visibility.UNKNOWN and not self._store.is_published(repo)

    async def _prove(self) -> None:
        """Fetches the manifest, with proof, of shared revisions that other tools downloaded, so that peers believe."""
        for revision in await asyncio.to_thread(self._store.revisions):
            repo, commit = RepoId.parse(revision.repo, revision.type), Commit(revision.commit)
            known = await asyncio.to_thread(self._store.load_manifest, repo, commit)
            if not revision.is_shared or known is not None:
                continue
            try:
                manifest, _ = await self._hubs.manifest(repo, commit)
            except (NotFound, AccessDenied, CorruptData):
                continue
            await asyncio.to_thread(self._store.save_manifest, manifest)

    async def _announce_changes(self) -> None:
        generation = self._store.generation
        if generation != self._announced:
            await self._announce(generation)
            self._announced = generation

    async def _repos(self) -> list[RepoId]:
        revisions = await asyncio.to_thread(self._store.revisions)
        return list(dict.fromkeys(RepoId.parse(revision.repo, revision.type) for revision in revisions))


def _steps(blobs: Sequence[BlobFile]) -> Iterator[list[BlobFile]]:
    """Blobs to verify, a step's worth at a time, in order."""
    step: list[BlobFile] = []
    for blob in blobs:
        if step and sum(one.size_bytes for one in step) + blob.size_bytes > VERIFY_BYTES:
            yield step
            step = []
        step.append(blob)
    if step:
        yield step
