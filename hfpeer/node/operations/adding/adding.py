"""One add from the request to the finished snapshot: resolve, list, check, fetch, install, remember.

Decides the order of these steps. The steps themselves are in `resolver`, `transfer` and `cache`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from hfpeer.cache.disk.same_names import is_spelled_so, refuse_another
from hfpeer.cache.disk.volume import refuse_unfit
from hfpeer.cache.partial.files import kept_bytes
from hfpeer.cache.store import Store
from hfpeer.control.operations import AddRequest, ListedCommit, ListedFile
from hfpeer.errors import (
    AccessDenied,
    ForgedManifest,
    HfpeerError,
    HubUnreachable,
    NoSourceLeft,
    NotFound,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    StorageError,
)
from hfpeer.language.amounts import counted
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, path_problem
from hfpeer.net.tasks import end_tasks
from hfpeer.node.operations.adding.adopted import take_adopted, take_from_other_caches
from hfpeer.node.operations.adding.room import Room
from hfpeer.node.operations.adding.wan_account import WanAccount
from hfpeer.node.operations.selection import selection_of
from hfpeer.resolver.commits import Resolution
from hfpeer.resolver.manifests import FoundManifest
from hfpeer.resolver.other_types import error_of
from hfpeer.resolver.peer_queries import PeerTrust
from hfpeer.resolver.resolver import Resolver
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.system.cancellation import in_thread, in_threads
from hfpeer.transfer.events import Asking, CheckBegan, Finished, OnEvent, Planned, WaitBegan
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.snapshot import SnapshotTransfer
from hfpeer.transfer.sources.lan import Lan
from hfpeer.transfer.sources.site_copies import FindSites, SiteFinder, no_sites
from hfpeer.transfer.swarm.finder import PeerFinder
from hfpeer.trust.visibility import Verdict
from hfpeer.upstream.responses.rate_limit import Rest
from hfpeer.upstream.upstreams import Upstreams

Found = TypeVar("Found")
ASKING_SECONDS = 0.5
"""Seconds without an answer after which an add says which hubs it asks."""
HASHING_THREADS = 2
VISIBILITY_SECONDS = 3.0
"""At most this many seconds an add waits for the origin's answer on the visibility of its commit. It waits before bytes
come to a commit that is shared by an older answer, and again at its end."""


@dataclass(frozen=True)
class AddParts:
    """The parts of a node that an add uses. Two settings of the owner: `trusts_attested`, and `rest_seconds`, for which
    an add waits for hubs that limit requests."""

    store: Store
    fetches: Fetches
    resolver: Resolver
    visibility: VisibilityChecker
    lan: Lan
    sites: SiteFinder
    room: Room
    trusts_attested: bool
    rest_seconds: float


class Adder:
    """Runs the adds of one node. Belongs to the node's event loop."""

    def __init__(self, parts: AddParts) -> None:
        self._parts = parts
        self._numbers = count()
        self._under_way: dict[int, AddRequest] = {}

    @property
    def busy_repos(self) -> set[str]:
        """The names of the repos with an add under way."""
        return {str(request.repo) for request in self._under_way.values()}

    async def add(
        self,
        request: AddRequest,
        upstreams: Upstreams,
        on_event: OnEvent,
        resolver: Resolver | None = None,
        lan: Lan | None = None,
    ) -> Finished:
        """See `Operations.add`. `upstreams` have the token of the request; `resolver` and `lan` are those for the peers
        that it names."""
        parts = replace(self._parts, resolver=resolver or self._parts.resolver, lan=lan or self._parts.lan)
        began_at = time.monotonic()
        number = next(self._numbers)
        self._under_way[number] = request
        try:
            with upstreams.telling_of_rests(lambda rest: on_event(_wait_began(rest))):
                finished = await _Add(parts, request, upstreams, on_event).run()
        except (RepoNotFound, AccessDenied, NoSourceLeft):
            if not request.is_local_only and upstreams.upstreams:
                self._parts.visibility.note_refusal(request.repo)
                await self._parts.visibility.wait_for_refusal_checks(VISIBILITY_SECONDS)
            raise
        finally:
            del self._under_way[number]
        notes = self._parts.store.passed_over
        finished = replace(finished, seconds=time.monotonic() - began_at, notes=notes)
        on_event(finished)
        return finished

    async def list_commit(self, request: AddRequest, upstreams: Upstreams) -> ListedCommit:
        """See `Operations.list_commit`. `upstreams` have the token of the request."""
        try:
            return await _Add(self._parts, request, upstreams, lambda event: None).list_commit()
        except (RepoNotFound, AccessDenied):
            self._parts.visibility.note_refusal(request.repo)
            raise


class _Add:
    """One add. It holds what all of its steps need."""

    def __init__(self, parts: AddParts, request: AddRequest, upstreams: Upstreams, on_event: OnEvent) -> None:
        self._parts = parts
        self._store = parts.store
        self._lan = parts.lan
        self._request = request
        self._repo = request.repo
        self._upstreams = upstreams
        self._on_event = on_event
        self._selection = selection_of(request)
        self._trust = PeerTrust.of(
            asks_peers=request.uses_peers and not request.is_local_only,
            trusts_peers=request.trusts_peers or parts.trusts_attested,
        )

    async def run(self) -> Finished:
        """Runs the add. If the files refute the manifest of a peer, runs it again with an upstream's manifest."""
        try:
            return await self._run()
        except ForgedManifest as error:
            if "path" not in error.facts:
                raise
            commit = Commit.parse(error.facts["commit"])
            await asyncio.to_thread(self._store.forget_manifest, self._repo, commit)
            try:
                await self._parts.resolver.manifests.from_upstreams(self._repo, commit, self._upstreams)
            except HfpeerError:
                raise error from None
        return await self._run()

    async def list_commit(self) -> ListedCommit:
        """The steps of an add up to the listing, and the answer of the origin on the visibility."""
        await in_thread(self._store.scan_repo, self._repo)
        commit = (await self._find_commit()).commit
        visibility = await self._begin_visibility_check(commit)
        found = await self._find_manifest(commit)
        if visibility is not None:
            await asyncio.wait([visibility], timeout=VISIBILITY_SECONDS)
        return await in_thread(self._listed, found.manifest)

    def _listed(self, manifest: Manifest) -> ListedCommit:
        selected = {file.path for file in self._selection.files_of(manifest)}
        missing = {file.digest for file in self._store.inventory.missing(manifest.files)}
        verified_at = self._store.inventory.verified_at(self._repo, manifest.files)
        return ListedCommit(
            repo=self._repo.full_name,
            type=self._repo.type.value,
            commit=manifest.commit,
            snapshot=str(self._store.snapshot_path(self._repo, manifest.commit)),
            visibility=self._store.shared.word_on(self._repo, manifest.commit),
            is_proved=not manifest.is_attested,
            files=tuple(
                ListedFile(
                    file.path,
                    file.size_bytes,
                    str(file.digest),
                    file.digest not in missing,
                    file.path in selected,
                    verified_at.get(file.digest),
                )
                for file in manifest.files
            ),
            unusable=tuple(_shown(entry.path) for entry in self._selection.unusable_of(manifest)),
            submodules=tuple(_shown(entry.path) for entry in manifest.opaque if entry.mode == "160000"),
        )

    async def _find_commit(self) -> Resolution:
        """Looks which commits are here, waits for the first peers, and resolves the revision."""
        await in_thread(self._store.scan_revisions, self._repo)
        if self._trust.asks_peers:
            revision = self._request.revision
            await self._lan.wait_for_peers(Commit(revision) if revision.is_commit else None)
        try:
            return await self._resolve()
        except (RepoNotFound, RevisionNotFound, HubUnreachable) as error:
            await self._refuse_other_type(error)
            raise

    async def _refuse_other_type(self, error: HfpeerError) -> None:
        """Raises RepoNotFound if the repo is there under another type. Hubs that did not answer are not asked."""
        is_local = self._request.is_local_only
        if "copies" in error.facts or (isinstance(error, RevisionNotFound) and not is_local):
            return
        answers = not is_local and (isinstance(error, RepoNotFound) or error.facts.get("said_no"))
        other = await self._parts.resolver.of_other_type(self._repo, self._upstreams if answers else Upstreams(()))
        if other is not None:
            raise error_of(self._repo, other) from error

    async def _run(self) -> Finished:
        resolution = await self._find_commit()
        commit = resolution.commit
        visibility = await self._begin_visibility_check(commit)
        found = await self._find_manifest(commit)
        manifest = found.manifest
        files = self._selection.files_of(manifest)
        await in_thread(self._refuse_unfit, manifest, files)
        transfer = self._make_transfer(resolution, found, files)
        right = await in_thread(self._store.inventory.verified_in, self._repo, files)
        missing, adopted_bytes, copied_bytes = await in_thread(self._missing, files, right)
        size_bytes = _size(files)
        kept = await in_thread(kept_bytes, self._store.cache, _sizes(missing)) if missing else 0
        account = await in_thread(WanAccount, self._store, self._repo, commit, files, missing)
        self._on_event(_planned(found, len(files), size_bytes, missing, self._selection.unmatched(manifest), kept))
        if self._request.is_local_only and missing:
            raise _not_cached(manifest, missing)
        if missing and visibility is not None:
            verdict = await asyncio.to_thread(self._store.shared.verdict, self._repo, commit)
            if verdict.is_public or self._parts.sites.is_on:
                await asyncio.wait([visibility], timeout=VISIBILITY_SECONDS)
        async with self._parts.room.take(self._repo, missing) as made_room:
            if made_room:  # blobs that were here may be gone
                right = set()
                missing = await in_thread(self._store.inventory.missing, files)
            await self._run_transfer(transfer, found, missing, right)
        if visibility is not None:
            await asyncio.wait([visibility], timeout=VISIBILITY_SECONDS)
        await self._remember(resolution)
        snapshot = self._store.snapshot_path(self._repo, commit)
        unusable = self._selection.unusable_of(manifest)
        if unusable:
            raise _not_storable(manifest, unusable, len(files), snapshot)
        missing_bytes = _size(missing)
        return Finished(
            repo=self._repo.full_name,
            commit=commit,
            snapshot=str(snapshot),
            files=len(files),
            size_bytes=size_bytes,
            reused_bytes=size_bytes - missing_bytes + transfer.totals.local_bytes,
            adopted_bytes=adopted_bytes,
            copied_bytes=copied_bytes,
            bytes_by_source=transfer.totals.bytes_by_source,
            bytes_by_kind=transfer.totals.bytes_by_kind,
            refetched_bytes=transfer.totals.refetched_bytes,
            answered_by=resolution.answered_by,
            voice=resolution.voice.value,
            age_seconds=resolution.age_seconds,
            kept_bytes=kept,
            wan_bytes=await in_thread(account.wan_bytes, transfer.totals),
        )

    async def _resolve(self) -> Resolution:
        commits, revision = self._parts.resolver.commits, self._request.revision
        if self._request.resolved is not None:
            resolution = Resolution.again(self._request.resolved)
        elif self._request.is_local_only:
            resolution = await commits.resolve_cached(self._repo, revision)
        else:
            resolution = await self._telling_of_hubs(
                self._resting(lambda upstreams: commits.resolve(self._repo, revision, upstreams, trust=self._trust))
            )
        self._on_event(resolution.told(self._repo, revision))
        return resolution

    async def _telling_of_hubs(self, asking: Coroutine[Any, Any, Resolution]) -> Resolution:
        """The result, with an event if it takes a moment: a terminal that stays blank looks broken."""
        task = asyncio.ensure_future(asking)
        try:
            done, _ = await asyncio.wait([task], timeout=ASKING_SECONDS)
            if not done and self._upstreams.upstreams:
                self._on_event(Asking(tuple(upstream.name for upstream in self._upstreams)))
            return await task
        finally:
            await end_tasks([task])

    async def _begin_visibility_check(self, commit: Commit) -> asyncio.Task[Verdict] | None:
        """Begins to ask the origin about the visibility of the commit, beside all else.

        Bytes that a token brings are not shared before its answer. The origin is not asked again within a day, unless a
        token may be sent. A commit that was published here needs no answer, nor one that named peers give.
        """
        if self._request.only_from_peers or (self._request.from_peers and self._request.revision.is_commit):
            return None
        if self._request.is_local_only or await asyncio.to_thread(self._store.shared.is_published, self._repo, commit):
            return None
        checks = self._parts.visibility
        if not self._upstreams.may_send_token and not await checks.is_due(self._repo, commit):
            return None
        mirrors_know_repo = not self._request.revision.is_commit
        return checks.begin(self._repo, commit, asks_mirrors=mirrors_know_repo, is_urgent=True)

    async def _find_manifest(self, commit: Commit) -> FoundManifest:
        manifests = self._parts.resolver.manifests
        if self._request.is_local_only:
            return await manifests.find_cached(self._repo, commit)
        return await self._resting(
            lambda upstreams: manifests.find(
                self._repo, commit, upstreams, self._on_event, trust=self._trust, is_add=True
            )
        )

    async def _resting(self, ask: Callable[[Upstreams], Coroutine[Any, Any, Found]]) -> Found:
        """The answer of `ask`. Hubs that limit requests are waited for, if only they can answer."""
        try:
            return await ask(self._upstreams)
        except RateLimited:
            resting = self._upstreams.resting(self._parts.rest_seconds)
        if resting is None:  # the rest has ended meanwhile
            return await ask(self._upstreams)
        try:
            return await ask(resting)
        except RateLimited as limit:
            longest = (
                f"An add waits {self._parts.rest_seconds:.0f} s; `hfpeer conf set rate_limit.wait SECONDS` changes it."
            )
            raise RateLimited(limit.message, hint=f"{limit.hint} {longest}", **limit.facts) from limit

    def _missing(self, files: Sequence[ManifestFile], right: Collection[Digest]) -> tuple[list[ManifestFile], int, int]:
        """The files to fetch, and the bytes taken from adopted files, and from other cache folders. The blobs `right`
        are here. What other tools put into the cache is hashed first, once: files with wrong bytes count as
        missing."""
        inventory, caches = self._store.inventory, self._store.caches
        files = [file for file in files if file.digest not in right]
        if not files:
            return [], 0, 0
        self._store.scan_repo(self._repo)
        missing, unhashed = inventory.look(files)
        unverified = [blob for blob in unhashed if caches.of(blob.path) == caches.first]
        if unverified:
            self._on_event(CheckBegan(len(unverified), sum(blob.size_bytes for blob in unverified)))
            in_threads(inventory.verify, unverified, HASHING_THREADS)
        has_others = len(caches.present) > 1
        copied = take_from_other_caches(self._store, self._repo, files, self._on_event)
        if unverified or has_others:  # also without a copy: a folder that failed is passed over
            missing = inventory.missing(files)
        taken = take_adopted(self._store, self._repo, missing, self._on_event) if missing else []
        return (inventory.missing(missing) if taken else missing), _size(taken), _size(copied)

    def _make_transfer(
        self, resolution: Resolution, found: FoundManifest, files: Sequence[ManifestFile]
    ) -> SnapshotTransfer:
        is_of_lan = resolution.is_of_peers or self._lan.publisher(self._repo, resolution.commit) is not None
        is_of_lan = is_of_lan or resolution.commit in self._store.publications.of(self._repo)
        sites: FindSites = no_sites
        if not (self._request.only_from_peers or self._request.is_local_only):
            may_tell_name = not (is_of_lan or self._upstreams.may_send_token)
            sites = self._parts.sites.of_add(
                self._request.modelscope, may_tell_name=may_tell_name, on_event=self._on_event
            )
        return SnapshotTransfer(
            self._store,
            self._parts.fetches,
            PeerFinder(self._lan if self._trust.asks_peers else None, self._upstreams.giving, sites=sites),
            found.manifest,
            files,
            self._on_event,
            makes_links=self._request.makes_links,
        )

    def _refuse_unfit(self, manifest: Manifest, files: Sequence[ManifestFile]) -> None:
        """Blocking. Raises NotThisVolume for a repo or files that the volume of the cache cannot hold."""
        cache = self._store.cache
        refuse_another(cache, self._repo.folder, cache / self._repo.folder)
        snapshot = self._store.snapshot_path(self._repo, manifest.commit)
        refuse_unfit(
            cache,
            [(file.path, file.size_bytes) for file in files],
            there=lambda path: is_spelled_so(snapshot, path),
            all_paths=[file.path for file in manifest.files],
        )

    async def _run_transfer(
        self,
        transfer: SnapshotTransfer,
        found: FoundManifest,
        missing: Sequence[ManifestFile],
        right: Collection[Digest],
    ) -> None:
        """Fetches the missing files and installs the snapshot. Sources that lied lose their credit, also after an
        error."""
        try:
            await transfer.run(missing, right)
        except ForgedManifest:
            if found.peer_id is not None:
                self._lan.report_liar_node(found.peer_id)
            raise
        finally:
            for name in transfer.totals.liars:
                self._lan.report_liar(name)

    async def _remember(self, resolution: Resolution) -> None:
        """Writes the refs for other tools, and the publisher of a commit that a node of the LAN published.

        An add that was interrupted has not done it, so it does not matter whether this add fetched the manifest.
        """
        place = (self._repo, self._request.revision, resolution.commit)
        if self._request.told_as is not None:
            told = (self._repo, self._request.told_as, resolution.commit)
            await asyncio.to_thread(self._store.refs.show_told, *told)
        if resolution.is_of_upstream:
            await asyncio.to_thread(self._store.refs.show_answer, *place)
        elif resolution.is_of_peers:
            await asyncio.to_thread(self._store.refs.show_told, *place)
        if self._trust.asks_peers and not resolution.is_of_upstream:
            publisher = self._lan.publisher(self._repo, resolution.commit)
            if publisher is not None:
                await asyncio.to_thread(self._store.note_published_there, self._repo, resolution.commit, publisher)


def _wait_began(rest: Rest) -> WaitBegan:
    sentence = f"{rest.hub} limits requests until {rest.clock_time}; peers and other hubs are asked meanwhile."
    return WaitBegan(sentence, rest.hub, rest.until)


def _sizes(files: Sequence[ManifestFile]) -> dict[Digest, int]:
    return {file.digest: file.size_bytes for file in files}


def _size(files: Sequence[ManifestFile]) -> int:
    return sum(_sizes(files).values())


def _planned(
    found: FoundManifest,
    files: int,
    size_bytes: int,
    missing: Sequence[ManifestFile],
    unmatched: Sequence[str],
    kept: int,
) -> Planned:
    return Planned(
        repo=found.manifest.repo.full_name,
        commit=found.manifest.commit,
        files=files,
        size_bytes=size_bytes,
        missing_files=len(missing),
        missing_bytes=_size(missing),
        manifest_from=found.source,
        is_proved=not found.manifest.is_attested,
        unmatched=tuple(unmatched),
        kept_bytes=kept,
    )


def _not_storable(manifest: Manifest, unusable: Sequence[OpaqueEntry], files: int, snapshot: Path) -> StorageError:
    named = [f"{_shown(entry.path)} ({path_problem(entry.path)})" for entry in unusable[:3]]
    names = "; ".join(named) + ("; …" if len(unusable) > 3 else "")
    total = files + len(unusable)
    return StorageError(
        f"{len(unusable)} of {counted(total, 'file')} of {manifest.repo} at {manifest.commit.short} cannot be stored "
        f"here: {names}.",
        hint=f"All others are in {snapshot}." if files else "Such names have to be changed in the repo itself.",
        repo=str(manifest.repo),
        commit=str(manifest.commit),
        paths=[_shown(entry.path) for entry in unusable[:100]],
        snapshot=str(snapshot),
    )


def _shown(path: str) -> str:
    """A foreign path for people: shortened, and quoted so that it cannot move a cursor and is valid UTF-8."""
    short = path if len(path) <= 120 else f"{path[:100]}…"
    return ascii(short) if any(0xD800 <= ord(character) <= 0xDFFF for character in short) else repr(short)


def _not_cached(manifest: Manifest, missing: Sequence[ManifestFile]) -> NotFound:
    names = ", ".join(file.path for file in missing[:3]) + (" …" if len(missing) > 3 else "")
    return NotFound(
        f"The cache lacks {counted(len(missing), 'file')} of {manifest.repo} at {manifest.commit.short}: {names}.",
        hint="Run it without --local-only to fetch them.",
        repo=str(manifest.repo),
        commit=str(manifest.commit),
    )
