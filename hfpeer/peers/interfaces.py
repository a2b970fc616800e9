"""Finds this machine's network interfaces on the LAN and its addresses there, and ranks the addresses of peers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import ifaddr

from hfpeer.budgets import MAX_ADDRESSES
from hfpeer.errors import InvalidName
from hfpeer.net.address import IP, Address
from hfpeer.peers.gossip import is_peer_address
from hfpeer.system.links import Links

Interface: TypeAlias = "ipaddress.IPv4Interface | ipaddress.IPv6Interface"


@dataclass(frozen=True)
class LanInterfaces:
    """`interfaces` to join multicast on (an IPv4 address, or the index of an interface for IPv6), `addresses` to
    announce, without scope, and the `networks` of this machine."""

    interfaces: tuple[str | int, ...]
    addresses: tuple[str, ...]
    networks: tuple[Interface, ...]

    def nearest_first(self, hosts: Iterable[str], port: int) -> Sequence[Address]:
        """The addresses among `hosts` that this machine may connect to: first those in its own networks, then IPv4,
        then IPv6; link-local last. If this node is on loopback, loopback addresses only, else none of them."""
        found: dict[Address, tuple[bool, bool, int]] = {}
        is_on_loopback = any(network.ip.is_loopback for network in self.networks)
        own = [network.network for network in self.networks]
        for host in hosts:
            try:
                address = Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            except InvalidName:
                continue
            ip = address.ip
            if ip is None or port == 0 or ip.is_loopback != is_on_loopback or not is_peer_address(ip, own):
                continue
            is_near = any(ip in network for network in own if network.version == ip.version)
            found[address] = (ip.is_link_local, not is_near, ip.version)
        return sorted(found, key=found.__getitem__)[:MAX_ADDRESSES]


def find_lan_interfaces(listen_address: Address) -> LanInterfaces:
    """The interfaces of a node that listens there: one for a single address, every usable one for 0.0.0.0 or [::].

    Blocking for about a millisecond: reads the system's list of interfaces.
    """
    ip = listen_address.ip
    if ip is None or ip.is_unspecified:
        return _lan_interfaces(_on_lan()[0])
    if ip.is_loopback:
        return LanInterfaces(
            ("127.0.0.1",), (str(ip),), (ipaddress.ip_interface(f"{ip}/8" if ip.version == 4 else f"{ip}"),)
        )
    near = [adapter for adapter in ifaddr.get_adapters() if any(own.ip == ip for own in _interfaces(adapter))]
    whole = _lan_interfaces(near)
    if ip.version == 4:
        return LanInterfaces((str(ip),), (str(ip),), whole.networks)
    return LanInterfaces(
        tuple(entry for entry in whole.interfaces if isinstance(entry, int)), (str(ip),), whole.networks
    )


def passed_over(listen_address: Address) -> list[tuple[str, str]]:
    """The interfaces that a node that listens there does not use, as containers or a VPN are behind them: the name and
    an address of each. Reads the system's list of interfaces."""
    ip = listen_address.ip
    if ip is not None and not ip.is_unspecified:
        return []
    found = []
    for adapter in _on_lan()[1]:
        own = [str(one.ip) for one in _interfaces(adapter) if not (one.ip.is_loopback or one.ip.is_link_local)]
        found += [(adapter.name, own[0])] if own else []
    return found


def ways_among(addresses: Sequence[Address]) -> list[Address]:
    """The addresses of one peer in networks of this machine that may be different ways to it, in their order: each IPv4
    one, and an IPv6 one for each interface that leads to no IPv4 one. Never loopback or link-local.

    Reads the system's list of interfaces.
    """
    adapters = ifaddr.get_adapters()
    near: dict[Address, str] = {}
    for address in addresses:
        ip = address.ip
        if ip is not None and not (ip.is_loopback or ip.is_link_local):
            names = (one.name for one in adapters if any(ip in own.network for own in _interfaces(one)))
            if (name := next(names, None)) is not None:
                near[address] = name
    fours = [address for address in near if ":" not in address.host]
    covered = {near[address] for address in fours}
    ways = []
    for address, name in near.items():
        if address in fours or name not in covered:
            ways.append(address)
        covered.add(name)
    return ways


def own_ips() -> set[IP]:
    """All addresses of this machine. Reads the system's list of interfaces."""
    return {own.ip for adapter in ifaddr.get_adapters() for own in _interfaces(adapter)}


def interface_to(host: str) -> str:
    """The name of the interface through which this machine would send to an IP address; "" for a name or without a
    route.

    Sends nothing. Reads the system's list of interfaces.
    """
    try:
        ip = ipaddress.ip_address(host)
        with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            own = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):
        return ""
    adapters = ifaddr.get_adapters()
    return next((adapter.name for adapter in adapters if any(own == one.ip for one in _interfaces(adapter))), "")


def _on_lan() -> tuple[list[ifaddr.Adapter], list[ifaddr.Adapter]]:
    """The interfaces of this machine that lead to a LAN, and the others."""
    adapters = list(ifaddr.get_adapters())
    names = Links().on_lan({_device(adapter) for adapter in adapters})
    return (
        [adapter for adapter in adapters if _device(adapter) in names],
        [adapter for adapter in adapters if _device(adapter) not in names],
    )


def _device(adapter: ifaddr.Adapter) -> str:
    """The name of the interface. A further address may have a label, such as `eth0:1`."""
    return adapter.name.partition(":")[0]


def _lan_interfaces(adapters: Iterable[ifaddr.Adapter]) -> LanInterfaces:
    interfaces: list[str | int] = []
    networks: list[Interface] = []
    for adapter in adapters:
        own = [interface for interface in _interfaces(adapter) if not interface.ip.is_loopback]
        networks += own
        interfaces += [str(interface.ip) for interface in own if interface.version == 4]
        if adapter.index is not None and any(interface.version == 6 for interface in own):
            interfaces.append(adapter.index)
    announced = sorted(networks, key=lambda own: (own.ip.is_link_local, own.version))
    addresses = tuple(dict.fromkeys(str(own.ip) for own in announced))[:MAX_ADDRESSES]
    return LanInterfaces(tuple(interfaces), addresses, tuple(networks))


def _interfaces(adapter: ifaddr.Adapter) -> Iterator[Interface]:
    for entry in adapter.ips:
        host = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
        yield ipaddress.ip_interface(f"{host}/{entry.network_prefix}")
