"""A listening socket and the app behind it: uvicorn, configured for every door."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from hfpeer.net.networks import AllowedNetworks
from hfpeer.version import __version__
from hfpeer_daemon.http.acceptor import Acceptor
from hfpeer_daemon.http.connections import ConnectionLimits, Connections
from hfpeer_daemon.http.responses import App
from hfpeer_daemon.http.zero_copy import ZeroCopyProtocol

KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 2
"""Seconds that unfinished responses get when the daemon stops. The whole stop takes less than 5 s."""
INERT = (
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
)
"""Headers that let a browser only display a response: a file of a repo must not act as a page of the endpoint."""
_TICK_SECONDS = 1.0


class Door(uvicorn.Server):
    """One door of the daemon. `serve_door` runs it until `close`. The daemon handles signals, not the door."""

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        protocol: type[ZeroCopyProtocol],
        headers: tuple[tuple[str, str], ...] = (),
        grace_seconds: int = GRACE_SECONDS,
        *,
        limits: Sequence[ConnectionLimits],
        allowed: AllowedNetworks | None = None,
    ) -> None:
        """`limits` bounds the connections from this machine and those from others; a single one bounds both together.
        `allowed` names the networks whose connections are accepted; None leaves that to the file permissions of a Unix
        socket."""
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=[("server", f"hfpeer/{__version__}"), *headers],
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self._listener = listener
        self._pools = [Connections(bounds) for bounds in limits]
        self._allowed = allowed
        self._acceptor: Acceptor | None = None
        self._closing = asyncio.Event()
        self.is_open = asyncio.Event()

    async def serve_door(self) -> None:
        """Serves until `close`, then gives unfinished responses GRACE_SECONDS. Returns when all have ended."""
        await self.serve(sockets=[self._listener])
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return sum(map(len, self._pools))

    def close(self) -> None:
        self.should_exit = True
        self._closing.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # The acceptor replaces uvicorn's servers, which have no limits per host.
        await self.lifespan.startup()
        self.servers = []
        self._acceptor = Acceptor(
            self._listener, self._make_protocol, self._pools, self._allowed, has_spares=self._allowed is None
        )
        self.started = True
        self.is_open.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
        await super().shutdown(sockets)

    def _make_protocol(self) -> ZeroCopyProtocol:
        made = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        assert isinstance(made, ZeroCopyProtocol)
        return made

    async def main_loop(self) -> None:
        # uvicorn checks ten times a second whether to exit; an idle daemon needs no such wake-ups.
        while not await self.on_tick(0):
            try:
                await asyncio.wait_for(self._closing.wait(), _TICK_SECONDS)
            except asyncio.TimeoutError:
                pass

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
