"""Another Hugging Face cache: of another user, of another variable, of a `cache_dir=`. Pure.

Layout: `models--NS--NAME/{blobs,snapshots/COMMIT,refs,trees}`. The Hub client names a blob by its digest. Since 1.32 a
blob may be a link into a store that repos share, below `blobs/` of the cache. llama.cpp without links moves the blob
into the snapshot. Source: huggingface_hub `file_download`, `_shared_blobs`; llama.cpp `hf-cache.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hfpeer.adoption.candidates import Found, FoundRevision, Hint, Reader, RevisionKind, Worth, candidate, hint_of
from hfpeer.adoption.listing import Listing
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, RepoId

TOOL = "HF cache"
_PREFIXES = ("models--", "datasets--", "spaces--")
_FOLDERS = ("blobs", "refs", "snapshots", "trees")


def roots(listing: Listing) -> Iterable[str]:
    found: dict[str, None] = {}
    for path in listing:
        parts = path.split("/")
        for at in range(len(parts) - 2):
            if parts[at].startswith(_PREFIXES) and parts[at + 1] in _FOLDERS and _repo(parts[at]) is not None:
                found["/".join(parts[:at])] = None
                break
    return found


def read(listing: Listing) -> Found:
    found = Found()
    trees: dict[str, dict[str, Any]] = {}
    revisions: dict[tuple[RepoId, Commit], None] = {}
    for path in listing:
        folder, _, rest = path.partition("/")
        repo = _repo(folder)
        kind, _, name = rest.partition("/")
        if repo is None or not name:
            continue
        if kind == "blobs" and "/" not in name:
            found.candidates += candidate(listing, path, TOOL, hint_of(name, Worth.NAME), repo)
        elif kind == "snapshots":
            commit, _, file = name.partition("/")
            if not _is_commit(commit):
                continue
            revisions[repo, Commit(commit)] = None
            if not listing[path].is_link:
                tree = f"{folder}/trees/{commit}.json"
                if tree not in trees:
                    files = listing.document(tree).get("files")
                    trees[tree] = files if isinstance(files, dict) else {}
                found.candidates += candidate(listing, path, TOOL, _listed(trees[tree].get(file)), repo)
    found.revisions += [FoundRevision(RevisionKind.HUB_CACHE, TOOL, "", *place) for place in revisions]
    return found


def _repo(folder: str) -> RepoId | None:
    try:
        return RepoId.from_folder(folder)
    except InvalidName:
        return None


def _is_commit(text: str) -> bool:
    try:
        return bool(Commit.parse(text))
    except InvalidName:
        return False


def _listed(entry: object) -> Hint | None:
    """The hint in a listing of the Hub client (`trees/COMMIT.json`)."""
    if not isinstance(entry, dict):
        return None
    return hint_of(entry.get("lfs_sha256") or entry.get("blob_id"), Worth.METADATA)


READER = Reader(TOOL, read, roots)
