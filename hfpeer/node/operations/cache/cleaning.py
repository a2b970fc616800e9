"""Cleans the cache of a node: finds what a request means, asks peers for copies, and removes what may go."""

from __future__ import annotations

import os
from collections import Counter
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
    Kept,
    Leftover,
    RevisionKey,
)
from hfpeer.cache.cleaning.planning.eviction import (
    Budget,
    disk_bytes,
    enough,
    evicted,
    first_steps,
    freed_bytes,
    least_recently_used,
    used_bytes,
)
from hfpeer.cache.cleaning.planning.plan import Facts, FileStep, Plan, chosen, garbage, key_of, only, pruned, steps_of
from hfpeer.cache.cleaning.planning.protection import Care, Copies, lost_to_peers, protected
from hfpeer.cache.cleaning.planning.requests import Target
from hfpeer.cache.disk.os_errors import free_bytes
from hfpeer.cache.store import Store
from hfpeer.config.paths import xet_cache
from hfpeer.config.settings import Settings
from hfpeer.control.operations import CleanRequest
from hfpeer.errors import InvalidName, NotFound, StorageError
from hfpeer.names import Digest, RepoId
from hfpeer.node.operations.adding.room import Evicted
from hfpeer.peers.copies import CopyQuestions, PeersCopies
from hfpeer.peers.discovery.discovery import addresses_now
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.resolver.resolver import Resolver
from hfpeer.system.cancellation import in_thread

SLACK_BYTES = 64 * 1024 * 1024
"""So near a bound the disk is looked at; before, the catalog's count of bytes is enough."""
REASONS = {
    "pinned": "pinned",
    "in_use": "in use",
    "last_copy": "without another copy on the LAN",
    "unknown_copies": "perhaps without another copy on the LAN",
    "only_copy": "that no hub and no peer has",
}
"""Why a revision stays, for people."""
REMNANTS = (ORPHAN, LOST, STALE_LIST, DANGLING_REF)
"""The remnants that an interrupted removal leaves of a revision."""


@dataclass(frozen=True)
class CleaningParts:
    """The parts of a node that cleaning uses. `neighbourhood` is None in a node without peers, which asks only the
    configured ones then; `busy` tells the repos with an add under way; `scanned` waits for the first scan."""

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
        settings = parts.settings
        self._budget = Budget(settings.max_cache_bytes, settings.min_free_bytes, settings.evicts_last_copies)

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
            plan = protected(plan, facts, copies, Care(is_forced=request.is_forced))
            report = await self._carry_out(request, plan, facts, sentence, missing)
        if request.collects_garbage and self._parts.settings.has_budget:
            more, _ = await self._evict(0, is_dry_run=request.is_dry_run)
            report = _joined(report, more)
        return report

    async def make_room(self, coming_bytes: int = 0) -> Evicted:
        """Removes garbage and the least recently used revisions, until the cache keeps its budget with `coming_bytes`
        more, or until nothing more may go."""
        budget, room = self._budget, SLACK_BYTES + self._budget.slack_bytes()
        known_bytes, free = await in_thread(self._store.known_bytes), await in_thread(free_bytes, self._store.cache)
        if not budget.excess_bytes(known_bytes, free, coming_bytes + room):
            return Evicted(known_bytes)
        await self._look()
        _, evicted = await self._evict(coming_bytes, is_dry_run=False)
        return evicted

    async def _evict(self, coming_bytes: int, *, is_dry_run: bool) -> tuple[CleanReport, Evicted]:
        """The same, in the order of use. The peers are asked about as many revisions as are needed, and about more if
        some of these must stay."""
        await in_thread(self._store.note_uses)
        facts = await in_thread(self._facts)
        used, free = used_bytes(facts), await in_thread(free_bytes, self._store.cache)
        excess = self._budget.excess_bytes(used, free, coming_bytes)
        if not excess:
            return CleanReport(is_dry_run, (), (), 0), Evicted(used)
        wanted = excess + self._budget.slack_bytes()
        order, leftovers = least_recently_used(facts), garbage(facts).leftovers
        care = Care(is_automatic=True, takes_last_copies=self._budget.takes_last_copies)
        count = enough(order, facts, wanted - disk_bytes(leftovers))
        while True:
            plan = evicted(facts, order[:count], leftovers)
            digests = [Digest.parse(digest) for digest in lost_to_peers(plan, facts)]
            async with self._copies(digests, removes=not is_dry_run) as (copies, sentence):
                plan = protected(plan, facts, copies, care)
                if freed_bytes(plan, facts) >= wanted or count >= len(order):
                    plan = first_steps(plan, facts, wanted)
                    report = await self._carry_out(CleanRequest(is_dry_run=is_dry_run), plan, facts, sentence, ())
                    break
            count = min(len(order), 2 * count + 1)
        lacking = max(0, excess - report.freed_bytes)
        return report, Evicted(used - report.freed_bytes, lacking, sentence=_why_kept(report.kept) if lacking else "")

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
        return self._store.cleaner.facts(self._store.readers.read_now(), self._parts.busy(), self._store.pins.all())

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
            yield Copies(answer.peers, answer.answered, answer.held), self._sentence(digests, answer)

    @asynccontextmanager
    async def _neighbourhood(self) -> AsyncIterator[Neighbourhood | None]:
        """The peers to ask: without a daemon those that are configured."""
        parts = self._parts
        if parts.neighbourhood is not None or not parts.settings.peers:
            yield parts.neighbourhood
            return
        configured = Neighbourhood(parts.node_id, await addresses_now(parts.settings), gossips=False)
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


def _joined(first: CleanReport, second: CleanReport) -> CleanReport:
    """Two reports as one; a step that both name counts once."""
    known = {step.id for step in first.steps}
    more = [step for step in second.steps if step.id not in known]
    return replace(
        first,
        steps=(*first.steps, *more),
        kept=tuple(dict.fromkeys((*first.kept, *second.kept))),
        freed_bytes=first.freed_bytes + sum(step.freed_bytes for step in more),
        lan=first.lan or second.lan,
        left=(*first.left, *second.left),
    )


def _why_kept(kept: Collection[Kept]) -> str:
    """`Revisions that stay: 3 pinned, 1 in use.`"""
    counts = Counter(one.reason for one in kept if one.kind == "revision")
    words = [f"{number:,} {REASONS.get(reason, reason)}" for reason, number in counts.most_common()]
    return f"Revisions that stay: {', '.join(words)}." if words else ""


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
