"""Where a command's work is done: in the daemon if one answers, else in a node of this very process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hfpeer.control import ControlClient
from hfpeer.operations import Operations
from hfpeer.settings import Settings


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[Operations]:
    """The operations to use: the daemon's, or those of a node that lives as long as the block.

    The node here has no doors and no peers: it asks upstreams only. Raises VersionMismatch when a daemon of another
    version answers.
    """
    daemon = ControlClient(settings.places.control_socket)
    if await daemon.is_answering():
        yield daemon
        return
    from hfpeer.node import Node  # not needed, and slow to import, where a daemon answers

    node = Node(settings)
    await node.start(None)
    try:
        yield node
    finally:
        await node.stop()
