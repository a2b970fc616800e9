"""Keeps the peers current: finds them, probes them, reads their catalogs, and makes the clients that send them
requests.

One task looks at the table once a second and probes the peers that are due; discovery and traffic update the same
table. Catalogs serve `search` and the ranking of peers; they prove nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from hfpeer.budgets import (
    GREETING_SECONDS,
    MAX_CATALOG_BYTES,
    MAX_HOST_PROBES,
    MAX_PROBES,
    REFRESH_SECONDS,
    RETURN_SECONDS,
)
from hfpeer.errors import HfpeerError, NotFound, PeerUnreachable
from hfpeer.names import Commit
from hfpeer.net.address import Address
from hfpeer.net.limiter import Limiter
from hfpeer.net.singleflight import SingleFlight
from hfpeer.net.tasks import end_tasks
from hfpeer.peers.asking.address_client import MessageTooLarge
from hfpeer.peers.asking.peer_client import PeerClient, PeerClients
from hfpeer.peers.protocol.messages import NodeMessage
from hfpeer.peers.table.catalogs import Catalog, Catalogs
from hfpeer.peers.table.presence import Presence, shown
from hfpeer.peers.table.table import Origin, Peer, PeerTable, State

PROBE_LOOP_SECONDS = 1.0
GOSSIP_SECONDS = 60.0
CATALOG_SECONDS = 30.0
"""Seconds that a busy node leaves a peer's new catalog unread: when many adds begin at once, each announces a new
one."""

_log = logging.getLogger(__name__)


class Neighbourhood:
    """Belongs to one event loop; between `start` and `stop` it keeps its table fresh.

    `limiter` bounds the blob bytes of all peers together. `is_busy` tells whether optional work has to wait.
    `on_duplicate_id` is called with the address of another node that has this node's id: its `run_id` is not
    `own_run_id`. Without `gossips` it asks no peer for others. `on_came` is called after peers have come. The
    peers that it asks for others are told `own_door`, see DOOR_HEADER. `on_limits` takes the limits of hubs that a peer
    tells, see NodeMessage.
    """

    def __init__(
        self,
        own_node_id: str,
        static: Iterable[Address],
        *,
        clock: Callable[[], float] = time.monotonic,
        limiter: Limiter | None = None,
        is_busy: Callable[[], bool] = lambda: False,
        own_run_id: str = "",
        on_duplicate_id: Callable[[Address], None] = lambda address: None,
        gossips: bool = True,
        on_came: Callable[[], None] = lambda: None,
        own_door: str = "",
        on_limits: Callable[[Mapping[str, int]], None] = lambda limits: None,
    ) -> None:
        self.table = PeerTable(own_node_id)
        self._own_node_id = own_node_id
        self._own_run_id = own_run_id
        self._on_duplicate_id = on_duplicate_id
        self._is_busy = is_busy
        self._gossips = gossips
        self._on_came = on_came
        self._own_door = own_door
        self._on_limits = on_limits
        self._presence = Presence()
        self._clock = clock
        self._clients = PeerClients(own_node_id, limiter, clock)
        self._catalogs = Catalogs()
        self._catalog_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._host_slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._gossiped_at: dict[str, float] = {}
        self._probes: SingleFlight[str, bool] = SingleFlight()
        self._slots = asyncio.Semaphore(MAX_PROBES)
        self._probe_loop_task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        for address in static:
            self.table.add_static(address, clock())

    async def start(self) -> None:
        self._probe_loop_task = asyncio.create_task(self._probe_loop(), name="look around")

    async def stop(self) -> None:
        """Ends every probe and closes every connection."""
        await end_tasks([] if self._probe_loop_task is None else [self._probe_loop_task])
        await self._probes.stop()
        await self._clients.aclose()

    # Requests

    def client(self, peer: Peer) -> PeerClient:
        """The client of a peer, which asks at all its addresses."""
        return self._clients.of(peer.key, peer.addresses)

    def address(self, peer: Peer) -> Address:
        """The address at which a peer is asked now."""
        return peer.address if len(peer.addresses) == 1 else self.client(peer).address

    def candidates(self, commit: Commit | None = None) -> list[Peer]:
        """The peers to ask now, best first; only those whose node id is known."""
        return [peer for peer in self.table.candidates(self._clock(), commit) if peer.node_id is not None]

    def get(self, key: str) -> Peer | None:
        """The peer with this node id, or with this address as text."""
        return self.table.get(key)

    def others(self) -> list[Peer]:
        """Every known peer, by name, whether it answers or not; neither this node itself nor hearsay is one."""
        return [peer for peer in self.table.listed_peers() if not self.table.is_own(peer.address)]

    def is_named(self, peer: Peer) -> bool:
        """Whether the request at hand names the peer: never here, see `NamedFirst`."""
        return False

    def is_alive(self, peer: Peer) -> bool:
        return peer.state(self._clock()) is State.ALIVE

    def state(self, peer: Peer) -> State:
        return peer.state(self._clock())

    def seconds_since_answer(self, peer: Peer) -> float | None:
        return None if peer.answered_at is None else self._clock() - peer.answered_at

    def alive_addresses(self) -> list[Address]:
        return self.table.alive_addresses(self._clock())

    def catalog(self, peer: Peer) -> Catalog | None:
        """The catalog that was read last from this peer; None also if it did not fit."""
        return self._catalogs.get(peer.key)

    # Updates

    def add_static(self, address: Address) -> Peer:
        return self.table.add_static(address, self._clock())

    def remove_static(self, address: Address) -> None:
        """Forgets a configured peer, or one that is gone. Raises NotFound for any other."""
        if not self.table.remove_static(address) and not self._forget_gone(address):
            raise NotFound(
                f"{address} is neither a configured peer nor one that is gone.",
                hint="`hfpeer peer ls` shows them.",
                address=str(address),
            )

    def _forget_gone(self, address: Address) -> bool:
        peer = self.table.get(str(address))
        return peer is not None and self.state(peer) is State.GONE and self.table.forget(peer.key) is not None

    def listed(self, name: str, addresses: Collection[Address]) -> None:
        """The addresses that a DNS name has now. New ones are probed."""
        for peer in self.table.listed(name, addresses, self._clock()):
            self._begin_probe(peer)

    def found(
        self,
        node_id: str,
        name: str,
        addresses: Sequence[Address],
        generation: int | None,
        hints: frozenset[str],
        by: Origin = Origin.MDNS,
    ) -> None:
        """A node announced itself or changed its announcement. It is probed now; a busy node probes a known peer that
        is alive at its known address later."""
        if node_id == self._own_node_id and addresses:
            self._begin_probe(
                Peer((addresses[0],), self._clock())
            )  # this node under an old name, or another node with the same id
            return
        peer = self.table.announced(
            node_id, addresses, self._clock(), by=by, name=name, generation=generation, hints=hints
        )
        if peer is None:
            return
        self.client(peer)  # a request that runs may go on at a new address
        is_in_place = peer.address in addresses and not peer.failures
        if not (self._is_busy() and self.is_alive(peer) and is_in_place):
            self._begin_probe(peer)

    def asked(self, host: str, door: str) -> None:
        """A node at an IP address asked for peers, and told its door. It is probed: what it told counts once it
        responds there."""
        for peer in self.table.introduced(host, door, self._clock()):
            self._begin_probe(peer)

    def left(self, node_id: str) -> None:
        self.table.left(node_id, self._clock())

    def gave(self, node_id: str) -> None:
        self.table.gave(node_id, self._clock())

    def failed(self, node_id: str, reason: str) -> None:
        """A peer did not respond at any of its addresses, or not in time: it ranks lower for a while."""
        self.table.failed(node_id, self._clock(), reason)

    def unanswered(self, node_id: str, address: Address) -> None:
        """A peer did not send what it was asked for while this address was in use: its addresses are checked, and it is
        probed."""
        peer, now = self.table.get(node_id), self._clock()
        if peer is not None and not peer.is_banned(now):
            self.client(peer).leave(address)
            self._begin_probe(peer)

    def lied(self, node_id: str) -> None:
        _log.warning("Peer %s sent bytes that do not match their digest", node_id)
        self.table.lied(node_id, self._clock())

    async def probe(self, peer: Peer) -> bool:
        """Reads a peer's node message and catalog. Returns whether it responded; either way it is in the table."""
        return await asyncio.shield(self._begin_probe(peer))

    async def settle(self, commit: Commit | None, seconds: float) -> None:
        """Waits until every peer that is due has been probed, at most GREETING_SECONDS. If none names `commit`, peers
        that do and failed before are probed now, at most RETURN_SECONDS: they may be back. Then waits at most `seconds`
        for a peer that names it."""
        await self._probe_within(self.table.due(self._clock()), GREETING_SECONDS)
        if not self._has_candidate(commit):
            await self._probe_within(self.table.backing_off(self._clock(), commit), RETURN_SECONDS)
        deadline = self._clock() + seconds
        while not self._has_candidate(commit):
            remaining = deadline - self._clock()
            if remaining <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), remaining)
            except asyncio.TimeoutError:
                return

    def _has_candidate(self, commit: Commit | None) -> bool:
        return any(commit is None or peer.may_have(commit) for peer in self.candidates(commit))

    async def refresh(self) -> None:
        """Probes every usable peer, due or not, and waits at most REFRESH_SECONDS for their new catalogs."""
        await self._probe_within(self.table.candidates(self._clock()), REFRESH_SECONDS)

    async def _probe_within(self, peers: Iterable[Peer], seconds: float) -> None:
        probes = [self._begin_probe(peer) for peer in peers]
        if probes:
            await asyncio.wait(probes, timeout=seconds)

    def _begin_probe(self, peer: Peer) -> asyncio.Task[bool]:
        return self._probes.begin(peer.key, lambda: self._probe(peer))

    async def _probe_loop(self) -> None:
        while True:
            now = self._clock()
            outdated_seconds = CATALOG_SECONDS if self._is_busy() else 0.0
            outdated = self.table.outdated(now, outdated_seconds)
            readable = (peer for peer in outdated if not self._catalogs.is_over_rate(peer.address.host, now))
            for peer in (*self.table.due(now), *readable):
                self._begin_probe(peer)
            for peer in self.table.forget_silent(now):
                self._catalogs.forget(peer.key)
                self._gossiped_at.pop(peer.key, None)
                await self._clients.drop(peer.addresses)
            self._tell_changes(now)
            await asyncio.sleep(PROBE_LOOP_SECONDS)

    def _tell_changes(self, now: float) -> None:
        came, gone = self._presence.changes(self.others(), now)
        for peer in came:
            _log.info("peer %s has come, found by %s", shown(peer), peer.origin.value)
        for name, reason in gone:
            _log.info("peer %s has gone%s", name, f": {reason}" if reason else "")
        if came:
            self._on_came()

    async def _probe(self, peer: Peer) -> bool:
        client = self.client(peer)
        try:
            address, message = await client.node(self._slot)
            self._refuse_duplicate_id(address, message)
            answered = self.table.answered(address, message, self._clock())
            if answered is not None:
                self._on_limits(message.limits)
                client = self.client(answered)
                async with self._slot(address):
                    await self._read_catalog(client, answered)
                    await self._gossip(client, answered)
        except HfpeerError as error:
            self.table.failed(peer.key, self._clock(), error.message)
            return False
        self._changed.set()
        return answered is not None

    @asynccontextmanager
    async def _slot(self, address: Address) -> AsyncIterator[None]:
        """Waits for the right to probe an address."""
        async with self._host_slots.setdefault(address.host, asyncio.Semaphore(MAX_HOST_PROBES)), self._slots:
            yield

    def _refuse_duplicate_id(self, address: Address, message: NodeMessage) -> None:
        """Raises PeerUnreachable if another node has this node's id: the two cannot be told apart."""
        if message.node_id == self._own_node_id and self._own_run_id and message.run_id not in ("", self._own_run_id):
            self._on_duplicate_id(address)
            raise PeerUnreachable("has the id of this node", hint="hfpeer daemon restart", address=str(address))

    async def _read_catalog(self, client: PeerClient, peer: Peer) -> None:
        host = peer.address.host
        # One catalog of a host at a time: its bytes are counted before the next one is read.
        lock = self._catalog_locks.setdefault(host, asyncio.Lock())
        async with lock:
            if peer.needs_catalog and not self._catalogs.is_over_rate(host, self._clock()):
                await self._read_now(client, peer, host)

    async def _read_now(self, client: PeerClient, peer: Peer, host: str) -> None:
        try:
            catalog = await client.catalog(peer.catalog_generation)
        except MessageTooLarge as error:
            _log.info("%s", error.message)
            catalog = Catalog(peer.generation or 0, (), MAX_CATALOG_BYTES)
        if catalog is None:
            return
        now = self._clock()
        self._catalogs.note_read(host, catalog.read_bytes, now)
        gone = self._catalogs.keep(peer.key, host, catalog, is_static=peer.origin is Origin.STATIC)
        if gone is None:
            _log.info("The catalog of %s does not fit into memory; the peer is used without it", peer.address)
            catalog = Catalog(catalog.generation, ())
        self.table.read(peer.key, catalog, now)
        for key in gone or ():
            self.table.lose_catalog(key)

    async def _gossip(self, client: PeerClient, peer: Peer) -> None:
        now = self._clock()
        if self._gossips and now - self._gossiped_at.get(peer.key, -GOSSIP_SECONDS) >= GOSSIP_SECONDS:
            self._gossiped_at[peer.key] = now
            for new in self.table.gossiped(peer.key, await client.peers(self._own_door), now):
                self._begin_probe(new)
