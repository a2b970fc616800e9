"""Decides what a caller may have of copies that peers and mirrors give to all, where no origin has opened the commit.

The word of a peer or mirror must never open files that were here before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from hfpeer.cache.store import Store
from hfpeer.endpoint.access.grants import GRANT_SECONDS, MAX_GRANTS, Grant
from hfpeer.endpoint.access.request import AdmissionRequest, Place
from hfpeer.errors import HfpeerError
from hfpeer.names import Commit, RepoId, Visibility
from hfpeer.net.lru_cache import LruCache
from hfpeer.trust.visibility import Verdict

SharedByPeers = Callable[[RepoId, "Commit | None"], Awaitable[bool]]
"""Whether a peer's catalog names a commit; without one, the repo."""
Publisher = Callable[[RepoId, "Commit | None"], "str | None"]
"""The name of a peer that says that a commit, or any commit of the repo, was published on the LAN."""


class OpenCopies:
    """Belongs to one event loop. `clock` is monotonic, in seconds."""

    def __init__(
        self, store: Store, shared_by_peers: SharedByPeers, publisher: Publisher, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._shared_by_peers = shared_by_peers
        self._publisher = publisher
        self._clock = clock
        self._mirrored_at: LruCache[Place, float] = LruCache(MAX_GRANTS)

    async def grant(self, request: AdmissionRequest) -> Grant | None:
        """The grant for what was given openly before, or is given openly now; None if there is nothing."""
        repo, commit = request.place
        if commit is not None and await asyncio.to_thread(self._store.shared.is_given, repo, commit):
            return Grant.LISTED
        if (
            commit is None
            and request.caller.is_local
            and await asyncio.to_thread(self._store.shared.is_published, repo)
        ):
            return Grant.LISTED
        return Grant.GIVEN if await self._is_given_now(request) else None

    async def has_any(self, request: AdmissionRequest) -> bool:
        """Whether the commit was given openly, or a peer or mirror gives it now."""
        repo, commit = request.place
        if commit is not None and await asyncio.to_thread(self._store.shared.is_given, repo, commit):
            return True
        return await self._is_given_now(request)

    async def published_grant(self, request: AdmissionRequest, verdict: Verdict) -> Grant | None:
        """The grant for a commit that was published on the LAN; None unless the hubs have no such repo or hide it.

        A hub does not know that commit. Files here count only if they were given openly, so a peer that calls a hub's
        commit published opens none of them. Refs are open only if all commits here were published.
        """
        repo, commit = request.place
        if verdict.visibility is not Visibility.PRIVATE:
            return None
        marked = await asyncio.to_thread(self._store.publications.of, repo)
        if commit is None:
            here = await asyncio.to_thread(self._store.revisions.of, repo)
            is_known = bool(marked) or self._publisher(repo, None) is not None
            others = [Commit(revision.commit) for revision in here if not revision.published_by]
            is_all = all([await self._is_coming(repo, other) for other in others]) if is_known else False
            return Grant.PUBLISHED_THERE if is_all else None
        if commit not in marked and self._publisher(repo, commit) is None:
            return None
        is_given = await asyncio.to_thread(self._store.shared.is_all_given, repo, commit)
        return Grant.PUBLISHED if is_given else Grant.PUBLISHED_THERE

    async def _is_coming(self, repo: RepoId, commit: Commit) -> bool:
        """Whether a peer published a commit whose first files have just come, before it is marked as published."""
        return self._publisher(repo, commit) is not None and await asyncio.to_thread(
            self._store.shared.is_all_given, repo, commit
        )

    async def _is_given_now(self, request: AdmissionRequest) -> bool:
        return await self._shared_by_peers(*request.place) or await self._is_mirrored(request)

    async def _is_mirrored(self, request: AdmissionRequest) -> bool:
        """Whether a mirror shows the commit to anonymous askers."""
        shown_at = self._mirrored_at.get(request.place)
        if shown_at is not None and self._clock() - shown_at < GRANT_SECONDS:
            return True
        for mirror in request.upstreams.mirrors:
            with contextlib.suppress(HfpeerError):
                visibility, _ = await mirror.visibility(*request.place)
                if visibility is Visibility.PUBLIC:
                    self._mirrored_at.put(request.place, self._clock())
                    return True
        return False
