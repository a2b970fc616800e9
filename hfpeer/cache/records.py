"""What the cache says of itself, as plain frozen values that cross the control socket as JSON unchanged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CachedFile:
    """One file of a cached revision."""

    path: str
    size_bytes: int
    digest: str
    is_present: bool


@dataclass(frozen=True)
class CachedRevision:
    """A revision in the cache: what of it is here, and whether peers may have it.

    `visibility` is public, gated, private or unknown; `is_shared` is the verdict after the owner's override;
    `is_complete` is None while the listing is not known; `used_at` is seconds since the epoch.
    """

    repo: str
    type: str
    commit: str
    refs: tuple[str, ...]
    files: int
    size_bytes: int
    is_complete: bool | None
    is_proved: bool
    visibility: str
    is_shared: bool
    used_at: float
    snapshot: str
    listing: tuple[CachedFile, ...] = ()


@dataclass(frozen=True)
class Removed:
    """What `remove` took away. `freed_bytes` counts blobs that no other revision needs."""

    repo: str
    commits: tuple[str, ...]
    files: int
    freed_bytes: int
