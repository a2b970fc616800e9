"""The state of a node, for people and for `status --json`: gathered from its parts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfpeer.cache.disk.os_errors import free_of
from hfpeer.cache.partial.files import begun_blobs
from hfpeer.cache.store import Store
from hfpeer.config.peer_names import PeerName
from hfpeer.config.settings import Settings, changed_keys
from hfpeer.control.operations import NodeStatus, PeerStatus, TransferStatus
from hfpeer.control.results import HubContact
from hfpeer.errors import BrokenCache, HfpeerError, StorageError
from hfpeer.net.address import Address
from hfpeer.node.identity import Identity
from hfpeer.node.operations.transfers.operations import TransferOperations, status_of_file
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.fetches import Fetches
from hfpeer.upstream.responses.rate_limit import Rest
from hfpeer.upstream.upstreams import Upstreams
from hfpeer.version import __version__

if TYPE_CHECKING:
    from hfpeer.endpoint.endpoint import Endpoint
    from hfpeer.node.operations.fleet.taking import AddsOfOthers
    from hfpeer.peers.discovery.discovery import Discovery


@dataclass(frozen=True)
class StatusParts:
    """The parts of a node that know its state. `endpoint`, `discovery` and `adds_of_others` are those
    of a daemon."""

    settings: Settings
    store: Store
    fetches: Fetches
    identity: Identity
    upstreams: Upstreams
    transfers: TransferOperations
    endpoint: Endpoint | None
    discovery: Discovery | None
    listeners: Mapping[str, str]
    added_peers: Sequence[PeerName]
    adds_of_others: AddsOfOthers | None


async def status_of(parts: StatusParts, peers: Sequence[PeerStatus], *, is_daemon: bool) -> NodeStatus:
    """See `Operations.status`."""
    settings, store = parts.settings, parts.store
    failed = store.caches.away  # a scan looks again
    if not is_daemon:  # a daemon follows the disk by itself
        with suppress(StorageError, BrokenCache):
            await in_thread(store.scan)
    totals = await asyncio.to_thread(store.totals)
    begun = await asyncio.to_thread(begun_blobs, settings.cache)
    free_bytes, disk_bytes = await asyncio.to_thread(_volume_bytes, settings)
    notes = (
        *parts.identity.notes,
        *store.passed_over,
        *([] if is_daemon else await asyncio.to_thread(_other_daemon, settings)),
        *(await asyncio.to_thread(_changed_settings, parts) if is_daemon else []),
        *map(_rest_sentence, parts.upstreams.rests),
        *(parts.discovery.problems if parts.discovery else ()),
        *(parts.adds_of_others.notes if parts.adds_of_others else ()),
    )
    return NodeStatus(
        node_id=parts.identity.node_id,
        name=settings.name,
        version=__version__,
        pid=os.getpid(),
        home=str(settings.home),
        cache=str(settings.cache),
        read_caches={str(one): {**failed, **store.caches.away}.get(one, "") for one in store.caches.others},
        started_at=parts.identity.started_at,
        listeners=dict(parts.listeners),
        addresses=await asyncio.to_thread(_own_addresses, parts),
        passed_over=await asyncio.to_thread(_passed_over, parts),
        upstreams={upstream.name: upstream.endpoint for upstream in parts.upstreams},
        contacts={
            upstream.name: HubContact(
                upstream.kind, upstream.reach.answered_seconds_ago, upstream.reach.failed_seconds_ago
            )
            for upstream in parts.upstreams
        },
        peers=tuple(peers),
        received_bytes=totals["received_bytes"],
        sent_bytes=totals["sent_bytes"],
        sent_bytes_per_second=totals["sent_bytes_per_second"],
        peer_bytes_by_month=totals["peer_bytes_by_month"],
        begun_blobs=len(begun),
        kept_bytes=sum(one.present_bytes for one in begun),
        begun_whole_bytes=sum(one.whole_bytes for one in begun),
        reserved_bytes=sum(one.disk_bytes for one in begun),
        revisions=totals["revisions"],
        files=totals["files"],
        size_bytes=totals["size_bytes"],
        unverified_files=totals["unverified_files"],
        transfers=(*parts.transfers.under_way, *_files_under_way(parts)),
        is_daemon=is_daemon,
        free_bytes=free_bytes,
        disk_bytes=disk_bytes,
        holder="" if is_daemon else await asyncio.to_thread(_held_by, settings),
        notes=notes,
    )


def _volume_bytes(settings: Settings) -> tuple[int | None, int | None]:
    """Blocking: the free bytes and all bytes of the volume of the cache; None for those that are not known."""
    try:
        facts = os.statvfs(settings.cache)
    except OSError:
        return None, None
    return free_of(facts), facts.f_blocks * facts.f_frsize or None


def _own_addresses(parts: StatusParts) -> tuple[str, ...]:
    """Blocking: the addresses at which other machines reach the LAN door, the likeliest first."""
    from hfpeer.peers.discovery.advertised import own_addresses  # an add does not need these two
    from hfpeer.peers.interfaces import find_lan_interfaces

    listen = parts.listeners.get("lan")
    if listen is None or Address.parse(listen).is_loopback:
        return ()
    door = Address.parse(listen)
    found = own_addresses(find_lan_interfaces(door), door, parts.settings.advertised)
    return tuple(str(address) for address in found if address.ip is None or not address.ip.is_link_local)


def _passed_over(parts: StatusParts) -> dict[str, str]:
    """Blocking: an address of each interface that the LAN door does not use."""
    from hfpeer.peers.interfaces import passed_over  # an add does not need it

    listen = parts.listeners.get("lan")
    return {} if listen is None else dict(passed_over(Address.parse(listen)))


def _held_by(settings: Settings) -> str:
    """Blocking: the daemon that holds the home, in words; empty if there is none."""
    from hfpeer.control.holder import find_holder  # an add does not need it

    holder = find_holder(settings.places.pid_file)
    return "" if holder is None else str(holder)


def _changed_settings(parts: StatusParts) -> list[str]:
    """Blocking: a sentence on settings that have changed since the start of this daemon. Peers that a command has
    added or removed are known already."""
    try:
        changed = changed_keys(parts.settings, parts.added_peers)
    except HfpeerError as error:
        return [f"The settings have changed since the daemon's start, and it could not start again: {error.message}"]
    if not changed:
        return []
    return [f"Changed since the daemon's start: {', '.join(changed)}. `hfpeer daemon restart` applies it."]


def _other_daemon(settings: Settings) -> list[str]:
    """Blocking: a sentence on the daemon of another user, where the endpoint of this node would be."""
    from hfpeer.control.other_daemons import other_daemon_at  # an add does not need it

    other = other_daemon_at(settings.endpoint_listen.port)
    return [] if other is None else [other.sentence]


def _files_under_way(parts: StatusParts) -> Iterator[TransferStatus]:
    """The large files that are fetched for callers of the endpoint."""
    for blob in parts.endpoint.files.under_way if parts.endpoint else ():
        came = parts.fetches.bytes_by_source(blob.digest)
        yield status_of_file(blob, parts.fetches.present_bytes(blob.digest), came)


def _rest_sentence(rest: Rest) -> str:
    return f"{rest.hub} limits requests until {rest.clock_time}. Peers and other hubs are asked meanwhile."
