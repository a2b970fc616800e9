"""A listening socket and the app behind it: uvicorn, set up the way every door wants it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from hfpeer import __version__
from hfpeer_daemon.responses import App
from hfpeer_daemon.zero_copy import ZeroCopyProtocol

KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 5
"""How long answers under way may take when the daemon stops."""
MAX_CONNECTIONS = 512
_TICK_SECONDS = 1.0


class Door(uvicorn.Server):
    """One door of the daemon. `serve_door` runs it until `close`; signals are the daemon's, not its own."""

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        protocol: type[ZeroCopyProtocol],
        headers: tuple[tuple[str, str], ...] = (),
        grace_seconds: int = GRACE_SECONDS,
    ) -> None:
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
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self._listener = listener
        self._closing = asyncio.Event()
        self.is_open = asyncio.Event()

    async def serve_door(self) -> None:
        """Answers until `close`, then gives what is under way GRACE_SECONDS, and ends when all of it has ended."""
        await self.serve(sockets=[self._listener])
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)

    def close(self) -> None:
        self.should_exit = True
        self._closing.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_open.set()

    async def main_loop(self) -> None:
        # uvicorn looks ten times a second whether it should end; an idle daemon need not wake that often.
        while not await self.on_tick(0):
            try:
                await asyncio.wait_for(self._closing.wait(), _TICK_SECONDS)
            except asyncio.TimeoutError:
                pass

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
