"""One add from the request to the finished snapshot: resolve, list, check, fetch, install, remember.

Owns the order of these steps and what each is told; the steps themselves are `resolving`, `transfer` and the store.
"""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

from hfpeer.cache.store import Store
from hfpeer.errors import ForgedManifest, HfpeerError, NotFound
from hfpeer.lan import Lan
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, RepoId, Visibility
from hfpeer.operations import AddRequest
from hfpeer.resolving import Listing, Resolver
from hfpeer.settings import Settings
from hfpeer.transfer.events import CheckBegan, Finished, Listener, Planned, Resolved
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.scout import Scout
from hfpeer.transfer.snapshot import SnapshotTransfer
from hfpeer.transfer.sources import UpstreamSource
from hfpeer.upstream.hubs import Hubs

HASHING_THREADS = 2


class Adder:
    """Adds for one node, from its LAN and its upstreams. Belongs to the node's event loop."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        resolver: Resolver,
        lan: Lan,
        settings: Settings,
    ) -> None:
        self._store = store
        self._fetches = fetches
        self._resolver = resolver
        self._lan = lan
        self._settings = settings
        self._tickets = count()
        self._under_way: dict[int, str] = {}

    @property
    def under_way(self) -> tuple[str, ...]:
        """What is being added now, for people."""
        return tuple(self._under_way.values())

    async def add(self, request: AddRequest, hubs: Hubs, on_event: Listener) -> Finished:
        """See `Operations.add`. `hubs` act for whoever made the request."""
        began_at = time.monotonic()
        ticket = next(self._tickets)
        self._under_way[ticket] = f"{request.repo} {request.revision}"
        try:
            finished = await self._add_believing(request, hubs, on_event)
        finally:
            del self._under_way[ticket]
        finished = replace(finished, seconds=time.monotonic() - began_at)
        on_event(finished)
        return finished

    async def _add_believing(self, request: AddRequest, hubs: Hubs, on_event: Listener) -> Finished:
        """Adds; where the files say that a peer's listing was forged, once more by what an upstream lists."""
        try:
            return await self._add(request, hubs, on_event)
        except ForgedManifest as error:
            if "path" not in error.facts:
                raise
            commit = Commit.parse(error.facts["commit"])
            await asyncio.to_thread(self._store.forget_manifest, request.repo, commit)
            try:
                manifest, _ = await hubs.manifest(request.repo, commit)
            except HfpeerError:
                raise error from None
            await asyncio.to_thread(self._store.save_manifest, manifest)
        return await self._add(request, hubs, on_event)

    async def _add(self, request: AddRequest, hubs: Hubs, on_event: Listener) -> Finished:
        asks_peers = request.uses_peers and not request.is_local_only
        await asyncio.to_thread(self._store.scan_repo, request.repo)
        if asks_peers:
            await self._lan.greet(Commit(request.revision) if request.revision.is_commit else None)
        listing = await self._list(request, hubs, on_event, asks_peers=asks_peers)
        manifest, repo = listing.manifest, request.repo
        files = select(manifest, request)
        missing = await asyncio.to_thread(self._missing, files, on_event)
        on_event(_planned(listing, files, missing))
        if request.is_local_only and missing:
            raise _not_all_here(manifest, missing)
        transfer = SnapshotTransfer(
            self._store,
            self._fetches,
            Scout(
                self._lan.source_peers,
                [UpstreamSource(upstream) for upstream in hubs.upstreams],
                self._lan.peers_called,
            ),
            manifest,
            files,
            on_event,
            asks_peers=asks_peers,
            patience_seconds=self._settings.patience_seconds,
        )
        learning = asyncio.create_task(self._learn_visibility(listing, hubs, request))
        try:
            await transfer.run(missing)
        except ForgedManifest:
            if listing.from_peer is not None:
                self._lan.blame_node(listing.from_peer)
            raise
        finally:
            self._blame(transfer)
            await asyncio.gather(learning, return_exceptions=True)
        if not request.revision.is_commit:
            await asyncio.to_thread(self._store.write_ref, repo, request.revision, manifest.commit, listing.given_by)
        size_bytes, missing_bytes = _size(files), _size(missing)
        return Finished(
            repo=repo.full_name,
            commit=manifest.commit,
            snapshot=str(self._store.snapshot_path(repo, manifest.commit)),
            files=len(files),
            size_bytes=size_bytes,
            reused_bytes=size_bytes - missing_bytes,
            bytes_by_source=transfer.tally.bytes_by_source,
            bytes_by_kind=transfer.tally.bytes_by_kind,
            refetched_bytes=transfer.tally.refetched_bytes,
        )

    async def _list(self, request: AddRequest, hubs: Hubs, on_event: Listener, *, asks_peers: bool) -> Listing:
        repo, revision = request.repo, request.revision
        if request.is_local_only:
            resolution = await self._resolver.local_commit(repo, revision)
        else:
            resolution = await self._resolver.commit(repo, revision, hubs, asks_peers=asks_peers)
        on_event(Resolved(repo.full_name, revision, resolution.commit, resolution.answered_by, resolution.age_seconds))
        if request.is_local_only:
            return await self._local_listing(repo, resolution.commit)
        return await self._resolver.listing(
            repo,
            resolution.commit,
            hubs,
            on_event,
            asks_peers=asks_peers,
            trusts_peers=request.trusts_peers or self._settings.trusts_attested,
        )

    async def _local_listing(self, repo: RepoId, commit: Commit) -> Listing:
        manifest = await asyncio.to_thread(self._store.load_manifest, repo, commit)
        if manifest is None:
            raise NotFound(
                f"The cache has no listing of {repo} at {commit.short}.",
                hint="Run it once without --local-only.",
                repo=str(repo),
                commit=str(commit),
            )
        return Listing(manifest, "cache")

    async def _learn_visibility(self, listing: Listing, hubs: Hubs, request: AddRequest) -> None:
        """What an upstream lists anonymously is public; what a peer shares is public on this LAN already."""
        repo = listing.manifest.repo
        if request.is_local_only or await asyncio.to_thread(self._store.visibility, repo) is not Visibility.UNKNOWN:
            return
        try:
            visibility, _ = await hubs.visibility(repo)
        except HfpeerError:
            if listing.from_peer is None:
                return
            visibility = Visibility.PUBLIC
        await asyncio.to_thread(self._store.set_visibility, repo, visibility)

    def _missing(self, files: Sequence[ManifestFile], on_event: Listener) -> list[ManifestFile]:
        """What has to be fetched. What other tools put there is hashed first, once: wrong bytes count as missing."""
        absent = {file.digest for file in self._store.missing(files)}
        here = {file.digest: file for file in files if file.digest not in absent}
        found = {digest: self._store.find_blob(digest) for digest in here}
        unverified = [blob for blob in found.values() if blob is not None and not blob.is_verified]
        if unverified:
            on_event(CheckBegan(len(unverified), sum(blob.size_bytes for blob in unverified)))
            with ThreadPoolExecutor(HASHING_THREADS) as pool:
                list(pool.map(self._store.verify, unverified))
        return self._store.missing(files)

    def _blame(self, transfer: SnapshotTransfer) -> None:
        for name in transfer.tally.liars:
            self._lan.blame(name)


def select(manifest: Manifest, request: AddRequest) -> list[ManifestFile]:
    """The files of a manifest that a request asks for. Raises EntryNotFound for a named file that is not there.

    Globs match as huggingface_hub's `filter_repo_objects` does: fnmatch, `*` crosses `/`, `dir/` means `dir/*`.
    """
    for path in request.files:
        manifest.file(path)
    include, exclude = _globs(request.include), _globs(request.exclude)

    def is_wanted(file: ManifestFile) -> bool:
        if request.files and file.path not in request.files and not include:
            return False
        if include and file.path not in request.files and not _matches(file.path, include):
            return False
        return not _matches(file.path, exclude)

    return [file for file in manifest.files if is_wanted(file)]


def _globs(patterns: Sequence[str]) -> list[str]:
    return [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in patterns]


def _matches(path: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, glob) for glob in globs)


def _size(files: Sequence[ManifestFile]) -> int:
    return sum({file.digest: file.size_bytes for file in files}.values())


def _planned(listing: Listing, files: Sequence[ManifestFile], missing: Sequence[ManifestFile]) -> Planned:
    return Planned(
        repo=listing.manifest.repo.full_name,
        commit=listing.manifest.commit,
        files=len(files),
        size_bytes=_size(files),
        missing_files=len(missing),
        missing_bytes=_size(missing),
        manifest_from=listing.given_by,
        is_proved=not listing.manifest.is_attested,
    )


def _not_all_here(manifest: Manifest, missing: Sequence[ManifestFile]) -> NotFound:
    names = ", ".join(file.path for file in missing[:3]) + (" …" if len(missing) > 3 else "")
    return NotFound(
        f"{len(missing)} files of {manifest.repo} at {manifest.commit.short} are not in the cache: {names}.",
        hint="Run it without --local-only to fetch them.",
        repo=str(manifest.repo),
        commit=str(manifest.commit),
    )
