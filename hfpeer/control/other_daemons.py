"""Finds the daemons of other users of this machine by their listening sockets. Only Linux lists those."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from hfpeer.net.address import Address
from hfpeer.system.ownership import user_name
from hfpeer.system.tcp_table import LISTENING, TcpSocket, tcp_sockets

ASK_SECONDS = 0.5
"""Seconds without a byte after which a listener does not count as a daemon."""
MAX_ASKED = 16
"""At most this many listeners of one user are asked."""


@dataclass(frozen=True)
class OtherDaemon:
    """A daemon of another user that answers at its endpoint."""

    user: str
    endpoint: Address

    @property
    def sentence(self) -> str:
        """A sentence with its user and the command that makes Hugging Face tools use it."""
        return (
            f"A daemon of user {self.user} answers at {self.endpoint}; use its endpoint: "
            f"`export HF_ENDPOINT={self.endpoint.url}`."
        )


def listeners() -> Iterator[TcpSocket]:
    """All listening TCP sockets."""
    return tcp_sockets(LISTENING)


def other_daemon_at(port: int) -> OtherDaemon | None:
    """The daemon of another user whose endpoint is at this port."""
    others = [one for one in listeners() if one.local[1] == port and one.uid != os.geteuid()]
    return _first(others)


def daemon_of(uid: int) -> OtherDaemon | None:
    """A daemon of this user, at any port."""
    return _first([one for one in listeners() if one.uid == uid])


def _first(found: list[TcpSocket]) -> OtherDaemon | None:
    uids = {one.local[1]: one.uid for one in found}
    for port in sorted(uids)[:MAX_ASKED]:
        if _is_endpoint(port):
            return OtherDaemon(user_name(uids[port]), Address("127.0.0.1", port))
    return None


def _is_endpoint(port: int) -> bool:
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), ASK_SECONDS) as connection:
            connection.sendall(request.encode())
            response = b""
            while len(response) < 4096 and (chunk := connection.recv(4096)):
                response += chunk
    except OSError:
        return False
    head, _, body = response.partition(b"\r\n\r\n")
    return b" 200 " in head[:16] and body.startswith(b"hfpeer ")
