"""The TCP sockets of this machine, with their users. Only Linux tells them to everybody."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

LISTENING, ESTABLISHED = "0A", "01"
"""States of a socket. Source: include/net/tcp_states.h of Linux."""
Place = tuple[IPv4Address | IPv6Address, int]
"""An address and a port."""


@dataclass(frozen=True)
class TcpSocket:
    """A socket: its own end, the other end, its state, and the id of its user."""

    local: Place
    remote: Place
    state: str
    uid: int
    inode: str


def tcp_sockets(state: str) -> Iterator[TcpSocket]:
    """All TCP sockets in a state; none on a system that does not tell."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for columns in map(str.split, (Path("/proc/net") / table).read_text().splitlines()[1:]):
                if columns[3] == state:
                    yield TcpSocket(_place(columns[1]), _place(columns[2]), state, int(columns[7]), columns[9])


def user_of_client(client: Place, server: Place) -> int | None:
    """The id of the user that has the client's end of a connection within this machine; None if that is unknown.
    Blocking."""
    ends = (_plain(client), _plain(server))
    return next((one.uid for one in tcp_sockets(ESTABLISHED) if (one.local, one.remote) == ends), None)


def _place(text: str) -> Place:
    """`0100007F:2382`: the address as 32-bit words in the byte order of the machine, the port as a number."""
    words, _, port = text.partition(":")
    raw = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return _plain((ip_address(socket.inet_ntop(family, raw)), int(port, 16)))


def _plain(place: Place) -> Place:
    """The place with `::ffff:1.2.3.4` as `1.2.3.4` (RFC 4291 §2.5.5.2)."""
    return getattr(place[0], "ipv4_mapped", None) or place[0], place[1]
