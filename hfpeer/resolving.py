"""From what a user typed to a commit, and from a commit to its manifest.

A name is asked of the upstreams first, because only they know what it means now; peers and the local refs answer
when no upstream does, and the age of their answer is said. A commit needs nobody's word: its manifest is taken from
wherever it comes first and believed for its proof.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hfpeer import gitproof
from hfpeer.cache.store import Store
from hfpeer.errors import CorruptData, ForgedManifest, HfpeerError, NotFound, RevisionNotFound, Unreachable
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.table import Peer
from hfpeer.tasks import end_tasks
from hfpeer.transfer.events import Listener, SourceFailed
from hfpeer.upstream.hubs import Hubs

MAX_PEERS_ASKED = 8
PEER_ANSWER_SECONDS = 10.0
NEXT_PEER_SECONDS = 0.5
"""How long a peer is asked for a listing alone, before the next one is asked too."""
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


@dataclass(frozen=True)
class Resolution:
    """What a revision means. `age_seconds` is set when the answer is an old one, because nobody could be asked."""

    commit: Commit
    answered_by: str
    age_seconds: float | None = None


@dataclass(frozen=True)
class Listing:
    """A manifest and who gave it; `from_peer` is that peer's node id."""

    manifest: Manifest
    given_by: str
    from_peer: str | None = None


class Resolver:
    """Asks for one node; `hubs` are those of the request, because a request may bring a token of its own."""

    def __init__(self, store: Store, neighbourhood: Neighbourhood | None) -> None:
        self._store = store
        self._neighbourhood = neighbourhood

    async def commit(self, repo: RepoId, revision: Revision, hubs: Hubs, *, asks_peers: bool) -> Resolution:
        """Raises RepoNotFound or RevisionNotFound when an upstream says so, HubUnreachable when nobody knows."""
        if revision.is_commit:
            return Resolution(Commit(revision), "the commit id itself")
        try:
            commit, name = await hubs.resolve(repo, revision)
        except Unreachable:
            remembered = await self.remembered(repo, revision, asks_peers=asks_peers)
            if remembered is None:
                raise
            return remembered
        await asyncio.to_thread(self._store.write_ref, repo, revision, commit, name)
        return Resolution(commit, name)

    async def local_commit(self, repo: RepoId, revision: Revision) -> Resolution:
        """What the cache alone knows. Raises RevisionNotFound."""
        if revision.is_commit:
            return Resolution(Commit(revision), "the commit id itself")
        remembered = await self.remembered(repo, revision, asks_peers=False)
        if remembered is None:
            raise RevisionNotFound(
                f"The cache does not know {revision!r} of {repo}.",
                hint=f"`hfpeer {repo.type.value} ls -r {repo.full_name}` lists what it has.",
                repo=str(repo),
                revision=str(revision),
            )
        return remembered

    async def listing(
        self, repo: RepoId, commit: Commit, hubs: Hubs, listener: Listener, *, asks_peers: bool, trusts_peers: bool
    ) -> Listing:
        """The manifest of a commit: from the cache, then peers (with proof), then the upstreams. It is kept.

        Raises what the upstreams said when nobody has it, ForgedManifest when all there is cannot be believed.
        """
        known = await asyncio.to_thread(self._store.load_manifest, repo, commit)
        if known is not None:
            return Listing(known, "cache")
        attested: Listing | None = None
        if asks_peers:
            listing = await self._from_peers(repo, commit, listener)
            if listing is not None and not listing.manifest.is_attested:
                return await self._keep(listing)
            attested = listing
        try:
            manifest, name = await hubs.manifest(repo, commit)
        except HfpeerError as error:
            if attested is None:
                raise
            if trusts_peers:
                return await self._keep(attested)
            raise _unproved(attested, error) from error
        return await self._keep(Listing(manifest, name))

    async def _keep(self, listing: Listing) -> Listing:
        await asyncio.to_thread(self._store.save_manifest, listing.manifest)
        return listing

    # Peers

    async def _from_peers(self, repo: RepoId, commit: Commit, listener: Listener) -> Listing | None:
        """The first proved manifest; else one without proof, if a peer has one. A peer that takes long is not waited
        for: the next one is asked beside it."""
        attested = None
        waiting = list(self._peers(commit))
        asking: set[asyncio.Task[Listing | None]] = set()
        try:
            while waiting or asking:
                if waiting:
                    asking.add(asyncio.create_task(self._ask_listing(waiting.pop(0), repo, commit, listener)))
                patience_seconds = NEXT_PEER_SECONDS if waiting else None
                done, asking = await asyncio.wait(asking, timeout=patience_seconds, return_when=asyncio.FIRST_COMPLETED)
                for listing in filter(None, (task.result() for task in done)):
                    if not listing.manifest.is_attested:
                        return listing
                    attested = attested or listing
        finally:
            await end_tasks(asking)
        return attested

    async def _ask_listing(self, peer: Peer, repo: RepoId, commit: Commit, listener: Listener) -> Listing | None:
        name = peer.name or str(peer.address)
        try:
            manifest = await self._ask_manifest(peer, repo, commit)
        except ForgedManifest as error:
            listener(SourceFailed(name, "manifest", error.message, was_lying=True))
            return None
        return None if manifest is None else Listing(manifest, name, peer.key)

    async def _ask_manifest(self, peer: Peer, repo: RepoId, commit: Commit) -> Manifest | None:
        """A peer's manifest, proved if it can be; None if it has none. Raises ForgedManifest and blames the peer."""
        assert self._neighbourhood is not None
        asking = self._neighbourhood.client(peer).manifest(repo, commit)
        try:
            manifest = await asyncio.wait_for(asking, PEER_ANSWER_SECONDS)
        except (Unreachable, CorruptData, asyncio.TimeoutError) as error:
            self._neighbourhood.failed(peer.key, str(error) or "did not answer in time")
            return None
        if manifest is None or manifest.is_attested:
            return manifest
        try:
            await asyncio.to_thread(gitproof.prove, manifest)
        except ForgedManifest:
            self._neighbourhood.lied(peer.key)
            raise
        return manifest

    def _peers(self, commit: Commit | None = None) -> Sequence[Peer]:
        if self._neighbourhood is None:
            return ()
        return self._neighbourhood.candidates(commit)[:MAX_PEERS_ASKED]

    # Memory

    async def remembered(self, repo: RepoId, revision: Revision, *, asks_peers: bool) -> Resolution | None:
        """The newest answer that this node or a peer remembers; a short commit id by what is cached anywhere."""
        local = await asyncio.to_thread(self._store.read_ref, repo, revision)
        answers = [(local[1], local[0], f"this node, told by {local[2]}")] if local else []
        if asks_peers:
            answers += await self._remembered_by_peers(repo, revision)
        if answers:
            resolved_at, commit, answered_by = max(answers)
            return Resolution(commit, answered_by, max(0.0, time.time() - resolved_at))
        if _SHORT_COMMIT.fullmatch(revision):
            return await self._by_prefix(repo, revision)
        return None

    async def _remembered_by_peers(self, repo: RepoId, revision: Revision) -> list[tuple[float, Commit, str]]:
        async def ask(peer: Peer) -> tuple[float, Commit, str] | None:
            assert self._neighbourhood is not None
            try:
                client = self._neighbourhood.client(peer)
                answer = await asyncio.wait_for(client.ref(repo, revision), PEER_ANSWER_SECONDS)
            except (Unreachable, CorruptData, asyncio.TimeoutError):
                return None
            if answer is None:
                return None
            # A peer may not claim to know the future: its answer would win for ever.
            return min(answer.resolved_at, time.time()), answer.commit, peer.name or str(peer.address)

        answers = await asyncio.gather(*(ask(peer) for peer in self._peers()))
        return [answer for answer in answers if answer]

    async def _by_prefix(self, repo: RepoId, prefix: Revision) -> Resolution | None:
        revisions = await asyncio.to_thread(self._store.revisions, repo)
        commits = {Commit(revision.commit) for revision in revisions if revision.commit.startswith(prefix)}
        if self._neighbourhood is not None:
            commits |= {
                revision.commit
                for peer in self._peers()
                if (catalogue := self._neighbourhood.catalogue(peer)) is not None
                for revision in catalogue.revisions
                if revision.repo == repo and revision.commit.startswith(prefix)
            }
        return Resolution(commits.pop(), "what is cached on the LAN") if len(commits) == 1 else None


def _unproved(attested: Listing, error: HfpeerError) -> HfpeerError:
    repo, commit = attested.manifest.repo, attested.manifest.commit
    cls = NotFound if isinstance(error, NotFound) else Unreachable
    return cls(
        f"Only {attested.given_by} lists {repo} at {commit.short}, without a proof, and no upstream confirms it: "
        f"{error.message}",
        hint="If you trust the peers of this LAN, add --trust-peers, or set trust.attested to true.",
        repo=str(repo),
        commit=str(commit),
    )
