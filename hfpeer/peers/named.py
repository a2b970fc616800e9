"""The peers that one request names, before those of the neighbourhood.

They have a neighbourhood of their own that lasts as long as the request. So a named peer need not be known, is asked by
no other request, and is told to no other peer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from hfpeer.names import Commit
from hfpeer.net.address import Address
from hfpeer.net.limiter import Limiter
from hfpeer.peers.asking.peer_client import PeerClient
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.table.catalogs import Catalog
from hfpeer.peers.table.table import Peer


class NamedFirst:
    """The part that resolver and transfers use of a neighbourhood, with the named peers first. Of one event loop."""

    def __init__(self, named: Neighbourhood, others: Neighbourhood | None) -> None:
        """`others` is the neighbourhood of the node; None if no other peer is to be asked."""
        self._named = named
        self._others = others

    async def greet(self, addresses: Sequence[Address]) -> list[tuple[Address, str]]:
        """Asks the named peers who they are. Returns those that do not answer, each with a sentence on why."""
        silent = []
        for address in addresses:
            peer = self._named.get(str(address))
            if peer is None or not await self._named.probe(peer):
                known = self._named.get(str(address))
                reason = known.last_failure if known is not None else ""
                silent.append((address, reason or f"{address} is this node itself."))
        return silent

    def candidates(self, commit: Commit | None = None) -> list[Peer]:
        """The peers to ask now: those that the request names, then the others, best first."""
        named = self._named.candidates(commit)
        keys = {peer.key for peer in named}
        others = [] if self._others is None else self._others.candidates(commit)
        return [*named, *(peer for peer in others if peer.key not in keys)]

    def is_named(self, peer: Peer) -> bool:
        """Whether the request names the peer."""
        return self._named.get(peer.key) is not None

    def get(self, key: str) -> Peer | None:
        """See `Neighbourhood.get`."""
        return self._of(key).get(key)

    def catalog(self, peer: Peer) -> Catalog | None:
        """See `Neighbourhood.catalog`."""
        return self._of(peer.key).catalog(peer)

    def client(self, peer: Peer) -> PeerClient:
        """See `Neighbourhood.client`."""
        return self._of(peer.key).client(peer)

    def failed(self, key: str, reason: str) -> None:
        """See `Neighbourhood.failed`."""
        self._of(key).failed(key, reason)

    def unanswered(self, node_id: str, address: Address) -> None:
        """See `Neighbourhood.unanswered`."""
        self._of(node_id).unanswered(node_id, address)

    def lied(self, node_id: str) -> None:
        """See `Neighbourhood.lied`. The node remembers it for later requests."""
        self._named.lied(node_id)
        if self._others is not None:
            self._others.lied(node_id)

    async def settle(self, commit: Commit | None, seconds: float) -> None:
        """See `Neighbourhood.settle`. Does not wait for other peers if a named one has the commit."""
        await self._named.settle(commit, 0.0)
        if self._others is None or any(peer.may_have(commit) for peer in self._named.candidates() if commit):
            return
        await self._others.settle(commit, seconds)

    def _of(self, key: str) -> Neighbourhood:
        """The neighbourhood that asks the peer."""
        return self._named if self._others is None or self._named.get(key) is not None else self._others


Neighbours: TypeAlias = "Neighbourhood | NamedFirst"
"""The peers that one request may ask."""


@asynccontextmanager
async def named_first(
    addresses: Sequence[Address],
    others: Neighbourhood | None,
    own_node_id: str,
    own_run_id: str,
    on_duplicate_id: Callable[[Address], None],
    limiter: Limiter | None,
) -> AsyncIterator[NamedFirst]:
    """The peers at these addresses before `others`, until the end of the block. The other parameters are as in
    `Neighbourhood`."""
    named = Neighbourhood(
        own_node_id,
        addresses,
        limiter=limiter,
        own_run_id=own_run_id,
        on_duplicate_id=on_duplicate_id,
        gossips=False,
    )
    await named.start()
    try:
        yield NamedFirst(named, others)
    finally:
        await named.stop()
