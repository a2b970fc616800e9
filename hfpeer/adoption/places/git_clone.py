"""A git clone with or without LFS: objects in `.git/lfs/objects/AA/BB/SHA256`, and the files of the work tree. Pure.

The walk lists of `.git` only `HEAD`, `config` and the LFS objects; of a bare clone the same. The commit and its files
are read from git's objects, which prove them. Source: git-lfs `docs/spec.md`, gitrepository-layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hfpeer.adoption.candidates import Found, FoundRevision, Reader, RevisionKind, Worth, candidate, hint_of
from hfpeer.adoption.listing import Listing, folder_of, name_of

TOOL = "git clone"
_OBJECT = re.compile(r"(?:\.git/)?lfs/objects/[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})")


def roots(listing: Listing) -> Iterable[str]:
    found: dict[str, None] = {}
    for path in listing:
        name = name_of(path)
        if name == ".git":
            found[folder_of(path)] = None
        elif name == "HEAD":
            folder = folder_of(path)
            if name_of(folder) == ".git":
                found[folder_of(folder)] = None
            elif (f"{folder}/config" if folder else "config") in listing:
                found[folder] = None
    return found


def read(listing: Listing) -> Found:
    found = Found(revisions=[FoundRevision(RevisionKind.GIT, TOOL, "")])
    for path in listing:
        match = _OBJECT.fullmatch(path)
        if match is not None:
            found.candidates += candidate(listing, path, TOOL, hint_of(match[1], Worth.NAME))
        elif ".git" not in path.split("/") and not (path in ("HEAD", "config") and "HEAD" in listing):
            found.candidates += candidate(listing, path, TOOL)
    return found


READER = Reader(TOOL, read, roots)
