"""ModelScope's caches, of both layouts. Nothing there names a digest, and a revision is a branch name. Pure.

Since 1.38: `{models,datasets}/OWNER--NAME/snapshots/REVISION/PATH`. Before: `[hub/][models/]OWNER/NAME/PATH`, each `.`
of NAME as `___`, with `.msc` and `.mdl`, which are pickles and never read, and `.mv`. Source: modelscope_hub
`_download`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hfpeer.adoption.candidates import Found, Reader, candidate, repo_named
from hfpeer.adoption.listing import Listing, folder_of, name_of
from hfpeer.names import RepoId, RepoType

TOOL = "ModelScope"
_NEW = re.compile(r"(?:(.+)/)?(models|datasets)/([^/]+)--([^/]+)/snapshots/[^/]+/.+")
_MARKS = (".mdl", ".msc", ".mv")
_PARTS = re.compile(r"_\d+_\d+$|^\._____temp$")
"""Ranges of a file that is downloaded in parallel, and the folder of unfinished files."""


def new_roots(listing: Listing) -> Iterable[str]:
    matches = map(_NEW.fullmatch, listing)
    return dict.fromkeys(match[1] or "" for match in matches if match is not None)


def read_new(listing: Listing) -> Found:
    found = Found()
    for path in listing:
        match = _NEW.fullmatch(path)
        if match is not None and not match[1] and not _is_own(path):
            type = RepoType.MODEL if match[2] == "models" else RepoType.DATASET
            found.candidates += candidate(listing, path, TOOL, None, repo_named(f"{match[3]}/{match[4]}", type))
    return found


def old_roots(listing: Listing) -> Iterable[str]:
    """The folders around those of the repos: the name of the repo is in the path."""
    marked = {folder_of(path) for path in listing if name_of(path) in _MARKS}
    return dict.fromkeys(folder_of(folder_of(folder)) for folder in sorted(marked) if "/" in folder)


def read_old(listing: Listing) -> Found:
    marked = {folder_of(path) for path in listing if name_of(path) in _MARKS}
    repos = {folder: _old_repo(folder) for folder in marked}
    found = Found()
    for path in listing:
        parts = path.split("/")
        folders = ("/".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))
        repo = next((repos[folder] for folder in folders if folder in repos), None)
        if not _is_own(path):
            found.candidates += candidate(listing, path, TOOL, None, repo)
    return found


def _old_repo(folder: str) -> RepoId | None:
    owner, name = folder.split("/")[-2:] if "/" in folder else ("", folder)
    type = RepoType.DATASET if "datasets" in folder.split("/")[:-2] else RepoType.MODEL
    return repo_named(f"{owner}/{name.replace('___', '.')}", type)


def _is_own(path: str) -> bool:
    """Whether a file is ModelScope's own, or a part of one."""
    parts = path.split("/")
    return parts[-1] in _MARKS or ".lock" in parts or any(_PARTS.search(part) for part in parts)


NEW_READER = Reader(TOOL, read_new, new_roots)
OLD_READER = Reader(TOOL, read_old, old_roots)
