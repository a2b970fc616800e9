"""From a commit to its manifest: from the cache, then from peers, then from the upstreams.

The source of a manifest does not matter if the manifest has a proof: it is checked against the commit. A manifest
without one is taken from an upstream, and from a peer only if the user trusts peers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hfpeer.cache.records import CachedRevision
from hfpeer.cache.store import Store
from hfpeer.errors import ForgedManifest, HfpeerError, NotFound, Unreachable
from hfpeer.language.amounts import counted
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId
from hfpeer.net.tasks import end_tasks
from hfpeer.peers.table.table import Peer
from hfpeer.resolver.peer_queries import PeerQueries, PeerTrust, name_of
from hfpeer.transfer.events import OnEvent, SourceFailed
from hfpeer.upstream.upstreams import Upstreams

NEXT_PEER_SECONDS = 0.5
"""Seconds without an answer of a peer before the next one is asked too."""
PEERS_FIRST_SECONDS = 1.5
"""Seconds in which only peers are asked for a manifest, if there are upstreams to ask after them."""


@dataclass(frozen=True)
class FoundManifest:
    """A manifest and the name of its source; `peer_id` is the node id of a peer. `is_open`: the peer gives it to every
    asker."""

    manifest: Manifest
    source: str
    peer_id: str | None = None
    is_open: bool = True


class ManifestResolver:
    """Finds manifests for one node. Belongs to its event loop."""

    def __init__(self, store: Store, peers: PeerQueries) -> None:
        self._store = store
        self._peers = peers

    async def find_cached(self, repo: RepoId, commit: Commit) -> FoundManifest:
        """The manifest that the cache has, or the list of the Hub client in it. Raises NotFound."""
        manifests = self._store.manifests
        manifest = await asyncio.to_thread(manifests.load, repo, commit)
        manifest = manifest or await asyncio.to_thread(manifests.listed, repo, commit)
        if manifest is None:
            raise NotFound(
                f"The cache has no manifest of {repo} at {commit.short}.",
                hint="Run it once without --local-only.",
                repo=str(repo),
                commit=str(commit),
            )
        return FoundManifest(manifest, "cache")

    async def find(
        self,
        repo: RepoId,
        commit: Commit,
        upstreams: Upstreams,
        on_event: OnEvent,
        *,
        trust: PeerTrust,
        is_add: bool = False,
        uses_cache: bool = True,
    ) -> FoundManifest:
        """The manifest of a commit: from the cache (if it `uses_cache`), then peers, then the upstreams. It is kept.

        In an add (`is_add`), when no upstream answers, the list of the Hub client in the cache takes its place. Raises
        the error of the upstreams when no source has it; in an add the message then says what files of the commit are
        in the cache. Raises NotFound or Unreachable when only a peer that is not trusted has it, without a proof.
        """
        known = await asyncio.to_thread(self._store.manifests.load, repo, commit) if uses_cache else None
        if known is not None:
            return FoundManifest(known, "cache")
        from_peers = asyncio.create_task(self._from_peers(repo, commit, on_event, trust))
        try:
            await asyncio.wait([from_peers], timeout=PEERS_FIRST_SECONDS if upstreams.upstreams else None)
            found = from_peers.result() if from_peers.done() else None
            if found is not None and not found.manifest.is_attested:
                return await self._keep(found)
            try:
                return await self.from_upstreams(repo, commit, upstreams)
            except HfpeerError as error:
                found = await from_peers
                is_trusted = found is not None and (trust is PeerTrust.WORD or not found.manifest.is_attested)
                if is_add and not is_trusted and isinstance(error, Unreachable):
                    listed = await asyncio.to_thread(self._store.manifests.listed, repo, commit)
                    if listed is not None:
                        return FoundManifest(listed, "cache")
                if found is None:
                    cached = None
                    if is_add:
                        cached = await asyncio.to_thread(self._store.revisions.find, repo, commit)
                    raise error if cached is None else _with_cached_files(error, cached) from None
                if is_trusted:
                    return await self._keep(found)
                raise _without_proof(found, error) from error
        finally:
            await end_tasks([from_peers])

    async def from_upstreams(self, repo: RepoId, commit: Commit, upstreams: Upstreams) -> FoundManifest:
        """The manifest that an upstream has. It is kept. Raises the errors of `Upstreams.manifest`."""
        manifest, name = await upstreams.as_last_resort().manifest(repo, commit)
        return await self._keep(FoundManifest(manifest, name), upstreams)

    async def _keep(self, found: FoundManifest, upstreams: Upstreams | None = None) -> FoundManifest:
        """Saves a manifest of a peer, or of one of these upstreams."""
        await asyncio.to_thread(
            self._store.save_manifest,
            found.manifest,
            is_of_origin=upstreams is not None and upstreams.is_origin(found.source),
            is_given=found.is_open if upstreams is None else upstreams.gives_openly(found.source),
        )
        return found

    async def _from_peers(
        self, repo: RepoId, commit: Commit, on_event: OnEvent, trust: PeerTrust
    ) -> FoundManifest | None:
        """The first manifest with a proof; else one without, if a peer has one.

        A slow peer does not delay the others: after NEXT_PEER_SECONDS the next one is asked too.
        """
        attested = None
        peers = self._peers.candidates(commit) if trust.asks_peers else []
        asking: set[asyncio.Task[FoundManifest | None]] = set()
        try:
            while peers or asking:
                if peers:
                    asking.add(asyncio.create_task(self._from_peer(peers.pop(0), repo, commit, on_event)))
                timeout = NEXT_PEER_SECONDS if peers else None
                done, asking = await asyncio.wait(asking, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                for found in filter(None, (task.result() for task in done)):
                    if not found.manifest.is_attested:
                        return found
                    attested = attested or found
        finally:
            await end_tasks(asking)
        return attested

    async def _from_peer(self, peer: Peer, repo: RepoId, commit: Commit, on_event: OnEvent) -> FoundManifest | None:
        try:
            manifest = await self._peers.manifest(peer, repo, commit)
        except ForgedManifest as error:
            on_event(SourceFailed(name_of(peer), "manifest", error.message, was_lying=True))
            return None
        if manifest is None:
            return None
        return FoundManifest(manifest, name_of(peer), peer.key, is_open=not peer.address.is_socket)


def _with_cached_files(error: HfpeerError, cached: CachedRevision) -> HfpeerError:
    """The error for a commit whose manifest no source has, although another tool put files of it into the cache."""
    sentence = (
        f"The cache has {counted(cached.files, 'file')} of it, in {cached.snapshot}; no source says which other files "
        "belong to it."
    )
    return type(error)(f"{error.message} {sentence}", hint=error.hint, **error.facts)


def _without_proof(found: FoundManifest, error: HfpeerError) -> HfpeerError:
    repo, commit = found.manifest.repo, found.manifest.commit
    cls = NotFound if isinstance(error, NotFound) else Unreachable
    return cls(
        f"Only {found.source} has a manifest of {repo} at {commit.short}. It has no proof, and no upstream confirms "
        f"it: {error.message}",
        hint="If you trust the peers of this LAN, add --trust-peers, or set trust.attested to true.",
        repo=str(repo),
        commit=str(commit),
    )
