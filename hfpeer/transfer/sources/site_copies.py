"""ModelScope among the sources of an add or of a caller: which repo there is asked, and for which blobs.

It is asked only if the owner wants it, for large LFS files that are missing, and never by the name of a repo that may
be private. A site that fails, or has no such repo, changes nothing but its own share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from hfpeer.cache.store import Store
from hfpeer.errors import HfpeerError
from hfpeer.modelscope.names import SiteRepo
from hfpeer.modelscope.source import SiteCopies, SiteCopy
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES
from hfpeer.transfer.events import OnEvent, SourceFailed
from hfpeer.transfer.sources.sources import SiteSource, WantedBlob
from hfpeer.transfer.sources.tiers import Tier

log = logging.getLogger(__name__)

LISTING_PATIENCE_SECONDS = 5.0
"""Seconds that an add waits for a listing of ModelScope. A later one serves the next add."""

FindSites: TypeAlias = Callable[[WantedBlob], Awaitable[Sequence[SiteSource]]]
"""Finds the copies at ModelScope that have a blob. For the event loop."""


async def no_sites(blob: WantedBlob) -> Sequence[SiteSource]:
    """No copies."""
    return ()


class SiteFinder:
    """Finds copies for the adds and callers of one node. Belongs to the node's event loop.

    With `is_on` every add asks; else only one that names a repo there.
    """

    def __init__(self, copies: SiteCopies, store: Store, order: str, *, is_on: bool) -> None:
        self._copies = copies
        self._store = store
        self._tier = Tier.of_site(order)
        self.is_on = is_on
        """Whether the owner wants ModelScope as a source of every add."""

    def of_add(self, named: str, *, may_tell_name: bool, on_event: OnEvent) -> FindSites:
        """The copies for one add. `named` is the repo there that the request names.

        `may_tell_name`: no token of the Hub and no peer has shown the repo, so that it is known to everyone.
        """
        if not (self.is_on or named):
            return no_sites
        failed: set[SiteRepo] = set()

        async def find(blob: WantedBlob) -> Sequence[SiteSource]:
            target = await self._target(blob, named, may_tell_name=may_tell_name)
            if target is None or target in failed:
                return ()
            reason = "has no such repo that you may see" if named else ""
            try:
                copy = await self._copy(target)
            except HfpeerError as error:
                copy, reason = None, error.message.rstrip(".")
            if copy is None:
                failed.add(target)
                if reason:
                    on_event(SourceFailed(self._copies.site, str(target), reason))
                return ()
            return self._having(copy, blob)

        return find

    async def of_caller(self, blob: WantedBlob) -> Sequence[SiteSource]:
        """The copies for a caller of the endpoint: only for what a hub shows to everyone."""
        if not self.is_on:
            return ()
        target = await self._target(blob, "", may_tell_name=False)
        try:
            copy = None if target is None else await self._copy(target)
        except HfpeerError as error:
            log.info("%s is no source of %s: %s", self._copies.site, blob.repo, error.message)
            return ()
        return () if copy is None else self._having(copy, blob)

    async def stop(self) -> None:
        """Ends what is under way and closes the connections."""
        await self._copies.stop()

    async def _target(self, blob: WantedBlob, named: str, *, may_tell_name: bool) -> SiteRepo | None:
        """The repo there to ask for a blob; None for a small one, and for a repo whose name must not be told."""
        if blob.digest.algorithm != "sha256" or blob.size_bytes <= MAX_BATCH_BLOB_BYTES:
            return None
        if named:
            return SiteRepo.parse(named, blob.repo.type)
        if not self._copies.is_paired(blob.repo):
            said = await asyncio.to_thread(self._store.shared.verdict, blob.repo, blob.commit)
            if not (said.is_public or (may_tell_name and not said.is_closed)):
                return None
        return self._copies.repo_for(blob.repo)

    async def _copy(self, target: SiteRepo) -> SiteCopy | None:
        listing = asyncio.ensure_future(self._copies.find(target))
        done, _ = await asyncio.wait([listing], timeout=LISTING_PATIENCE_SECONDS)
        if not done:
            # The work goes on, and serves the next blob.
            listing.cancel()
            return None
        return listing.result()

    def _having(self, copy: SiteCopy, blob: WantedBlob) -> Sequence[SiteSource]:
        return (SiteSource(copy, self._tier),) if copy.has(blob.digest, blob.size_bytes) else ()
