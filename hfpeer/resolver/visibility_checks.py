"""Asks the origins about the visibility of commits, without a token, and keeps their answers with the date.

`trust.visibility` has the rule of what follows from the answers; this module decides when to ask. Peers are never
asked, and mirrors only if the owner allows it or the mirror knows the name already. A request without an answer changes
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator

from hfpeer.cache.store import Store
from hfpeer.errors import HfpeerError, HubUnreachable
from hfpeer.names import Commit, RepoId, Visibility
from hfpeer.net.lru_cache import LruCache
from hfpeer.net.singleflight import SingleFlight
from hfpeer.net.tasks import end_tasks
from hfpeer.trust.visibility import Fact, Verdict, is_due
from hfpeer.upstream.upstreams import Upstreams

SILENT_SECONDS = 5.0
"""Seconds without another request about a repo after the origins did not answer one."""
REFUSAL_SECONDS = 30.0
"""Seconds between two checks of a repo because of refusals, unless an answer changed something. A refusal that comes
sooner starts a check at their end."""
MAX_REPOS_NOTED = 1000
"""At most this many repos are remembered for a refusal, and as many for silent origins."""

_log = logging.getLogger(__name__)
_Key = tuple[RepoId, "Commit | None"]


class VisibilityChecker:
    """Checks for one node. Belongs to its event loop. `clock` gives seconds since the epoch."""

    def __init__(
        self, store: Store, upstreams: Upstreams, *, asks_mirrors: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._asks_mirrors = asks_mirrors
        self._clock = clock
        self._checks: SingleFlight[_Key, Verdict] = SingleFlight()
        self._turns: dict[RepoId, tuple[asyncio.Lock, int]] = {}
        self._refused_at: LruCache[RepoId, float] = LruCache(MAX_REPOS_NOTED)
        self._refusal_checks: set[asyncio.Task[None]] = set()
        self._delayed_checks: set[asyncio.Task[None]] = set()
        self._silent: LruCache[RepoId, tuple[float, HfpeerError]] = LruCache(MAX_REPOS_NOTED)
        self.changes = 0
        """Grows with every answer that differs from the one before."""
        self.on_silence: Callable[[], None] = _ignore
        """Is called after every check without an answer."""

    async def stop(self) -> None:
        """Ends the checks under way."""
        await end_tasks([*self._delayed_checks, *self._refusal_checks])
        await self._checks.stop()

    def begin(
        self, repo: RepoId, commit: Commit | None, *, asks_mirrors: bool = False, is_urgent: bool = False
    ) -> asyncio.Task[Verdict]:
        """The task that checks a commit, or the head of a repo; it may be running already. Do not cancel it.

        Its result is the verdict after the check. It raises HubUnreachable when no origin answers and, unless it
        `is_urgent`, when none answered in the last SILENT_SECONDS.
        """
        if is_urgent:
            self._silent.drop(repo)
        asks_mirrors = asks_mirrors or self._asks_mirrors
        return self._checks.begin((repo, commit), lambda: self._check(repo, commit, asks_mirrors))

    async def check(self, repo: RepoId, commit: Commit | None) -> Verdict:
        """The verdict on a commit after the origins were asked. Raises HubUnreachable."""
        return await asyncio.shield(self.begin(repo, commit))

    async def is_due(self, repo: RepoId, commit: Commit) -> bool:
        """Whether an origin was never asked about a commit, or not in the last day. No hub has a repo of prepared sets,
        so none is asked about one."""
        if repo.is_of_sets:
            return False
        facts = await asyncio.to_thread(self._store.facts, repo)
        return is_due(facts, commit, [origin.endpoint for origin in self._upstreams.origins], self._clock())

    def note_refusal(self, repo: RepoId) -> None:
        """Starts a check because an upstream refused something of a repo: the cached files may be private now."""
        now = time.monotonic()
        last_at = self._refused_at.get(repo)
        begins_at = now if last_at is None else max(now, last_at + REFUSAL_SECONDS)
        if begins_at - now > REFUSAL_SECONDS or len(self._delayed_checks) >= MAX_REPOS_NOTED:
            return  # a delayed check is waiting already
        self._refused_at.put(repo, begins_at)
        tasks = self._refusal_checks if begins_at == now else self._delayed_checks
        task = asyncio.create_task(self._check_refused(repo, begins_at - now))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def note_public(self, repo: RepoId, commits: Iterable[Commit], origin_name: str) -> None:
        """Records that an origin has just given these commits to a caller without a token."""
        urls = [origin.endpoint for origin in self._upstreams.origins if origin.name == origin_name]
        now = self._clock()
        await self._learn(repo, [Fact(commit, url, True, Visibility.PUBLIC, now) for commit in commits for url in urls])

    async def wait_for_refusal_checks(self, seconds: float) -> None:
        """Waits until the checks that refusals started have ended, at most this many seconds. Delayed ones do not
        count."""
        if self._refusal_checks:
            await asyncio.wait(list(self._refusal_checks), timeout=seconds)

    async def _learn(self, repo: RepoId, facts: list[Fact]) -> None:
        if await asyncio.to_thread(self._store.learn, repo, facts, self._upstreams.endpoints):
            self.changes += 1
            # The next refusal may be due to another change, so it starts a check at once.
            self._refused_at.drop(repo)

    async def _check_refused(self, repo: RepoId, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        with contextlib.suppress(HfpeerError):
            revisions = await asyncio.to_thread(self._store.revisions.of, repo)
            if revisions:
                await self.check(repo, Commit(revisions[0].commit))

    async def _check(self, repo: RepoId, commit: Commit | None, asks_mirrors: bool) -> Verdict:
        until, silence = self._silent.get(repo) or (0.0, None)
        if silence is not None and time.monotonic() < until:
            raise HubUnreachable(silence.message, hint=silence.hint)
        with self._turn(repo) as turn:
            # Requests about one repo go one after the other, so the last answer is the newest.
            async with turn:
                asked_at = self._clock()
                try:
                    answers = await self._upstreams.visibility(repo, commit, asks_mirrors=asks_mirrors)
                except HubUnreachable as error:
                    self._silent.put(repo, (time.monotonic() + SILENT_SECONDS, error))
                    self.on_silence()
                    raise
                self._silent.drop(repo)
                facts = [
                    Fact(answer.commit, answer.hub, answer.is_origin, answer.visibility, asked_at) for answer in answers
                ]
                described = ", ".join(f"{fact.visibility.value} says {fact.hub}" for fact in facts)
                _log.info("visibility of %s at %s: %s", repo, (commit or "its head")[:12], described)
                await self._learn(repo, facts)
        return await asyncio.to_thread(self._store.shared.verdict, repo, commit)

    @contextlib.contextmanager
    def _turn(self, repo: RepoId) -> Iterator[asyncio.Lock]:
        """The lock of a repo; it is dropped with its last user."""
        lock, users = self._turns.get(repo, (asyncio.Lock(), 0))
        self._turns[repo] = lock, users + 1
        try:
            yield lock
        finally:
            lock, users = self._turns[repo]
            self._turns[repo] = lock, users - 1
            if users == 1:
                del self._turns[repo]


def _ignore() -> None:
    """The default `on_silence`."""
