"""The tiers of sources, one table for blobs and for bundles. Pure.

Each byte comes from the lowest tier that can give it now.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, TypeAlias

SourceKind: TypeAlias = Literal["peer", "mirror", "modelscope", "origin"]
"""The kinds of source, as in JSON and in messages."""


class Tier(IntEnum):
    """A tier: its rank (lower is asked first) and its limits for one source, as in `__new__`."""

    NAMED = -1, 1, 1, 2
    """Peers that the request names."""
    PEER = 0, 1, 1, 2
    SITE_BEFORE_MIRRORS = 1, 4, 2, 8
    """ModelScope, by the order that the owner chose; as the next two."""
    MIRROR = 2, 4, 2, 8
    SITE_AFTER_MIRRORS = 3, 4, 2, 8
    ORIGIN = 4, 4, 2, 8
    SITE_AFTER_ORIGIN = 5, 4, 2, 8

    blob_requests: int
    """At most this many requests at a time for one blob."""
    swarm_requests: int
    """The same while leechers fetch the blob too. Over the WAN two requests cover the latency."""
    bundle_requests: int
    """At most this many requests at a time for one bundle, from a source with all of it."""
    is_upstream: bool
    """Whether its sources are hubs or ModelScope, reached over the WAN."""

    @property
    def trust(self) -> int:
        """How much its sources are trusted when bytes are compared: hubs more than ModelScope, which copies them."""
        is_site = self in (Tier.SITE_BEFORE_MIRRORS, Tier.SITE_AFTER_MIRRORS, Tier.SITE_AFTER_ORIGIN)
        return Tier.SITE_BEFORE_MIRRORS.value if is_site else self.value

    def __new__(cls, rank: int, blob_requests: int, swarm_requests: int, bundle_requests: int) -> Tier:
        tier = int.__new__(cls, rank)
        tier._value_ = rank
        tier.blob_requests = blob_requests
        tier.swarm_requests = swarm_requests
        tier.bundle_requests = bundle_requests
        tier.is_upstream = rank > 0
        return tier

    @classmethod
    def of(cls, kind: SourceKind, *, is_named: bool = False) -> Tier:
        """The tier of a kind of source. `is_named`: a peer that the request names. ModelScope: in its usual place."""
        if kind == "modelscope":
            return cls.SITE_AFTER_MIRRORS
        return cls.NAMED if is_named else cls[kind.upper()]

    @classmethod
    def of_site(cls, order: str) -> Tier:
        """The tier of ModelScope: `before-mirrors`, `after-mirrors` or `after-origin`."""
        return cls[f"SITE_{order.upper().replace('-', '_')}"]
