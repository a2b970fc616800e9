"""The upstreams of each caller: asked with the caller's own token or none, and never with the node's."""

from __future__ import annotations

from hfpeer.endpoint.access.caller import Caller
from hfpeer.net.lru_cache import LruCache
from hfpeer.upstream.upstream import HubId
from hfpeer.upstream.upstreams import Upstreams

MAX_TOKENS = 64
"""Number of tokens, those used last, whose upstreams are kept."""


class CallerUpstreams:
    """Made from the node's own upstreams, once for each token."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._by_token: LruCache[str, Upstreams] = LruCache(MAX_TOKENS)

    @property
    def by_weight(self) -> list[HubId]:
        """All upstreams in the order of their weight: the origin, then the mirrors in their order."""
        return sorted((upstream.id for upstream in self._upstreams), key=lambda hub: hub.kind != "origin")

    @property
    def without_tokens(self) -> list[HubId]:
        """The mirrors that are never sent a token, in their order: their answers are the same for all callers."""
        return [upstream.id for upstream in self._upstreams if upstream.kind == "mirror" and not upstream.sends_token]

    def of(self, caller: Caller) -> Upstreams:
        """The upstreams with this caller's token."""
        return self._by_token.get_or_put(caller.fingerprint, lambda: self._upstreams.with_token(caller.token))
