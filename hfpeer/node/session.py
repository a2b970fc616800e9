"""The operations that a command uses: those of the daemon if one answers, else those of a node in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hfpeer.control.client import ControlClient
from hfpeer.net.http1_blocking import run_blocking

if TYPE_CHECKING:
    from hfpeer.config.settings import Settings
    from hfpeer.control.operations import Operations


def find_daemon(settings: Settings) -> ControlClient | None:
    """The daemon if one answers, for `run_blocking`, so outside of an event loop. Raises VersionMismatch when it is of
    another version."""
    daemon = ControlClient(settings.places.control_socket, is_blocking=True)
    return daemon if run_blocking(daemon.is_answering()) else None


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[Operations]:
    """The operations to use: the daemon's, or those of a node that runs until the end of the block.

    Raises VersionMismatch when a daemon of another version answers.
    """
    daemon = ControlClient(settings.places.control_socket)
    if await daemon.is_answering():
        yield daemon
    else:
        async with open_node(settings) as node:
            yield node


@asynccontextmanager
async def open_node(settings: Settings) -> AsyncIterator[Operations]:
    """A node in this process until the end of the block. It has no doors and no peers: it asks upstreams only."""
    from hfpeer.node.node import Node

    node = Node(settings)
    await node.start(None)
    try:
        yield node
    finally:
        await node.stop()
