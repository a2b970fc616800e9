"""Cleans the cache of a node: finds what a request means, asks peers for copies, and removes what may go."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from hfpeer.cache.cleaning.facts import (
    DANGLING_REF,
    LOCK,
    LOST,
    ORPHAN,
    PARTIAL,
    STALE_LIST,
    CacheReport,
    CleanReport,
    Leftover,
    RevisionKey,
)
from hfpeer.cache.cleaning.plan import Facts, FileStep, Plan, chosen, garbage, key_of, only, pruned, steps_of
from hfpeer.cache.cleaning.protection import Copies, lost_to_peers, protected
from hfpeer.cache.cleaning.requests import Target
from hfpeer.cache.store import Store
from hfpeer.config.paths import xet_cache
from hfpeer.config.settings import Settings
from hfpeer.control.operations import CleanRequest
from hfpeer.errors import InvalidName, NotFound, StorageError
from hfpeer.names import Digest, RepoId
from hfpeer.peers.copies import CopyQuestions, PeersCopies
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.resolver.resolver import Resolver
from hfpeer.system.cancellation import in_thread

REMNANTS = (ORPHAN, LOST, STALE_LIST, DANGLING_REF)
"""What an interrupted removal leaves of a revision."""


@dataclass(frozen=True)
class CleaningParts:
    """What cleaning uses of a node. `neighbourhood` is None in a node without peers, which only the configured ones are
    asked for then; `busy` tells the repos with an add under way; `scanned` waits for the first scan."""

    settings: Settings
    store: Store
    resolver: Resolver
    questions: CopyQuestions
    neighbourhood: Neighbourhood | None
    node_id: str
    busy: Callable[[], Collection[str]]
    scanned: Callable[[], Awaitable[object]]


class CleaningOperations:
    """Belongs to the node's event loop."""

    def __init__(self, parts: CleaningParts) -> None:
        self._parts = parts
        self._store = parts.store

    async def report(self) -> CacheReport:
        """See `Operations.cache_report`."""
        await self._look()
        xet = xet_cache(self._store.cache, os.environ)
        beside = [("datasets", self._parts.settings.datasets_cache), *([("xet", xet)] if xet else [])]
        beside += [("only read", cache) for cache in self._store.caches.present[1:]]
        return await in_thread(self._store.cleaner.report, beside)

    async def clean(self, request: CleanRequest) -> CleanReport:
        """See `Operations.clean`."""
        await self._look()
        facts = await in_thread(self._facts)
        plan, missing = await self._plan(request, facts)
        if request.only is not None:
            plan = only(plan, request.only)
        digests = [Digest.parse(digest) for digest in lost_to_peers(plan, facts)]
        async with self._copies(digests, removes=not request.is_dry_run) as (copies, sentence):
            plan = protected(plan, facts, copies, is_forced=request.is_forced)
            return await self._carry_out(request, plan, facts, sentence, missing)

    async def _carry_out(
        self, request: CleanRequest, plan: Plan, facts: Facts, lan: str, missing: tuple[str, ...]
    ) -> CleanReport:
        if request.is_dry_run:
            steps = steps_of(plan, facts)
            report = CleanReport(True, steps, plan.kept, sum(step.freed_bytes for step in steps), lan, (), missing)
        else:
            done = await in_thread(self._store.cleaner.carry_out, plan, facts)
            report = CleanReport(False, done.steps, (*plan.kept, *done.kept), done.freed_bytes, lan, done.left, missing)
        if request.collects_garbage:
            step = await in_thread(lambda: self._store.cleaner.collect_catalog(is_dry_run=request.is_dry_run))
            report = replace(report, steps=(*report.steps, *([step] if step else ())))
        return report

    async def _look(self) -> None:
        await self._parts.scanned()
        await in_thread(self._store.scan_blobs, None)

    def _facts(self) -> Facts:
        return self._store.cleaner.facts(self._store.readers.read_now(), self._parts.busy())

    # What goes

    async def _plan(self, request: CleanRequest, facts: Facts) -> tuple[Plan, tuple[str, ...]]:
        """The plan, and the words that name nothing. Raises NotFound if that is all of them."""
        if request.prune is not None:
            return pruned(facts, request.prune), ()
        if request.collects_garbage:
            return garbage(facts), ()
        finder = _Finder(self._store, self._parts.resolver, facts)
        missing = [target.word for target in request.targets if not await finder.find(target)]
        if missing and len(missing) == len(request.targets):
            self._refuse_other_caches(request)
            raise NotFound(
                f"Not in the cache: {', '.join(missing)}.",
                hint="`hfpeer cache ls --revisions` lists what is.",
                words=missing,
            )
        plan = chosen(facts, finder.revisions, finder.files, finder.leftovers, finder.whole_repos, finder.remnants)
        return plan, tuple(missing)

    def _refuse_other_caches(self, request: CleanRequest) -> None:
        """Raises StorageError for a repo in a cache folder that is only read."""
        for repo in (repo for target in request.targets for repo in target.repos):
            caches = self._store.cleaner.only_elsewhere(repo)
            if caches:
                raise StorageError(
                    f"{repo} is in {', '.join(caches)} only, and this node does not write there.",
                    hint="Remove it there by hand, or `hfpeer conf cache rm DIR` if it should not be seen any more.",
                    repo=str(repo),
                    caches=caches,
                )

    # Copies at peers

    @asynccontextmanager
    async def _copies(self, digests: list[Digest], *, removes: bool) -> AsyncIterator[tuple[Copies, str]]:
        async with (
            self._neighbourhood() as neighbourhood,
            self._parts.questions.asked(neighbourhood, digests, removes=removes) as answer,
        ):
            yield Copies(answer.peers, answer.answered, set(map(str, answer.held))), self._sentence(digests, answer)

    @asynccontextmanager
    async def _neighbourhood(self) -> AsyncIterator[Neighbourhood | None]:
        """The peers to ask: without a daemon those that are configured."""
        parts = self._parts
        if parts.neighbourhood is not None or not parts.settings.peers:
            yield parts.neighbourhood
            return
        configured = Neighbourhood(parts.node_id, parts.settings.peers, gossips=False)
        await configured.start()
        try:
            yield configured
        finally:
            await configured.stop()

    def _sentence(self, digests: Collection[Digest], answer: PeersCopies) -> str:
        if not digests:
            return ""
        is_daemon = self._parts.neighbourhood is not None
        without = "" if is_daemon else " No daemon runs here: only configured peers can be asked."
        if not answer.peers:
            return f"No peer is known, so no copy elsewhere was looked for.{without}"
        if not answer.answered:
            return f"Unknown: no peer answers ({answer.peers} known).{without}"
        return f"{answer.answered} of {answer.peers} known peers answered.{without}"


class _Finder:
    """Finds what words mean in a cache."""

    def __init__(self, store: Store, resolver: Resolver, facts: Facts) -> None:
        self._store = store
        self._resolver = resolver
        self._facts = facts
        self._keys = [key_of(one) for one in facts.revisions]
        self.revisions: list[RevisionKey] = []
        self.files: list[FileStep] = []
        self.leftovers: list[Leftover] = []
        self.whole_repos: list[str] = []
        self.remnants: list[RevisionKey] = []

    async def find(self, target: Target) -> bool:
        """Adds what a target means. Returns whether it is here. Raises InvalidName for a word with several meanings."""
        repo = next((repo for repo in target.repos if self._is_here(repo)), None)
        if repo is None:
            return bool(target.hex) and self._find_hex(target)
        if target.revision is None:
            keys = [key for key in self._keys if key[0] == repo.folder]
        else:
            try:
                commit = (await self._resolver.commits.resolve_cached(repo, target.revision)).commit
            except NotFound:
                return False
            keys = [key for key in self._keys if key == (repo.folder, commit)]
            if not keys and not target.files:  # an earlier removal was interrupted after its links were gone
                self.remnants.append((repo.folder, commit))
                return self._take(one for one in self._of(repo) if one.wanted_by == commit)
        if target.files:
            found = [one for key in keys for one in self._store.cleaner.files(key, target.files)]
            self.files += found
            return bool(found)
        self.revisions += keys
        if target.revision is None:
            self.whole_repos.append(repo.folder)
            self.leftovers += [one for one in self._facts.leftovers if one.repo == str(repo) and one.kind != LOCK]
        return True

    def _is_here(self, repo: RepoId) -> bool:
        is_left = any(one.repo == str(repo) and one.kind == PARTIAL for one in self._facts.leftovers)
        return is_left or os.path.lexists(self._store.cache / repo.folder)

    def _of(self, repo: RepoId) -> Iterable[Leftover]:
        return (one for one in self._facts.leftovers if one.repo == str(repo) and one.kind in REMNANTS)

    def _find_hex(self, target: Target) -> bool:
        """A commit, or a blob of no revision, by its first digits."""
        keys = [key for key in self._keys if key[1].startswith(target.hex)]
        left = [one for one in self._facts.leftovers if one.digest.partition(":")[2].startswith(target.hex)]
        commits = {commit for _, commit in keys}
        if len(commits) + len({one.digest for one in left}) > 1:
            names = [*(f"{folder}@{commit}" for folder, commit in keys), *(one.digest for one in left)]
            raise InvalidName(
                f"{target.word} can mean several things: {', '.join(names)}.", hint="Write more digits.", names=names
            )
        self.revisions += keys
        return self._take(left) or bool(keys)

    def _take(self, leftovers: Iterable[Leftover]) -> bool:
        found = list(leftovers)
        self.leftovers += found
        return bool(found)
