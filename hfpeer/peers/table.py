"""Every peer this node has heard of, whether it answers, and whom to ask first.

Pure: no clock, no network; `now` is handed in, in seconds of any clock that only goes forward. Not thread-safe: it
belongs to the event loop. A peer is identified by its node id; an address whose node is not known yet is a peer too
and becomes one with its node when it answers. What peers say of themselves and of each other is not proved: a node
id that somebody else uses too costs time, never wrong bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from hfpeer.names import Address, Commit
from hfpeer.peers.hearsay import believable
from hfpeer.wire import MAX_TOLD_PEERS, CatalogueMessage, NodeMessage

MAX_PEERS = 512
MAX_ADDRESSES = 8
MAX_UNANSWERED_PER_TELLER = 32
"""So that one peer cannot fill the table with inventions."""
ALIVE_SECONDS = 60.0
"""An answer counts for this long; after half of it the peer is due for a probe, unless traffic spares it."""
FORGET_SECONDS = 3600.0
"""A peer that was not configured is dropped after this long without an answer or an announcement."""
FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 120.0
LEAVING_SECONDS = 5.0
GONE_AFTER_FAILURES = 3
BAN_SECONDS = 600.0
"""How long a peer is not asked anything after its second lie, and after each further one."""


class Origin(str, Enum):
    """How the table first came to know a peer; `static` wins over the others."""

    STATIC = "static"
    MDNS = "mdns"
    GOSSIP = "gossip"


class State(str, Enum):
    """`known`: configured or heard of; `alive`: answered lately; `gone`: said goodbye, or fails again and again."""

    KNOWN = "known"
    ALIVE = "alive"
    GONE = "gone"


@dataclass(frozen=True)
class Peer:
    """What is known of one peer, as of one moment. `node_id` is None until its address has answered.

    `addresses` are tried in order. `commits` are those of its catalogue, `hints` the abbreviated ones of its last
    announcement; `outdated_since` it has announced another catalogue than was read. Times are of the caller's clock.
    """

    addresses: tuple[Address, ...]
    heard_at: float
    origin: Origin = Origin.GOSSIP
    is_announced: bool = False
    node_id: str | None = None
    name: str = ""
    version: str = ""
    generation: int | None = None
    catalogue_generation: int | None = None
    outdated_since: float | None = None
    commits: frozenset[Commit] = frozenset()
    hints: frozenset[str] = frozenset()
    answered_at: float | None = None
    failures: int = 0
    last_failure: str = ""
    resting_until: float | None = None
    has_left: bool = False
    lies: int = 0
    banned_until: float | None = None
    told_by: str | None = None

    @property
    def key(self) -> str:
        """The node id, or before it is known the address: what the table's methods take."""
        return self.node_id or str(self.addresses[0])

    @property
    def address(self) -> Address:
        """Where to ask it next."""
        return self.addresses[0]

    @property
    def needs_catalogue(self) -> bool:
        """Whether it has another catalogue than the one that was read last."""
        return self.catalogue_generation is None or self.generation != self.catalogue_generation

    def state(self, now: float) -> State:
        if self.has_left or self.failures >= GONE_AFTER_FAILURES * len(self.addresses):
            return State.GONE
        is_recent = self.answered_at is not None and now - self.answered_at < ALIVE_SECONDS
        return State.ALIVE if is_recent else State.KNOWN

    def is_banned(self, now: float) -> bool:
        return self.banned_until is not None and now < self.banned_until

    def is_resting(self, now: float) -> bool:
        """Whether it failed and its time to be left alone is not over."""
        return self.resting_until is not None and now < self.resting_until

    def may_have(self, commit: Commit) -> bool:
        """Whether its catalogue or its announcement names the commit."""
        return commit in self.commits or commit.short in self.hints


class PeerTable:
    """The peers by key, at most `max_peers` that were not configured. Methods give the peer as it is afterwards."""

    def __init__(self, own_node_id: str, *, max_peers: int = MAX_PEERS) -> None:
        self._own_node_id = own_node_id
        self._max_peers = max_peers
        self._peers: dict[str, Peer] = {}
        self._static: set[Address] = set()
        self._own_addresses: set[Address] = set()

    def __len__(self) -> int:
        return len(self._peers)

    def all(self) -> list[Peer]:
        """Every peer, by name."""
        return sorted(self._peers.values(), key=lambda peer: (peer.name, peer.key))

    def get(self, key: str) -> Peer | None:
        """The peer with this node id, or this address as text."""
        return self._peers.get(key) or self._at_text(key)

    def add_static(self, address: Address, now: float) -> Peer:
        """A configured peer: never forgotten, never crowded out. The own address is taken too, and stays silent."""
        self._static.add(address)
        first, *others = self._all_at(address) or [Peer((address,), now)]
        for peer in others:
            self._put(peer)
        return self._put(first)

    def remove_static(self, address: Address) -> bool:
        """Forgets a configured address, and the peer behind it unless it announced itself; False if unknown."""
        if address not in self._static:
            return False
        self._static.discard(address)
        for peer in self._all_at(address):
            self._drop(peer)
            if peer.is_announced or self._is_static(peer):
                self._put(peer)
        return True

    def heard(
        self,
        node_id: str,
        addresses: Iterable[Address],
        now: float,
        *,
        name: str = "",
        generation: int | None = None,
        hints: frozenset[str] = frozenset(),
    ) -> Peer | None:
        """A node announced itself. None if that is this node, it has no address, or the table is full."""
        announced = tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES]
        if node_id == self._own_node_id or not announced:
            return None
        peer = self._peers.get(node_id) or self._unnamed_at(announced)
        if peer is None:
            if not self._make_room(now, for_announced=True):
                return None
            peer = Peer(announced, now)
        self._drop(peer)
        peer = _with_return(peer) if peer.has_left else peer
        heard = replace(
            peer,
            node_id=node_id,
            addresses=self._ordered(peer, announced, now),
            is_announced=True,
            heard_at=now,
            name=peer.name or name,
            generation=peer.generation if generation is None else generation,
            hints=hints,
        )
        return self._put(_dated(heard, now))

    def told(self, teller_key: str, addresses: Iterable[str], now: float) -> list[Peer]:
        """A peer told of others. Gives those that are new; they are only known until they answer themselves."""
        teller = self.get(teller_key)
        if teller is None:
            return []
        unanswered = sum(p.told_by == teller.key and p.answered_at is None for p in self._peers.values())
        added: list[Peer] = []
        for text in list(addresses)[:MAX_TOLD_PEERS]:
            address = believable(text, teller.address)
            if address is None or address in self._own_addresses or self._at(address) is not None:
                continue
            if unanswered + len(added) >= MAX_UNANSWERED_PER_TELLER or not self._make_room(now, for_announced=False):
                break
            added.append(self._put(Peer((address,), now, told_by=teller.key)))
        return added

    def answered(self, address: Address, node: NodeMessage, now: float) -> Peer | None:
        """A node said who it is. Whatever was known under its id and under its address is one peer from now on;
        None, and never asked again, if it is this node."""
        for other in self._others_at(address, node.node_id):
            self._take_address(other, address)
        if node.node_id == self._own_node_id:
            self._own_addresses.add(address)
            return None
        at_address = self._peers.pop(str(address), None)
        peer = self._peers.pop(node.node_id, None) or at_address or Peer((address,), now)
        merged = replace(
            peer,
            node_id=node.node_id,
            addresses=self._bounded((address, *peer.addresses)),
            name=node.name,
            version=node.version,
            generation=node.generation,
        )
        return self._put(_with_answer(_dated(merged, now), now))

    def gave(self, key: str, now: float) -> None:
        """Traffic came from it: it is alive and need not be probed."""
        peer = self.get(key)
        if peer is not None:
            self._put(_with_answer(peer, now))

    def read(self, key: str, catalogue: CatalogueMessage, now: float) -> Peer | None:
        """Its catalogue was read."""
        peer = self.get(key)
        if peer is None:
            return None
        read = replace(
            peer,
            generation=catalogue.generation,
            catalogue_generation=catalogue.generation,
            commits=frozenset(revision.commit for revision in catalogue.revisions),
        )
        return self._put(_with_answer(_dated(read, now), now))

    def failed(self, key: str, now: float, reason: str = "") -> Peer | None:
        """It did not answer. Its next address is tried next; after each round of them it rests, twice as long."""
        peer = self.get(key)
        if peer is None:
            return None
        rounds, untried = divmod(peer.failures + 1, len(peer.addresses))
        rest_seconds = min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2.0 ** min(rounds - 1, 16))
        self._drop(peer)
        return self._put(
            replace(
                peer,
                addresses=(*peer.addresses[1:], peer.addresses[0]),
                failures=peer.failures + 1,
                last_failure=reason,
                resting_until=None if untried else now + rest_seconds,
            )
        )

    def lied(self, key: str, now: float) -> Peer | None:
        """It gave wrong bytes or a forged listing: put last, and after the second time banned for BAN_SECONDS."""
        peer = self.get(key)
        if peer is None:
            return None
        lies = peer.lies + 1
        return self._put(replace(peer, lies=lies, banned_until=now + BAN_SECONDS if lies >= 2 else None))

    def left(self, node_id: str, now: float) -> None:
        """It said goodbye, or its announcement ran out. Whether that is true shows when it is probed in a while."""
        peer = self._peers.get(node_id)
        if peer is not None:
            rest = now + LEAVING_SECONDS
            self._put(replace(peer, has_left=True, hints=frozenset(), resting_until=rest))

    def candidates(self, now: float, commit: Commit | None = None) -> list[Peer]:
        """Whom to ask now, best first: honest before liars, those that name the commit, alive before known, those
        that failed least, those that answered last. Not the gone, the resting and the banned."""

        def rank(peer: Peer) -> tuple[bool, bool, bool, int, float]:
            return (
                peer.lies > 0,
                commit is not None and not peer.may_have(commit),
                peer.state(now) is not State.ALIVE,
                peer.failures,
                -(peer.answered_at if peer.answered_at is not None else peer.heard_at),
            )

        return sorted((peer for peer in self._peers.values() if _is_usable(peer, now)), key=rank)

    def due(self, now: float) -> list[Peer]:
        """Whom to probe now: those not heard from for half of ALIVE_SECONDS and neither resting nor banned."""

        def is_due(peer: Peer) -> bool:
            is_quiet = peer.answered_at is None or now - peer.answered_at >= ALIVE_SECONDS / 2
            return is_quiet or peer.failures > 0 or peer.has_left

        return [peer for peer in self._awake(now) if is_due(peer)]

    def outdated(self, now: float, seconds: float) -> list[Peer]:
        """Whose catalogue to read now: those that announced another than was read, so long ago or longer."""

        def is_outdated(peer: Peer) -> bool:
            return peer.outdated_since is not None and now - peer.outdated_since >= seconds

        return [peer for peer in self._awake(now) if is_outdated(peer)]

    def alive_addresses(self, now: float) -> list[Address]:
        """Where the peers that are alive answered, the latest first: what other peers are told."""
        alive = [peer for peer in self.candidates(now) if peer.state(now) is State.ALIVE and not peer.lies]
        return [peer.address for peer in alive][:MAX_TOLD_PEERS]

    def forget_silent(self, now: float) -> list[Peer]:
        """Drops, and gives, the peers that were not configured and have been silent for FORGET_SECONDS."""
        unbound = [p for p in self._peers.values() if not self._is_static(p) and not p.is_banned(now)]
        silent = [peer for peer in unbound if now - _last_sign(peer) >= FORGET_SECONDS]
        for peer in silent:
            self._drop(peer)
        return silent

    def _awake(self, now: float) -> Iterator[Peer]:
        return (peer for peer in self._peers.values() if not peer.is_resting(now) and not peer.is_banned(now))

    def _put(self, peer: Peer) -> Peer:
        other = Origin.MDNS if peer.is_announced else Origin.GOSSIP
        peer = replace(peer, origin=Origin.STATIC if self._is_static(peer) else other)
        self._peers[peer.key] = peer
        return peer

    def _drop(self, peer: Peer) -> None:
        self._peers.pop(peer.key, None)

    def _at(self, address: Address) -> Peer | None:
        return next(iter(self._all_at(address)), None)

    def _all_at(self, address: Address) -> list[Peer]:
        """Several nodes may announce one address; it belongs to whoever answers there."""
        return [peer for peer in self._peers.values() if address in peer.addresses]

    def _at_text(self, text: str) -> Peer | None:
        return next((p for p in self._peers.values() if any(str(address) == text for address in p.addresses)), None)

    def _unnamed_at(self, addresses: tuple[Address, ...]) -> Peer | None:
        found = (self._at(address) for address in addresses)
        return next((peer for peer in found if peer is not None and peer.node_id is None), None)

    def _is_static(self, peer: Peer) -> bool:
        return not self._static.isdisjoint(peer.addresses)

    def _ordered(self, peer: Peer, announced: tuple[Address, ...], now: float) -> tuple[Address, ...]:
        """The address that answered lately, which an announcement cannot take away; the configured; the announced."""
        in_use = (peer.address,) if peer.state(now) is State.ALIVE else ()
        static = tuple(address for address in peer.addresses if address in self._static)
        return self._bounded((*in_use, *static, *announced))

    def _bounded(self, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """At most MAX_ADDRESSES, each once: the first, then as many as there is room for, the configured before all."""
        static = (address for address in addresses if address in self._static)
        kept = set(list(dict.fromkeys((addresses[0], *static, *addresses)))[:MAX_ADDRESSES])
        return tuple(dict.fromkeys(address for address in addresses if address in kept))

    def _others_at(self, address: Address, node_id: str) -> list[Peer]:
        """The peers said to be at an address where this node answers; if it is the own node, all of them."""
        mine = (None, node_id) if node_id != self._own_node_id else ()
        return [peer for peer in self._peers.values() if address in peer.addresses and peer.node_id not in mine]

    def _take_address(self, peer: Peer, address: Address) -> None:
        """Another node answers there now."""
        self._drop(peer)
        rest = tuple(other for other in peer.addresses if other != address)
        if rest:
            self._put(replace(peer, addresses=rest))

    def _make_room(self, now: float, *, for_announced: bool) -> bool:
        """Whether one more fits, after the least useful peer was crowded out if need be: one that is gone, or for an
        announced peer one that was only ever told of."""
        others = [peer for peer in self._peers.values() if not self._is_static(peer)]
        if len(others) < self._max_peers:
            return True
        unwanted = [
            peer
            for peer in others
            if peer.state(now) is State.GONE
            or (for_announced and peer.origin is Origin.GOSSIP and peer.answered_at is None)
        ]
        if not unwanted:
            return False
        self._drop(min(unwanted, key=_last_sign))
        return True


def _last_sign(peer: Peer) -> float:
    """When it last answered or was heard of."""
    return peer.heard_at if peer.answered_at is None else max(peer.heard_at, peer.answered_at)


def _with_answer(peer: Peer, now: float) -> Peer:
    return replace(_with_return(peer), answered_at=now)


def _with_return(peer: Peer) -> Peer:
    return replace(peer, failures=0, last_failure="", resting_until=None, has_left=False)


def _dated(peer: Peer, now: float) -> Peer:
    """With the time since when it has another catalogue than was read."""
    since = now if peer.outdated_since is None else peer.outdated_since
    return replace(peer, outdated_since=since if peer.needs_catalogue else None)


def _is_usable(peer: Peer, now: float) -> bool:
    return peer.state(now) is not State.GONE and not peer.is_resting(now) and not peer.is_banned(now)
