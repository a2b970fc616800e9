"""The node: everything wired together in one place, and what it can do.

`Node` implements `Operations` and, once started as a daemon, holds the parts that peers see. A node in a command's
own process is the same thing without peers and without upkeep. All wiring is in `__init__`, `start` and `stop`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfpeer import __version__
from hfpeer.adding import Adder
from hfpeer.cache.folder import read_folder
from hfpeer.cache.store import Store
from hfpeer.endpoint.endpoint import Endpoint, Rules
from hfpeer.errors import AccessDenied, BrokenCache, HfpeerError, NotFound
from hfpeer.holdings import NodeHoldings
from hfpeer.lan import Lan
from hfpeer.limits import make_limiter
from hfpeer.names import Address, Commit, FilePath, RepoId, Revision
from hfpeer.operations import (
    MAIN,
    AddRequest,
    CachedRevision,
    Holding,
    NodeStatus,
    PeerStatus,
    Provenance,
    Published,
    Removed,
)
from hfpeer.paths import Places
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.table import Peer
from hfpeer.resolving import Resolver
from hfpeer.settings import Settings, write_setting
from hfpeer.transfer.events import Finished, Listener
from hfpeer.transfer.fetches import Fetches
from hfpeer.upkeep import Upkeep
from hfpeer.upstream.hub import Upstream, stored_token
from hfpeer.upstream.hubs import Hubs
from hfpeer.wire import PROTOCOL_VERSION, NodeMessage

if TYPE_CHECKING:
    from hfpeer.peers.discovery import Discovery


class Node:
    """One node over one home and one cache. Belongs to the event loop on which it is started."""

    def __init__(self, settings: Settings) -> None:
        """Opens the cache and the catalogue. Raises BrokenCache when they cannot be used."""
        self._settings = settings
        self._places = settings.places
        self.node_id = _node_id(self._places)
        self.store = Store(self._places.cache, self._places.home)
        self._fetches = Fetches(self.store, self.node_id, patience_seconds=settings.patience_seconds)
        self._hubs = _make_hubs(settings)
        self._neighbourhood: Neighbourhood | None = None
        self._discovery: Discovery | None = None
        self._upkeep: Upkeep | None = None
        self._resolver = Resolver(self.store, None)
        alone = Lan(None, waits_for_peers=False)
        self._adder = Adder(self.store, self._fetches, self._resolver, alone, settings)
        self._endpoint: Endpoint | None = None
        self._started_at = time.time()
        self.listeners: dict[str, str] = {}
        self.holdings = NodeHoldings(self.store, self._fetches, self._identity, self._alive_addresses)

    async def start(self, lan_address: Address | None) -> None:
        """Joins the LAN: `lan_address` is where the LAN door really listens; None stays alone."""
        if lan_address is None:
            return
        self._neighbourhood = Neighbourhood(
            self.node_id,
            self._settings.peers,
            limiter=make_limiter(self._settings.lan_down_limit),
            is_busy=lambda: self._fetches.are_under_way,
        )
        self._resolver = Resolver(self.store, self._neighbourhood)
        await self._neighbourhood.start()
        if self._settings.uses_mdns:
            from hfpeer.peers.discovery import Discovery

            self._discovery = Discovery(self.node_id, self._settings.name, lan_address)
            await self._discovery.start(self._neighbourhood.found, self._neighbourhood.left)
        lan = Lan(self._neighbourhood, waits_for_peers=self._discovery is not None)
        self._adder = Adder(self.store, self._fetches, self._resolver, lan, self._settings)
        self._endpoint = self._make_endpoint(lan)
        self._upkeep = Upkeep(self.store, self._hubs, self._announce)
        self._upkeep.start()

    async def stop(self) -> None:
        """Leaves the LAN and closes everything; adds under way must have been cancelled before."""
        for part in (self._endpoint, self._upkeep, self._discovery, self._neighbourhood):
            if part is not None:
                await part.stop()
        await self._hubs.aclose()
        await asyncio.to_thread(self.store.close)

    @property
    def endpoint(self) -> Endpoint | None:
        """What local tools are given; None while the node is alone."""
        return self._endpoint

    def _make_endpoint(self, lan: Lan) -> Endpoint:
        rules = Rules(
            ref_seconds=self._settings.ref_seconds,
            stale_refs=self._settings.stale_refs,
            offline_seconds=self._settings.offline_days * 86400,
            trusts_attested=self._settings.trusts_attested,
            patience_seconds=self._settings.patience_seconds,
        )
        return Endpoint(self.store, self._fetches, self._resolver, lan, self._hubs, rules)

    async def add(self, request: AddRequest, on_event: Listener) -> Finished:
        hubs = self._hubs if request.token is None else self._hubs.acting_for(request.token)
        await self._look_at_cache()
        return await self._adder.add(request, hubs, on_event)

    # The cache

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        await self._look_at_cache()
        if repo is None:
            return await asyncio.to_thread(self.store.revisions)
        if revision is None:
            return await asyncio.to_thread(self.store.revisions, repo)
        resolution = await self._resolver.local_commit(repo, revision)
        found = await asyncio.to_thread(self.store.revision, repo, resolution.commit)
        if found is None:
            raise NotFound(
                f"{repo} at {resolution.commit.short} is not in the cache.",
                hint=f"`hfpeer {repo.type.value} add -r {repo.full_name} -v {revision}` brings it.",
            )
        return [found]

    async def remove(self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()) -> Removed:
        await self._look_at_cache()
        commit = None if revision is None else (await self._resolver.local_commit(repo, revision)).commit
        removed = await asyncio.to_thread(self.store.remove, repo, commit, files)
        if not removed.commits and not removed.files:
            raise NotFound(
                f"{repo} is not in the cache" + (", or not these files of it." if files else "."),
                hint=f"`hfpeer {repo.type.value} ls` lists what is.",
                repo=str(repo),
            )
        return removed

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        await self._look_at_cache()
        commit = (await self._resolver.local_commit(repo, revision)).commit
        found = await asyncio.to_thread(self.store.provenance, repo, commit, files)
        strange = sorted({*files} - {file.path for file in found})
        if strange or not found:
            what = f"{', '.join(strange)} of {repo}" if strange else str(repo)
            raise NotFound(
                f"{what} at {commit.short} is not in the cache.",
                hint=f"`hfpeer {repo.type.value} ls -r {repo.full_name}` lists what is.",
                repo=str(repo),
                commit=str(commit),
            )
        return found

    async def publish(self, folder: str, repo: RepoId) -> Published:
        await self._look_at_cache()
        if await asyncio.to_thread(self._is_somebody_elses, repo):
            raise AccessDenied(
                f"{repo} is in the cache already and is not shared; publishing would share all of it.",
                hint="Publish under another name, or share it first with `hfpeer "
                f"{repo.type.value} share -r {repo.full_name}`.",
                repo=str(repo),
            )
        return await asyncio.to_thread(self._publish, Path(folder), repo)

    def _is_somebody_elses(self, repo: RepoId) -> bool:
        return bool(self.store.revisions(repo)) and not self.store.is_shared(repo)

    def _publish(self, folder: Path, repo: RepoId) -> Published:
        made = read_folder(folder, repo)
        manifest = made.manifest
        for digest, path in made.sources.items():
            self.store.adopt_blob(path, digest, repo)
        for digest, text in made.texts.items():
            self.store.publish_bytes(digest, text, repo)
        self.store.save_manifest(manifest)
        snapshot = self.store.install(repo, manifest.commit, manifest.files)
        self.store.note_published(repo)
        self.store.set_share(repo, True)
        self.store.write_ref(repo, MAIN, manifest.commit, self._settings.name)
        return Published(
            repo=repo.full_name,
            commit=manifest.commit,
            snapshot=str(snapshot),
            files=len(manifest.files),
            size_bytes=manifest.size_bytes,
            lfs_files=tuple(file.path for file in manifest.files if file.is_lfs),
        )

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        await self._look_at_cache()
        revisions = await asyncio.to_thread(self.store.revisions, repo)
        if not revisions:
            raise NotFound(f"{repo} is not in the cache.", hint=f"`hfpeer {repo.type.value} ls` lists what is.")
        await asyncio.to_thread(self.store.set_share, repo, is_shared)
        return await asyncio.to_thread(self.store.revisions, repo)

    async def _look_at_cache(self) -> None:
        """A daemon knows its cache; a node in a command's process has to look once."""
        if self._upkeep is None:
            await asyncio.to_thread(self.store.scan)
        else:
            await self._upkeep.scanned()

    # Peers

    async def search(
        self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        if self._neighbourhood is None:
            return []
        await self._neighbourhood.refresh()
        found = []
        for peer in self._neighbourhood.candidates():
            catalogue = self._neighbourhood.catalogue(peer)
            for held in catalogue.revisions if catalogue else ():
                is_asked = revision is None or held.commit.startswith(revision) or revision in held.refs
                if held.repo == repo and is_asked:
                    holding = Holding(
                        peer=peer.name,
                        address=str(peer.address),
                        repo=repo.full_name,
                        commit=held.commit,
                        refs=tuple(held.refs),
                        is_complete=held.is_complete,
                        size_bytes=held.size_bytes,
                    )
                    found += await self._holding_files(peer, holding, repo, files) if files else [holding]
        return found

    async def _holding_files(
        self, peer: Peer, holding: Holding, repo: RepoId, files: Sequence[FilePath]
    ) -> list[Holding]:
        """Which of `files` a peer really has, by digest."""
        assert self._neighbourhood is not None
        client = self._neighbourhood.client(peer)
        commit = Commit(holding.commit)
        held = []
        try:
            manifest = await asyncio.to_thread(self.store.load_manifest, repo, commit)
            manifest = manifest or await client.manifest(repo, commit)
            for path in files:
                file = manifest.by_path.get(path) if manifest else None
                pieces = await client.pieces(file.digest) if file else None
                if file is not None and pieces is not None:
                    is_whole = pieces.bits is None
                    held.append(replace(holding, path=path, size_bytes=file.size_bytes, is_complete=is_whole))
        except HfpeerError:
            pass
        return held

    async def add_peer(self, address: str) -> PeerStatus:
        parsed = Address.parse(address)
        await self._keep_peers(dict.fromkeys((*self._settings.added_peers, parsed)))
        if self._neighbourhood is None:
            return PeerStatus("", "", str(parsed), "known", "static", note="no daemon is running")
        peer = self._neighbourhood.add_static(parsed)
        await self._neighbourhood.probe(peer)
        found = self._neighbourhood.table.get(str(parsed))
        return self._peer_status(found or peer, {})

    async def remove_peer(self, address: str) -> None:
        parsed = Address.parse(address)
        is_kept = parsed in self._settings.added_peers
        if parsed in self._named_peers:
            raise NotFound(
                f"{parsed} was not added by a command: HFPEER_PEERS names it.",
                hint="Take it out of the daemon's environment.",
            )
        if is_kept:
            await self._keep_peers(peer for peer in self._settings.added_peers if peer != parsed)
        if self._neighbourhood is not None:
            self._neighbourhood.remove_static(parsed)
        elif not is_kept:
            raise NotFound(f"{parsed} is not one of the peers that were added.", hint="`hfpeer peer ls` shows them.")

    async def _keep_peers(self, added: Iterable[Address]) -> None:
        """Those that were added; the environment may name others."""
        named, added = self._named_peers, tuple(added)
        text = ",".join(map(str, added)) or None
        await asyncio.to_thread(write_setting, self._places.home, "peers", text)
        peers = tuple(dict.fromkeys((*named, *added)))
        self._settings = replace(self._settings, peers=peers, added_peers=added)

    @property
    def _named_peers(self) -> tuple[Address, ...]:
        """Those that only the environment names."""
        return tuple(peer for peer in self._settings.peers if peer not in self._settings.added_peers)

    async def list_peers(self) -> list[PeerStatus]:
        if self._neighbourhood is None:
            return [PeerStatus("", "", str(peer), "known", "static") for peer in self._settings.peers]
        totals = await asyncio.to_thread(self.store.totals)
        return [self._peer_status(peer, totals["received_by_source"]) for peer in self._neighbourhood.table.all()]

    def _peer_status(self, peer: Peer, received_by_source: Mapping[str, int]) -> PeerStatus:
        """`received_by_source` counts under the peer's name, or its name and address where names are not unique."""
        assert self._neighbourhood is not None
        names = {peer.name, str(peer.address), f"{peer.name}@{peer.address}"}
        catalogue = self._neighbourhood.catalogue(peer)
        return PeerStatus(
            node_id=peer.node_id or "",
            name=peer.name,
            address=str(peer.address),
            state=self._neighbourhood.state(peer).value,
            origin=peer.origin.value,
            version=peer.version,
            revisions=len(catalogue.revisions) if catalogue else 0,
            last_seen_seconds_ago=self._neighbourhood.seconds_since_answer(peer),
            received_bytes=sum(received_by_source.get(name, 0) for name in names),
            note="gave wrong bytes" if peer.lies else peer.last_failure if peer.failures else "",
        )

    # Status

    async def status(self) -> NodeStatus:
        totals = await asyncio.to_thread(self.store.totals)
        return NodeStatus(
            node_id=self.node_id,
            name=self._settings.name,
            version=__version__,
            pid=os.getpid(),
            home=str(self._places.home),
            cache=str(self._places.cache),
            started_at=self._started_at,
            listeners=dict(self.listeners),
            upstreams={upstream.name: upstream.url for upstream in self._settings.upstreams},
            peers=tuple(await self.list_peers()),
            received_bytes=totals["received_bytes"],
            sent_bytes=totals["sent_bytes"],
            revisions=totals["revisions"],
            files=totals["files"],
            size_bytes=totals["size_bytes"],
            unverified_files=totals["unverified_files"],
            transfers=(*self._adder.under_way, *(self._endpoint.files.under_way if self._endpoint else ())),
            is_daemon=self._neighbourhood is not None,
        )

    def _identity(self) -> NodeMessage:
        return NodeMessage(self.node_id, self._settings.name, __version__, PROTOCOL_VERSION, self.store.generation)

    def _alive_addresses(self) -> list[str]:
        return [] if self._neighbourhood is None else [str(a) for a in self._neighbourhood.alive_addresses()]

    async def _announce(self, generation: int) -> None:
        if self._discovery is not None:
            revisions = await asyncio.to_thread(self.store.revisions)
            shared = sorted((r for r in revisions if r.is_shared), key=lambda r: r.used_at, reverse=True)
            await self._discovery.announce(generation, [Commit(revision.commit) for revision in shared])


def _make_hubs(settings: Settings) -> Hubs:
    limiter = make_limiter(settings.wan_down_limit)
    return Hubs(
        [
            Upstream(
                upstream.name,
                upstream.kind,
                upstream.url,
                token=stored_token,
                sends_token=upstream.kind == "origin" or settings.sends_token_to_mirrors,
                limiter=limiter,
            )
            for upstream in settings.upstreams
        ]
    )


def _node_id(places: Places) -> str:
    """The id of the node at this home, made at its first start."""
    path = places.node_id_file
    try:
        places.home.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            fresh.write_text(secrets.token_hex(16))
            fresh.rename(path)
        return path.read_text().strip()
    except OSError as error:
        raise BrokenCache(
            f"hfpeer's home {places.home} cannot be written: {error.strerror}.",
            hint="Mend its permissions, or set HFPEER_HOME to another folder.",
        ) from error
