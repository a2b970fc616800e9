"""Every peer that this node knows of, whether it responds, and its rank.

Pure: no clock, no network; `now` is a parameter, in seconds of any monotonic clock. Not thread-safe: it belongs to the
event loop. A peer is identified by its node id. An address whose node id is unknown is a peer too, and becomes one with
its node when it responds. Nothing that peers tell of themselves and of each other is proved: a node id that two nodes
use costs time, never wrong bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from hfpeer.budgets import (
    MAX_ADDRESSES,
    MAX_GOSSIPED_PEERS,
    MAX_PEERS,
    MAX_PEERS_PER_HOST,
    MAX_UNANSWERED,
    MAX_UNANSWERED_PER_HOST,
    MAX_UNANSWERED_PER_PEER,
)
from hfpeer.names import Commit
from hfpeer.net.address import Address, parse_ip
from hfpeer.peers.gossip import parse_gossiped_address
from hfpeer.peers.protocol.messages import NodeMessage
from hfpeer.peers.table.catalogs import NO_COMMITS, Catalog, CommitSet
from hfpeer.peers.table.configured import ConfiguredAddresses

ALIVE_SECONDS = 60.0
"""Seconds for which a response counts. After half of them the peer is due for a probe, unless it sends bytes."""
FORGET_SECONDS = 3600.0
"""Seconds without a response or an announcement after which a peer is dropped, unless it is configured."""
FORGET_GONE_SECONDS = 300.0
"""The same for a peer that is gone. If it comes back, it says so."""
FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 120.0
GOODBYE_PROBE_SECONDS = 5.0
GONE_AFTER_FAILURES = 3
BAN_SECONDS = 600.0
"""Seconds for which a peer is not asked anything, after its second lie and each further one."""


_PORT = re.compile(r"[0-9]{1,5}")


class Origin(str, Enum):
    """How the table learned of a peer; an upper one outweighs a lower one. `static`: by its address in the settings;
    `dns`: by a name there; `mdns`, `registry`: it announced itself; `gossip`: a peer told of it."""

    STATIC = "static"
    DNS = "dns"
    MDNS = "mdns"
    REGISTRY = "registry"
    GOSSIP = "gossip"


class State(str, Enum):
    """`known`: configured or heard of. `alive`: responded lately. `gone`: said goodbye, or failed several times in a
    row."""

    KNOWN = "known"
    ALIVE = "alive"
    GONE = "gone"


@dataclass(frozen=True)
class Peer:
    """One peer at one moment. `node_id` is None until its address has responded.

    `addresses` are tried in order. `commits` are those of its catalog, `hints` the abbreviated ones of its last
    announcement. Since `outdated_since` it announces another catalog than was read. `gossiped_by` is the key of the
    peer that told of it, `gossiped_from` that peer's host; `dns_name` the name that lists it. Times are of the caller's
    clock.
    """

    addresses: tuple[Address, ...]
    seen_at: float
    origin: Origin = Origin.GOSSIP
    announced_by: Origin | None = None
    dns_name: str = ""
    node_id: str | None = None
    name: str = ""
    version: str = ""
    generation: int | None = None
    catalog_generation: int | None = None
    outdated_since: float | None = None
    commits: CommitSet = NO_COMMITS
    hints: frozenset[str] = frozenset()
    answered_at: float | None = None
    failures: int = 0
    last_failure: str = ""
    retry_at: float | None = None
    has_left: bool = False
    lies: int = 0
    banned_until: float | None = None
    gossiped_by: str | None = None
    gossiped_from: str | None = None

    @property
    def key(self) -> str:
        """The node id, or the address while that is unknown. The table's methods take it."""
        return self.node_id or str(self.addresses[0])

    @property
    def address(self) -> Address:
        """The address to use next."""
        return self.addresses[0]

    @property
    def is_hearsay(self) -> bool:
        """Whether only other peers named its address, and it has never answered. The address may be this node's own."""
        return self.origin is Origin.GOSSIP and self.answered_at is None

    @property
    def needs_catalog(self) -> bool:
        """Whether its catalog is another than the one read last."""
        return self.catalog_generation is None or self.generation != self.catalog_generation

    def state(self, now: float) -> State:
        if self.has_left or self.failures >= GONE_AFTER_FAILURES:
            return State.GONE
        is_recent = self.answered_at is not None and now - self.answered_at < ALIVE_SECONDS
        return State.ALIVE if is_recent else State.KNOWN

    def is_banned(self, now: float) -> bool:
        return self.banned_until is not None and now < self.banned_until

    def is_backing_off(self, now: float) -> bool:
        """Whether it failed and is not to be asked again yet."""
        return self.retry_at is not None and now < self.retry_at

    def may_have(self, commit: Commit) -> bool:
        """Whether its catalog or its announcement names the commit."""
        return commit in self.commits or commit.short in self.hints


class PeerTable:
    """The peers by key, at most `max_peers` that are not configured. Methods return the peer after the change."""

    def __init__(self, own_node_id: str, *, max_peers: int = MAX_PEERS) -> None:
        self._own_node_id = own_node_id
        self._max_peers = max_peers
        self._peers: dict[str, Peer] = {}
        self._configured = ConfiguredAddresses()
        self._own_addresses: set[Address] = set()

    def __len__(self) -> int:
        return len(self._peers)

    def all(self) -> list[Peer]:
        """Every peer, by name."""
        return sorted(self._peers.values(), key=lambda peer: (peer.name, peer.key))

    def listed_peers(self) -> list[Peer]:
        """The peers that `peer ls` shows, by name: all except hearsay."""
        return [peer for peer in self.all() if not peer.is_hearsay]

    def is_own(self, address: Address) -> bool:
        """Whether this node itself has answered at an address."""
        return address in self._own_addresses

    def get(self, key: str) -> Peer | None:
        """The peer with this node id, or with this address as text."""
        return self._peers.get(key) or self._at_text(key)

    def add_static(self, address: Address, now: float) -> Peer:
        """Adds a configured peer, which is never forgotten and never replaced. Accepts this node's own address, which
        never becomes a peer that responds."""
        self._configured.static.add(address)
        first, *others = self._all_at(address) or [Peer((address,), now)]
        for peer in others:
            self._put(peer)
        return self._put(first)

    def remove_static(self, address: Address) -> bool:
        """Forgets a configured address, and its peer unless that announced itself; False if the address is unknown."""
        if address not in self._configured.static:
            return False
        self._configured.static.discard(address)
        self._let_go(address)
        return True

    def listed(self, name: str, addresses: Collection[Address], now: float) -> list[Peer]:
        """The addresses that a DNS name has now. They are configured as long as it has them. Returns their peers that
        are new."""
        new, gone = self._configured.set_name(name, addresses)
        for address in gone:
            self._let_go(address)
        added = []
        for address in new:
            known = self._all_at(address)
            for peer in known:
                self._put(peer)
            if not known and not self.is_own(address):
                added.append(self._put(Peer((address,), now)))
        return added

    def announced(
        self,
        node_id: str,
        addresses: Iterable[Address],
        now: float,
        *,
        by: Origin = Origin.MDNS,
        name: str = "",
        generation: int | None = None,
        hints: frozenset[str] = frozenset(),
    ) -> Peer | None:
        """A node announced itself, by mDNS or in the registry. None if it is this node, has no address, or the table is
        full."""
        announced = tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES]
        if node_id == self._own_node_id or not announced:
            return None
        peer = self._peers.get(node_id) or self._unnamed_at(announced)
        if peer is None:
            if not self._make_room(announced[0].host, now, for_announced=True):
                return None
            peer = Peer(announced, now)
        self._drop(peer)
        peer = _without_failures(peer) if peer.has_left else peer
        updated = replace(
            peer,
            node_id=node_id,
            addresses=self._ordered(peer, announced, now),
            announced_by=Origin.MDNS if Origin.MDNS in (by, peer.announced_by) else by,
            seen_at=now,
            name=peer.name or name,
            generation=peer.generation if generation is None else generation,
            hints=hints if by is Origin.MDNS else peer.hints,
        )
        return self._put(_with_outdated_since(updated, now))

    def gossiped(self, sender_key: str, addresses: Iterable[str], now: float) -> list[Peer]:
        """A peer told addresses of others. Returns the new peers; they count as known only until they respond."""
        sender = self.get(sender_key)
        return [] if sender is None else self._told(sender.key, sender.address, addresses, now)

    def introduced(self, host: str, door: str, now: float) -> list[Peer]:
        """A node at an IP address told its door: a port there, or `HOST:PORT`. Returns its peer if that is new, or has
        been gone; it counts as known only until it responds."""
        ip = parse_ip(host)
        if ip is None:
            return []
        sender = Address(str(ip))
        text = str(Address(sender.host, int(door))) if _PORT.fullmatch(door) else door
        gone = [peer for peer in (self._at_text(text),) if peer is not None and peer.state(now) is State.GONE]
        return gone or self._told(sender.host, sender, [text], now)

    def _told(self, key: str, sender: Address, addresses: Iterable[str], now: float) -> list[Peer]:
        room = self._gossip_room(key, sender.host)
        added: list[Peer] = []
        for text in list(addresses)[:MAX_GOSSIPED_PEERS]:
            address = parse_gossiped_address(text, sender)
            if address is None or address in self._own_addresses or self._at(address) is not None:
                continue
            if len(added) >= room:
                break
            if not self._make_room(address.host, now, for_announced=False):
                continue
            added.append(self._put(Peer((address,), now, gossiped_by=key, gossiped_from=sender.host)))
        return added

    def answered(self, address: Address, node: NodeMessage, now: float) -> Peer | None:
        """A node sent its node message. All that is known under its id and under its address becomes one peer. None if
        it is this node, whose address is never asked again."""
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
            addresses=self._bounded((*_answering_first(address, peer.addresses), *self._further(address, node))),
            name=node.name,
            version=node.version,
            generation=node.catalog_generation,
        )
        return self._put(_with_answer(_with_outdated_since(merged, now), now))

    def forget(self, key: str) -> Peer | None:
        """Drops a peer that is not configured; None if there is no such peer."""
        peer = self.get(key)
        if peer is None or self._is_configured(peer):
            return None
        self._drop(peer)
        return peer

    def gave(self, key: str, now: float) -> None:
        """A peer sent bytes: it is alive and needs no probe."""
        peer = self.get(key)
        if peer is not None:
            self._put(_with_answer(peer, now))

    def read(self, key: str, catalog: Catalog, now: float) -> Peer | None:
        """A peer's catalog was read; an empty one stands for one that did not fit."""
        peer = self.get(key)
        if peer is None:
            return None
        read = replace(
            peer,
            generation=catalog.generation,
            catalog_generation=catalog.generation,
            commits=catalog.commits,
        )
        return self._put(_with_answer(_with_outdated_since(read, now), now))

    def lose_catalog(self, key: str) -> None:
        """A peer's catalog was dropped for another's."""
        peer = self.get(key)
        if peer is not None:
            self._put(replace(peer, commits=NO_COMMITS))

    def failed(self, key: str, now: float, reason: str = "") -> Peer | None:
        """A peer did not respond at any of its addresses. It pauses, twice as long each time."""
        peer = self.get(key)
        if peer is None:
            return None
        backoff_seconds = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(peer.failures, 16))
        return self._put(replace(peer, failures=peer.failures + 1, last_failure=reason, retry_at=now + backoff_seconds))

    def lied(self, key: str, now: float) -> Peer | None:
        """A peer gave wrong bytes or a forged manifest: it ranks last, and from the second time is banned for
        BAN_SECONDS."""
        peer = self.get(key)
        if peer is None:
            return None
        lies = peer.lies + 1
        return self._put(replace(peer, lies=lies, banned_until=now + BAN_SECONDS if lies >= 2 else None))

    def left(self, node_id: str, now: float) -> None:
        """A peer said goodbye, or its announcement expired. Anyone can send that, so it is probed after
        GOODBYE_PROBE_SECONDS."""
        peer = self._peers.get(node_id)
        if peer is not None:
            self._put(replace(peer, has_left=True, hints=frozenset(), retry_at=now + GOODBYE_PROBE_SECONDS))

    def candidates(self, now: float, commit: Commit | None = None) -> list[Peer]:
        """The peers to ask now, best first: honest before liars, those that name the commit, alive before known, those
        with the fewest failures, those that responded last. Without peers that are gone, backing off or banned."""

        def rank(peer: Peer) -> tuple[bool, bool, bool, int, float]:
            return (
                peer.lies > 0,
                commit is not None and not peer.may_have(commit),
                peer.state(now) is not State.ALIVE,
                peer.failures,
                -(peer.answered_at if peer.answered_at is not None else peer.seen_at),
            )

        return sorted((peer for peer in self._peers.values() if _is_usable(peer, now)), key=rank)

    def due(self, now: float) -> list[Peer]:
        """The peers to probe now: no response for half of ALIVE_SECONDS, and neither backing off nor banned."""

        def is_due(peer: Peer) -> bool:
            is_quiet = peer.answered_at is None or now - peer.answered_at >= ALIVE_SECONDS / 2
            return is_quiet or peer.failures > 0 or peer.has_left

        return [peer for peer in self._awake(now) if is_due(peer)]

    def backing_off(self, now: float, commit: Commit | None) -> list[Peer]:
        """The peers that failed or left and are not asked again yet, of those that may have the commit; not those that
        are banned."""
        resting = [peer for peer in self._peers.values() if peer.is_backing_off(now) and not peer.is_banned(now)]
        return [peer for peer in resting if commit is None or peer.may_have(commit)]

    def outdated(self, now: float, seconds: float) -> list[Peer]:
        """The peers whose catalog to read now: they announced another than was read, at least `seconds` ago."""

        def is_outdated(peer: Peer) -> bool:
            return peer.outdated_since is not None and now - peer.outdated_since >= seconds

        return [peer for peer in self._awake(now) if is_outdated(peer)]

    def alive_addresses(self, now: float) -> list[Address]:
        """The addresses where alive peers responded, the latest first: what this node tells other peers."""
        alive = [peer for peer in self.candidates(now) if peer.state(now) is State.ALIVE and not peer.lies]
        return [peer.address for peer in alive][:MAX_GOSSIPED_PEERS]

    def forget_silent(self, now: float) -> list[Peer]:
        """Drops and returns the peers that are not configured and have been silent for FORGET_SECONDS, those that are
        gone for FORGET_GONE_SECONDS."""
        unbound = [p for p in self._peers.values() if not self._is_configured(p) and not p.is_banned(now)]

        def patience(peer: Peer) -> float:
            return FORGET_GONE_SECONDS if peer.state(now) is State.GONE else FORGET_SECONDS

        silent = [peer for peer in unbound if now - _last_seen_at(peer) >= patience(peer)]
        for peer in silent:
            self._drop(peer)
        return silent

    def _awake(self, now: float) -> Iterator[Peer]:
        return (peer for peer in self._peers.values() if not peer.is_backing_off(now) and not peer.is_banned(now))

    def _put(self, peer: Peer) -> Peer:
        name = self._configured.name_of(peer.addresses)
        origin = Origin.DNS if name else peer.announced_by or Origin.GOSSIP
        is_static = not self._configured.static.isdisjoint(peer.addresses)
        peer = replace(peer, origin=Origin.STATIC if is_static else origin, dns_name=name)
        self._peers[peer.key] = peer
        return peer

    def _drop(self, peer: Peer) -> None:
        self._peers.pop(peer.key, None)

    def _at(self, address: Address) -> Peer | None:
        return next(iter(self._all_at(address)), None)

    def _all_at(self, address: Address) -> list[Peer]:
        """Several nodes may announce one address; it belongs to the node that responds there."""
        return [peer for peer in self._peers.values() if address in peer.addresses]

    def _at_text(self, text: str) -> Peer | None:
        return next((p for p in self._peers.values() if any(str(address) == text for address in p.addresses)), None)

    def _unnamed_at(self, addresses: tuple[Address, ...]) -> Peer | None:
        found = (self._at(address) for address in addresses)
        return next((peer for peer in found if peer is not None and peer.node_id is None), None)

    def _is_configured(self, peer: Peer) -> bool:
        return self._configured.lists_any(peer.addresses)

    def _let_go(self, address: Address) -> None:
        """Forgets the peer at an address that was configured, unless it announced itself or is configured otherwise."""
        for peer in self._all_at(address):
            self._drop(peer)
            if peer.announced_by or self._is_configured(peer):
                self._put(peer)

    def _ordered(self, peer: Peer, announced: tuple[Address, ...], now: float) -> tuple[Address, ...]:
        """The addresses in order: the one that responded lately, which an announcement cannot replace; the configured;
        the announced."""
        in_use = (peer.address,) if peer.state(now) is State.ALIVE else ()
        static = tuple(address for address in peer.addresses if address in self._configured)
        return self._bounded((*in_use, *static, *announced))

    def _bounded(self, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """At most MAX_ADDRESSES, each once: always the first, then configured ones before others."""
        static = (address for address in addresses if address in self._configured)
        kept = set(list(dict.fromkeys((addresses[0], *static, *addresses)))[:MAX_ADDRESSES])
        return tuple(dict.fromkeys(address for address in addresses if address in kept))

    def _further(self, address: Address, node: NodeMessage) -> list[Address]:
        """The other addresses that a node tells of itself, without those of other nodes. They count only if it tells
        this one too, at which it responded: else it is behind a NAT, and the addresses are of another network."""
        if str(address) not in node.addresses:
            return []
        told = (parse_gossiped_address(text, address) for text in node.addresses)
        own = (None, node.node_id)
        return [one for one in told if one is not None and all(peer.node_id in own for peer in self._all_at(one))]

    def _others_at(self, address: Address, node_id: str) -> list[Peer]:
        """The other peers known at an address where this node id responds; all peers there if it is the own id."""
        mine = (None, node_id) if node_id != self._own_node_id else ()
        return [peer for peer in self._peers.values() if address in peer.addresses and peer.node_id not in mine]

    def _take_address(self, peer: Peer, address: Address) -> None:
        """Removes an address at which another node responds now."""
        self._drop(peer)
        others = tuple(other for other in peer.addresses if other != address)
        if others:
            self._put(replace(peer, addresses=others))

    def _gossip_room(self, key: str, host: str) -> int:
        """How many more addresses the sender of this key, at this host, may add."""
        unanswered = [p for p in self._peers.values() if p.gossiped_by is not None and p.answered_at is None]
        return min(
            MAX_UNANSWERED - len(unanswered),
            MAX_UNANSWERED_PER_PEER - sum(peer.gossiped_by == key for peer in unanswered),
            MAX_UNANSWERED_PER_HOST - sum(peer.gossiped_from == host for peer in unanswered),
        )

    def _make_room(self, host: str, now: float, *, for_announced: bool) -> bool:
        """Whether one more peer at this host fits. May drop the least useful peer for it: one that is gone, or, for an
        announced peer, one that was only told of by others."""
        others = [peer for peer in self._peers.values() if not self._is_configured(peer)]
        if sum(peer.address.host == host for peer in others) >= MAX_PEERS_PER_HOST:
            return False
        if len(others) < self._max_peers:
            return True
        unwanted = [peer for peer in others if peer.state(now) is State.GONE or (for_announced and peer.is_hearsay)]
        if not unwanted:
            return False
        self._drop(min(unwanted, key=_last_seen_at))
        return True


def _answering_first(address: Address, known: tuple[Address, ...]) -> tuple[Address, ...]:
    """The addresses of a peer with the one that answered first. A link-local one, which is no address for other nodes,
    stays behind one that is none."""
    is_link_local = address.ip is not None and address.ip.is_link_local
    if is_link_local and known and not (known[0].ip is not None and known[0].ip.is_link_local):
        return (*known, address)
    return (address, *known)


def _last_seen_at(peer: Peer) -> float:
    """When it last responded or was announced."""
    return peer.seen_at if peer.answered_at is None else max(peer.seen_at, peer.answered_at)


def _with_answer(peer: Peer, now: float) -> Peer:
    return replace(_without_failures(peer), answered_at=now)


def _without_failures(peer: Peer) -> Peer:
    return replace(peer, failures=0, last_failure="", retry_at=None, has_left=False)


def _with_outdated_since(peer: Peer, now: float) -> Peer:
    """With the time since when it has had another catalog than was read."""
    since = now if peer.outdated_since is None else peer.outdated_since
    return replace(peer, outdated_since=since if peer.needs_catalog else None)


def _is_usable(peer: Peer, now: float) -> bool:
    return peer.state(now) is not State.GONE and not peer.is_backing_off(now) and not peer.is_banned(now)
