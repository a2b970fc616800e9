"""The node as a Hub for its callers. Each request is admitted first, then answered by one of the parts.

The parts are `refs` (what a name means), `listings` (the files of a commit), `repo_info` (its metadata), `commits`
(which are known here), `packs` and `files` (the bytes); here they are joined. Everything at a commit is answered from
here once it is known. Nothing of a repo may reach a caller that was not admitted to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hfpeer.cache.store import Store
from hfpeer.endpoint.access.admission import Admission
from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.caller_upstreams import CallerUpstreams
from hfpeer.endpoint.access.grants import Grant, Grants
from hfpeer.endpoint.access.request import AdmissionRequest
from hfpeer.endpoint.files.files import Files
from hfpeer.endpoint.files.reader import BlobReader
from hfpeer.endpoint.files.streams import FileRequest, OnFetched, TakeRoom
from hfpeer.endpoint.metadata.answer_cache import AnswerCache
from hfpeer.endpoint.metadata.listings import Listings
from hfpeer.endpoint.metadata.refs import AllRefs, Refs
from hfpeer.endpoint.metadata.repo_info import RepoInfo
from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.endpoint.packs.commits import Commits
from hfpeer.endpoint.packs.pack_cache import PackCache, PackRecorder
from hfpeer.errors import AccessDenied, HfpeerError, HubUnreachable, InvalidName, RepoNotFound, RevisionNotFound
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.net.singleflight import SingleFlight
from hfpeer.resolver.peer_queries import PeerTrust
from hfpeer.resolver.resolver import Resolver
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.sources.lan import Lan
from hfpeer.transfer.sources.site_copies import SiteFinder, no_sites
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.swarm.finder import PeerFinder
from hfpeer.upstream.proxy import ReverseProxy
from hfpeer.upstream.upstreams import Upstreams

MAX_TIPS = 64
"""A cached pack of more commits than this is not used, because each commit must be admitted."""


@dataclass(frozen=True)
class Rules:
    """The owner's settings of the endpoint. Times in seconds."""

    ref_seconds: float = 60.0
    stale_refs: Literal["serve", "refuse"] = "serve"
    offline_seconds: float = 7 * 86400.0
    trusts_attested: bool = False


class Endpoint:
    """Belongs to the node's event loop. Its parts do not check the caller: call `admit` or `admit_revision` first.
    `proxy` passes on the requests that are not answered here."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        resolver: Resolver,
        visibility_checks: VisibilityChecker,
        lan: Lan,
        upstreams: Upstreams,
        rules: Rules,
        sites: SiteFinder | None,
        take_room: TakeRoom,
        on_fetched: OnFetched,
    ) -> None:
        self._store = store
        self._lan = lan
        self._visibility_checks = visibility_checks
        self._upstreams = CallerUpstreams(upstreams)
        self.has_hubs = bool(upstreams.upstreams)
        self._sites = sites
        self._learning: SingleFlight[tuple[RepoId, str], None] = SingleFlight()
        self._admission = Admission(
            store,
            visibility_checks,
            Grants(Path(store.home) / "grants.json"),
            lan.has_commit,
            offline_seconds=rules.offline_seconds,
            publisher=lan.publisher,
        )
        trust = PeerTrust.of(asks_peers=True, trusts_peers=rules.trusts_attested)
        self._listings = Listings(resolver.manifests, lan, self._upstreams, trust=trust)
        answers = AnswerCache(store.home / "answers")
        self.repo_info = RepoInfo(answers, self._upstreams)
        self.refs = Refs(
            store,
            resolver.commits,
            self._upstreams,
            answers,
            self.repo_info,
            hold_seconds=rules.ref_seconds,
            gives_old=rules.stale_refs == "serve",
            trust=trust,
        )
        self.packs = PackCache(store.home / "packs")
        self.commits = Commits(store, lan, self.packs)
        self.files = Files(store, fetches, lan.report_liar, self._note_installed, take_room, on_fetched)
        self.proxy = ReverseProxy(upstreams.upstreams)

    async def _note_installed(self, repo: RepoId, commit: Commit) -> None:
        """Writes the refs and the publisher of a commit of which files have come into the cache."""
        await self.refs.write(repo, commit)
        publisher = self._lan.publisher(repo, commit)
        if publisher is not None:
            await asyncio.to_thread(self._store.note_published_there, repo, commit, publisher)

    async def stop(self) -> None:
        """Ends the work under way for callers and closes the connections to the hubs."""
        await self.files.stop()
        for part in (self._learning, self.refs, self.repo_info, self._listings, self._admission):
            await part.stop()
        await self.proxy.aclose()

    async def admit(self, caller: Caller, repo: RepoId, commit: Commit | None = None, *, wants_files: bool) -> Grant:
        """The caller's grant for a commit, or without one for the repo's refs; see `Admission.admit`."""
        upstreams = self._upstreams.of(caller)
        return await self._admission.admit(AdmissionRequest(caller, repo, commit, upstreams, wants_files))

    async def may_have_all(self, caller: Caller, repo: RepoId, commits: Collection[str]) -> bool:
        """Whether the caller may have everything of each of these commits. False for more than MAX_TIPS."""
        if len(commits) > MAX_TIPS:
            return False
        try:
            grants = [await self.admit(caller, repo, Commit(commit), wants_files=True) for commit in commits]
        except HfpeerError:
            return False
        return all(grant is Grant.ALL for grant in grants)

    async def note_given(self, caller: Caller, repo: RepoId, commits: Collection[str], hub: str) -> None:
        """Learns from a hub that has just given these commits to a caller: they are public if an origin gave them to an
        anonymous caller, else the caller's token is accepted for them."""
        with suppress(InvalidName):
            given = [Commit.parse(commit) for commit in commits][:MAX_TIPS]
            upstreams = self._upstreams.of(caller)
            if caller.token is None and upstreams.is_origin(hub):
                await self._visibility_checks.note_public(repo, given, hub)
            elif caller.token is not None and {each.sends_token for each in upstreams if each.name == hub} == {True}:
                await self._admission.tokens.note_accepted(caller, repo, given)

    async def admit_revision(
        self, caller: Caller, repo: RepoId, revision: Revision, *, wants_files: bool
    ) -> AdmittedRevision:
        """The commit and listing of a revision, if this caller may see it.

        Raises RepoNotFound, GatedRepo, AccessDenied, RevisionNotFound, and HubUnreachable if no hub or peer knows it.
        """
        try:
            with self._noting_refusals(repo):
                # The commit first, because commits of one repo can have different visibility.
                resolution, asked_at = await self.refs.resolve(caller, repo, revision)
                commit = resolution.commit
                grant = await self.admit(caller, repo, commit, wants_files=wants_files)
                listing = await self._listings.of(caller, repo, commit, uses_cache=grant.has_metadata)
        except HubUnreachable as error:
            if self.has_hubs or not await asyncio.to_thread(self._shows_any, caller, repo):
                raise
            # Else `datasets` takes another revision that it has prepared, without a word.
            raise RevisionNotFound(error.message, repo=repo.api_path, revision=str(revision)) from error
        return AdmittedRevision(caller, resolution, listing, asked_at, grant)

    def _shows_any(self, caller: Caller, repo: RepoId) -> bool:
        """Whether the caller may see a commit of a repo, here or at a peer."""
        here = [Commit(revision.commit) for revision in self._store.revisions.of(repo)]
        return bool(self._lan.commits(repo)) or any(self._admission.may_see_here(caller, repo, one) for one in here)

    async def all_refs(self, caller: Caller, repo: RepoId, *, asks_anew: bool = False) -> AllRefs:
        """All refs of a repo that this caller may see. With `asks_anew` a hub is asked even if an answer is fresh.

        Raises RepoNotFound, GatedRepo, AccessDenied, and HubUnreachable if no ref is known.
        """
        grant = await self.admit(caller, repo, wants_files=False)
        with self._noting_refusals(repo):
            refs = await self.refs.all(caller, repo, asks_anew=asks_anew)
        return refs if grant is Grant.ALL and refs.is_complete else await self._visible(caller, repo, refs)

    async def _visible(self, caller: Caller, repo: RepoId, refs: AllRefs) -> AllRefs:
        """The refs whose commit the caller may see, decided here, or whose commit a peer shows."""
        at_peers = self._lan.commits(repo)

        def is_visible(ref: Any) -> bool:
            with suppress(InvalidName, KeyError, TypeError):
                commit = Commit.parse(ref["targetCommit"])
                return commit in at_peers or self._admission.may_see_here(caller, repo, commit)
            return False

        def visible() -> dict[str, Any]:
            return {
                kind: [ref for ref in value if is_visible(ref)] if isinstance(value, list) else value
                for kind, value in refs.document.items()
            }

        return replace(refs, document=await asyncio.to_thread(visible))

    @contextmanager
    def _noting_refusals(self, repo: RepoId) -> Iterator[None]:
        """Within the block, a hub's refusal starts a check of the repo's visibility."""
        try:
            yield
        except (RepoNotFound, AccessDenied) as error:
            if "hub" in error.facts:
                self._visibility_checks.note_refusal(repo)
            raise

    async def read(self, admitted: AdmittedRevision, file: ManifestFile, client: str = "") -> BlobReader | bytes:
        """A file of an admitted revision; see `Files.read`. With `client`, which tells one client program from another,
        wrong bytes that it was sent are remembered."""
        blob = WantedBlob(file.digest, file.size_bytes, admitted.repo, admitted.commit, file.path)
        upstreams = self._upstreams.of(admitted.caller)
        has_all = admitted.grant is Grant.ALL
        sites = self._sites.of_caller if has_all and self._sites is not None else no_sites
        finder = PeerFinder(self._lan, upstreams.giving if has_all else upstreams.mirrors, sites=sites)
        return await self.files.read(FileRequest(blob, file, finder, admitted.grant, client, admitted.caller))

    def learn(self, caller: Caller, repo: RepoId, commit: str, recorder: PackRecorder) -> None:
        """Starts to put the plain files of a recorded pack into the cache, where peers find them too."""
        self._learning.begin((repo, commit), lambda: self._learn(caller, repo, Revision(commit), recorder))

    async def _learn(self, caller: Caller, repo: RepoId, commit: Revision, recorder: PackRecorder) -> None:
        try:
            path = await asyncio.to_thread(recorder.close)
            if path is not None:
                admitted = await self.admit_revision(caller, repo, commit, wants_files=True)
                await in_thread(self.commits.learn, admitted.manifest, path)
                await self.refs.write(repo, admitted.commit)
        finally:
            recorder.remove()
