"""Accepts connections at a listening socket, within the allowed networks and the connection limits.

Replaces asyncio's own accept, which has no limits, and logs every failure when the process is out of descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence

import ifaddr

from hfpeer.net.address import IP, parse_ip
from hfpeer.net.networks import AllowedNetworks, Network, own_networks
from hfpeer_daemon.http.connections import Connections
from hfpeer_daemon.http.zero_copy import ZeroCopyProtocol

MAX_ACCEPTS_PER_WAKE_UP = 64
PAUSE_SECONDS = 1.0
"""Seconds without accepting after the process ran out of descriptors."""
LOG_SECONDS = 60.0
OWN_NETWORKS_SECONDS = 10.0
"""Seconds for which the list of this machine's networks counts."""
SPARE_FILES = 4
"""Descriptors kept open in reserve, so that a door can still accept when the process has no others left."""

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_TOO_MANY_CONNECTIONS = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 49\r\n\r\nThis door has as many connections as it may have."
)

_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts at one listener until `close`. Belongs to one event loop.

    `pools` count the connections: the first those from this machine, the last all others. `allowed` is None for a Unix
    socket, where connections have no address.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], ZeroCopyProtocol],
        pools: Sequence[Connections],
        allowed: AllowedNetworks | None,
        has_spares: bool = False,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._pools = pools
        self._allowed = allowed
        self._networks = OwnNetworks()
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._logged_at = float("-inf")
        self._wanted_spares = SPARE_FILES if has_spares else 0
        self._spares: list[int] = []
        self._refill()
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        if self._paused is None:
            self._loop.remove_reader(self._listener.fileno())
        else:
            self._paused.cancel()
        for spare in self._spares:
            os.close(spare)
        self._spares.clear()

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS_PER_WAKE_UP):
            try:
                accepted, address = self._listener.accept()
            except OSError as error:
                if error.errno in _NO_ROOM and not self._release_spare():
                    self._pause(error)
                    return
                if error.errno not in _NO_ROOM:
                    return  # that client has gone; the event loop calls again for the next one
            else:
                self._admit(accepted, address[0] if isinstance(address, tuple) else "")

    def _admit(self, accepted: socket.socket, host: str) -> None:
        accepted.setblocking(False)
        ip = parse_ip(host)
        if not self._is_allowed(ip):
            _log.debug("Refused a connection from %s, which is in no allowed network", host)
            accepted.close()
            return
        pool = self._pools[0 if ip is None or ip.is_loopback else -1]
        if not pool.admit(host):
            _refuse(accepted)
            return
        protocol = self._make_protocol()

        def remove() -> None:
            pool.remove(host, protocol)
            self._refill()

        protocol.on_lost = remove
        pool.add(host, protocol)
        opening = self._loop.create_task(self._open(accepted, protocol))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _is_allowed(self, ip: IP | None) -> bool:
        if self._allowed is None:
            return True
        return ip is not None and (self._allowed.allow(ip, ()) or self._allowed.allow(ip, self._networks.known()))

    async def _open(self, accepted: socket.socket, protocol: ZeroCopyProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted)
        except OSError:
            accepted.close()
            protocol.on_lost()
        except asyncio.CancelledError:
            accepted.close()
            protocol.on_lost()
            raise

    def _pause(self, error: OSError) -> None:
        """Stops accepting for PAUSE_SECONDS. Otherwise the loop would call again at once: the socket stays readable."""
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            _log.warning("Cannot accept connections now: %s. `ulimit -n` raises the number of open files.", error)
        for pool in self._pools:
            pool.end_idle()
        self._loop.remove_reader(self._listener.fileno())
        self._paused = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _release_spare(self) -> bool:
        if self._spares:
            os.close(self._spares.pop())
            return True
        return False

    def _refill(self) -> None:
        while len(self._spares) < self._wanted_spares:
            try:
                self._spares.append(os.dup(self._listener.fileno()))
            except OSError:
                return


class OwnNetworks:
    """The networks of this machine's interfaces, read anew after OWN_NETWORKS_SECONDS."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = float("-inf")
        self._networks: tuple[Network, ...] = ()

    def known(self) -> tuple[Network, ...]:
        """Blocking for about a millisecond, at most once in OWN_NETWORKS_SECONDS."""
        if self._clock() - self._read_at >= OWN_NETWORKS_SECONDS:
            self._read_at = self._clock()
            ips = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
            self._networks = own_networks(
                (ip.ip if isinstance(ip.ip, str) else ip.ip[0], ip.network_prefix) for ip in ips
            )
        return self._networks


def _refuse(accepted: socket.socket) -> None:
    """Sends a 503 without waiting: a client that does not read must not delay others."""
    try:
        accepted.send(_TOO_MANY_CONNECTIONS)
        accepted.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    accepted.close()
