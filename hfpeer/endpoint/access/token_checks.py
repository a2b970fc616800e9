"""Asks hubs whether they accept the tokens of callers, and remembers the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.grants import GRANT_SECONDS, MAX_GRANTS, Grants
from hfpeer.endpoint.access.request import AdmissionRequest, Place
from hfpeer.errors import AccessDenied, HfpeerError, NotFound, Unreachable
from hfpeer.names import Commit, RepoId
from hfpeer.net.lru_cache import LruCache
from hfpeer.net.singleflight import SingleFlight
from hfpeer.resolver.visibility_checks import VisibilityChecker


class TokenChecks:
    """Belongs to one event loop. An accepted token holds for `offline_seconds` while no hub can be asked. `clock` is
    monotonic, in seconds."""

    def __init__(
        self,
        grants: Grants,
        visibility_checks: VisibilityChecker,
        *,
        offline_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._grants = grants
        self._visibility_checks = visibility_checks
        self._offline_seconds = offline_seconds
        self._clock = clock
        self._checking: SingleFlight[tuple[str, Place], HfpeerError | None] = SingleFlight()
        self._refusals: LruCache[tuple[str, Place], tuple[float, HfpeerError | None]] = LruCache(MAX_GRANTS)
        """When a hub answered, and its refusal; None if it accepted the token."""

    async def check(self, request: AdmissionRequest) -> None:
        """Returns if a hub accepts the caller's token, asked at most every GRANT_SECONDS.

        Raises NotFound or AccessDenied as the hub does; Unreachable if no hub can be asked and the token was not
        accepted before.
        """
        key = (request.caller.fingerprint, request.place)
        answer = self._refusals.get(key)
        if answer is None or self._clock() - answer[0] >= GRANT_SECONDS:
            refusal = await self._checking.run(key, lambda: self._ask(request))
            answer = (self._clock(), refusal)
            self._refusals.put(key, answer)
        refusal = answer[1]
        if refusal is not None:
            # A new object, because one that is raised again and again carries a growing traceback.
            raise type(refusal)(refusal.message, hint=refusal.hint, **refusal.facts)

    async def note_accepted(self, caller: Caller, repo: RepoId, commits: Iterable[Commit]) -> None:
        """A hub has given these commits to the caller's token."""
        for commit in commits:
            await asyncio.to_thread(self._grants.accepted, caller.fingerprint, repo, commit)

    def was_accepted(self, caller: Caller, repo: RepoId, commit: Commit | None) -> bool:
        """Whether a hub accepted the caller's token within `offline_seconds`. Blocking."""
        age_seconds = self._grants.age_seconds(caller.fingerprint, repo, commit) if caller.token else None
        return age_seconds is not None and age_seconds <= self._offline_seconds

    async def stop(self) -> None:
        """Ends the requests under way."""
        await self._checking.stop()

    async def _ask(self, request: AdmissionRequest) -> HfpeerError | None:
        fingerprint = request.caller.fingerprint
        try:
            await request.upstreams.auth_check(request.repo, request.commit)
        except (NotFound, AccessDenied) as error:
            await asyncio.to_thread(self._grants.refused, fingerprint, request.repo, request.commit)
            self._visibility_checks.note_refusal(request.repo)
            return error
        except Unreachable:
            if not await asyncio.to_thread(self.was_accepted, request.caller, request.repo, request.commit):
                raise
            return None
        await asyncio.to_thread(self._grants.accepted, fingerprint, request.repo, request.commit)
        return None
