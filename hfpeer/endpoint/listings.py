"""What is under a commit: found in the cache, at peers or a hub, and kept in memory, because clients ask often.

It is the same whoever asks, so one caller's listing serves the next. It must never be shown to a caller who was not
admitted: whether one may see it is not asked here.
"""

from __future__ import annotations

import asyncio

from hfpeer.endpoint.acting import ActingHubs
from hfpeer.endpoint.answers import Listing
from hfpeer.endpoint.callers import Caller
from hfpeer.endpoint.once import Once, Recent
from hfpeer.lan import Lan
from hfpeer.names import Commit, RepoId
from hfpeer.resolving import Resolver
from hfpeer.transfer.events import Event

MAX_LISTED_FILES = 200_000
"""As many files of listings are kept in memory together."""


class Listings:
    """Belongs to one event loop. `trusts_peers`: a peer's listing without proof is taken where no hub has one."""

    def __init__(self, resolver: Resolver, lan: Lan, hubs: ActingHubs, once: Once, *, trusts_peers: bool) -> None:
        self._resolver = resolver
        self._lan = lan
        self._hubs = hubs
        self._once = once
        self._trusts_peers = trusts_peers
        self._listings: Recent[tuple[RepoId, Commit], Listing] = Recent(MAX_LISTED_FILES, _weight)

    async def of(self, caller: Caller, repo: RepoId, commit: Commit) -> Listing:
        """The listing of a commit, with its entries made. Raises the errors of `Resolver.listing`."""
        known = self._listings.get((repo, commit))
        if known is None:
            # What is under a commit is the same whoever asks, but only some can get it from a hub.
            key = ("listing", repo, commit, caller.fingerprint)
            known = await self._once.ask(key, lambda: self._find(caller, repo, commit))
            self._listings.put((repo, commit), known)
        return known

    async def _find(self, caller: Caller, repo: RepoId, commit: Commit) -> Listing:
        await self._lan.greet(commit)
        found = await self._resolver.listing(
            repo, commit, self._hubs.of(caller), _ignore, asks_peers=True, trusts_peers=self._trusts_peers
        )
        listing = Listing(found.manifest)
        await asyncio.to_thread(lambda: listing.entries)
        return listing


def _weight(listing: Listing) -> int:
    return len(listing.manifest.files) + 100


def _ignore(event: Event) -> None:
    """Nobody watches."""
