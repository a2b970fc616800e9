"""The daemon's listening sockets: their addresses, their marks, and the Unix socket of the control door."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from hfpeer.control.ports import BACKLOG
from hfpeer.errors import BrokenCache
from hfpeer.net.address import Address
from hfpeer.system.ownership import make_own_folder

LOWER_EFFORT = 1 << 2
"""The DSCP of RFC 8622 at its place in the octet of IP_TOS."""


def bound_address(listener: socket.socket) -> Address:
    """The address of the socket, with its real port; a dual-stack socket as 0.0.0.0."""
    host, port = listener.getsockname()[:2]
    return Address("0.0.0.0" if host == "::" else host, port)


def send_after_others(listener: socket.socket) -> None:
    """Marks packets of a listener's connections as lower effort (RFC 8622).

    Queues that know the mark, on this machine or on the way, send other packets first; all others ignore it.
    """
    options = [(socket.IPPROTO_IP, socket.IP_TOS, LOWER_EFFORT)]
    if listener.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, LOWER_EFFORT))
    for level, name, value in options:
        with suppress(OSError):
            listener.setsockopt(level, name, value)


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only its owner may open. Replaces the file of a dead daemon: the caller holds the
    home's lock. Raises BrokenCache."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        make_own_folder(path.parent)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        # No process can connect before `listen`, so the permissions are set in time.
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except BrokenCache:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise BrokenCache(
            f"The control socket {path} cannot be made: {error.strerror or error}.",
            hint="Move away what is there, or set HFPEER_HOME to another folder.",
        ) from error
    listener.setblocking(False)
    return listener
