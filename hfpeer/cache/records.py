"""Reports of the cache, as plain frozen values that cross the control socket as JSON."""

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
    """A revision in the cache: which files are here, and whether peers may have it. Times are seconds since the epoch.

    `visibility` is public, gated, private or unknown, by the answer of the hub `said_by` at `asked_at` to an asker
    without a token. It is given if no hub has answered and every file here was given openly, and published if this node
    made the commit. `is_shared` is the verdict after the owner's override. `is_complete` is None while the listing is
    unknown. `cache` is the cache folder that `files`, `size_bytes` and `is_complete` are of, `also_in` are others that
    have files of it. Of a partial one, all its files have `listed_bytes`, and its half-fetched blobs have `kept_bytes`
    here and take `reserved_bytes` on the disk. `published_by` is the name of the node that made the commit of a folder,
    or empty; it is this node if `is_published_here`.
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
    published_by: str = ""
    is_published_here: bool = False
    said_by: str = ""
    asked_at: float | None = None
    cache: str = ""
    also_in: tuple[str, ...] = ()
    kept_bytes: int = 0
    reserved_bytes: int = 0
    listed_bytes: int | None = None


@dataclass(frozen=True)
class Contribution:
    """A source that gave bytes of a blob, how it was reached, and the ranges `(start, stop)` that it gave.

    `kind` is peer, mirror, modelscope, origin, or local for files of this machine; `network` is lan or wan. Both, the
    address and the interface are empty when they are no longer known. `more_ranges` counts the last ranges, which
    `ranges` leaves out.
    """

    name: str
    kind: str
    address: str
    network: str
    interface: str
    size_bytes: int
    ranges: tuple[tuple[int, int], ...]
    more_ranges: int = 0


@dataclass(frozen=True)
class Failure:
    """A source that failed during a fetch, the reason, and the time in seconds since the epoch."""

    source: str
    reason: str
    was_lying: bool
    at: float


@dataclass(frozen=True)
class FetchRecord:
    """How a blob was fetched. Times are seconds since the epoch; `verified_at` is None until it is whole and verified.

    `wrong_ranges` were found wrong and fetched again. `refetched_bytes` also counts bytes fetched for comparison.
    """

    digest: str
    size_bytes: int
    began_at: float
    ended_at: float
    verified_at: float | None
    contributions: tuple[Contribution, ...] = ()
    failures: tuple[Failure, ...] = ()
    wrong_ranges: tuple[tuple[int, int], ...] = ()
    refetched_bytes: int = 0


@dataclass(frozen=True)
class Provenance:
    """Where a cached file comes from. `how` is fetched, found (another tool put it there, or its record is lost),
    published (by this node) or missing.

    `cache` is the cache folder with the file. `verified_at` is the time when its bytes were last hashed, None if never.
    `fetch` is the record of its fetch, also of one that is not complete.
    """

    repo: str
    commit: str
    path: str
    digest: str
    size_bytes: int
    how: str
    verified_at: float | None
    fetch: FetchRecord | None = None
    cache: str = ""


@dataclass(frozen=True)
class Removed:
    """The result of a removal. `freed_bytes` counts blobs that no other revision needs. `left` are paths in the repo's
    folder, or behind a link in its place, that were not removed because no Hub client writes such files. `busy` are
    those that stay because a process writes them or holds their lock. `kept_in` are the cache folders that are only
    read and have it, too."""

    repo: str
    commits: tuple[str, ...]
    files: int
    freed_bytes: int
    left: tuple[str, ...] = ()
    kept_in: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
