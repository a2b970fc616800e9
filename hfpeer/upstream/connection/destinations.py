"""Restricts the redirects of a hub: to public addresses, and to private ones only if the hub itself has only private
ones.

The rule applies to the address of the connection, not to the name: the name is resolved once, and the checked address
is the one connected to. The hub's own host is always allowed. A proxy connects by its own rules.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeAlias

import httpcore
import httpx

from hfpeer.budgets import MAX_ADDRESSES_TRIED
from hfpeer.net.address import IP, parse_ip
from hfpeer.net.networks import CLOUD_METADATA
from hfpeer.upstream.access import BadRedirect
from hfpeer.upstream.connection.happy_eyeballs import first_to_answer

ANSWERED_SECONDS = 60.0
"""Seconds for which the address of a host that answered first is taken without a new race."""
DEFAULT_CONNECT_SECONDS = 10.0
"""Seconds for a race if the client sets no time limit."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_AddressInfo: TypeAlias = "Iterable[tuple[Any, Any, Any, Any, tuple[Any, ...]]]"


def is_allowed_destination(ip: IP, hub: Collection[IP]) -> bool:
    """Whether a hub with these addresses may send this node to `ip`."""
    ip, own = _ipv4_inside(ip), [_ipv4_inside(one) for one in hub]
    if ip.is_loopback:
        return bool(own) and all(one.is_loopback for one in own)
    if ip in CLOUD_METADATA or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip.is_reserved:
        return False
    return ip.is_global or (bool(own) and not any(one.is_global for one in own))


def _ipv4_inside(ip: IP) -> IP:
    """The IPv4 address inside an IPv6 address: mapped, or behind NAT64 (RFC 6052)."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped or ip


def restrict_destinations(transport: httpx.HTTPTransport | httpx.AsyncHTTPTransport, hub_url: str) -> None:
    """Makes a transport connect only to destinations that the hub at `hub_url` may send it to."""
    host = httpx.URL(hub_url).host
    pool: Any = transport._pool
    guard = _AsyncGuard if isinstance(transport, httpx.AsyncHTTPTransport) else _Guard
    # httpx has no parameter for this. A test fails if the attribute moves.
    pool._network_backend = guard(pool._network_backend, host)


class _Guard:
    """A network backend of httpcore that checks an address before it connects. Raises BadRedirect.

    Of several addresses it takes the one that answers first, and remembers it for a while.
    """

    def __init__(self, inner: Any, hub_host: str) -> None:
        self._inner = inner
        self._hub_host = hub_host
        self._answered: dict[str, tuple[IP, float]] = {}
        """Host -> its address that answered first, and until when that counts."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        if host == self._hub_host and parse_ip(host) is not None:
            return self._inner.connect_tcp(host, port, timeout, **options)
        failure: Exception | None = None
        for ip in self._in_order(host, port, timeout, self._destinations(host, port)):
            try:
                return self._inner.connect_tcp(str(ip), port, timeout, **options)
            except Exception as error:  # noqa: BLE001 - of whatever kind the backend has; the last one is raised
                failure = error
                self._answered.pop(host, None)
        assert failure is not None
        raise failure

    def _destinations(self, host: str, port: int) -> list[IP]:
        """The addresses of a host that may be connected to. Raises BadRedirect, httpcore.ConnectError."""
        if host == self._hub_host:
            try:
                return _parsed(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                raise httpcore.ConnectError(str(error)) from error
        found = _parsed(_look_up(host, port))
        hub = _parsed(_look_up(self._hub_host, port)) if _depends_on_hub(found) else ()
        return _allowed(host, found, hub)

    def _in_order(self, host: str, port: int, timeout: float | None, ips: Sequence[IP]) -> list[IP]:
        """The address that answers first; if none does, the first of them, so that its fault is told."""
        if len(ips) < 2:
            return list(ips)
        best, until = self._answered.get(host, (ips[0], 0.0))
        if best not in ips or until < time.monotonic():
            answered = first_to_answer(ips, port, DEFAULT_CONNECT_SECONDS if timeout is None else timeout)
            if answered is None:
                raise httpcore.ConnectError(f"none of its {len(ips)} addresses answers")
            best = answered
            self._answered[host] = (best, time.monotonic() + ANSWERED_SECONDS)
        return [best, *(ip for ip in ips if ip != best)]


class _AsyncGuard(_Guard):
    async def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        if host == self._hub_host:
            return await self._inner.connect_tcp(host, port, timeout, **options)  # it tries all addresses by itself
        allowed = await asyncio.to_thread(self._destinations, host, port)
        failure: Exception | None = None
        for ip in await asyncio.to_thread(self._in_order, host, port, timeout, allowed):
            try:
                return await self._inner.connect_tcp(str(ip), port, timeout, **options)
            except Exception as error:  # noqa: BLE001 - as above
                failure = error
        assert failure is not None
        raise failure


def _look_up(host: str, port: int) -> _AddressInfo:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadRedirect(f"redirects to {host}, whose address cannot be found ({error})") from error


def _parsed(results: _AddressInfo) -> list[IP]:
    texts = (str(result[4][0]).partition("%")[0] for result in results)
    return [ipaddress.ip_address(text) for text in dict.fromkeys(texts)][:MAX_ADDRESSES_TRIED]


def _depends_on_hub(found: Iterable[IP]) -> bool:
    """Whether the decision depends on the hub's own addresses."""
    return not all(is_allowed_destination(ip, ()) for ip in found)


def _allowed(host: str, found: Sequence[IP], hub: Collection[IP]) -> list[IP]:
    """The addresses that may be connected to. Raises BadRedirect if there is none."""
    allowed = [ip for ip in found if is_allowed_destination(ip, hub)]
    if not allowed:
        place = host if not found or host == str(found[0]) else f"{host}, which is {found[0]}"
        raise BadRedirect(f"redirects to {place}: a hub on the Internet may not send this node into private networks")
    return allowed
