"""Decides what each caller of the endpoint may have of a commit.

- Everything, if an origin lists the commit to anonymous askers, unless the owner withholds the repo from other
  machines; also if the commit was published here or the owner shares the repo.
- Everything, if a hub accepts the caller's own token for that commit. The hub's answer is remembered under the token's
  hash for minutes, and for days while no hub can be reached.
- While no origin answers: only files that peers, or mirrors without a token, give openly.

A token is sent to hubs only, and the node's own token is never used for a caller. Callers on other machines are
anonymous: their tokens are ignored, because they would travel unencrypted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hfpeer.cache.store import Store
from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.grants import GRANT_SECONDS, MAX_GRANTS, Grant, Grants
from hfpeer.endpoint.access.open_copies import OpenCopies, Publisher, SharedByPeers
from hfpeer.endpoint.access.request import AdmissionRequest, Place
from hfpeer.endpoint.access.token_checks import TokenChecks
from hfpeer.errors import (
    AccessDenied,
    GatedRepo,
    HfpeerError,
    HubUnreachable,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    Unreachable,
)
from hfpeer.names import Commit, RepoId, Visibility
from hfpeer.net.lru_cache import LruCache
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.trust.visibility import Verdict

OPEN_SECONDS = 5.0
"""Seconds for which a commit that all callers on this machine may have is not checked again."""
PATIENCE_SECONDS = 2.5
"""Seconds that an origin may take to state the visibility of a commit. Then openly given copies are looked for."""


def _no_publisher(repo: RepoId, commit: Commit | None) -> str | None:
    return None


class Admission:
    """Decides for each request. Belongs to one event loop. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        store: Store,
        visibility_checks: VisibilityChecker,
        grants: Grants,
        shared_by_peers: SharedByPeers,
        *,
        offline_seconds: float,
        publisher: Publisher = _no_publisher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._visibility_checks = visibility_checks
        self._clock = clock
        self._open_copies = OpenCopies(store, shared_by_peers, publisher, clock)
        self.tokens = TokenChecks(grants, visibility_checks, offline_seconds=offline_seconds, clock=clock)
        self._open_until: LruCache[Place, tuple[float, int]] = LruCache(MAX_GRANTS)
        self._asked_at: LruCache[Place, float] = LruCache(MAX_GRANTS)
        self._silent_at: LruCache[Place, float] = LruCache(MAX_GRANTS)

    async def admit(self, request: AdmissionRequest) -> Grant:
        """The caller's grant.

        Raises RepoNotFound, GatedRepo, AccessDenied or RevisionNotFound as a hub would, HubUnreachable if no hub that
        knows can be asked.
        """
        caller, repo, commit = request.caller, request.repo, request.commit
        open_until, as_of = (caller.is_local and self._open_until.get(request.place)) or (0.0, -1)
        if as_of == self._visibility_checks.changes and self._clock() < open_until:
            return Grant.ALL
        if not caller.is_local and await asyncio.to_thread(self._store.overrides.of, repo) is False:
            raise _unseen(repo)
        if await asyncio.to_thread(self._is_open_to_all, repo, commit):
            self._open_until.put(request.place, (self._clock() + OPEN_SECONDS, self._visibility_checks.changes))
            await self._ask_if_due(repo, commit)
            return Grant.ALL
        verdict, silence = await self._ask_origins(request)
        if verdict.is_public or (verdict.visibility is Visibility.GATED and not request.wants_files):
            return Grant.ALL
        if silence is not None and not verdict.is_closed:
            # Before the token is checked: the hub that could check it is silent, which costs seconds each time.
            grant = await self._open_copies.grant(request)
            if grant is not None:
                was_accepted = await asyncio.to_thread(self.tokens.was_accepted, caller, repo, commit)
                return Grant.ALL if was_accepted else grant
        if caller.token is not None:
            try:
                await self.tokens.check(request)
            except Unreachable as error:
                silence = silence or error
            except (NotFound, AccessDenied):
                published = await self._open_copies.published_grant(request, verdict)
                if published is None:
                    raise
                return published
            else:
                return Grant.ALL
        if (grant := await self._open_copies.published_grant(request, verdict)) is not None:
            return grant
        if verdict.is_closed and caller.token is None:
            raise await asyncio.to_thread(self._refusal, repo, commit, verdict)
        raise silence or _unseen(repo)

    async def stop(self) -> None:
        """Ends the requests under way."""
        await self.tokens.stop()

    def may_see_here(self, caller: Caller, repo: RepoId, commit: Commit) -> bool:
        """Whether a caller may see a commit, decided without asking hubs or peers. Blocking."""
        if self._is_open_to_all(repo, commit) or self._store.shared.is_given(repo, commit):
            return True
        return self.tokens.was_accepted(caller, repo, commit) or self.tokens.was_accepted(caller, repo, None)

    def _refusal(self, repo: RepoId, commit: Commit | None, verdict: Verdict) -> HfpeerError:
        """The error of a hub for an anonymous caller; "no such revision" if the repo itself is not closed."""
        if verdict.visibility is Visibility.GATED:
            return _gated(repo)
        if commit is None or self._store.shared.verdict(repo).is_closed:
            return _unseen(repo)
        message = f"There is no revision {commit} of {repo.type.value} {repo.full_name}."
        return RevisionNotFound(message, repo=repo.api_path, revision=str(commit))

    def _is_open_to_all(self, repo: RepoId, commit: Commit | None) -> bool:
        if self._store.overrides.of(repo) is True:
            return True
        if commit is not None and self._store.shared.gives_publication(repo, commit):
            return True
        return self._store.shared.verdict(repo, commit).is_public

    async def _ask_if_due(self, repo: RepoId, commit: Commit | None) -> None:
        """Asks the origins again, for later callers, if they were not asked for a day."""
        if commit is None or await asyncio.to_thread(self._store.shared.is_published, repo, commit):
            return
        if await self._visibility_checks.is_due(repo, commit):
            self._visibility_checks.begin(repo, commit)

    async def _ask_origins(self, request: AdmissionRequest) -> tuple[Verdict, Unreachable | None]:
        """The origins' answer to an anonymous asker, at most GRANT_SECONDS old; and why they could not be asked.

        An origin that was silent less than GRANT_SECONDS ago is not waited for if something is given openly.
        """
        place = request.place
        known = await asyncio.to_thread(self._store.shared.verdict, *place)
        asked_at = self._asked_at.get(place)
        if known.is_closed and asked_at is not None and self._clock() - asked_at < GRANT_SECONDS:
            return known, None
        silent_at = self._silent_at.get(place)
        was_silent = silent_at is not None and self._clock() - silent_at < GRANT_SECONDS
        asking = self._visibility_checks.begin(*place)
        await asyncio.wait([asking], timeout=0.0 if was_silent else PATIENCE_SECONDS)
        if not asking.done() and not known.is_closed and not await self._open_copies.has_any(request):
            await asyncio.wait([asking])
        if not asking.done():
            self._silent_at.put(place, self._clock())
            return known, HubUnreachable("The origin is slow to say who may see it.", hint="Ask again in a moment.")
        try:
            known = asking.result()
        except Unreachable as error:
            self._silent_at.put(place, self._clock())
            return known, type(error)(error.message, hint=error.hint)
        self._asked_at.put(place, self._clock())
        self._silent_at.drop(place)
        return known, None


def _unseen(repo: RepoId) -> RepoNotFound:
    return RepoNotFound(
        f"There is no {repo.type.value} {repo.full_name} that you can see.",
        hint="Check the name; if it is private, send a token that may see it.",
        repo=repo.api_path,
    )


def _gated(repo: RepoId) -> GatedRepo:
    return GatedRepo(
        f"Access to {repo.type.value} {repo.full_name} is restricted. You must have access to it and be authenticated "
        "to access it. Please log in.",
        repo=repo.api_path,
    )
