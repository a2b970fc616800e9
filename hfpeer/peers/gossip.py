"""Decides which of the addresses that peers tell each other are tried. Pure: no name is looked up."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from hfpeer.errors import InvalidName
from hfpeer.net.address import IP, Address
from hfpeer.net.networks import CLOUD_METADATA, Network

_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


def parse_gossiped_address(text: str, sender: Address) -> Address | None:
    """The address in `text`, which the peer at `sender` told; None if it is not to be tried.

    It must be an IP address that one machine can have: no name (a look-up would tell a stranger what this node does),
    and not unspecified, multicast, reserved or link-local. Loopback only from a peer on loopback; an address on the
    Internet only from a peer on the Internet.
    """
    try:
        address = Address.parse(text)
    except InvalidName:
        return None
    ip, sender_ip = address.ip, sender.ip
    if ip is None or address.port == 0:
        return None
    if ip.is_loopback:
        return address if sender.is_loopback else None
    is_as_far = ip.is_global and not ip.is_multicast and sender_ip is not None and sender_ip.is_global
    return address if is_as_far or is_peer_address(ip, ()) else None


def is_peer_address(ip: IP, own: Collection[Network]) -> bool:
    """Whether a peer can be at `ip`: in one of this machine's `own` networks or in a private one. Never an address that
    no machine has, or that of a cloud's metadata service."""
    if ip.is_loopback:
        return any(network.is_loopback for network in own)
    if ip.version == 6 and ip.is_link_local:
        return any(network.version == 6 for network in own)
    if ip in CLOUD_METADATA or ip.is_unspecified or ip.is_multicast or ip.is_reserved or ip in _THIS_NETWORK:
        return False
    if any(ip in network for network in own if network.version == ip.version):
        return True
    return not ip.is_link_local and not ip.is_global
