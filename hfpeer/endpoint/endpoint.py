"""The node as a Hub for one caller after the other: the door that admits them, and behind it the rooms.

What a name means (`refs`), what is under a commit (`listings`), what is said of it (`facts`), which commits there are
(`commits`) and the bytes (`files`) are theirs; here they are joined. Everything at a commit is answered from here once
it is known. Nothing of a repo may reach a caller who was not admitted to it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hfpeer.cache.store import Store
from hfpeer.endpoint.acting import ActingHubs
from hfpeer.endpoint.callers import Admission, Caller, Verdicts
from hfpeer.endpoint.commits import Commits
from hfpeer.endpoint.facts import Facts
from hfpeer.endpoint.files import Files
from hfpeer.endpoint.kept import KeptAnswers
from hfpeer.endpoint.keptpacks import KeptPacks, PackKeeper
from hfpeer.endpoint.listings import Listings
from hfpeer.endpoint.once import Once
from hfpeer.endpoint.reading import Reading
from hfpeer.endpoint.refs import AllRefs, Refs
from hfpeer.endpoint.seen import Seen
from hfpeer.lan import Lan
from hfpeer.manifest import ManifestFile
from hfpeer.names import RepoId, Revision
from hfpeer.resolving import Resolver
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.scout import Scout
from hfpeer.transfer.sources import UpstreamSource, WantedBlob
from hfpeer.upstream.hubs import Hubs
from hfpeer.upstream.passage import Passage


@dataclass(frozen=True)
class Rules:
    """What the owner has set. Times in seconds."""

    ref_seconds: float = 60.0
    stale_refs: Literal["serve", "refuse"] = "serve"
    offline_seconds: float = 7 * 86400.0
    trusts_attested: bool = False
    patience_seconds: float = 60.0


class Endpoint:
    """Belongs to the node's event loop. Its rooms ask nobody who the caller is: admit, or look, before entering one.
    `passage` is for what nobody here knows."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        resolver: Resolver,
        lan: Lan,
        hubs: Hubs,
        rules: Rules,
    ) -> None:
        self._lan = lan
        self._hubs = ActingHubs(hubs)
        self._once = Once()
        self._admission = Admission(
            store,
            Verdicts(Path(store.home) / "verdicts.json"),
            self._once,
            lan.shares,
            offline_seconds=rules.offline_seconds,
        )
        self._listings = Listings(resolver, lan, self._hubs, self._once, trusts_peers=rules.trusts_attested)
        kept = KeptAnswers(store.home / "answers")
        self.facts = Facts(kept, self._hubs, self._once)
        self.refs = Refs(
            store,
            resolver,
            self._hubs,
            kept,
            self.facts,
            self._once,
            hold_seconds=rules.ref_seconds,
            gives_old=rules.stale_refs == "serve",
        )
        self.packs = KeptPacks(store.home / "packs")
        self.commits = Commits(store, lan, self.packs)
        self.files = Files(store, fetches, lan.blame, self.refs.write, patience_seconds=rules.patience_seconds)
        self.passage = Passage(hubs.upstreams)

    async def stop(self) -> None:
        """Ends what is under way for callers and closes what leads through to the hubs."""
        await self.files.stop()
        await self._once.stop()
        await self.passage.aclose()

    async def admit(self, caller: Caller, repo: RepoId, *, wants_files: bool) -> None:
        """Returns if the caller may; see `Admission.admit`."""
        await self._admission.admit(caller, repo, self._hubs.of(caller), wants_files=wants_files)

    async def look(self, caller: Caller, repo: RepoId, revision: Revision, *, wants_files: bool) -> Seen:
        """A revision as this caller may see it.

        Raises RepoNotFound, GatedRepo, AccessDenied, RevisionNotFound, and HubUnreachable when nobody knows.
        """
        await self.admit(caller, repo, wants_files=wants_files)
        resolution, asked_at = await self.refs.resolve(caller, repo, revision)
        listing = await self._listings.of(caller, repo, resolution.commit)
        return Seen(caller, resolution, listing, asked_at)

    async def all_refs(self, caller: Caller, repo: RepoId, *, asks_anew: bool = False) -> AllRefs:
        """All refs of a repo that this caller may see; with `asks_anew` whatever is remembered.

        Raises RepoNotFound, GatedRepo, AccessDenied, and HubUnreachable when nobody knows any.
        """
        await self.admit(caller, repo, wants_files=False)
        return await self.refs.all(caller, repo, asks_anew=asks_anew)

    async def read(self, seen: Seen, file: ManifestFile) -> Reading | bytes:
        """A file of what the caller was shown; see `Files.read`."""
        blob = WantedBlob(file.digest, file.size_bytes, seen.repo, seen.commit, file.path)
        upstreams = [UpstreamSource(upstream) for upstream in self._hubs.of(seen.caller).upstreams]
        scout = Scout(self._lan.source_peers, upstreams, self._lan.peers_called)
        return await self.files.read(blob, file, scout)

    def learn(self, caller: Caller, repo: RepoId, commit: str, keeper: PackKeeper) -> None:
        """Begins to put the plain files that a passing pack has brought into the cache, where peers find them too."""
        self._once.begin(("learn", repo, commit), lambda: self._learn(caller, repo, Revision(commit), keeper))

    async def _learn(self, caller: Caller, repo: RepoId, commit: Revision, keeper: PackKeeper) -> None:
        try:
            path = await asyncio.to_thread(keeper.close)
            if path is not None:
                seen = await self.look(caller, repo, commit, wants_files=True)
                await asyncio.to_thread(self.commits.learn, seen.manifest, path)
                await self.refs.write(repo, seen.commit)
        finally:
            keeper.remove()
