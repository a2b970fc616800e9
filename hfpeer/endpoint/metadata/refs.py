"""The commit behind a branch or tag, and all refs of a repo.

Upstreams are asked again after `hold_seconds`. If they do not answer, the rule of `precedence` decides, as for a
command. An old answer is given with its age, or refused, as the owner has set; it must never pass for a current one.
The caller must have been admitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hfpeer.cache.store import Store
from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.caller_upstreams import CallerUpstreams
from hfpeer.endpoint.metadata.answer_cache import AnswerCache
from hfpeer.endpoint.metadata.hub_json import Json
from hfpeer.endpoint.metadata.repo_info import RepoInfo
from hfpeer.errors import AccessDenied, HfpeerError, HubUnreachable, InvalidName, NotFound, Unreachable
from hfpeer.names import MAIN, Commit, RepoId, Revision
from hfpeer.net.lru_cache import LruCache
from hfpeer.net.singleflight import SingleFlight
from hfpeer.resolver.commits import CommitResolver, Resolution
from hfpeer.resolver.peer_queries import PeerTrust
from hfpeer.trust.precedence import UpstreamAnswer, Voice, age_seconds, is_newer
from hfpeer.upstream.upstream import ApiResponse

MAX_REFS = 10_000
"""Number of refs that are remembered in memory."""
MAX_NOTED = 200
"""Of a listing of all refs, at most this many are also remembered as single answers."""
PATIENCE_SECONDS = 4.0
"""Seconds for upstreams to resolve a name before an old answer is given. Clients wait ten seconds."""
OUTAGE_SECONDS = 10.0
"""Seconds without another request after upstreams did not answer."""
_NO_COMMIT = Commit("0" * 40)


@dataclass(frozen=True)
class AllRefs:
    """All refs of a repo, in the Hub's JSON.

    They are not current if no upstream answered; then `age_seconds` is None if their age is unknown. `is_complete` if
    an upstream listed them to this caller or to an anonymous one; other refs may be known only because another caller
    has a token.
    """

    document: Json
    age_seconds: float | None
    is_current: bool = True
    is_complete: bool = False


class Refs:
    """Belongs to one event loop. Answers hold for `hold_seconds`. With `gives_old` the owner allows old answers.
    `trust` says what peers may decide."""

    def __init__(
        self,
        store: Store,
        resolver: CommitResolver,
        upstreams: CallerUpstreams,
        cached: AnswerCache,
        repo_info: RepoInfo,
        *,
        hold_seconds: float,
        gives_old: bool,
        trust: PeerTrust,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._upstreams = upstreams
        self._answers = cached
        self._repo_info = repo_info
        self._resolving: SingleFlight[tuple[RepoId, Revision, str], Resolution] = SingleFlight()
        self._listing: SingleFlight[tuple[RepoId, str, bool], AllRefs] = SingleFlight()
        self._hold_seconds = hold_seconds
        self._gives_old = gives_old
        self._trust = trust
        self._named: LruCache[tuple[RepoId, Revision], tuple[float, Resolution]] = LruCache(MAX_REFS)
        self._decided: LruCache[tuple[RepoId, Revision, str], tuple[float, Resolution]] = LruCache(MAX_REFS)
        """Decided by `precedence`, by caller, because upstreams that refuse one caller may answer another."""
        self._written: LruCache[tuple[RepoId, Revision], Commit] = LruCache(MAX_REFS)
        self._listed_at: LruCache[RepoId, tuple[float, float]] = LruCache(MAX_REFS)

    async def stop(self) -> None:
        """Ends the requests under way."""
        await self._resolving.stop()
        await self._listing.stop()

    # One name

    async def resolve(self, caller: Caller, repo: RepoId, revision: Revision) -> tuple[Resolution, float | None]:
        """The commit of a revision, and when it was asked for: monotonic seconds, None for a commit id.

        Raises RepoNotFound, RevisionNotFound, ContestedName, and HubUnreachable if no answer is known, or only an old
        one that the owner does not allow.
        """
        if revision.is_commit:
            return Resolution(Commit(revision), "the commit id itself", Voice.PIN), None
        known = self._named.get((repo, revision)) or self._decided.get((repo, revision, caller.fingerprint))
        if known is not None and time.monotonic() - known[0] < self._lifetime(known[1]):
            return self._checked_age(repo, revision, known[1]), known[0]
        asking = self._resolving.begin(
            (repo, revision, caller.fingerprint), lambda: self._ask_upstreams(caller, repo, revision)
        )
        await asyncio.wait([asking], timeout=PATIENCE_SECONDS)
        if not asking.done():
            late = HubUnreachable("The hubs have not answered yet.", hint="Try again later.")
            with contextlib.suppress(HfpeerError):
                found = await self._without_upstreams(repo, revision, late)
                return self._checked_age(repo, revision, found), time.monotonic()
        resolution = await asyncio.shield(asking)
        return self._checked_age(repo, revision, resolution), time.monotonic()

    def _lifetime(self, resolution: Resolution) -> float:
        if resolution.upstreams is not UpstreamAnswer.SILENT:
            return self._hold_seconds
        return min(OUTAGE_SECONDS, self._hold_seconds)

    def _checked_age(self, repo: RepoId, revision: Revision, resolution: Resolution) -> Resolution:
        if resolution.is_current or self._gives_old:
            return resolution
        when = "once" if resolution.age_seconds is None else f"{resolution.age_seconds:.0f} s ago"
        raise HubUnreachable(
            f"No hub says what {revision} of {repo} is now; it was {resolution.commit.short} {when}.",
            hint=f"Ask for {resolution.commit}, or allow old answers: hfpeer conf set endpoint.stale_refs serve.",
        )

    async def _ask_upstreams(self, caller: Caller, repo: RepoId, revision: Revision) -> Resolution:
        """Asks the upstreams, whose response also has the repo's info; without an answer `precedence` decides."""
        try:
            response, name = await self._upstreams.of(caller).get_api(
                repo, f"/revision/{quote(revision, safe='')}", revision
            )
            commit = Commit.parse(str(response.document.get("sha")))
            await asyncio.to_thread(self._save, repo, revision, commit, response)
        except (Unreachable, NotFound, AccessDenied) as error:
            failure: HfpeerError = error
        except (InvalidName, AttributeError):
            failure = HubUnreachable("A hub returned a malformed answer.", hint="Try again later.")
        else:
            resolution = Resolution(commit, name, Voice.HUB)
            self._named.put((repo, revision), (time.monotonic(), resolution))
            return resolution
        resolution = await self._without_upstreams(repo, revision, failure)
        self._named.drop((repo, revision))
        self._decided.put((repo, revision, caller.fingerprint), (time.monotonic(), resolution))
        return resolution

    async def _without_upstreams(self, repo: RepoId, revision: Revision, error: HfpeerError) -> Resolution:
        """Copies here count only if they are shared, because the caller may not know of the others."""
        return await self._resolver.without_upstreams(repo, revision, error, trust=self._trust, names_unshared=False)

    def _save(self, repo: RepoId, revision: Revision, commit: Commit, response: ApiResponse) -> None:
        self._store.refs.write(repo, revision, commit, response.said_by.name)
        self._repo_info.save(repo, commit, response.document, response.said_by)

    async def write(self, repo: RepoId, commit: Commit) -> None:
        """Writes the refs that resolved to a commit of which files have come into the cache."""
        known = [*self._named.items(), *((key[:2], found) for key, found in self._decided.items())]
        for key, (_, resolution) in known:
            is_fit = resolution.is_of_upstream and key[0] == repo and resolution.commit == commit
            if is_fit and self._written.get(key) != commit:
                self._written.put(key, commit)
                await asyncio.to_thread(self._store.refs.show, *key, commit)

    async def forget(self, repo: RepoId) -> None:
        """Makes the refs of a repo be asked again, because a caller may have changed the repo through here."""
        for key in [key for key, _ in self._named.items() if key[0] == repo]:
            self._named.drop(key)
        for decided in [key for key, _ in self._decided.items() if key[0] == repo]:
            self._decided.drop(decided)
        await asyncio.to_thread(self._mark_old, repo)

    def _mark_old(self, repo: RepoId) -> None:
        for hub in self._upstreams.by_weight:
            cached = self._answers.load(repo, _NO_COMMIT, "refs", hub)
            if cached:
                self._answers.save(repo, _NO_COMMIT, "refs", hub, {**cached, "is_old": True})

    # All of them

    async def all(self, caller: Caller, repo: RepoId, *, asks_anew: bool = False) -> AllRefs:
        """All refs of a repo. With `asks_anew` an upstream is asked even if an answer is fresh.

        Raises RepoNotFound, and HubUnreachable if no ref is known.
        """
        key = (repo, caller.fingerprint, asks_anew)
        return await self._listing.run(key, lambda: self._list(caller, repo, asks_anew))

    async def _list(self, caller: Caller, repo: RepoId, asks_anew: bool) -> AllRefs:
        cached = await asyncio.to_thread(self._load_all, repo)
        age = self._age_of(repo, cached) if cached else None
        is_fresh = age is not None and age < self._hold_seconds and not asks_anew
        if cached and is_fresh and not cached.get("is_old") and cached.get("asked_as") in ("", caller.fingerprint):
            return AllRefs(cached["refs"], age, is_complete=True)
        try:
            response, name = await self._upstreams.of(caller).get_api(repo, "/refs?include_prs=1")
            document = _parsed(response.document, name)
        except Unreachable as error:
            remembered = await self._last_known(repo, cached)
            if remembered["branches"]:
                return AllRefs(remembered, age, is_current=False)
            return await self._main_only(repo, error)
        except (NotFound, AccessDenied) as error:
            return await self._main_only(repo, error)
        asked_at = time.time()
        self._listed_at.put(repo, (asked_at, time.monotonic()))
        listed = {"at": asked_at, "refs": document, "asked_as": caller.fingerprint}
        await asyncio.to_thread(self._answers.save, repo, _NO_COMMIT, "refs", response.said_by, listed)
        await self._note_refs(repo, document, name)
        return AllRefs(document, 0.0, is_complete=True)

    def _load_all(self, repo: RepoId) -> Json | None:
        """The latest cached listing of one of the node's upstreams."""
        now, latest = time.time(), None
        for hub in self._upstreams.by_weight:
            cached = self._answers.load(repo, _NO_COMMIT, "refs", hub)
            is_known = isinstance(cached, dict) and isinstance(cached.get("at"), float)
            if is_known and (latest is None or is_newer(cached["at"], latest["at"], now)):
                latest = cached
        return latest

    def _age_of(self, repo: RepoId, cached: Json) -> float | None:
        """The age of a listing in seconds, by the monotonic clock if this process received it; None if unknown."""
        at, listed_at = self._listed_at.get(repo) or (None, 0.0)
        return time.monotonic() - listed_at if at == cached["at"] else age_seconds(cached["at"], time.time())

    async def _main_only(self, repo: RepoId, error: HfpeerError) -> AllRefs:
        """The branch main alone, as published or as peers say, of a repo that no upstream lists. Raises `error`."""
        main = await self._without_upstreams(repo, MAIN, error)
        document = _parsed({}, "no hub")
        document["branches"] = [{"name": MAIN, "ref": f"refs/heads/{MAIN}", "targetCommit": main.commit}]
        return AllRefs(document, main.age_seconds, is_current=False)

    async def _note_refs(self, repo: RepoId, document: Json, answered_by: str) -> None:
        """Remembers each ref of a listing as a single answer, and writes main, which peers are told."""
        for ref in [*document["branches"], *document["tags"]][:MAX_NOTED]:
            with contextlib.suppress(InvalidName):
                revision, commit = Revision.parse(ref["name"]), Commit.parse(ref["targetCommit"])
                self._named.put((repo, revision), (time.monotonic(), Resolution(commit, answered_by, Voice.HUB)))
                if revision == MAIN:
                    await asyncio.to_thread(self._store.refs.write, repo, revision, commit, answered_by)

    async def _last_known(self, repo: RepoId, cached: Json | None) -> Json:
        """The refs of the last listing, and those that were resolved since."""
        document = cached["refs"] if cached else _parsed({}, "no hub")
        newer = await asyncio.to_thread(self._refs_since, repo, cached["at"] if cached else None)
        tags = {tag["name"] for tag in document["tags"]}
        branches = {branch["name"]: branch["targetCommit"] for branch in document["branches"]}
        branches |= {name: newer[name] for name in newer.keys() - tags if not name.startswith("refs/")}
        shown = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit} for n, commit in branches.items()]
        return {**document, "branches": shown}

    def _refs_since(self, repo: RepoId, moment: float | None) -> dict[str, Commit]:
        """Name → commit as upstreams said it after `moment`, in seconds since the epoch; None for any time."""
        now, since = time.time(), {}
        names = {Revision(name) for revision in self._store.revisions.of(repo) for name in revision.refs}
        keys = [*(key for key, _ in self._named.items()), *(key[:2] for key, _ in self._decided.items())]
        names |= {revision for of, revision in keys if of == repo}
        for name in names:
            response = self._store.refs.read(repo, name)
            if response is not None and (moment is None or is_newer(response[1], moment, now)):
                since[str(name)] = response[0]
        return since


def _parsed(document: Any, hub: str) -> Json:
    """The document with a list for every kind of ref. Raises HubUnreachable if it is no listing of refs."""
    try:
        lists = {kind: list(document.get(kind) or ()) for kind in ("branches", "tags", "converts", "pullRequests")}
        for ref in (ref for refs in lists.values() for ref in refs):
            if not all(isinstance(ref[key], str) for key in ("name", "ref", "targetCommit")):
                raise TypeError
    except (AttributeError, KeyError, TypeError) as error:
        raise HubUnreachable(f"{hub} returned a malformed list of refs.", hint="Try again later.") from error
    return {**document, **lists}
