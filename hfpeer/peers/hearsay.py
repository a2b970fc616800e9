"""Which of the addresses that peers tell each other are worth a try. Pure: no name is looked up."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

from hfpeer.errors import InvalidName
from hfpeer.names import Address

IP: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"


def ip_of(address: Address) -> IP | None:
    """The host as an IP address, without its scope; None for a name. `::ffff:1.2.3.4` is `1.2.3.4`."""
    try:
        found = ipaddress.ip_address(address.host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_loopback(address: Address) -> bool:
    ip = ip_of(address)
    return address.host == "localhost" if ip is None else ip.is_loopback


def believable(text: str, teller: Address) -> Address | None:
    """An address that the peer at `teller` told of, if it is worth a try; None otherwise.

    It must be an IP address of one machine that can be reached from here: no name (looking it up would tell a
    stranger what we do), nothing unspecified, multicast, reserved or bound to one link; loopback only from a peer on
    loopback; nothing on the Internet from a peer that is not there itself.
    """
    try:
        address = Address.parse(text)
    except InvalidName:
        return None
    ip = ip_of(address)
    if ip is None or address.port == 0 or ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.is_reserved:
        return None
    if ip.is_loopback:
        return address if is_loopback(teller) else None
    teller_ip = ip_of(teller)
    if ip.is_global and not (teller_ip is not None and teller_ip.is_global):
        return None
    return address
