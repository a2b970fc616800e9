"""The background duties of a daemon: scan the cache, verify it, keep its budget, check its visibility, fetch manifests,
announce it.

Each duty has a loop of its own. It works in small steps, so that it does not delay users. A failure is logged and tried
again in the next round; users do not see it. No duty fetches files that no user asked for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

from hfpeer.cache.index.inventory import BlobFile
from hfpeer.cache.store import Store
from hfpeer.errors import AccessDenied, CorruptData, HfpeerError, NotFound, RevisionNotFound, Unreachable
from hfpeer.names import Commit, RepoId
from hfpeer.net.tasks import end_tasks
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.system.cancellation import in_thread
from hfpeer.upstream.upstreams import Upstreams

SCAN_SECONDS = 30.0
BUSY_SCAN_SECONDS = 60.0
"""The same while a fetch runs: it changes its repo all the time, and records by itself what it brings."""
VERIFY_SECONDS = 5.0
VERIFY_FILES, VERIFY_BYTES = 64, 4 * 1024 * 1024
"""At most this many files, or bytes of several files, are verified in one step."""
INTRODUCE_SECONDS = 300.0
RETRY_SECONDS = 30.0
ANNOUNCE_SECONDS = 1.0
SWEEP_SECONDS = 3600.0
BUDGET_SECONDS = 30.0
MAX_SILENT = 3
"""After this many visibility checks in a row without an answer, the others wait for the next round."""
MAX_AT_ONCE = 50
"""At most this many visibility checks of one round go out without a pause."""
SPREAD_SECONDS = 0.5
"""Seconds between two visibility checks of one round after the first MAX_AT_ONCE."""

_log = logging.getLogger(__name__)


class Upkeep:
    """Runs the duties. `announce` is called with the generation of the catalog after each change, `keep_budget` now and
    then. A partial that was not touched in `partial_days` of running is deleted; with 0 none is. `is_fetching` tells
    whether a fetch runs."""

    def __init__(
        self,
        store: Store,
        upstreams: Upstreams,
        visibility_checks: VisibilityChecker,
        announce: Callable[[int], Awaitable[None]],
        keep_budget: Callable[[], Awaitable[None]] | None = None,
        *,
        partial_days: float,
        is_fetching: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle_seconds = partial_days * 86400 if partial_days else math.inf
        self._store = store
        self._upstreams = upstreams
        self._visibility_checks = visibility_checks
        self._announce = announce
        self._keep_budget = keep_budget
        self._announced: int | None = None
        self._clock = clock
        self._swept_at = clock()
        self._is_fetching = is_fetching
        self._scanned_at = -math.inf
        self._tasks: list[asyncio.Task[None]] = []
        self._scanned = asyncio.Event()
        self._has_news = asyncio.Event()

    def start(self) -> None:
        self._visibility_checks.on_silence = self._has_news.set
        duties = (
            (self._scan, SCAN_SECONDS),
            (self._verify, VERIFY_SECONDS),
            (self._introduce, RETRY_SECONDS),
            (self._announce_changes, ANNOUNCE_SECONDS),
            (self._sweep, SWEEP_SECONDS),
            (self._note_uses, BUDGET_SECONDS),
        )
        self._tasks = [
            asyncio.create_task(self._supervise(duty, seconds), name=duty.__name__) for duty, seconds in duties
        ]

    async def stop(self) -> None:
        await end_tasks(self._tasks)

    async def scanned(self) -> None:
        """Waits until the first scan of the cache has ended."""
        await self._scanned.wait()

    async def _supervise(self, duty: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await duty()
            except HfpeerError as error:
                _log.info("%s: %s", duty.__name__, error.message)
            except Exception:  # noqa: BLE001  a duty must outlive every error
                _log.exception("%s failed", duty.__name__)
            await asyncio.sleep(seconds)

    async def _scan(self) -> None:
        if self._is_fetching() and self._clock() - self._scanned_at < BUSY_SCAN_SECONDS:
            return
        try:
            result = await in_thread(self._store.scan)
            self._scanned_at = self._clock()
            if result.changed_repos or not self._scanned.is_set():
                self._has_news.set()
        finally:
            self._scanned.set()

    async def _sweep(self) -> None:
        """Counts how long leftovers have not been touched. It uses the monotonic clock, because the system clock may
        jump."""
        await self._scanned.wait()
        now = self._clock()
        ran_seconds, self._swept_at = now - self._swept_at, now
        await in_thread(self._store.leftovers.sweep, ran_seconds, self._idle_seconds)

    async def _note_uses(self) -> None:
        """Writes down what was read, and keeps the cache within its budget."""
        await self._scanned.wait()
        await in_thread(self._store.note_uses)
        if self._keep_budget is not None:
            await self._keep_budget()

    async def _verify(self) -> None:
        await self._scanned.wait()
        while blobs := await asyncio.to_thread(self._store.inventory.unverified, VERIFY_FILES):
            for step in _steps(blobs):
                for blob in await in_thread(self._store.inventory.verify_all, step):
                    _log.warning("%s does not hash to its name; it is not shared", blob.path)

    async def _introduce(self) -> None:
        """Checks the visibility of cached commits, and fetches manifests for commits that other tools downloaded.

        Runs soon after a scan has found something, after an upstream can be reached again, and every
        INTRODUCE_SECONDS.
        """
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._has_news.wait(), INTRODUCE_SECONDS)
        self._has_news.clear()
        try:
            await self._check_visibility()
            await self._fetch_manifests()
        except HfpeerError:
            self._has_news.set()
            raise

    async def _check_visibility(self) -> None:
        """Checks every commit that is due. Not a commit that was published here, but those that it was made of."""
        silent = checked = 0
        for repo, commit in await asyncio.to_thread(self._to_check):
            if not await self._visibility_checks.is_due(repo, commit):
                continue
            if (checked := checked + 1) > MAX_AT_ONCE:
                await asyncio.sleep(SPREAD_SECONDS)
            try:
                await self._visibility_checks.check(repo, commit)
                silent = 0
            except Unreachable:
                silent += 1
                if silent == MAX_SILENT:
                    raise

    async def _fetch_manifests(self) -> None:
        """Fetches the manifests, with proof, of shared revisions that other tools downloaded: peers need the proof."""
        for revision in await asyncio.to_thread(self._store.revisions.all):
            repo, commit = RepoId.parse(revision.repo, revision.type), Commit(revision.commit)
            known = await asyncio.to_thread(self._store.manifests.load, repo, commit)
            if not revision.is_shared or known is not None:
                continue
            try:
                manifest, name = await self._upstreams.manifest(repo, commit)
            except (NotFound, AccessDenied) as error:
                if not isinstance(error, RevisionNotFound):
                    self._visibility_checks.note_refusal(repo)
                continue
            except CorruptData:
                continue
            origin, openly = self._upstreams.is_origin(name), self._upstreams.gives_openly(name)
            await asyncio.to_thread(self._store.save_manifest, manifest, is_of_origin=origin, is_given=openly)

    async def _announce_changes(self) -> None:
        generation = self._store.generation
        if generation != self._announced:
            await self._announce(generation)
            self._announced = generation

    def _to_check(self) -> list[tuple[RepoId, Commit]]:
        shared, found = self._store.shared, []
        for revision in self._store.revisions.all():
            repo, commit = RepoId.parse(revision.repo, revision.type), Commit(revision.commit)
            if not shared.is_published(repo, commit):
                found.append((repo, commit))
            for source, of in shared.made_of(repo, commit):
                if of is not None and not shared.is_published(source, of):
                    found.append((source, of))
        return list(dict.fromkeys(found))


def _steps(blobs: Sequence[BlobFile]) -> Iterator[list[BlobFile]]:
    """Splits blobs into steps of at most VERIFY_FILES and VERIFY_BYTES, in order."""
    step: list[BlobFile] = []
    for blob in blobs:
        if step and sum(one.size_bytes for one in step) + blob.size_bytes > VERIFY_BYTES:
            yield step
            step = []
        step.append(blob)
    if step:
        yield step
