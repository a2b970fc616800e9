"""Sends requests to one peer, at whichever of its addresses answers.

A message is asked at the best address. If that one does not answer, it is asked at the next one too, so a dead address
costs a second and not the request. Blob bytes take the `Ways`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TypeVar

from hfpeer.errors import PeerUnreachable
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.net.body import Body
from hfpeer.net.limiter import Limiter
from hfpeer.net.tasks import end_tasks
from hfpeer.peers.asking.address_client import AddressClient, MessageTooLarge
from hfpeer.peers.asking.message_budget import MessageBudget
from hfpeer.peers.interfaces import ways_among
from hfpeer.peers.protocol.copies import CopiesMessage
from hfpeer.peers.protocol.messages import NodeMessage, RefMessage
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.peers.protocol.remote_adds import AddProgress, AddTerms
from hfpeer.peers.ranges.range_client import Batch, RangeClient
from hfpeer.peers.ranges.ways import Ways
from hfpeer.peers.ranges.window import SharedWindow
from hfpeer.peers.table.catalogs import Catalog

NEXT_ADDRESS_SECONDS = 1.0
"""Seconds without a response before a peer is asked at its next address too."""
AVOIDED_SECONDS = 30.0
"""Seconds for which an address that did not respond is asked after all others of the peer."""
CHECK_SECONDS = 3.0
"""Seconds in which an address that is checked has to respond."""

T = TypeVar("T")


class AskedAddress:
    """One address of a peer, and whether it responds."""

    def __init__(self, client: AddressClient, clock: Callable[[], float]) -> None:
        self.client = client
        self._clock = clock
        self._avoided_until = clock()
        self._check: asyncio.Task[None] | None = None
        self.on_avoided: Callable[[AddressClient], None] = lambda client: None

    @property
    def avoided_seconds(self) -> float:
        """For how long it is asked after the others. Of several the one that is avoided for the shortest is first."""
        return max(0.0, self._avoided_until - self._clock())

    @property
    def is_doubted(self) -> bool:
        """Whether it is being checked, because another address of the peer responded sooner."""
        return self._check is not None and not self._check.done()

    def avoid(self) -> None:
        """It did not respond."""
        self._avoided_until = self._clock() + AVOIDED_SECONDS
        self.on_avoided(self.client)

    def doubt(self) -> None:
        """Begins a check, which avoids the address if it does not respond: a busy node may just be slow."""
        if not self.is_doubted:
            self._check = asyncio.create_task(self._ask(), name=f"check {self.client.address}")

    async def _ask(self) -> None:
        try:
            await asyncio.wait_for(self.client.node(), CHECK_SECONDS)
        except (PeerUnreachable, asyncio.TimeoutError):
            self.avoid()

    async def aclose(self) -> None:
        await end_tasks([] if self._check is None else [self._check])
        await self.client.aclose()


class PeerClient:
    """One peer. Belongs to one event loop.

    Every coroutine raises PeerUnreachable when the peer does not respond in hfpeer's protocol at any address. The
    blocking methods raise SourceFault and are for worker threads.
    """

    def __init__(self, addresses: Sequence[AskedAddress]) -> None:
        """`addresses` in the order in which they are asked while nothing is known."""
        self._addresses = list(addresses)
        self._ways = Ways(*_ways_among(addresses))

    @classmethod
    def at(cls, client: AddressClient) -> PeerClient:
        """The peer at a single address."""
        return cls([AskedAddress(client, time.monotonic)])

    @property
    def address(self) -> Address:
        """The address that is used now: one that is not avoided, then the one where bytes come fastest, then the
        first."""
        return min(self._addresses, key=self._rank).client.address

    @property
    def batch_blobs(self) -> int:
        """At most this many blobs in a batch, as the peer has said."""
        return max(one.client.batch_blobs for one in self._addresses)

    def use(self, addresses: Sequence[AskedAddress]) -> None:
        """The peer has these addresses from now on, in this order. What is being asked for comes over a new one too."""
        known, self._addresses = self._addresses, list(addresses)
        if set(known) != set(addresses):
            self._ways.use(*_ways_among(addresses))

    def has(self, address: Address) -> bool:
        """Whether it asks at an address."""
        return any(one.client.address == address for one in self._addresses)

    def leave_way(self, client: AddressClient) -> None:
        """An address did not respond to something."""
        self._ways.leave(client.range_client)

    def check(self) -> None:
        """Something that the peer was asked for did not come. Addresses that do not respond are avoided from now on."""
        for one in self._addresses if len(self._addresses) > 1 else ():
            one.doubt()

    def leave(self, address: Address) -> None:
        """Bytes that the peer was asked for did not come. The address that was in use is avoided unless it has just
        given some: it may answer messages and still give no bytes."""
        for one in self._addresses if len(self._addresses) > 1 else ():
            if one.client.address == address and not self._ways.has_just_given(one.client.range_client):
                one.avoid()
        self.check()

    async def node(
        self, slot: Callable[[Address], AbstractAsyncContextManager[None]] = lambda address: nullcontext()
    ) -> tuple[Address, NodeMessage]:
        """The node message, and the address that gave it. Each address is asked in a `slot` of its own."""

        async def ask(client: AddressClient) -> NodeMessage:
            async with slot(client.address):
                return await client.node()

        return await self._first(ask)

    async def catalog(self, after_generation: int | None = None) -> Catalog | None:
        """See `AddressClient.catalog`."""
        return (await self._first(lambda client: client.catalog(after_generation)))[1]

    async def peers(self, door: str = "") -> tuple[str, ...]:
        """See `AddressClient.peers`."""
        return (await self._first(lambda client: client.peers(door)))[1]

    async def manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """See `AddressClient.manifest`."""
        return (await self._first(lambda client: client.manifest(repo, commit)))[1]

    async def ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        """See `AddressClient.ref`."""
        return (await self._first(lambda client: client.ref(repo, revision)))[1]

    async def copies(self, digests: Sequence[Digest]) -> CopiesMessage:
        """See `AddressClient.copies`."""
        return (await self._first(lambda client: client.copies(digests)))[1]

    async def pieces(self, digest: Digest) -> PieceMap | None:
        """See `AddressClient.pieces`."""
        return (await self._first(lambda client: client.pieces(digest)))[1]

    async def add_terms(self) -> AddTerms | None:
        """See `AddressClient.add_terms`."""
        return (await self._first(lambda client: client.add_terms()))[1]

    async def ask_add(self, body: bytes, signed: str = "") -> AddProgress:
        """See `AddressClient.ask_add`. Asked at one address at a time."""
        return (await self._first(lambda client: client.ask_add(body, signed), is_hedged=False))[1]

    async def add_progress(self, ticket: str, wait_seconds: int) -> AddProgress | None:
        """See `AddressClient.add_progress`."""
        return (await self._first(lambda client: client.add_progress(ticket, wait_seconds), is_hedged=False))[1]

    async def follow(self, digest: Digest) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """See `AddressClient.follow`. The address that sends the first line sends all."""

        async def begin(
            client: AddressClient,
        ) -> tuple[AsyncGenerator[PieceMap | PieceNews, None], PieceMap | PieceNews | None]:
            lines = client.follow(digest)
            return lines, await anext(lines, None)

        _, (lines, first) = await self._first(begin)
        async with aclosing(lines):
            try:
                if first is not None:
                    yield first
                async for line in lines:
                    yield line
            except PeerUnreachable:
                self.check()
                raise

    def open_range(
        self, digest: Digest, start: int, stop: int, *, size_bytes: int | None = None, cut_through: bool = False
    ) -> Body:
        """Blocking: see `RangeClient.open_range`."""
        return self._ways.open_range(digest, start, stop, size_bytes=size_bytes, cut_through=cut_through)

    def open_piece_digests(self, digest: Digest, pieces: range, count: int) -> Body:
        """Blocking: see `RangeClient.open_piece_digests`."""
        return self._ways.open_piece_digests(digest, pieces, count)

    def open_batch(self, digests: Sequence[Digest]) -> Batch:
        """Blocking: see `RangeClient.open_batch`."""
        return self._ways.open_batch(digests)

    def _rank(self, one: AskedAddress) -> tuple[float, bool]:
        return one.avoided_seconds, one.client.range_client is not self._ways.fastest

    async def _first(
        self, ask: Callable[[AddressClient], Awaitable[T]], *, is_hedged: bool = True
    ) -> tuple[Address, T]:
        """The first response, and its address. The next address is asked at once if one does not respond properly, and
        if `is_hedged` also when one has sent nothing for NEXT_ADDRESS_SECONDS."""
        if len(self._addresses) == 1:
            client = self._addresses[0].client
            return client.address, await ask(client)
        waiting = sorted(self._addresses, key=lambda one: (one.avoided_seconds > 0, one.is_doubted, self._rank(one)))
        asked: dict[asyncio.Future[T], tuple[AskedAddress, int]] = {}
        fault: PeerUnreachable | None = None
        try:
            while True:
                seconds = None
                if waiting and all(_is_silent(*one) for one in asked.values()):
                    one = waiting.pop(0)
                    asked[asyncio.ensure_future(ask(one.client))] = one, one.client.responses
                    seconds = NEXT_ADDRESS_SECONDS if waiting and is_hedged else None
                done, _ = await asyncio.wait(asked, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    one, before = asked.pop(task)
                    try:
                        response = task.result()
                    except MessageTooLarge:
                        raise
                    except PeerUnreachable as error:
                        fault = fault or error
                        if _is_silent(one, before):
                            one.avoid()
                    else:
                        for other in asked.values():
                            if _is_silent(*other):
                                other[0].doubt()
                        return one.client.address, response
                if fault is not None and not waiting and not asked:
                    raise fault
        finally:
            await end_tasks(asked)


class PeerClients:
    """The clients of all peers, with common bounds. Belongs to one event loop.

    `limiter` bounds the blob bytes of all peers together.
    """

    def __init__(self, own_node_id: str, limiter: Limiter | None, clock: Callable[[], float]) -> None:
        self._own_node_id = own_node_id
        self._limiter = limiter
        self._clock = clock
        self._window = SharedWindow()
        self._message_budget = MessageBudget()
        self._addresses: dict[Address, AskedAddress] = {}
        self._peers: dict[str, PeerClient] = {}
        """By the key of the peer."""

    def of(self, key: str, addresses: Sequence[Address]) -> PeerClient:
        """The client of the peer with this key, which has these addresses now, the best first."""
        asked = [self._at(address) for address in addresses]
        if key in self._peers:
            self._peers[key].use(asked)
        else:
            self._peers[key] = PeerClient(asked)
        return self._peers[key]

    def _at(self, address: Address) -> AskedAddress:
        known = self._addresses.get(address)
        if known is None:
            client = AddressClient(
                address,
                self._own_node_id,
                limiter=self._limiter,
                window=self._window,
                message_budget=self._message_budget,
            )
            known = self._addresses[address] = AskedAddress(client, self._clock)
            known.on_avoided = self._leave
        return known

    def _leave(self, client: AddressClient) -> None:
        for peer in self._peers.values():
            peer.leave_way(client)

    async def drop(self, addresses: Iterable[Address]) -> None:
        """Closes the clients for these addresses."""
        for address in addresses:
            for key in [key for key, peer in self._peers.items() if peer.has(address)]:
                del self._peers[key]
            known = self._addresses.pop(address, None)
            if known is not None:
                await known.aclose()

    async def aclose(self) -> None:
        """Closes every connection."""
        await asyncio.gather(*(known.aclose() for known in self._addresses.values()))
        self._addresses.clear()
        self._peers.clear()


def _ways_among(addresses: Sequence[AskedAddress]) -> tuple[list[RangeClient], list[RangeClient]]:
    """The clients of the addresses that may be different ways to their peer, and those of the others."""
    asked = [one.client.address for one in addresses]
    near = (ways_among(asked) if len(asked) > 1 else []) or asked[:1]
    clients = [one.client for one in addresses]
    return (
        [client.range_client for client in clients if client.address in near],
        [client.range_client for client in clients if client.address not in near],
    )


def _is_silent(one: AskedAddress, before: int) -> bool:
    """Whether no response has begun at an address since there were `before` of them."""
    return one.client.responses == before
