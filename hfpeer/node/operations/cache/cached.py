"""The operations on the cache: list, explain, publish and share what this node has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from hfpeer.cache.partial.files import BegunBlob, begun_blobs
from hfpeer.cache.store import Store
from hfpeer.control.operations import CachedRevision, Provenance, Published, PublishRequest
from hfpeer.errors import NotFound
from hfpeer.manifest import Manifest
from hfpeer.names import MAIN, Commit, FilePath, RepoId, Revision
from hfpeer.node.operations.publishing import publish_folder
from hfpeer.resolver.resolver import Resolver
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import OnEvent
from hfpeer.upstream.upstreams import Upstreams


class CacheOperations:
    """Works on the store of one node. `scanned` waits until the catalog agrees with the disk."""

    def __init__(
        self, store: Store, resolver: Resolver, upstreams: Upstreams, scanned: Callable[[], Awaitable[object]]
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._upstreams = upstreams
        self._scanned = scanned

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        """See `Operations.list_revisions`. No revision with a blob of a wrong size is called complete."""
        await self._scanned()
        await in_thread(self._store.scan_blobs, repo)
        if repo is None or revision is None:
            return await asyncio.to_thread(self._with_begun, repo)
        resolution = await self._resolver.commits.resolve_cached(repo, revision)
        cached = await asyncio.to_thread(self._store.revisions.find, repo, resolution.commit)
        if cached is None:
            raise NotFound(
                f"{repo} at {resolution.commit.short} is not in the cache.",
                hint=f"`hfpeer {repo.type.value} add -r {repo.full_name} -v {revision}` fetches it.",
            )
        return [cached]

    def _with_begun(self, repo: RepoId | None) -> list[CachedRevision]:
        """The revisions, each partial one with its half-fetched blobs, and those of which nothing else is here."""
        store = self._store
        found = store.revisions.all() if repo is None else store.revisions.of(repo)
        begun = {one.etag: one for one in begun_blobs(store.cache)}
        named = set[str]()
        for number, cached in enumerate(found):
            if cached.is_complete is False:
                place = RepoId.parse(cached.repo, cached.type), Commit(cached.commit)
                manifest = store.manifests.load(*place) or store.manifests.listed(*place)
                found[number] = _partial(cached, manifest, begun) if manifest else cached
                named |= {file.digest.hex for file in manifest.files} if manifest else set()
        here = {(cached.type, cached.repo, cached.commit) for cached in found}
        left = begun.keys() - named
        for one in [repo] if repo else store.manifests.repos() if left else []:
            for commit in store.manifests.commits(one) if left else []:
                manifest = store.manifests.load(one, commit)
                mine = {file.digest.hex for file in manifest.files} & left if manifest else set()
                if manifest and mine and (one.type.value, one.full_name, commit) not in here:
                    changed_at = max(begun[etag].changed_at for etag in mine)
                    found.append(_partial(store.revisions.empty(manifest, changed_at), manifest, begun))
                    left -= mine
        return found

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        """See `Operations.why`."""
        await self._scanned()
        commit = (await self._resolver.commits.resolve_cached(repo, revision)).commit
        provenance = await asyncio.to_thread(self._store.provenance, repo, commit, files)
        unknown = sorted({*files} - {file.path for file in provenance})
        if unknown or not provenance:
            subject = f"{', '.join(unknown)} of {repo}" if unknown else str(repo)
            raise NotFound(
                f"{subject} at {commit.short} is not in the cache.",
                hint=f"`hfpeer {repo.type.value} ls -r {repo.full_name}` lists what is.",
                repo=str(repo),
                commit=str(commit),
            )
        return provenance

    async def publish(self, request: PublishRequest, on_event: OnEvent, publisher: str) -> Published:
        """See `Operations.publish`. `publisher` is the name of this node."""
        repo = request.repo
        await self._scanned()
        notes = () if request.is_forced else await self._resolver.check_name(repo, self._upstreams)
        published = await in_thread(publish_folder, self._store, request, publisher, on_event)
        hidden = await asyncio.to_thread(self._why_hidden, repo, Commit(published.commit))
        return replace(published, notes=(*notes, *hidden), is_shared=not hidden)

    def _why_hidden(self, repo: RepoId, commit: Commit) -> tuple[str, ...]:
        """Why peers may not see a commit that was published here; empty if they may."""
        shared = self._store.shared
        if shared.is_commit_shared(repo, commit):
            return ()
        way = f"`hfpeer {repo.type.value} share -r {repo.full_name}` lets them."
        for source, of in shared.made_of(repo, commit):
            if of is not None and not shared.is_commit_shared(source, of):
                made_of = f"it was made of {source} at {of.short}, whose visibility is {shared.word_on(source, of)}"
                return (f"Peers do not see it: {made_of}. {way}",)
        return (f"Peers do not see it: you have unshared {repo}. {way}",)

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        """See `Operations.share`."""
        await self._scanned()
        revisions = await asyncio.to_thread(self._store.revisions.of, repo)
        if not revisions:
            raise NotFound(f"{repo} is not in the cache.", hint=f"`hfpeer {repo.type.value} ls` lists what is.")
        await asyncio.to_thread(self._store.set_share, repo, is_shared)
        return await asyncio.to_thread(self._store.revisions.of, repo)


def _partial(cached: CachedRevision, manifest: Manifest, begun: Mapping[str, BegunBlob]) -> CachedRevision:
    """A partial revision with the size of all its files, and with what half-fetched blobs have of them."""
    sizes = {file.digest.hex: file.size_bytes for file in manifest.files}
    mine = [begun[etag] for etag in sizes if etag in begun]
    return replace(
        cached,
        kept_bytes=sum(one.present_bytes for one in mine),
        reserved_bytes=sum(one.disk_bytes for one in mine),
        listed_bytes=sum(sizes.values()),
    )
