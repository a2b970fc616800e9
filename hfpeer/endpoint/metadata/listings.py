"""The files of a commit: found in the cache, at peers or upstreams, and kept in memory, because clients ask often.

A listing is the same for all callers, so one caller's listing serves the next. The caller must have been admitted.
"""

from __future__ import annotations

import asyncio

from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.caller_upstreams import CallerUpstreams
from hfpeer.endpoint.metadata.hub_json import TreeEntries
from hfpeer.names import Commit, RepoId
from hfpeer.net.lru_cache import LruCache
from hfpeer.net.singleflight import SingleFlight
from hfpeer.resolver.manifests import ManifestResolver
from hfpeer.resolver.peer_queries import PeerTrust
from hfpeer.transfer.events import Event
from hfpeer.transfer.sources.lan import Lan

MAX_LISTED_FILES = 200_000
"""The listings in memory have at most this many files together."""


class Listings:
    """Belongs to one event loop. `trust` says whether a peer's manifest without proof is taken."""

    def __init__(self, manifests: ManifestResolver, lan: Lan, upstreams: CallerUpstreams, *, trust: PeerTrust) -> None:
        self._manifests = manifests
        self._lan = lan
        self._upstreams = upstreams
        self._finding: SingleFlight[tuple[RepoId, Commit, str, bool], TreeEntries] = SingleFlight()
        self._trust = trust
        self._listings: LruCache[tuple[RepoId, Commit, str | None], TreeEntries] = LruCache(MAX_LISTED_FILES, _weight)

    async def stop(self) -> None:
        """Ends the searches under way."""
        await self._finding.stop()

    async def of(self, caller: Caller, repo: RepoId, commit: Commit, *, uses_cache: bool = True) -> TreeEntries:
        """The listing of a commit. Without `uses_cache` only one that peers or upstreams give to this caller.

        Raises the errors of `ManifestResolver.find`.
        """
        # Without the cache, an upstream that lists the commit to one caller may not list it to another.
        place = (repo, commit, None if uses_cache else caller.fingerprint)
        known = self._listings.get(place)
        if known is None:
            # By caller, because an upstream may list the commit to some callers only.
            key = (repo, commit, caller.fingerprint, uses_cache)
            known = await self._finding.run(key, lambda: self._find(caller, repo, commit, uses_cache))
            self._listings.put(place, known)
        return known

    async def _find(self, caller: Caller, repo: RepoId, commit: Commit, uses_cache: bool) -> TreeEntries:
        await self._lan.wait_for_peers(commit)
        found = await self._manifests.find(
            repo,
            commit,
            self._upstreams.of(caller),
            _ignore,
            trust=self._trust,
            uses_cache=uses_cache,
        )
        listing = TreeEntries(found.manifest)
        await asyncio.to_thread(lambda: listing.entries)
        return listing


def _weight(listing: TreeEntries) -> int:
    return len(listing.manifest.files) + 100


def _ignore(event: Event) -> None:
    """No caller is shown the events."""
