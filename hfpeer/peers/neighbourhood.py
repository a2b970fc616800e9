"""The peers in motion: finds them, probes them, reads their catalogues, and hands out clients to ask them.

One task looks at the table once a second and probes whom the table says is due; discovery and traffic feed the same
table. What a peer's catalogue says is kept for `search` and for choosing whom to ask first; it proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from hfpeer.errors import HfpeerError, NotFound
from hfpeer.limits import Limiter
from hfpeer.names import Address, Commit
from hfpeer.peers.client import PeerClient
from hfpeer.peers.table import Peer, PeerTable, State
from hfpeer.peers.window import SharedWindow
from hfpeer.tasks import end_tasks
from hfpeer.wire import CatalogueMessage

LOOK_SECONDS = 1.0
GOSSIP_SECONDS = 60.0
MAX_PROBES = 16
CATALOGUE_SECONDS = 30.0
"""How long a busy node leaves the new catalogue of a peer unread: when many begin at once, each announces a new one."""

_log = logging.getLogger(__name__)


class Neighbourhood:
    """Belongs to one event loop; between `start` and `stop` it keeps its table fresh.

    `limiter` holds for the blobs of all peers together. `is_busy` says whether what can wait has to.
    """

    def __init__(
        self,
        own_node_id: str,
        static: Iterable[Address],
        *,
        clock: Callable[[], float] = time.monotonic,
        limiter: Limiter | None = None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.table = PeerTable(own_node_id)
        self._own_node_id = own_node_id
        self._limiter = limiter
        self._window = SharedWindow()
        self._is_busy = is_busy
        self._clock = clock
        self._clients: dict[Address, PeerClient] = {}
        self._catalogues: dict[str, CatalogueMessage] = {}
        self._gossiped_at: dict[str, float] = {}
        self._probing: dict[str, asyncio.Task[bool]] = {}
        self._slots = asyncio.Semaphore(MAX_PROBES)
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        for address in static:
            self.table.add_static(address, clock())

    async def start(self) -> None:
        self._looking = asyncio.create_task(self._look_around(), name="look around")

    async def stop(self) -> None:
        """Ends every probe and closes every connection."""
        await end_tasks(task for task in (self._looking, *self._probing.values()) if task is not None)
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))
        self._clients.clear()

    # Asking

    def client(self, peer: Peer) -> PeerClient:
        """The client for a peer's best address."""
        known = self._clients.get(peer.address)
        if known is None:
            known = self._clients[peer.address] = PeerClient(
                peer.address, self._own_node_id, limiter=self._limiter, window=self._window
            )
        return known

    def candidates(self, commit: Commit | None = None) -> list[Peer]:
        """The peers to ask now, the likeliest first; only those that have said who they are."""
        return [peer for peer in self.table.candidates(self._clock(), commit) if peer.node_id is not None]

    def is_alive(self, peer: Peer) -> bool:
        return peer.state(self._clock()) is State.ALIVE

    def state(self, peer: Peer) -> State:
        return peer.state(self._clock())

    def seconds_since_answer(self, peer: Peer) -> float | None:
        return None if peer.answered_at is None else self._clock() - peer.answered_at

    def alive_addresses(self) -> list[Address]:
        return self.table.alive_addresses(self._clock())

    def catalogue(self, peer: Peer) -> CatalogueMessage | None:
        """The catalogue that was read last from this peer."""
        return self._catalogues.get(peer.key)

    # Learning

    def add_static(self, address: Address) -> Peer:
        return self.table.add_static(address, self._clock())

    def remove_static(self, address: Address) -> None:
        """Raises NotFound when the address was never added."""
        if not self.table.remove_static(address):
            raise NotFound(
                f"{address} is not one of the peers that were added.",
                hint="`hfpeer peer ls` shows them.",
                address=str(address),
            )

    def found(
        self, node_id: str, name: str, addresses: Sequence[Address], generation: int, hints: frozenset[str]
    ) -> None:
        """A node announced itself, and is probed now, or changed what it announces, which a busy node does later."""
        peer = self.table.heard(node_id, addresses, self._clock(), name=name, generation=generation, hints=hints)
        if peer is not None and not (self._is_busy() and self.is_alive(peer)):
            self._begin_probe(peer)

    def left(self, node_id: str) -> None:
        self.table.left(node_id, self._clock())

    def gave(self, node_id: str) -> None:
        self.table.gave(node_id, self._clock())

    def failed(self, node_id: str, reason: str) -> None:
        """It did not answer, or not in time: others are asked before it for a while."""
        self.table.failed(node_id, self._clock(), reason)

    def lied(self, node_id: str) -> None:
        _log.warning("peer %s gave something that does not hash to what it claims", node_id)
        self.table.lied(node_id, self._clock())

    async def probe(self, peer: Peer) -> bool:
        """Ask a peer who it is and what it has. Whether it answered; it is in the table either way."""
        return await asyncio.shield(self._begin_probe(peer))

    async def settle(self, commit: Commit | None, seconds: float) -> None:
        """Waits until everyone who is due has been probed, and at most `seconds` for a peer that names `commit`."""
        await self.probe_all()
        deadline = self._clock() + seconds
        while not any(commit is None or peer.may_have(commit) for peer in self.candidates(commit)):
            remaining = deadline - self._clock()
            if remaining <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), remaining)
            except asyncio.TimeoutError:
                return

    async def refresh(self) -> None:
        """Probe everyone who may be asked, due or not, so that what is known of them is of now."""
        await asyncio.gather(*(self._begin_probe(peer) for peer in self.table.candidates(self._clock())))

    async def probe_all(self) -> None:
        """Probe everyone who is due, and wait for the answers."""
        await asyncio.gather(*(self._begin_probe(peer) for peer in self.table.due(self._clock())))

    def _begin_probe(self, peer: Peer) -> asyncio.Task[bool]:
        running = self._probing.get(peer.key)
        if running is None:
            running = self._probing[peer.key] = asyncio.create_task(self._probe(peer), name=f"probe {peer.key}")
            running.add_done_callback(lambda _: self._probing.pop(peer.key, None))
        return running

    async def _look_around(self) -> None:
        while True:
            now = self._clock()
            outdated_seconds = CATALOGUE_SECONDS if self._is_busy() else 0.0
            for peer in (*self.table.due(now), *self.table.outdated(now, outdated_seconds)):
                self._begin_probe(peer)
            for peer in self.table.forget_silent(now):
                self._catalogues.pop(peer.key, None)
            await asyncio.sleep(LOOK_SECONDS)

    async def _probe(self, peer: Peer) -> bool:
        client = self.client(peer)
        async with self._slots:
            try:
                message = await client.node()
                answered = self.table.answered(peer.address, message, self._clock())
                if answered is not None:
                    await self._read_catalogue(client, answered)
                    await self._gossip(client, answered)
            except HfpeerError as error:
                self.table.failed(peer.key, self._clock(), error.message)
                return False
        self._changed.set()
        return answered is not None

    async def _read_catalogue(self, client: PeerClient, peer: Peer) -> None:
        if peer.needs_catalogue:
            catalogue = await client.catalogue(peer.catalogue_generation)
            if catalogue is not None:
                self._catalogues[peer.key] = catalogue
                self.table.read(peer.key, catalogue, self._clock())

    async def _gossip(self, client: PeerClient, peer: Peer) -> None:
        now = self._clock()
        if now - self._gossiped_at.get(peer.key, -GOSSIP_SECONDS) >= GOSSIP_SECONDS:
            self._gossiped_at[peer.key] = now
            for told in self.table.told(peer.key, await client.peers(), now):
                self._begin_probe(told)
