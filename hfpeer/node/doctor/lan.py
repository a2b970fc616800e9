"""The LAN: the interfaces and addresses of this machine, its ports, multicast, firewalls, and the peers. Blocking."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import ifaddr

from hfpeer.config.settings import Settings
from hfpeer.control.ports import listen_tcp
from hfpeer.control.results import NodeStatus, PeerStatus
from hfpeer.errors import HfpeerError
from hfpeer.net.address import Address
from hfpeer.node.doctor.findings import Finding, fault, ok, warning
from hfpeer.peers.interfaces import find_lan_interfaces, passed_over
from hfpeer.version import __version__

MDNS_GROUP, MDNS_PORT = "224.0.0.251", 5353
"""Source: RFC 6762, section 3."""
ECHO_SECONDS = 2.0
"""Nodes wait up to a second before they answer what they have just told. Source: RFC 6762, section 6."""
CONNECT_SECONDS = 2.0


def look_at_lan(settings: Settings, status: NodeStatus | None) -> Iterator[Finding]:
    """All findings on the LAN."""
    hosts = find_lan_interfaces(settings.lan_listen).addresses
    if not hosts:
        yield fault("addresses", "No network interface with an address of a LAN is up.", "`ip addr` lists them.")
    else:
        yield ok("addresses", f"Peers reach this machine at {', '.join(hosts)}.")
    yield from _passed_over(settings)
    yield from _ports(settings, status, hosts)
    if settings.uses_mdns:
        for host in hosts:
            if ipaddress.ip_address(host).version == 4:
                yield _multicast(host)
    else:
        yield ok("multicast", "Not used: the setting mdns is false.")
    yield from _firewalls(settings)
    yield from _peers(settings, status)


def _passed_over(settings: Settings) -> Iterator[Finding]:
    """Interfaces whose addresses are not told to peers."""
    for name, host in passed_over(settings.lan_listen):
        yield warning(
            "interfaces",
            f"{name} ({host}) is passed over: containers, virtual machines or a VPN are behind it, no LAN.",
            f"If peers are there: `hfpeer conf set lan.listen {host}`, then `hfpeer daemon restart`.",
        )


def _ports(settings: Settings, status: NodeStatus | None, hosts: Iterable[str]) -> Iterator[Finding]:
    if status is not None and status.is_daemon:
        for name in ("lan", "endpoint"):
            if name not in status.listeners:
                continue
            address = Address.parse(status.listeners[name])
            targets = [address.host] if not (address.ip and address.ip.is_unspecified) else list(hosts)[:1]
            for host in targets:
                yield _connects(name, host, address.port)
        return
    for name, address in (("lan", settings.lan_listen), ("endpoint", settings.endpoint_listen)):
        try:
            listen_tcp(address, f"{name}.listen").close()
        except HfpeerError as error:
            yield fault(f"port {name}", error.message, error.hint or "")
        else:
            yield ok(f"port {name}", f"{address} is free.")


def _connects(name: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        return fault(
            f"port {name}",
            f"The daemon does not accept a connection at {host}:{port}: {error.strerror or error}.",
            f"A firewall of this machine may stand before it: allow TCP {port}.",
        )
    return ok(f"port {name}", f"{host}:{port} accepts connections.")


def _multicast(host: str) -> Finding:
    """Sends a question of mDNS from one interface and listens for it there, and for others."""
    question = _mdns_question("_hfpeer._tcp.local")
    check = f"multicast {host}"
    name = next((one.name for one in ifaddr.get_adapters() if any(entry.ip == host for entry in one.ips)), "")
    if not _has_multicast(name):
        return fault(check, f"{name} has multicast switched off.", f"`sudo ip link set {name} multicast on`")
    allow = f"Allow UDP {MDNS_PORT} in the firewall, or name a peer: `hfpeer peer add HOST`."
    try:
        with _member(host) as member:
            member.sendto(question, (MDNS_GROUP, MDNS_PORT))
            is_back, others = _heard(member, question, host)
    except OSError as error:
        return fault(check, f"It cannot be used from there: {error.strerror or error}.", allow)
    if not is_back:
        return fault(check, "What this machine sends does not come back to it: a firewall drops it.", allow)
    if not others:
        return ok(check, "It works on this machine; no other machine was heard.")
    if len(others) == 1:
        return ok(check, "It works; heard 1 other machine.")
    return ok(check, f"It works; heard {len(others)} other machines.")


def _has_multicast(interface: str) -> bool:
    """Whether an interface may send multicast, as far as the system tells. Source: IFF_MULTICAST, netdevice(7)."""
    try:
        return bool(int(Path(f"/sys/class/net/{interface}/flags").read_text(), 16) & 0x1000)
    except (OSError, ValueError):
        return True


@contextlib.contextmanager
def _member(host: str) -> Iterator[socket.socket]:
    """A socket of the group on one interface. It sends from the port of mDNS: what others answer then goes to all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        member.bind(("", MDNS_PORT))
        here = socket.inet_aton(host)
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(MDNS_GROUP) + here)
        member.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        member.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        member.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        yield member


def _heard(member: socket.socket, question: bytes, host: str) -> tuple[bool, set[str]]:
    """Whether the question came back, and the other machines that were heard."""
    is_back, others = False, set[str]()
    deadline = time.monotonic() + ECHO_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        member.settimeout(left)
        try:
            packet, (sender, _) = member.recvfrom(9000)
        except TimeoutError:
            break
        if packet == question:
            is_back = True
        elif sender != host:
            others.add(sender)
    return is_back, others


def _mdns_question(name: str) -> bytes:
    """A question for the services of a type, with an id that tells it from others. Source: RFC 1035, section 4."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    number = int(time.time() * 1000) & 0xFFFF
    return struct.pack("!6H", number, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 12, 1)


def _firewalls(settings: Settings) -> Iterator[Finding]:
    """The firewalls that are seen to be on. Their rules are read where this user may."""
    port = settings.lan_listen.port
    ufw = Path("/etc/ufw/ufw.conf")
    with contextlib.suppress(OSError):
        if "ENABLED=yes" in ufw.read_text():
            yield warning("firewall", "ufw is on.", f"`sudo ufw allow {port}/tcp && sudo ufw allow {MDNS_PORT}/udp`")
    if Path("/run/firewalld").is_dir():
        yield warning(
            "firewall",
            "firewalld is on.",
            f"`sudo firewall-cmd --permanent --add-port={port}/tcp --add-service=mdns && sudo firewall-cmd --reload`",
        )
    dropped = _dropping_rules()
    if dropped:
        yield warning(
            "firewall",
            f"Rules of this machine drop what comes in ({dropped}).",
            f"Allow TCP {port} and UDP {MDNS_PORT} from the LAN.",
        )


def _dropping_rules() -> str:
    """The programs whose rules drop what comes in, as far as this user may read them."""
    found = []
    for words, sign in ((["nft", "list", "ruleset"], "policy drop"), (["iptables", "-S", "INPUT"], "-P INPUT DROP")):
        program = shutil.which(words[0]) or shutil.which(words[0], path="/usr/sbin:/sbin")
        if program is None:
            continue
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            listed = subprocess.run([program, *words[1:]], capture_output=True, text=True, timeout=5, check=False)
            text = listed.stdout
            is_dropping = sign in text or "drop" in _input_rules(text) or "-j DROP" in text or "-j REJECT" in text
            if listed.returncode == 0 and is_dropping:
                found.append(words[0])
    return ", ".join(found)


def _input_rules(ruleset: str) -> str:
    """The chains of nft that see what comes in."""
    return "".join(part for part in ruleset.split("chain ") if "hook input" in part)


def _peers(settings: Settings, status: NodeStatus | None) -> Iterator[Finding]:
    if status is None or not status.is_daemon:
        return
    alive = [peer for peer in status.peers if peer.state == "alive"]
    if not status.peers:
        yield warning(
            "peers",
            "No other node is known.",
            "Start the daemon on another machine. Where multicast does not reach, `hfpeer peer add HOST`.",
        )
    elif not alive:
        yield fault("peers", f"None of {len(status.peers)} known nodes answers.", "`hfpeer peer ls` says why.")
    else:
        yield ok("peers", f"{len(alive)} of {len(status.peers)} known nodes answer.")
    for peer in status.peers:
        yield from _peer(peer)
    multicast = [peer for peer in alive if peer.origin == "mdns"]
    if alive and not multicast and settings.uses_mdns:
        yield warning(
            "peers",
            "No node was found by multicast, only nodes that were named.",
            "Between VLANs and on some Wi-Fi that is normal: `hfpeer peer add HOST` on each machine.",
        )


def _peer(peer: PeerStatus) -> Iterator[Finding]:
    name = peer.name or peer.address
    if peer.note:
        yield warning(f"peer {name}", peer.note)
    if peer.state == "alive" and peer.version and peer.version != __version__:
        yield warning(
            f"peer {name}", f"It has hfpeer {peer.version}, this machine {__version__}.", "Upgrade the older one."
        )
    if peer.state != "alive" and peer.origin == "static":
        yield warning(f"peer {name}", "It does not answer.", "Start its daemon, or `hfpeer peer rm` it.")
