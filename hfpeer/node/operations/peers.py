"""The operations on peers: list, add and remove them, and find which have a repo."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hfpeer.cache.store import Store
from hfpeer.config.file import write_setting
from hfpeer.config.peer_names import DnsName, PeerName, parse_peer
from hfpeer.config.settings import Settings, find_key
from hfpeer.control.operations import Holding, PeerStatus
from hfpeer.errors import HfpeerError, InvalidName, NotFound
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.net.address import IP, Address, parse_ip
from hfpeer.peers.protocol.messages import RevisionMessage
from hfpeer.peers.table.catalogs import Catalog
from hfpeer.peers.table.table import Origin, Peer

if TYPE_CHECKING:
    from hfpeer.peers.discovery.discovery import Discovery
    from hfpeer.peers.neighbourhood import Neighbourhood


class PeerOperations:
    """Works on the neighbourhood of a daemon, or only on the settings of a node without one."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        neighbourhood: Neighbourhood | None,
        discovery: Discovery | None,
        received_now: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`received_now` gives the bytes of running fetches, by source name, which the store does not count yet."""
        self._received_now = received_now
        self._home = settings.home
        self._door = settings.lan_listen
        self._store = store
        self._neighbourhood = neighbourhood
        self._discovery = discovery
        self._added = settings.added_peers
        self._of_environment = tuple(peer for peer in settings.peers if peer not in settings.added_peers)

    @property
    def added(self) -> Sequence[PeerName]:
        """The peers that the settings file names, as far as this node has read or written it."""
        return self._added

    async def search(
        self, repo: RepoId | None, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        """See `Operations.search`."""
        if self._neighbourhood is None:
            return []
        if repo is None:
            catalogs = [self._at_peer(peer) for peer in self._neighbourhood.candidates()]
            # A catalog never changes, and one may have many thousands of revisions.
            return await asyncio.to_thread(lambda: [held(one) for catalog, held in catalogs for one in catalog or ()])
        await self._neighbourhood.refresh()
        holdings = []
        for peer in self._neighbourhood.candidates():
            catalog, held = self._at_peer(peer)
            for at_peer in catalog.of_repo(repo) if catalog else ():
                if revision is None or at_peer.commit.startswith(revision) or revision in at_peer.refs:
                    holding = held(at_peer)
                    holdings += await self._of_files(peer, holding, repo, files) if files else [holding]
        return holdings

    def _at_peer(self, peer: Peer) -> tuple[Catalog | None, Callable[[RevisionMessage], Holding]]:
        """The catalog of a peer, and what makes a holding of one of its revisions."""
        assert self._neighbourhood is not None
        address = str(self._neighbourhood.client(peer).address)

        def held(revision: RevisionMessage) -> Holding:
            return Holding(
                peer=peer.name,
                address=address,
                repo=revision.repo.full_name,
                commit=revision.commit,
                refs=tuple(revision.refs),
                is_complete=revision.is_complete,
                size_bytes=revision.size_bytes,
                is_published=revision.is_published,
                type=revision.repo.type.value,
                node_id=peer.node_id or "",
            )

        return self._neighbourhood.catalog(peer), held

    async def _of_files(self, peer: Peer, holding: Holding, repo: RepoId, files: Sequence[FilePath]) -> list[Holding]:
        """The holdings of those files of a revision that a peer has, by digest; none if it does not answer."""
        assert self._neighbourhood is not None
        client = self._neighbourhood.client(peer)
        commit = Commit(holding.commit)
        holdings = []
        try:
            manifest = await asyncio.to_thread(self._store.manifests.load, repo, commit)
            manifest = manifest or await client.manifest(repo, commit)
            for path in files:
                file = manifest.by_path.get(path) if manifest else None
                pieces = await client.pieces(file.digest) if file else None
                if file is not None and pieces is not None:
                    is_whole = pieces.bitfield is None
                    holdings.append(replace(holding, path=path, size_bytes=file.size_bytes, is_complete=is_whole))
        except HfpeerError:
            pass
        return holdings

    async def add_peer(self, address: str) -> PeerStatus:
        """See `Operations.add_peer`."""
        parsed = parse_peer(address)
        if isinstance(parsed, Address):
            await self._check(parsed)
        await self._write(dict.fromkeys((*self._added, parsed)))
        if self._neighbourhood is None:
            return replace(_unseen(parsed), note="No daemon is running here, so it was not asked.")
        if isinstance(parsed, DnsName):
            return await self._add_name(parsed)
        peer = self._neighbourhood.add_static(parsed)
        await self._neighbourhood.probe(peer)
        if self._neighbourhood.table.is_own(parsed):  # a forwarded port, or another name of this machine
            self._neighbourhood.remove_static(parsed)
            await self._write(one for one in self._added if one != parsed)
            raise _own(parsed)
        return self._status(self._neighbourhood.table.get(str(parsed)) or peer, {})

    async def _check(self, address: Address) -> None:
        """Raises InvalidName for an address of this node, and for a host name that no address belongs to."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise InvalidName(
                f"{address.host} has no address that this machine can look up: {getattr(error, 'strerror', error)}.",
                hint="Write the IP address of the peer, or check the name.",
                address=str(address),
            ) from error
        hosts = {parse_ip(str(info[4][0])) for info in found}
        if any(ip is not None and (ip.is_unspecified or ip.is_multicast or ip.is_reserved) for ip in hosts):
            raise InvalidName(
                f"{address} is the address of no machine.",
                hint="`hfpeer status` on the other machine shows what to type here.",
                address=str(address),
            )
        if await asyncio.to_thread(self._is_own, hosts, address.port):
            raise _own(address)

    def _is_own(self, hosts: Collection[IP | None], port: int) -> bool:
        """Blocking: whether the LAN door of this node is at that port of one of these addresses."""
        if port != self._door.port:
            return False
        if self._door.ip is not None and not self._door.ip.is_unspecified:
            return self._door.ip in hosts
        from hfpeer.peers.interfaces import own_ips  # an add does not need it

        return any(ip is not None and (ip.is_loopback or ip in own_ips()) for ip in hosts)

    async def _add_name(self, name: DnsName) -> PeerStatus:
        """Looks up a name and greets its peers."""
        assert self._discovery is not None and self._neighbourhood is not None
        addresses = await self._discovery.add_name(name)
        if not addresses:
            return _unseen(name, self._discovery.unresolved.get(name, ""))
        await self._neighbourhood.settle(None, 0.0)
        known = [peer for peer in self._neighbourhood.others() if not set(addresses).isdisjoint(peer.addresses)]
        answering = [peer for peer in known if self._neighbourhood.is_alive(peer)]
        note = f"addresses: {len(addresses):,}; peers that answer there: {len(answering):,}."
        return replace(_unseen(name, note), state="alive" if answering else "known")

    async def remove_peer(self, address: str) -> None:
        """See `Operations.remove_peer`."""
        parsed = parse_peer(address)
        if parsed in self._of_environment:
            raise NotFound(
                f"{parsed} was not added by a command: HFPEER_PEERS names it.",
                hint="Remove it from the daemon's environment.",
            )
        was_added = parsed in self._added
        if was_added:
            await self._write(peer for peer in self._added if peer != parsed)
        if isinstance(parsed, DnsName) and self._discovery is not None:
            was_added |= await self._discovery.remove_name(parsed)
        elif isinstance(parsed, Address) and self._neighbourhood is not None:
            self._neighbourhood.remove_static(parsed)
            return
        if not was_added:
            raise NotFound(f"{parsed} is not a configured peer.", hint="`hfpeer peer ls` shows them.")

    async def list_peers(self) -> list[PeerStatus]:
        """See `Operations.list_peers`."""
        if self._neighbourhood is None:
            peers = dict.fromkeys((*self._of_environment, *self._added))
            return [_unseen(peer) for peer in peers]
        totals = await asyncio.to_thread(self._store.totals)
        received = Counter(totals["received_by_source"])
        received.update(self._received_now())
        unresolved = {} if self._discovery is None else self._discovery.unresolved
        return [
            *(self._status(peer, received) for peer in self._neighbourhood.table.listed_peers()),
            *(_unseen(name, problem) for name, problem in unresolved.items()),
        ]

    async def _write(self, added: Iterable[PeerName]) -> None:
        """Writes the peers that commands have added into the settings file."""
        peers = tuple(added)
        text = ",".join(map(str, peers)) or None
        await asyncio.to_thread(write_setting, self._home, find_key("peers"), text)
        self._added = peers

    def _status(self, peer: Peer, received_by_source: Mapping[str, int]) -> PeerStatus:
        """`received_by_source` counts under the peer's name, or its name and address where names are not unique."""
        assert self._neighbourhood is not None
        names = {peer.name, str(peer.address), f"{peer.name}@{peer.address}"}
        catalog = self._neighbourhood.catalog(peer)
        return PeerStatus(
            node_id=peer.node_id or "",
            name=peer.name,
            address=str(self._neighbourhood.address(peer)),
            state=self._neighbourhood.state(peer).value,
            origin=peer.origin.value,
            version=peer.version,
            revisions=len(catalog) if catalog else 0,
            last_seen_seconds_ago=self._neighbourhood.seconds_since_answer(peer),
            received_bytes=sum(received_by_source.get(name, 0) for name in names),
            note="gave wrong bytes" if peer.lies else peer.last_failure if peer.failures else "",
            found_by=peer.dns_name if peer.origin is Origin.DNS else peer.origin.value,
        )


def _own(address: Address) -> InvalidName:
    return InvalidName(
        f"{address} is this node itself.",
        hint="`hfpeer status` shows what to type on the other machines.",
        address=str(address),
    )


def _unseen(peer: PeerName, note: str = "") -> PeerStatus:
    """A configured peer of which nothing else is known; with a note a name that has no address."""
    if isinstance(peer, Address):
        return PeerStatus("", "", str(peer), "known", "static", note=note, found_by="static")
    state = "unresolved" if note else "known"
    return PeerStatus("", "", str(peer), state, "dns", note=note, found_by=str(peer))
