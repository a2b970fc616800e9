"""Which machines a door accepts: private networks, this machine's own, and those that the owner allows. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from hfpeer.errors import InvalidName
from hfpeer.net.address import IP, parse_ip

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"),
        "100.64.0.0/10",  # RFC 6598; overlay networks such as Tailscale use it
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
)
"""Networks that routers of the Internet do not carry."""
CLOUD_METADATA = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254")))
"""Addresses of a cloud's metadata service, which gives the credentials of a machine. Neither a hub nor a peer may send
this node there."""
LARGEST_OWN = {4: 8, 6: 32}
"""Shortest prefix lengths of this machine's own networks, by IP version. A shorter prefix is a misconfigured interface.
"""
_HINT = "Write networks, separated by commas, such as 203.0.113.0/24; or private; or any."


@dataclass(frozen=True)
class AllowedNetworks:
    """The setting `lan.allow`: accepts `networks` beside private ones and this machine's own, or any address."""

    networks: tuple[Network, ...] = ()
    allows_any: bool = False

    @classmethod
    def parse(cls, text: str) -> AllowedNetworks:
        """Reads `private`, `any`, or networks separated by commas. Raises InvalidName."""
        words = [word for word in (part.strip().lower() for part in text.split(",")) if word not in ("", "private")]
        if "any" in words:
            return cls(allows_any=True)
        return cls(tuple(map(_network, words)))

    def allow(self, ip: IP, own: Iterable[Network]) -> bool:
        """Whether a caller from `ip` (no IPv4-mapped address) is accepted; `own` are this machine's networks."""
        return self.allows_any or _contains(PRIVATE, ip) or _contains(self.networks, ip) or _contains(own, ip)

    def __str__(self) -> str:
        return "any" if self.allows_any else ",".join(map(str, self.networks)) or "private"


def own_networks(interfaces: Iterable[tuple[str, int]]) -> tuple[Network, ...]:
    """The networks of this machine's interfaces, each given by its address and the length of its prefix."""
    found: list[Network] = []
    for address, length in interfaces:
        ip = parse_ip(address)
        if ip is not None and length >= LARGEST_OWN[ip.version]:
            found.append(ipaddress.ip_network((ip, length), strict=False))
    return tuple(found)


def prefix_of(ip: IP) -> Network | None:
    """The /64 of an IPv6 address, all of whose addresses one machine can have; None for IPv4."""
    return None if ip.version == 4 else ipaddress.ip_network((ip, 64), strict=False)


def _contains(networks: Iterable[Network], ip: IP) -> bool:
    return any(network.version == ip.version and ip in network for network in networks)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidName(f"{text!r} is not a network.", hint=_HINT, value=text) from error
