"""What lies in a cache, as plain frozen values: blobs with the revisions that use them, leftovers, and their space.

The reports cross the control socket as JSON. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.cache.records import CachedRevision

RevisionKey = tuple[str, str]
"""The folder of a repo, and a commit."""

PARTIAL = "partial"
UNFINISHED = "unfinished"
ORPHAN = "orphan"
LOST = "lost"
SHARED_BLOB = "shared_blob"
TEMPORARY = "temporary"
STALE_LIST = "stale_list"
DANGLING_REF = "dangling_ref"
EMPTY = "empty"
LOCK = "lock"
PACK = "pack"
MANIFEST = "manifest"

LEFTOVERS: dict[str, str] = {
    PARTIAL: "a blob that hfpeer has not fetched whole yet",
    UNFINISHED: "an unfinished download of another tool",
    ORPHAN: "a blob that no revision uses",
    LOST: "a blob whose revision has lost its names; `hfpeer verify` says how to mend it",
    SHARED_BLOB: "an entry of the Hub client's shared store that no repo uses",
    TEMPORARY: "a temporary file of a process that was killed",
    STALE_LIST: "a list or note on a commit that is not here",
    DANGLING_REF: "a ref to a commit that is not here",
    EMPTY: "an empty folder",
    LOCK: "a lock that no process holds",
    PACK: "a recorded clone that was not sent lately",
    MANIFEST: "the list of a commit that is not here",
}
"""By kind of leftover: what it is."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Bytes of the cache that revisions use, once for all their names. `digest` is empty while it is not known.

    `disk_bytes` is the space that they take. `has_other_names`: a name outside of the cache keeps them on the disk.
    """

    digest: str
    size_bytes: int
    disk_bytes: int
    users: frozenset[RevisionKey]
    has_other_names: bool = False


@dataclass(frozen=True)
class Leftover:
    """Something in the cache, or in hfpeer's home, that belongs to no revision. Times are seconds since the epoch.

    `kind` is one of LEFTOVERS. `size_bytes` are those that are there, of `whole_bytes` for a partial; `disk_bytes` is
    the space they take. `repo` and `file` are those that it is, or was, for, as far as that is known; `wanted_by` is a
    commit with the blob in its list. `owner` is the name of another user. `is_in_use`: a process holds its lock.
    `stamp` changes with every write.
    """

    kind: str
    path: str
    size_bytes: int
    disk_bytes: int
    changed_at: float
    stamp: str = ""
    digest: str = ""
    repo: str = ""
    file: str = ""
    wanted_by: str = ""
    whole_bytes: int = 0
    owner: str = ""
    is_in_use: bool = False


@dataclass(frozen=True)
class Usage:
    """The space of one kind of thing: the number of files, links and folders, and the bytes that they take."""

    kind: str
    files: int
    disk_bytes: int


@dataclass(frozen=True)
class Place:
    """A folder with all that is in it, by kind. The kinds add up to `disk_bytes`, which is what `du` says."""

    name: str
    path: str
    files: int
    disk_bytes: int
    kinds: tuple[Usage, ...]


@dataclass(frozen=True)
class RepoUsage:
    """The space of one repo. `size_bytes` are those of its revisions, each blob once. `disk_bytes` is what its folder
    takes with everything in it, so without blobs in the Hub client's shared store."""

    repo: str
    size_bytes: int
    files: int
    disk_bytes: int


@dataclass(frozen=True)
class StoredRevision:
    """A revision and its space. `own_bytes` are those that no other revision uses: removing it alone frees them.
    `used_at` is the last use by hfpeer or, as far as the volume notes it, by another tool."""

    revision: CachedRevision
    own_bytes: int
    used_at: float


@dataclass(frozen=True)
class CacheReport:
    """All that lies in a cache. `duplicate_bytes` are those of `duplicates`: further copies of blobs, which the disk
    holds once more. `unreadable` are folders whose content is not known."""

    cache: str
    places: tuple[Place, ...]
    repos: tuple[RepoUsage, ...]
    revisions: tuple[StoredRevision, ...]
    leftovers: tuple[Leftover, ...]
    duplicates: int
    duplicate_bytes: int
    free_bytes: int
    volume_bytes: int
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruneRules:
    """Which revisions are old: those without a ref, or with `takes_refs` also others, that were not used for
    `older_than_seconds`, except the `keep` last used ones of each repo. Half-fetched blobs are old by the same time."""

    older_than_seconds: float = 30 * 86400.0
    keep: int = 0
    takes_refs: bool = False


@dataclass(frozen=True)
class Step:
    """One thing that goes, or went. `kind` is revision, file, or a kind of leftover; `name` is what it is called, and
    `id` tells it from all others. `why` says why it goes; `notes` are sentences on what is lost with it.

    `freed_bytes` is what it frees after the steps before it; `files` is the number of files of a revision.
    """

    id: str
    kind: str
    name: str
    freed_bytes: int
    why: str = ""
    notes: tuple[str, ...] = ()
    files: int = 0


@dataclass(frozen=True)
class Kept:
    """One thing that was to go and stays. `reason` is pinned, last_copy, unknown_copies or in_use, which force
    overcomes, or only_copy, locked, young, foreign or changed; `sentence` says it."""

    id: str
    kind: str
    name: str
    size_bytes: int
    reason: str
    sentence: str


@dataclass(frozen=True)
class CleanReport:
    """What went, or would go, and what stays. `lan` is a sentence on the copies of peers, empty if none was needed.
    `left` are paths that no Hub client made. `missing` are words that name nothing in the cache."""

    is_dry_run: bool
    steps: tuple[Step, ...]
    kept: tuple[Kept, ...]
    freed_bytes: int
    lan: str = ""
    left: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
