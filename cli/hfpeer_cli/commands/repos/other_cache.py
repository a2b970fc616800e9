"""An add into another cache than the usual one: by a node in this process, from this machine and its peers first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from hfpeer.errors import HfpeerError
from hfpeer.net.address import Address
from hfpeer_cli.invocation import Invocation

MAX_PEERS = 8
"""At most this many peers of the daemon are asked too."""


def into(invocation: Invocation, cache: Path, *, asks_peers: bool) -> tuple[Invocation, list[str]]:
    """The run over a node of its own that keeps its files in `cache`, and the daemon and its peers to ask. Files
    of the usual cache folders are copied. Raises the errors of `choose_first`."""
    from hfpeer.config.settings import over_cache
    from hfpeer.node.operations.cache.folders import choose_first

    settings = invocation.settings
    if cache.resolve() == settings.cache.resolve():
        return invocation, []
    usual = (settings.cache, *settings.read_caches)
    chosen = choose_first(cache, usual)
    for sentence in chosen.consequences:
        invocation.output.note(sentence)
    over = replace(invocation)
    over.settings = replace(over_cache(settings, cache), read_caches=usual)
    return over, _peers(invocation) if asks_peers else []


def _peers(invocation: Invocation) -> list[str]:
    """The addresses of the daemon's LAN door and of its peers that answer; none without a daemon."""
    from hfpeer.control.process import find_daemon

    try:
        status = asyncio.run(find_daemon(invocation.settings))
    except HfpeerError:
        return []
    if status is None:
        return []
    door = Address.parse(status.listeners["lan"])
    if door.ip is not None and door.ip.is_unspecified:
        door = Address("::1" if ":" in door.host else "127.0.0.1", door.port)
    peers = [peer.address for peer in status.peers if peer.state == "alive"]
    return [str(door), *peers[:MAX_PEERS]]
