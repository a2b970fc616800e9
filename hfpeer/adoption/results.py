"""Reports of an adoption, as plain frozen values that cross the control socket as JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfpeer.archive.results import ImportedRevision


@dataclass(frozen=True)
class Trouble:
    """A file or folder that was left out, why, and the next thing to do, which may be empty."""

    path: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class AdoptableFile:
    """A file in a place: its tool, its repo if the place says so, and how its bytes would come into the cache.

    `how` is clone, link, copy or move, `known` if its digest is known already, `here` if the cache has the bytes, or
    `unreadable`; then `why` is the reason. `hint` is what the place says of its digest: sha256:… or git-sha1:…, perhaps
    only the beginning.
    """

    tool: str
    path: str
    size_bytes: int
    repo: str
    how: str
    hint: str = ""
    why: str = ""


@dataclass(frozen=True)
class AdoptedPlace:
    """A place that was looked at, and its files that can be blobs. `is_hub_cache`: it is itself a Hub cache."""

    tool: str
    path: str
    files: int
    size_bytes: int
    is_hub_cache: bool = False


@dataclass(frozen=True)
class WaitingRevision:
    """A revision of which a place has files, and which was not installed; `reason` says why. `repo` is empty if the
    place does not name it. `needs_list`: an add gets the list of its files, and takes their bytes from the place."""

    repo: str
    type: str
    commit: str
    place: str
    reason: str
    needs_list: bool = False


@dataclass(frozen=True)
class WantedRevision:
    """How many files of a revision, and bytes of them, an add finds on this machine; each blob counts once."""

    repo: str
    commit: str
    files: int
    listed_files: int
    size_bytes: int
    listed_bytes: int


@dataclass(frozen=True)
class AdoptReport:
    """The result of an adoption.

    `files` can serve: their digests are known now; `hashed_files` of them were hashed in this call. `here_files` are
    those whose bytes the cache has; `shared_bytes` came to share blocks with it in this call. `repo_bytes` has the
    bytes of each repo that a place names. `twice_bytes` lie twice in clones, as LFS objects and in the work tree.
    `listed` has the files only if they were asked for.
    """

    places: tuple[AdoptedPlace, ...]
    files: int
    size_bytes: int
    hashed_files: int
    hashed_bytes: int
    here_files: int
    here_bytes: int
    repo_bytes: dict[str, int]
    installed: tuple[ImportedRevision, ...] = ()
    waiting: tuple[WaitingRevision, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    listed: tuple[AdoptableFile, ...] = field(default_factory=tuple)
    pointers: int = 0
    twice_bytes: int = 0
    shared_bytes: int = 0
    seconds: float = 0.0
    is_dry_run: bool = False
    wanted: WantedRevision | None = None


@dataclass(frozen=True)
class Forgotten:
    """The files that are no longer known, and their bytes. None of them was touched."""

    files: int
    size_bytes: int
