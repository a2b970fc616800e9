"""The addresses that a node tells other nodes as its own."""

from __future__ import annotations

from collections.abc import Sequence

from hfpeer.config.keys import Advertised
from hfpeer.net.address import Address
from hfpeer.peers.interfaces import LanInterfaces


def own_door(listen: Address, advertised: Sequence[Advertised]) -> str:
    """What a node tells the peers that it asks (DOOR_HEADER): where it is reached, or the port at the address that they
    see."""
    if advertised:
        return str(Address(advertised[0].host, advertised[0].port or listen.port))
    return str(listen.port) if listen.ip is None or listen.ip.is_unspecified else str(listen)


def own_addresses(interfaces: LanInterfaces, listen: Address, advertised: Sequence[Advertised]) -> list[Address]:
    """What the owner says (`lan.advertise`), else the addresses of the interfaces. The port is that of the LAN door
    unless he says another."""
    if advertised:
        return [Address(one.host, one.port or listen.port) for one in advertised]
    return [Address(host, listen.port) for host in interfaces.addresses]
