"""The peers that the owner names: addresses, and DNS names behind which peers are. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from hfpeer.errors import InvalidName
from hfpeer.net.address import LAN_PORT, Address

_SERVICE = re.compile(r"_[A-Za-z0-9-]{1,62}\._(tcp|udp)\.", re.IGNORECASE)
_HINT = (
    "Write HOST[:PORT]; or dns:NAME[:PORT], a name with the A and AAAA records of peers; or "
    "srv:_hfpeer._tcp.DOMAIN, a name with their SRV records."
)


@dataclass(frozen=True)
class DnsName:
    """A DNS name behind which peers are: at `port` of its A and AAAA records, or where its SRV records say (None).

    Source of SRV: RFC 2782.
    """

    name: str
    port: int | None

    def __str__(self) -> str:
        return f"srv:{self.name}" if self.port is None else f"dns:{self.name}:{self.port}"


PeerName: TypeAlias = Address | DnsName


def parse_peer(text: str) -> PeerName:
    """Reads `HOST[:PORT]`, `dns:NAME[:PORT]` or `srv:_SERVICE._tcp.DOMAIN`. Raises InvalidName."""
    kind, colon, rest = text.strip().partition(":")
    # `dns:9437` is the port of a host that is called dns.
    if kind.lower() not in ("dns", "srv") or not colon or rest.isdigit():
        return _address(text)
    return _name(text, rest) if kind.lower() == "dns" else _service(text, rest)


def parse_peers(text: str) -> tuple[PeerName, ...]:
    """Peers, separated by commas. Raises InvalidName."""
    return tuple(parse_peer(part) for part in text.split(",") if part.strip())


def with_port(peer: PeerName, port: int) -> PeerName:
    """The same peer at another port. Raises InvalidName for SRV records, which tell the ports."""
    if isinstance(peer, Address):
        return Address(peer.host, port)
    if peer.port is None:
        raise InvalidName(f"{peer} has no port of its own.", hint="Leave out the port: each SRV record tells one.")
    return DnsName(peer.name, port)


def addresses_among(peers: Iterable[PeerName]) -> tuple[Address, ...]:
    """The peers that are named by their address."""
    return tuple(peer for peer in peers if isinstance(peer, Address))


def dns_names_among(peers: Iterable[PeerName]) -> tuple[DnsName, ...]:
    """The names to look up."""
    return tuple(peer for peer in peers if isinstance(peer, DnsName))


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except InvalidName as error:
        if "://" not in text and "dns" not in text.lower() and "srv" not in text.lower():
            raise
        url = re.fullmatch(r"https?://([^/@]+)/?", text.strip())
        hint = f"Leave out http://: `{url[1]}`. The port is that of `lan.listen` there." if url else _HINT
        raise InvalidName(f"{text.strip()!r} names no peer.", hint=hint, address=text) from error


def _name(text: str, rest: str) -> DnsName:
    try:
        address = Address.parse(rest)
    except InvalidName as error:
        raise InvalidName(f"{rest!r} is not NAME or NAME:PORT.", hint=_HINT, address=text) from error
    if address.ip is not None:
        raise InvalidName(
            f"{rest} is an address, not a DNS name.", hint=f"Write it without `dns:`: {rest}", address=text
        )
    return DnsName(address.host, address.port)


def _service(text: str, rest: str) -> DnsName:
    name, _, port = rest.partition(":")
    if port:
        raise InvalidName(
            f"{text!r} has a port, and SRV records tell the ports.", hint=f"Write srv:{name}", address=text
        )
    try:
        host = Address.parse(name, LAN_PORT)
    except InvalidName as error:
        raise InvalidName(f"{text!r} has no DNS name after `srv:`.", hint=_HINT, address=text) from error
    if host.ip is not None or not _SERVICE.match(host.host):
        example = "lab.example" if host.ip is not None else host.host
        raise InvalidName(
            f"{name} is not the name of a service in the DNS.", hint=f"Write srv:_hfpeer._tcp.{example}", address=text
        )
    return DnsName(host.host, None)
