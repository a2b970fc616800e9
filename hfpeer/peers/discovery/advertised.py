"""The addresses that a node tells other nodes as its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hfpeer.config.keys import Advertised
from hfpeer.net.address import Address
from hfpeer.peers.interfaces import LanInterfaces, find_lan_interfaces

REREAD_SECONDS = 30.0
"""Seconds after which the system is asked again which addresses this machine has."""


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


class OwnAddresses:
    """The addresses that this node tells of itself, as `HOST:PORT`."""

    def __init__(
        self, listen: Address, advertised: Sequence[Advertised], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._listen = listen
        self._advertised = advertised
        self._clock = clock
        self._read_at = float("-inf")
        self._addresses: tuple[str, ...] = ()

    def now(self) -> tuple[str, ...]:
        """Blocking for some milliseconds, at most every REREAD_SECONDS: reads the system's list of interfaces."""
        if self._clock() - self._read_at >= REREAD_SECONDS:
            self._read_at = self._clock()
            own = own_addresses(find_lan_interfaces(self._listen), self._listen, self._advertised)
            self._addresses = tuple(map(str, own))
        return self._addresses
