"""The hubs as each caller meets them: with the caller's own token or none, and never with the node's."""

from __future__ import annotations

from hfpeer.endpoint.callers import Caller
from hfpeer.endpoint.once import Recent
from hfpeer.upstream.hubs import Hubs

MAX_TOKENS = 64


class ActingHubs:
    """Made of the node's own hubs, once for each of the tokens seen last."""

    def __init__(self, hubs: Hubs) -> None:
        self._hubs = hubs
        self._acting: Recent[str, Hubs] = Recent(MAX_TOKENS)

    def of(self, caller: Caller) -> Hubs:
        """The hubs that act for this caller."""
        hubs = self._acting.get(caller.fingerprint)
        if hubs is None:
            hubs = self._hubs.acting_for(caller.token)
            self._acting.put(caller.fingerprint, hubs)
        return hubs
