"""The node: its parts, and how they are wired together.

`Node` implements `Operations`. Started as a daemon, it also joins the LAN and scans its cache by itself. A node in a
command's own process has no peers and no upkeep. All wiring is in this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hfpeer.cache.store import Store
from hfpeer.config.peer_names import addresses_among
from hfpeer.config.settings import Settings
from hfpeer.control.operations import (
    AddRequest,
    AdoptReport,
    AdoptRequest,
    AttachRequest,
    CachedRevision,
    CacheReport,
    CleanReport,
    CleanRequest,
    FollowedRepo,
    Forgotten,
    HistoryEntry,
    Holding,
    ListedCommit,
    NodeStatus,
    PeerStatus,
    Provenance,
    Published,
    PublishRequest,
    RepairReport,
    RepairRequest,
    TransferStatus,
    VerifyReport,
    VerifyRequest,
)
from hfpeer.modelscope.credentials import readable_token
from hfpeer.modelscope.source import SiteCopies
from hfpeer.names import MAIN, Commit, FilePath, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.net.limiter import Limiter, make_limiter
from hfpeer.node.identity import Identity
from hfpeer.node.operations.adding.adding import Adder, AddParts
from hfpeer.node.operations.adding.room import Evicted, Room
from hfpeer.node.operations.cache.cached import CacheOperations
from hfpeer.node.operations.fleet.following import Following, FollowingParts
from hfpeer.node.operations.peers import PeerOperations
from hfpeer.node.operations.transfers.operations import TransferOperations
from hfpeer.node.provider import NodeProvider
from hfpeer.peers.copies import CopyQuestions
from hfpeer.peers.notices import Notices
from hfpeer.peers.protocol.messages import NodeMessage
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION
from hfpeer.resolver.peer_queries import PeerTrust
from hfpeer.resolver.resolver import Resolver
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import Finished, OnEvent, Resolved
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.sources.lan import Lan
from hfpeer.transfer.sources.site_copies import SiteFinder
from hfpeer.upstream.connection.clients import Connections
from hfpeer.upstream.upstream import Upstream, stored_token
from hfpeer.upstream.upstreams import NO_HUB_HINT, OFFLINE_HINT, Upstreams
from hfpeer.version import __version__

if TYPE_CHECKING:
    from hfpeer.endpoint.endpoint import Endpoint
    from hfpeer.node.operations.cache.cleaning import CleaningOperations
    from hfpeer.node.operations.fleet.asking import AskedNodes
    from hfpeer.node.operations.fleet.taking import AddsOfOthers
    from hfpeer.node.upkeep import Upkeep
    from hfpeer.peers.discovery.advertised import OwnAddresses
    from hfpeer.peers.discovery.discovery import Discovery
    from hfpeer.peers.neighbourhood import Neighbourhood


class Node:
    """One node over one home and one cache. Belongs to the event loop on which it is started."""

    def __init__(self, settings: Settings) -> None:
        """Opens the cache and the catalog. Raises BrokenCache when they cannot be used."""
        self._settings = settings
        self._identity = Identity(settings.places)
        self.store = Store(
            settings.cache,
            settings.home,
            settings.read_caches,
            makes_cache=settings.makes_cache,
            makes_links=settings.makes_links,
        )
        self.store.shared.shares_prepared = settings.shares_prepared_sets
        limits = StallLimits.with_patience(settings.patience_seconds, settings.rest_seconds)
        self._fetches = Fetches(self.store, self._identity.node_id, limits)
        limiter, connections = make_limiter(settings.wan_down_limit), _make_connections(settings)
        self._upstreams = _make_upstreams(settings, limiter, connections)
        self._sites = _make_sites(settings, self.store, limiter, connections)
        self._visibility = VisibilityChecker(
            self.store, self._upstreams, asks_mirrors=settings.asks_mirrors_who_may_see
        )
        self._notices = Notices()
        self._room = Room(self.store, self._make_room if settings.has_budget else None)
        self.provider = NodeProvider(
            self.store, self._fetches, self._message, self._alive_addresses, self._notices, self._note_asked
        )
        self.listeners: dict[str, str] = {}
        self.endpoint: Endpoint | None = None
        """The Hub for local tools; None in a node without peers."""
        self._neighbourhood: Neighbourhood | None = None
        self._discovery: Discovery | None = None
        self._own_addresses: OwnAddresses | None = None
        self._upkeep: Upkeep | None = None
        self.adds_of_others: AddsOfOthers | None = None
        """Takes requests of other nodes; None in a node without peers."""
        self._asked_nodes: AskedNodes | None = None
        self._transfers = TransferOperations(settings.home, self._run_add, settings.transfers_at_once)
        self._following = Following(
            settings.home,
            FollowingParts(self._resolve, self.list_commit, lambda one: self._transfers.begin_unattended(one, "low")),
        )
        self._wire(Resolver(self.store, None), Lan(None, waits_for_peers=False))

    def _wire(self, resolver: Resolver, lan: Lan) -> None:
        """Makes the operations, over the neighbourhood if there is one."""
        self._lan = lan
        self._resolver = resolver
        trusts_attested = self._settings.trusts_attested
        self._adder = Adder(
            AddParts(
                self.store,
                self._fetches,
                resolver,
                self._visibility,
                lan,
                self._sites,
                self._room,
                trusts_attested=trusts_attested,
                rest_seconds=self._settings.rest_seconds,
            )
        )
        self._cache = CacheOperations(self.store, resolver, self._upstreams, self._scanned)
        self._peers = PeerOperations(
            self._settings, self.store, self._neighbourhood, self._discovery, self._fetches.received_now
        )

    async def start(self, lan_address: Address | None) -> None:
        """Joins the LAN. `lan_address` is the address of the LAN door; with None the node stays without peers."""
        if lan_address is None:
            return
        from hfpeer.node.operations.fleet.taking import AddsOfOthers, TakingParts  # only a daemon needs these
        from hfpeer.node.upkeep import Upkeep
        from hfpeer.peers.discovery.advertised import OwnAddresses, own_door
        from hfpeer.peers.discovery.discovery import Discovery
        from hfpeer.peers.neighbourhood import Neighbourhood

        self._own_addresses = OwnAddresses(lan_address, self._settings.advertised)
        self._neighbourhood = Neighbourhood(
            self._identity.node_id,
            addresses_among(self._settings.peers),
            limiter=make_limiter(self._settings.lan_down_limit),
            is_busy=lambda: self._fetches.are_under_way,
            own_run_id=self._identity.run_id,
            on_duplicate_id=self._identity.on_duplicate_id,
            on_came=self._transfers.retry_soon,
            own_door=own_door(lan_address, self._settings.advertised),
            on_limits=self._upstreams.hear_limits,
        )
        await self._neighbourhood.start()
        self._discovery = Discovery(self._settings, self._identity.node_id, lan_address, self._neighbourhood)
        await self._discovery.start()
        resolver = Resolver(self.store, self._neighbourhood)
        lan = Lan(self._neighbourhood, waits_for_peers=self._discovery.finds)
        self._wire(resolver, lan)
        self.endpoint = self._make_endpoint(resolver, lan)
        self._upkeep = Upkeep(
            self.store,
            self._upstreams,
            self._visibility,
            self._announce,
            self._room.keep_budget if self._settings.has_budget else None,
            partial_days=self._settings.partial_days,
            is_fetching=lambda: self._fetches.are_under_way,
        )
        self._upkeep.start()
        await self._transfers.start()
        parts = TakingParts(
            self._settings.accepts_requests,
            self._read_request_key,
            self._identity.node_id,
            self._neighbourhood,
            self._transfers,
        )
        self.adds_of_others = AddsOfOthers(parts)
        self._following.start()

    async def stop(self) -> None:
        """Leaves the LAN and closes everything. Adds that are no transfers must have been cancelled before."""
        for part in (
            self._following,
            self._transfers,
            self.endpoint,
            self._transfers.for_callers,
            self._upkeep,
            self._visibility,
            self._discovery,
            self._neighbourhood,
        ):
            if part is not None:
                await part.stop()
        await self._identity.stop()
        await self._sites.stop()
        await self._upstreams.aclose()
        await asyncio.to_thread(self.store.close)

    def _make_endpoint(self, resolver: Resolver, lan: Lan) -> Endpoint:
        from hfpeer.endpoint.endpoint import Endpoint, Rules  # only a daemon has one

        rules = Rules(
            ref_seconds=self._settings.ref_seconds,
            stale_refs=self._settings.stale_refs,
            offline_seconds=self._settings.offline_days * 86400,
            trusts_attested=self._settings.trusts_attested,
        )
        return Endpoint(
            self.store,
            self._fetches,
            resolver,
            self._visibility,
            lan,
            self._upstreams,
            rules,
            self._sites,
            self._room.take,
            self._transfers.for_callers.note,
        )

    async def _scanned(self) -> None:
        """Waits until the cache was scanned: by the upkeep of a daemon, in another node now."""
        if self._upkeep is None:
            await in_thread(self.store.scan)
        else:
            await self._upkeep.scanned()

    # Operations

    def _upstreams_of(self, request: AddRequest) -> Upstreams:
        """The upstreams, with the token of the request. For a repo of prepared sets none: no hub has one, and its name
        says what this node has."""
        if request.repo.is_of_sets:
            return Upstreams([])
        return self._upstreams if request.token is None else self._upstreams.with_token(request.token)

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        return await self._transfers.add(request, on_event)

    async def begin_transfer(self, request: AddRequest, priority: str = "normal") -> TransferStatus:
        return await self._transfers.begin(request, priority)

    async def attach(self, request: AttachRequest, on_event: OnEvent) -> Finished:
        return await self._transfers.attach(request, on_event)

    async def leave_transfer(self, id: int, follower: int) -> str:
        return await self._transfers.leave(id, follower)

    async def list_transfers(self) -> list[TransferStatus]:
        return await self._transfers.listed()

    async def change_transfers(self, ids: tuple[int, ...], change: str) -> list[TransferStatus]:
        return await self._transfers.change(ids, change)

    async def history(self, since: float = 0.0) -> list[HistoryEntry]:
        return await self._transfers.history(since)

    async def _run_add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        """The work of an add, in a transfer or without one."""
        if request.node is not None:
            from hfpeer.node.operations.fleet.asking import AskedNodes, AskingParts  # most adds are of this node

            self._asked_nodes = self._asked_nodes or AskedNodes()
            parts = AskingParts(self._identity.node_id, self._neighbourhood, self._read_request_key)
            return await self._asked_nodes.add(parts, request, on_event)
        upstreams = self._upstreams_of(request)
        await self._scanned()
        if not request.from_peers:
            return await self._adder.add(request, upstreams, on_event)
        from hfpeer.node.operations.adding.named_peers import NamingParts, add_from_named  # most adds do not need it

        naming = NamingParts(
            self.store,
            self._neighbourhood,
            self._lan,
            self._identity.node_id,
            self._identity.run_id,
            self._identity.on_duplicate_id,
            make_limiter(self._settings.lan_down_limit),
        )
        return await add_from_named(naming, self._adder, request, upstreams, on_event)

    async def _resolve(self, request: AddRequest) -> Resolved:
        """What the revision of a request means now."""
        trust = PeerTrust.of(asks_peers=True, trusts_peers=self._settings.trusts_attested)
        upstreams = self._upstreams_of(request)
        found = await self._resolver.commits.resolve(request.repo, request.revision, upstreams, trust=trust)
        return found.told(request.repo, request.revision)

    async def follow_repo(self, wanted: FollowedRepo) -> FollowedRepo:
        return await self._following.follow(wanted)

    async def unfollow_repo(self, repo: RepoId, revision: Revision | None = None) -> list[FollowedRepo]:
        return await self._following.unfollow(repo, revision)

    async def list_followed(self) -> list[FollowedRepo]:
        return await self._following.listed()

    async def list_commit(self, request: AddRequest) -> ListedCommit:
        await self._scanned()
        return await self._adder.list_commit(request, self._upstreams_of(request))

    async def verify(self, request: VerifyRequest, on_event: OnEvent) -> VerifyReport:
        from hfpeer.node.operations.repair.verifying import verify_store  # an add does not need it

        return await verify_store(self.store, request, on_event)

    async def repair(self, request: RepairRequest, on_event: OnEvent) -> RepairReport:
        from hfpeer.node.operations.repair.parts import RepairParts  # an add needs neither
        from hfpeer.node.operations.repair.repairing import repair

        await self._scanned()
        upstreams = self._upstreams if request.uses_wan else Upstreams([])
        async with self._neighbours() as (resolver, lan, asks_peers):
            trust = PeerTrust.of(asks_peers=asks_peers, trusts_peers=self._settings.trusts_attested)
            parts = RepairParts(self.store, self._fetches, resolver, lan, upstreams, trust, on_event)
            return await repair(parts, request)

    @asynccontextmanager
    async def _neighbours(self) -> AsyncIterator[tuple[Resolver, Lan, bool]]:
        """The peers of a daemon; in a node without a neighbourhood, those of the settings. Whether there are any."""
        if self._neighbourhood is not None or not self._settings.peers:
            yield Resolver(self.store, self._neighbourhood), self._lan, self._neighbourhood is not None
            return
        from hfpeer.peers.discovery.discovery import addresses_now
        from hfpeer.peers.named import named_first

        addresses = await addresses_now(self._settings)
        identity, limiter = self._identity, make_limiter(self._settings.lan_down_limit)
        opened = named_first(addresses, None, identity.node_id, identity.run_id, identity.on_duplicate_id, limiter)
        async with opened as neighbours:
            await neighbours.greet(addresses)
            yield Resolver(self.store, neighbours), self._lan.with_named(neighbours), True

    async def adopt(self, request: AdoptRequest, on_event: OnEvent) -> AdoptReport:
        from hfpeer.node.operations.moving.adopting import AdoptParts, adopt  # an add does not need it

        await self._scanned()
        parts = AdoptParts(
            self.store,
            (self.store.cache, *self.store.caches.others),
            self._resolver,
            self._upstreams,
            tuple(upstream.url for upstream in self._settings.upstreams),
            self._settings.trusts_attested,
        )
        return await adopt(parts, request, on_event)

    async def forget_adopted(self, places: tuple[str, ...] = ()) -> Forgotten:
        from hfpeer.node.operations.moving.adopting import forget

        return await in_thread(forget, self.store, places)

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        return await self._cache.list_revisions(repo, revision)

    async def cache_report(self) -> CacheReport:
        return await self._cleaning().report()

    async def clean(self, request: CleanRequest) -> CleanReport:
        return await self._cleaning().clean(request)

    async def _make_room(self, coming_bytes: int) -> Evicted:
        return await self._cleaning().make_room(coming_bytes)

    def _cleaning(self) -> CleaningOperations:
        from hfpeer.node.operations.cache.cleaning import CleaningOperations, CleaningParts  # an add does not need it

        parts = CleaningParts(
            self._settings,
            self.store,
            self._resolver,
            CopyQuestions(self._identity.node_id, self._notices),
            self._neighbourhood,
            self._identity.node_id,
            lambda: self._adder.busy_repos,
            self._scanned,
        )
        return CleaningOperations(parts)

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        return await self._cache.why(repo, revision, files)

    async def publish(self, request: PublishRequest, on_event: OnEvent) -> Published:
        return await self._cache.publish(request, on_event, publisher=self._settings.name)

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        return await self._cache.share(repo, is_shared)

    async def search(
        self, repo: RepoId | None, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        return await self._peers.search(repo, revision, files)

    async def add_peer(self, address: str) -> PeerStatus:
        return await self._peers.add_peer(address)

    async def remove_peer(self, address: str) -> None:
        await self._peers.remove_peer(address)

    async def list_peers(self) -> list[PeerStatus]:
        return await self._peers.list_peers()

    async def status(self) -> NodeStatus:
        from hfpeer.node.status import StatusParts, status_of  # an add needs neither

        parts = StatusParts(
            self._settings,
            self.store,
            self._fetches,
            self._identity,
            self._upstreams,
            self._transfers,
            self.endpoint,
            self._discovery,
            self.listeners,
            self._peers.added,
            self.adds_of_others,
        )
        return await status_of(parts, await self.list_peers(), is_daemon=self._neighbourhood is not None)

    # For the provider and the discovery

    def _message(self) -> NodeMessage:
        """The message about this node for its peers."""
        identity = self._identity
        return NodeMessage(
            identity.node_id,
            self._settings.name,
            __version__,
            PROTOCOL_VERSION,
            self.store.generation,
            identity.run_id,
            limits=self._upstreams.limits,
            addresses=() if self._own_addresses is None else self._own_addresses.now(),
        )

    def _read_request_key(self) -> bytes:
        from hfpeer.node.operations.fleet.request_key import read_request_key  # only nodes that ask others need it

        return read_request_key(self._settings.request_key_file)

    def _alive_addresses(self) -> list[str]:
        return [] if self._neighbourhood is None else [str(a) for a in self._neighbourhood.alive_addresses()]

    def _note_asked(self, host: str, door: str) -> None:
        if self._neighbourhood is not None:
            self._neighbourhood.asked(host, door)

    async def _announce(self, generation: int) -> None:
        if self._discovery is not None and self._discovery.announces:
            revisions = await asyncio.to_thread(self.store.revisions.all)
            shared = sorted((r for r in revisions if r.is_shared), key=lambda r: r.used_at, reverse=True)
            await self._discovery.announce(generation, [Commit(revision.commit) for revision in shared])


def _make_connections(settings: Settings) -> Connections:
    return Connections(proxy=settings.proxy, ca=settings.ca)


def _make_upstreams(settings: Settings, limiter: Limiter | None, connections: Connections) -> Upstreams:
    return Upstreams(
        [
            Upstream(
                upstream.name,
                upstream.kind,
                upstream.url,
                token=stored_token,
                sends_token=upstream.kind == "origin" or settings.sends_token_to_mirrors,
                limiter=limiter,
                connections=connections,
            )
            for upstream in (() if settings.is_offline else settings.upstreams)
        ],
        none_hint=OFFLINE_HINT if settings.is_offline else NO_HUB_HINT,
    )


def _make_sites(settings: Settings, store: Store, limiter: Limiter | None, connections: Connections) -> SiteFinder:
    names = {pair.repo: pair.there for pair in settings.modelscope_names}
    endpoint = settings.modelscope_endpoint
    copies = SiteCopies(endpoint, lambda: readable_token(endpoint), names, limiter, connections)
    is_on = settings.modelscope_source == "on" and not settings.is_offline
    return SiteFinder(copies, store, settings.modelscope_order, is_on=is_on)
