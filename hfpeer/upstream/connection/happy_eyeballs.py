"""Finds the address of a host that accepts a connection first (Happy Eyeballs version 2, RFC 8305).

An address that swallows packets must cost a fraction of a second, not the whole time limit. Blocking.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import chain, zip_longest

from hfpeer.net.address import IP

ATTEMPT_DELAY_SECONDS = 0.25
"""Seconds after which the next address is tried beside the others. Source: RFC 8305 §5."""


def interleaved(ips: Sequence[IP]) -> list[IP]:
    """The addresses with their families in turn, the family of the first one first. Source: RFC 8305 §4."""
    first = [ip for ip in ips if ip.version == ips[0].version]
    others = [ip for ip in ips if ip.version != ips[0].version]
    return [ip for ip in chain.from_iterable(zip_longest(first, others)) if ip is not None]


def first_to_answer(ips: Sequence[IP], port: int, timeout_seconds: float) -> IP | None:
    """The address that accepts a connection first; None if all refuse it or are silent for `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    waiting, next_at = deque(interleaved(ips)), 0.0
    with ExitStack() as opened:
        selector = opened.enter_context(selectors.DefaultSelector())
        while waiting or selector.get_map():
            now = time.monotonic()
            if now >= deadline:
                return None
            if waiting and (now >= next_at or not selector.get_map()):
                ip, next_at = waiting.popleft(), now + ATTEMPT_DELAY_SECONDS
                connecting = _begin(ip, port)
                if connecting is not None:
                    opened.enter_context(closing(connecting))
                    selector.register(connecting, selectors.EVENT_WRITE, ip)
                continue
            for key, _ in selector.select((min(deadline, next_at) if waiting else deadline) - now):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    answered: IP = key.data
                    return answered
    return None


def _begin(ip: IP, port: int) -> socket.socket | None:
    """A socket that is connecting; None where this machine has no way to the address."""
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    try:
        connecting = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    connecting.setblocking(False)
    if connecting.connect_ex((str(ip), port)) in (0, errno.EINPROGRESS):
        return connecting
    connecting.close()
    return None
