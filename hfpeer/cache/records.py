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
class Giver:
    """Who gave bytes of a blob: a source, how it was reached, and which ranges `(start, stop)` are from it.

    `kind` is peer, mirror or origin, `road` is lan or wan; they, the address and the interface are empty where they are
    not known any more. `more_ranges` are not listed.
    """

    name: str
    kind: str
    address: str
    road: str
    interface: str
    size_bytes: int
    ranges: tuple[tuple[int, int], ...]
    more_ranges: int = 0


@dataclass(frozen=True)
class Trouble:
    """A source that failed during a fetch, why, and when (seconds since the epoch)."""

    source: str
    reason: str
    was_lying: bool
    at: float


@dataclass(frozen=True)
class FetchRecord:
    """How a blob came. Times are seconds since the epoch; `verified_at` is None while it has not come whole.

    `wrong_ranges` were found wrong and fetched again; `refetched_bytes` also counts what was fetched to compare.
    """

    digest: str
    size_bytes: int
    began_at: float
    ended_at: float
    verified_at: float | None
    givers: tuple[Giver, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    wrong_ranges: tuple[tuple[int, int], ...] = ()
    refetched_bytes: int = 0


@dataclass(frozen=True)
class Provenance:
    """Where a cached file comes from. `how` is fetched, found (another tool put it there, or nothing is known of its
    coming any more), published (made here) or missing.

    `verified_at` is when its bytes were last hashed, None if never; `fetch` says more of what was fetched, or of what
    has come so far.
    """

    repo: str
    commit: str
    path: str
    digest: str
    size_bytes: int
    how: str
    verified_at: float | None
    fetch: FetchRecord | None = None


@dataclass(frozen=True)
class Removed:
    """What `remove` took away. `freed_bytes` counts blobs that no other revision needs."""

    repo: str
    commits: tuple[str, ...]
    files: int
    freed_bytes: int
