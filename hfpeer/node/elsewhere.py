"""Repairs a cache that is not this node's: a stick, a copy, another user's.

A node over that cache does it, with a home of its own that is gone afterwards. It reads the cache folders of this node,
so that it takes their blobs first; then it asks the peers of the daemon, or those of the settings, then the upstreams.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hfpeer.config.settings import Settings
from hfpeer.control.client import ControlClient
from hfpeer.control.operations import RepairReport, RepairRequest
from hfpeer.errors import HfpeerError, InvalidName
from hfpeer.net.address import Address
from hfpeer.node.node import Node
from hfpeer.peers.discovery.discovery import addresses_now
from hfpeer.transfer.events import OnEvent


async def repair_folder(folder: Path, settings: Settings, request: RepairRequest, on_event: OnEvent) -> RepairReport:
    """Repairs the cache at `folder` in this process. `settings` are those of this node. Raises as `Operations.repair`.

    The manifests of this node help where the copy has no proof, and those that are found are kept for it.
    """
    caches = (settings.cache, *settings.read_caches)
    peers = await _peers(settings)
    with _home(settings) as home:
        node = Node(replace(settings, cache=folder, read_caches=caches, home=home, peers=peers))
        await node.start(None)
        try:
            return await node.repair(replace(request, verifies_others=False), on_event)
        finally:
            await node.stop()


async def _peers(settings: Settings) -> tuple[Address, ...]:
    """The static peers, and those that the daemon finds alive."""
    addresses = dict.fromkeys(await addresses_now(settings))
    with contextlib.suppress(HfpeerError):
        for peer in await ControlClient(settings.places.control_socket).list_peers():
            if peer.state == "alive":
                with contextlib.suppress(InvalidName):
                    addresses.setdefault(Address.parse_source(peer.address))
    return tuple(addresses)


@contextlib.contextmanager
def _home(settings: Settings) -> Iterator[Path]:
    """A home until the end of the block, with the manifests of this node."""
    with tempfile.TemporaryDirectory(prefix="hfpeer-repair-", ignore_cleanup_errors=True) as name:
        manifests = settings.home / "manifests"
        if manifests.is_dir():
            (Path(name) / "manifests").symlink_to(manifests.absolute())
        yield Path(name)
