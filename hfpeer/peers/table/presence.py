"""Which peers have come and gone since the last look. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from hfpeer.peers.table.table import Peer, State


class Presence:
    """Remembers which peers were there. A peer that is only quiet for a while is neither here nor gone."""

    def __init__(self) -> None:
        self._there: dict[str, str] = {}

    def changes(self, peers: Iterable[Peer], now: float) -> tuple[list[Peer], list[tuple[str, str]]]:
        """The peers that have come, and the names of those that have gone, each with the reason if it is known."""
        came, gone, known = list[Peer](), list[tuple[str, str]](), dict[str, Peer]()
        for peer in peers:
            known[peer.key] = peer
            state = peer.state(now)
            if state is State.ALIVE and peer.key not in self._there:
                came.append(peer)
                self._there[peer.key] = shown(peer)
            elif state is State.GONE and peer.key in self._there:
                gone.append((self._there.pop(peer.key), "it has left" if peer.has_left else peer.last_failure))
        for key in [key for key in self._there if key not in known]:
            gone.append((self._there.pop(key), ""))
        return came, gone


def shown(peer: Peer) -> str:
    """A peer in a sentence."""
    return f"{peer.name or peer.key} ({peer.address})"
