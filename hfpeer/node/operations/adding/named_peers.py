"""An add from peers that the request names: they are asked first, or alone, also in a node that has no other peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hfpeer.cache.store import Store
from hfpeer.control.operations import AddRequest
from hfpeer.errors import HubUnreachable, NotFound, PeerUnreachable
from hfpeer.net.address import Address
from hfpeer.net.limiter import Limiter
from hfpeer.node.operations.adding.adding import Adder
from hfpeer.peers.named import named_first
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.resolver.resolver import Resolver
from hfpeer.transfer.events import Finished, NamedPeerSilent, OnEvent
from hfpeer.transfer.sources.lan import Lan
from hfpeer.upstream.upstreams import Upstreams


@dataclass(frozen=True)
class NamingParts:
    """The parts of a node that ask its peers. `neighbourhood` is None in a node without other peers."""

    store: Store
    neighbourhood: Neighbourhood | None
    lan: Lan
    node_id: str
    run_id: str
    on_duplicate_id: Callable[[Address], None]
    limiter: Limiter | None


async def add_from_named(
    parts: NamingParts, adder: Adder, request: AddRequest, upstreams: Upstreams, on_event: OnEvent
) -> Finished:
    """An add whose request has `from_peers`. A named peer that does not answer is told as an event.

    Raises InvalidName, and the errors of `Operations.add`. If no other source may be asked, raises PeerUnreachable when
    no named peer answers, and NotFound when they do not share the commit.
    """
    addresses = list(dict.fromkeys(map(Address.parse_source, request.from_peers)))
    others = None if request.only_from_peers else parts.neighbourhood
    if request.only_from_peers:
        upstreams = Upstreams([])
    opened = named_first(addresses, others, parts.node_id, parts.run_id, parts.on_duplicate_id, parts.limiter)
    async with opened as neighbours:
        silent = await neighbours.greet(addresses)
        if request.only_from_peers and len(silent) == len(addresses):
            raise PeerUnreachable(
                silent[0][1],
                hint="Check the address. Without `--only-from` other sources are asked too.",
                addresses=[str(address) for address, _ in silent],
            )
        for address, reason in silent:
            on_event(NamedPeerSilent(str(address), reason))
        resolver = Resolver(parts.store, neighbours)
        try:
            return await adder.add(request, upstreams, on_event, resolver, parts.lan.with_named(neighbours))
        except HubUnreachable as error:
            if not request.only_from_peers:
                raise
            raise _not_shared(request) from error


def _not_shared(request: AddRequest) -> NotFound:
    names = " and ".join(request.from_peers)
    repo = f"{request.repo} at {request.revision}"
    return NotFound(
        f"{names} gives no list of the files of {repo}: it does not have it, or does not share it.",
        hint=f"There, `hfpeer {request.repo.type.value} ls` says what it shares. Without `--only-from` other sources "
        "are asked too.",
        repo=str(request.repo),
        revision=str(request.revision),
    )
