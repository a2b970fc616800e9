"""What a reader finds in a place: candidates, which are files whose bytes may be blobs, and revisions. Pure.

Nothing of it is proof. A hint says what the place claims of a digest, and is used to save work only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from hfpeer.adoption.listing import Listing
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, Digest, RepoId, RepoType


class Worth(str, Enum):
    """What a hint rests on."""

    NAME = "name"
    """The name of the file, which its tool made of the digest."""
    METADATA = "metadata"
    """A text beside the file: an etag, or a cache of hashes."""
    PREFIX = "prefix"
    """The first digits of the digest in the name of the file."""


@dataclass(frozen=True)
class Hint:
    """What a place says of the digest of a file: all its hex digits, or the first ones."""

    algorithm: str
    hex: str
    worth: Worth

    @property
    def digest(self) -> Digest | None:
        """The whole digest, if the hint has one."""
        return None if self.worth is Worth.PREFIX else Digest(self.algorithm, self.hex)


@dataclass(frozen=True)
class Candidate:
    """A file whose bytes may be a blob. `path` is relative to the place, `repo` what the place says of its repo."""

    path: str
    size_bytes: int
    tool: str
    hint: Hint | None = None
    repo: RepoId | None = None


class RevisionKind(str, Enum):
    """How the files of a revision lie in a place."""

    HUB_CACHE = "hub cache"
    GIT = "git"
    FOLDER = "folder"
    """Each file under its path in the repo."""


@dataclass(frozen=True)
class FoundRevision:
    """A revision that a place has. `folder` is relative to the place; `repo` and `commit` are None if it does not say
    so."""

    kind: RevisionKind
    tool: str
    folder: str
    repo: RepoId | None = None
    commit: Commit | None = None


@dataclass
class Found:
    """What a reader has found. `elsewhere` are absolute paths that the tool's own settings name."""

    candidates: list[Candidate] = field(default_factory=list)
    revisions: list[FoundRevision] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """Knows how one tool keeps its files.

    `roots` finds the folders of a listing that have the tool's layout, an empty one for the top. `read` reads one of
    them. A reader without `roots` is used only where the user or the tool's settings name the place.
    """

    tool: str
    read: Callable[[Listing], Found]
    roots: Callable[[Listing], Iterable[str]] = lambda listing: ()


_UNFINISHED = re.compile(
    r"\.(aria2|crdownload|download|downloadInProgress|incomplete|lock|parallel_tmp|part|part-\d+|partial|tmp)$"
    r"|-partial(-\d+)?$|\.hfpeer$"
)


def is_unfinished(listing: Listing, path: str) -> bool:
    """Whether a file is a part that a tool still writes, by its name, or one that aria2 has not finished: aria2 writes
    under the final name, and keeps `FILE.aria2` beside it until then."""
    return _UNFINISHED.search(path) is not None or f"{path}.aria2" in listing


def candidate(
    listing: Listing, path: str, tool: str, hint: Hint | None = None, repo: RepoId | None = None
) -> list[Candidate]:
    """The candidate for a listed file, in a list; none for an empty file, and for one that is unfinished or missing."""
    file = listing.get(path)
    if file is None or not file.size_bytes or is_unfinished(listing, path):
        return []
    return [Candidate(path, file.size_bytes, tool, hint, repo)]


def repo_named(text: str, type: RepoType | str = RepoType.MODEL) -> RepoId | None:
    """The repo `ns/name`; None if the text is no name of a repo."""
    try:
        return RepoId.parse(text, type)
    except InvalidName:
        return None


def hint_of(text: object, worth: Worth) -> Hint | None:
    """The hint in an etag or a name: 64 or 40 hex digits."""
    try:
        digest = Digest.from_etag(text) if isinstance(text, str) else None
    except InvalidName:
        return None
    return None if digest is None else Hint(digest.algorithm, digest.hex, worth)
