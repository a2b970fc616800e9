"""Where a command's work is done: in the daemon if one answers, else in a node of this very process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hfpeer.blocking import run_blocking
from hfpeer.control import ControlClient

if TYPE_CHECKING:
    from hfpeer.operations import Operations
    from hfpeer.settings import Settings


def find_daemon(settings: Settings) -> ControlClient | None:
    """The daemon if one answers, for `run_blocking`: no event loop may run. Raises VersionMismatch when it is of
    another version."""
    daemon = ControlClient(settings.places.control_socket, is_blocking=True)
    return daemon if run_blocking(daemon.is_answering()) else None


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[Operations]:
    """The operations to use: the daemon's, or those of a node that lives as long as the block.

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
    """A node in this process. It has no doors and no peers: it asks upstreams only."""
    from hfpeer.node import Node  # not needed, and slow to import, where a daemon answers

    node = Node(settings)
    await node.start(None)
    try:
        yield node
    finally:
        await node.stop()
