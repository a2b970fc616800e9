"""Plain folders that a downloader filled: `hf download --local-dir`, and hfd.sh with aria2. Pure.

The Hub client writes `.cache/huggingface/download/PATH.metadata`: commit, etag, time. The etag counts while the file is
not younger. It does not record the repo. hfd.sh writes `.hfd/repo_metadata.json`, the hub's answer about the revision;
its other files may hold a token and are not read. Source: huggingface_hub `_local_folder`; hfd.sh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hfpeer.adoption.candidates import (
    Found,
    FoundRevision,
    Hint,
    Reader,
    RevisionKind,
    Worth,
    candidate,
    hint_of,
    repo_named,
)
from hfpeer.adoption.listing import Listing
from hfpeer.errors import InvalidName
from hfpeer.names import Commit

TOOL = "hf --local-dir"
ARIA2_TOOL = "hfd"
MAX_COMMITS = 8
"""Commits of one folder that are looked at, those of most files first."""
_METADATA = ".cache/huggingface/download/"
_HFD = ".hfd/"
_SLACK_NS = 1_000_000_000
"""Nanoseconds by which a file may be younger than its metadata."""


def roots(listing: Listing) -> Iterable[str]:
    return _folders_with(listing, f"/{_METADATA}")


def read(listing: Listing) -> Found:
    found, commits = Found(), Counter[Commit]()
    for path in listing:
        if path.startswith(".cache/huggingface/"):
            continue
        hint = None
        lines = (listing.text(f"{_METADATA}{path}.metadata") or "").split()
        if len(lines) == 3:
            hint = _hint(lines, listing[path].mtime_ns)
            commit = _commit(lines[0])
            commits.update([commit] if commit is not None else [])
        found.candidates += candidate(listing, path, TOOL, hint)
    for commit, _ in commits.most_common(MAX_COMMITS):
        found.revisions.append(FoundRevision(RevisionKind.FOLDER, TOOL, "", None, commit))
    return found


def _hint(lines: list[str], mtime_ns: int) -> Hint | None:
    try:
        written_ns = float(lines[2]) * 1e9
    except ValueError:
        return None
    return hint_of(lines[1], Worth.METADATA) if mtime_ns - _SLACK_NS <= written_ns else None


def aria2_roots(listing: Listing) -> Iterable[str]:
    return _folders_with(listing, f"/{_HFD}")


def read_aria2(listing: Listing) -> Found:
    document = listing.document(f"{_HFD}repo_metadata.json")
    name, sha = document.get("id"), document.get("sha")
    repo = repo_named(name) if isinstance(name, str) else None
    commit = _commit(sha) if isinstance(sha, str) else None
    found = Found()
    for path in listing:
        if not path.startswith(_HFD):
            found.candidates += candidate(listing, path, ARIA2_TOOL, None, repo)
    if commit is not None:
        found.revisions.append(FoundRevision(RevisionKind.FOLDER, ARIA2_TOOL, "", repo, commit))
    return found


def _folders_with(listing: Listing, part: str) -> Iterable[str]:
    """The folders that have this folder."""
    rooted = (f"/{path}".partition(part) for path in listing)
    return dict.fromkeys(folder.removeprefix("/") for folder, found, _ in rooted if found)


def _commit(text: str) -> Commit | None:
    try:
        return Commit.parse(text)
    except InvalidName:
        return None


READER = Reader(TOOL, read, roots)
ARIA2_READER = Reader(ARIA2_TOOL, read_aria2, aria2_roots)
