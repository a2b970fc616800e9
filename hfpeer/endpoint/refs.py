"""What names mean: the commit behind a branch or tag, and all the refs of a repo.

A name is asked of the hubs again after a while; when nobody can be asked, the newest answer is given with its age, or
refused, as the owner wishes. Must never pass an old answer off as a current one. Whether the caller may know is not
asked here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hfpeer.cache.store import Store
from hfpeer.endpoint.acting import ActingHubs
from hfpeer.endpoint.answers import Json
from hfpeer.endpoint.callers import Caller
from hfpeer.endpoint.facts import Facts
from hfpeer.endpoint.kept import KeptAnswers
from hfpeer.endpoint.once import Once, Recent
from hfpeer.errors import HfpeerError, HubUnreachable, InvalidName, NotFound, Unreachable
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.resolving import Resolution, Resolver

MAX_REFS = 10_000
MAX_NOTED = 200
"""So many refs of a listing of all of them are noted."""
PATIENCE_SECONDS = 4.0
"""How long the hubs may take to say what a name means, where an old answer is known: clients wait ten seconds."""
OUTAGE_SECONDS = 10.0
"""How long an old answer is given before the hubs are tried again."""
_NO_COMMIT = Commit("0" * 40)


@dataclass(frozen=True)
class AllRefs:
    """All refs of a repo, as the Hub lists them. They are not current when no hub could be asked."""

    document: Json
    age_seconds: float
    is_current: bool = True


class Refs:
    """Belongs to one event loop. An answer holds for `hold_seconds`; `gives_old`: the owner allows old ones."""

    def __init__(
        self,
        store: Store,
        resolver: Resolver,
        hubs: ActingHubs,
        kept: KeptAnswers,
        facts: Facts,
        once: Once,
        *,
        hold_seconds: float,
        gives_old: bool,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._hubs = hubs
        self._kept = kept
        self._facts = facts
        self._once = once
        self._hold_seconds = hold_seconds
        self._gives_old = gives_old
        self._known: Recent[tuple[RepoId, Revision], tuple[float, Resolution]] = Recent(MAX_REFS)
        self._written: Recent[tuple[RepoId, Revision], Commit] = Recent(MAX_REFS)

    # One name

    async def resolve(self, caller: Caller, repo: RepoId, revision: Revision) -> tuple[Resolution, float | None]:
        """What a revision means, and when it was asked (on the monotonic clock; None when nobody had to be).

        Raises RepoNotFound, RevisionNotFound, and HubUnreachable when nobody knows or only an old answer is known.
        """
        if revision.is_commit:
            return Resolution(Commit(revision), "the commit id itself"), None
        known = self._known.get((repo, revision))
        if known is not None and time.monotonic() - known[0] < self._lifetime(known[1]):
            return self._unless_too_old(repo, revision, known[1]), known[0]
        if await asyncio.to_thread(self._store.is_published, repo):
            return await self._resolver.local_commit(repo, revision), None
        asking = self._once.begin((repo, revision, caller.fingerprint), lambda: self._ask(caller, repo, revision))
        await asyncio.wait([asking], timeout=PATIENCE_SECONDS)
        if not asking.done():
            remembered = await self._resolver.remembered(repo, revision, asks_peers=True)
            if remembered is not None:
                return self._unless_too_old(repo, revision, remembered), time.monotonic()
        resolution = await asyncio.shield(asking)
        return self._unless_too_old(repo, revision, resolution), time.monotonic()

    def _lifetime(self, resolution: Resolution) -> float:
        if resolution.age_seconds is None:
            return self._hold_seconds
        return min(OUTAGE_SECONDS, self._hold_seconds)

    def _unless_too_old(self, repo: RepoId, revision: Revision, resolution: Resolution) -> Resolution:
        if resolution.age_seconds is None or self._gives_old:
            return resolution
        raise HubUnreachable(
            f"No hub says what {revision} of {repo} is now; it was {resolution.commit.short} "
            f"{resolution.age_seconds:.0f} s ago.",
            hint=f"Ask for {resolution.commit}, or allow old answers: hfpeer conf set endpoint.stale_refs serve.",
        )

    async def _ask(self, caller: Caller, repo: RepoId, revision: Revision) -> Resolution:
        """Asks the hubs, which tell all about the repo with it; else whoever remembers."""
        try:
            told, name = await self._hubs.of(caller).answer(repo, f"/revision/{quote(revision, safe='')}", revision)
            commit = Commit.parse(str(told.document.get("sha")))
        except (Unreachable, InvalidName, AttributeError) as error:
            remembered = await self._resolver.remembered(repo, revision, asks_peers=True)
            if remembered is None:
                raise error if isinstance(error, HfpeerError) else HubUnreachable("A hub answers nonsense.") from error
            resolution = remembered
        else:
            await asyncio.to_thread(self._remember, repo, revision, commit, name, told.document)
            resolution = Resolution(commit, name)
        self._known.put((repo, revision), (time.monotonic(), resolution))
        return resolution

    def _remember(self, repo: RepoId, revision: Revision, commit: Commit, name: str, document: Json) -> None:
        self._store.write_ref(repo, revision, commit, name)
        self._facts.keep(repo, commit, document)

    async def write(self, repo: RepoId, commit: Commit) -> None:
        """Files of a commit have come into the cache: the names that led to it can be written beside them now."""
        for key, (_, resolution) in self._known.items():
            if key[0] == repo and resolution.commit == commit and self._written.get(key) != commit:
                self._written.put(key, commit)
                await asyncio.to_thread(self._store.write_ref, *key, commit, resolution.answered_by)

    async def forget(self, repo: RepoId) -> None:
        """Somebody may have changed the repo through here: what its names mean is asked again."""
        for key in [key for key, _ in self._known.items() if key[0] == repo]:
            self._known.drop(key)
        kept = await asyncio.to_thread(self._kept.load, repo, _NO_COMMIT, "refs")
        if kept:
            await asyncio.to_thread(self._kept.save, repo, _NO_COMMIT, "refs", {**kept, "is_old": True})

    # All of them

    async def all(self, caller: Caller, repo: RepoId, *, asks_anew: bool = False) -> AllRefs:
        """All refs of a repo; with `asks_anew` whatever is remembered.

        Raises RepoNotFound, and HubUnreachable when nobody knows any.
        """
        key = ("refs", repo, caller.fingerprint, asks_anew)
        return await self._once.ask(key, lambda: self._ask_all(caller, repo, asks_anew))

    async def _ask_all(self, caller: Caller, repo: RepoId, asks_anew: bool) -> AllRefs:
        kept = await asyncio.to_thread(self._kept.load, repo, _NO_COMMIT, "refs")
        age = max(0.0, time.time() - kept["at"]) if kept else 0.0
        if kept and not asks_anew and not kept.get("is_old") and age < self._hold_seconds:
            return AllRefs(kept["refs"], age)
        try:
            told, name = await self._hubs.of(caller).answer(repo, "/refs?include_prs=1")
            document = _checked(told.document, name)
        except (Unreachable, NotFound) as error:
            if isinstance(error, NotFound) and not await asyncio.to_thread(self._store.is_published, repo):
                raise
            remembered = await self._remembered(caller, repo, kept)
            if not remembered["branches"]:
                raise
            return AllRefs(remembered, age, is_current=False)
        await asyncio.to_thread(self._kept.save, repo, _NO_COMMIT, "refs", {"at": time.time(), "refs": document})
        await self._note(repo, document, name)
        return AllRefs(document, 0.0)

    async def _note(self, repo: RepoId, document: Json, answered_by: str) -> None:
        """Refs that were told together are known as if each had been asked for; peers are told what main is."""
        for ref in [*document["branches"], *document["tags"]][:MAX_NOTED]:
            with contextlib.suppress(InvalidName):
                revision, commit = Revision.parse(ref["name"]), Commit.parse(ref["targetCommit"])
                self._known.put((repo, revision), (time.monotonic(), Resolution(commit, answered_by)))
                if revision == "main":
                    await asyncio.to_thread(self._store.write_ref, repo, revision, commit, answered_by)

    async def _remembered(self, caller: Caller, repo: RepoId, kept: Json | None) -> Json:
        """The refs that a hub once listed, and those of what is in the cache or was asked for since."""
        moment = kept["at"] if kept else 0.0
        document = kept["refs"] if kept else _checked({}, "nobody")
        newer = await asyncio.to_thread(self._named_since, repo, moment)
        with contextlib.suppress(Unreachable, NotFound):
            # Peers are not asked for all refs, but for what one is: that of which every tool asks.
            main = (await self.resolve(caller, repo, Revision("main")))[0]
            if time.time() - (main.age_seconds or 0.0) >= moment:
                newer["main"] = main.commit
        tags = {tag["name"] for tag in document["tags"]}
        branches = {branch["name"]: branch["targetCommit"] for branch in document["branches"]}
        branches |= {name: newer[name] for name in newer.keys() - tags if not name.startswith("refs/")}
        shown = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit} for n, commit in branches.items()]
        return {**document, "branches": shown}

    def _named_since(self, repo: RepoId, moment: float) -> dict[str, Commit]:
        """What names were after that moment (seconds since the epoch), of those in the cache or asked for."""
        known = {key[1]: resolution.commit for key, (_, resolution) in self._known.items() if key[0] == repo}
        for name in {Revision(name) for revision in self._store.revisions(repo) for name in revision.refs} | set(known):
            told = self._store.read_ref(repo, name)
            if told is not None:
                known[name] = told[0]
                if told[1] <= moment:
                    del known[name]
        return {str(name): commit for name, commit in known.items()}


def _checked(document: Any, hub: str) -> Json:
    """All refs, as a hub lists them. Raises HubUnreachable for what is no such listing."""
    try:
        lists = {kind: list(document.get(kind) or ()) for kind in ("branches", "tags", "converts", "pullRequests")}
        for ref in (ref for refs in lists.values() for ref in refs):
            if not all(isinstance(ref[key], str) for key in ("name", "ref", "targetCommit")):
                raise TypeError
    except (AttributeError, KeyError, TypeError) as error:
        raise HubUnreachable(f"{hub} lists refs that are none.", hint="Try again later.") from error
    return {**document, **lists}
