"""Which nodes a user means: `all`, or their names, ids and addresses. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hfpeer.control.operations import OtherNode, PeerStatus
from hfpeer.errors import InvalidName, NotFound

ALL = "all"
MIN_ID_DIGITS = 4
"""At least this many first digits of a node id name a node."""


def chosen_nodes(text: str, peers: Sequence[PeerStatus], own_name: str) -> list[OtherNode | None]:
    """The nodes that a text such as `all` or `gpu1,gpu2` names, each once; None is this node, by its own name. `all` is
    every peer, also one that does not answer now, and not this node.

    Raises InvalidName for a name that several peers have, and NotFound for one that none has, and for `all` without
    peers.
    """
    known = [peer for peer in peers if peer.state != "unresolved"]
    found: dict[str, OtherNode | None] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word == ALL:
            found |= {_key(peer): _node(peer) for peer in known}
        elif word == own_name and not any(peer.name == word for peer in known):
            found[""] = None
        else:
            peer = _named(word, known)
            found[_key(peer)] = _node(peer)
    if not found:
        raise NotFound(
            "This node knows no other node." if text.strip() else "No node is named.",
            hint="`hfpeer peer ls` lists the nodes; `hfpeer doctor` says why one is missing.",
        )
    return list(found.values())


def _named(word: str, peers: Sequence[PeerStatus]) -> PeerStatus:
    """The peer with this name, address, host, or beginning of its id."""
    by_name = [peer for peer in peers if word in (peer.name, peer.address)]
    by_host = [peer for peer in peers if peer.address.rpartition(":")[0].strip("[]") == word]
    is_id = len(word) >= MIN_ID_DIGITS
    by_id = [peer for peer in peers if is_id and peer.node_id.startswith(word)]
    found = by_name or by_host or by_id
    if not found:
        names = ", ".join(sorted({peer.name or peer.address for peer in peers}))
        raise NotFound(
            f"This node knows no node {word!r}.",
            hint=f"It knows: {names}." if names else "`hfpeer peer ls` lists the nodes it knows.",
            node=word,
        )
    if len(found) > 1:
        addresses = ", ".join(peer.address for peer in found)
        raise InvalidName(
            f"{len(found)} nodes are called {word!r}.", hint=f"Name one by its address: {addresses}.", node=word
        )
    return found[0]


def _key(peer: PeerStatus) -> str:
    return peer.node_id or peer.address


def _node(peer: PeerStatus) -> OtherNode:
    return OtherNode(peer.name or peer.address, _key(peer))
