"""Ports of this machine that the system gives to no outgoing connection, so that they can be used later, or again."""

from __future__ import annotations

import errno
import os
import random
import socket
from contextlib import ExitStack, suppress

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PORTS = range(20_000, 32_000)[_WORKER::_WORKERS]
"""Below the range of outgoing connections: such a connection could take a port before the program does, or between
two uses of it. Each worker of a test run has its own: another one could take a port in between too."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which no program listens now. Raises AssertionError when there are too few."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(PORTS, len(PORTS)):
            if len(found) == count:
                return found
            one = held.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
    raise AssertionError(f"there are no {count} free ports")


def listen(host: str, port: int = 0, backlog: int = 128) -> socket.socket:
    """A listening socket that may be closed and opened again at its port; 0 for a free one of PORTS. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port:
        return socket.create_server((host, port), family=family, backlog=backlog)
    for candidate in random.sample(PORTS, len(PORTS)):
        try:
            return socket.create_server((host, candidate), family=family, backlog=backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("there is no free port")
