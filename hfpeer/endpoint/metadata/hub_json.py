"""The Hub's JSON, made of a manifest: listings, siblings, info, histories of one commit. Pure.

`facts` are the fields that a manifest does not have (likes, tags, the card), from an upstream's info. Nothing of Xet is
ever in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from hfpeer.budgets import MAX_COMMIT_LINE_CHARACTERS
from hfpeer.git.lfs import pointer_of, pointer_text
from hfpeer.git.proof import folder_trees, path_to_git
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import RepoId, RepoType
from hfpeer.net.http1 import whole_number

Json = dict[str, Any]
XET_KEYS = frozenset({"xetHash", "xet_hash", "xetEnabled"})
_LAST_SECOND = 253402300799
"""The last second of the year 9999, in seconds since the epoch."""


class TreeEntries:
    """The entries of one manifest as the tree API shows them, made once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @cached_property
    def entries(self) -> dict[str, Json]:
        """Files and folders by path, sorted by path; and files that this system cannot store, as on the Hub."""
        manifest = self.manifest
        folders = folder_trees(manifest.files, (entry for entry in manifest.opaque if _can_be_in_a_tree(entry.path)))
        shown = {_shown(path): _folder_entry(_shown(path), tree) for path, tree in folders.items()}
        shown |= {_shown(entry.path): _unusable_entry(entry) for entry in manifest.unusable}
        shown |= {file.path: _file_entry(file) for file in manifest.files}
        return dict(sorted(shown.items()))

    def tree(self, folder: str, *, is_recursive: bool) -> list[Json] | None:
        """The entries in a folder (empty: the root), or all below it; None if there is no such folder."""
        if folder and self.entries.get(folder, {}).get("type") != "directory":
            return None
        start = f"{folder}/" if folder else ""
        below = ((path, entry) for path, entry in self.entries.items() if path.startswith(start))
        return [entry for path, entry in below if is_recursive or "/" not in path[len(start) :]]

    def paths(self, paths: Iterable[str]) -> list[Json]:
        """The entries at these paths, each once; unknown ones are left out."""
        wanted = dict.fromkeys(path.strip("/") for path in paths)
        return [self.entries[path] for path in wanted if path in self.entries]


def info(manifest: Manifest, facts: Mapping[str, Any], *, with_blobs: bool) -> Json:
    """The document of `/api/{type}s/{id}` at the manifest's commit."""
    siblings = [_sibling(_file_entry(file), with_blobs) for file in manifest.files]
    if manifest.unusable:
        siblings += [_sibling(_unusable_entry(entry), with_blobs) for entry in manifest.unusable]
        siblings.sort(key=lambda sibling: sibling["rfilename"])
    return {**_defaults(manifest), **facts, "sha": manifest.commit, "siblings": siblings}


def facts_of(document: Mapping[str, Any]) -> Json:
    """The fields of an upstream's info that the manifest does not have."""
    facts = {key: value for key, value in document.items() if key not in ("sha", "siblings", *XET_KEYS)}
    return {key: without_xet(value) for key, value in facts.items()}


def expanded(document: Mapping[str, Any], fields: Iterable[str]) -> Json:
    """Only these fields, and those that name the repo."""
    return {name: document[name] for name in ("_id", "id", *fields) if name in document}


def history(manifest: Manifest) -> list[Json]:
    """The history of one commit, the manifest's own; empty if the manifest has no commit object."""
    if manifest.commit_object is None:
        return []
    head, _, message = manifest.commit_object.decode("utf-8", "replace").partition("\n\n")
    author, date = _signature(head, "author")
    title = message.strip().partition("\n")[0]
    return [
        {"id": manifest.commit, "title": title, "message": message.strip(), "authors": [{"user": author}], "date": date}
    ]


def last_commit(manifest: Manifest) -> Json:
    """The field of an entry in an expanded listing that names its last commit: the manifest's own, if that is the first
    one of its repo. Empty if it is not, because then only a hub knows."""
    head = (manifest.commit_object or b"").partition(b"\n\n")[0]
    if not head or b"\nparent " in head:
        return {}
    (commit,) = history(manifest)
    return {"lastCommit": {key: commit[key] for key in ("id", "title", "date")}}


def without_xet(document: Any) -> Any:
    """The same document without the keys that lead a client to Xet."""
    if isinstance(document, dict):
        return {key: without_xet(value) for key, value in document.items() if key not in XET_KEYS}
    if isinstance(document, list):
        return [without_xet(item) for item in document]
    return document


def _file_entry(file: ManifestFile) -> Json:
    entry: Json = {"type": "file", "oid": file.blob_id, "size": file.size_bytes, "path": file.path}
    if file.is_lfs:
        entry["lfs"] = {"oid": file.digest.hex, "size": file.size_bytes, "pointerSize": len(pointer_of(file))}
    return entry


def _folder_entry(path: str, tree: str) -> Json:
    return {"type": "directory", "oid": tree, "size": 0, "path": path}


def _unusable_entry(entry: OpaqueEntry) -> Json:
    shown: Json = {"type": "file", "oid": entry.object_id, "size": entry.size_bytes or 0, "path": _shown(entry.path)}
    if entry.sha256 is not None:
        pointer = pointer_text(entry.sha256, entry.size_bytes or 0)
        shown["lfs"] = {"oid": entry.sha256, "size": entry.size_bytes, "pointerSize": len(pointer)}
    return shown


def _shown(path: str) -> str:
    """The path with bytes that are no UTF-8 replaced, as the Hub lists it."""
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return path.encode("utf-8", "replace").decode()


def _can_be_in_a_tree(path: str) -> bool:
    """Whether git allows such a path. A hub without git may list any text."""
    try:
        raw = path_to_git(path)
    except UnicodeEncodeError:
        return False
    return b"\0" not in raw and all(raw.split(b"/"))


def _sibling(entry: Json, with_blobs: bool) -> Json:
    if not with_blobs:
        return {"rfilename": entry["path"]}
    sibling: Json = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
    if "lfs" in entry:
        lfs = entry["lfs"]
        sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return sibling


def _defaults(manifest: Manifest) -> Json:
    repo = manifest.repo
    known: Json = {"id": repo.full_name, **_names(repo), "private": False, "gated": False, "disabled": False}
    known |= {"downloads": 0, "likes": 0, "tags": [], "usedStorage": manifest.size_bytes}
    if manifest.commit_object is not None:
        head = manifest.commit_object.decode("utf-8", "replace").partition("\n\n")[0]
        known["lastModified"] = _signature(head, "committer")[1]
    return known


def _names(repo: RepoId) -> Json:
    author = {} if repo.namespace is None else {"author": repo.namespace}
    return {**author, **({"modelId": repo.full_name} if repo.type is RepoType.MODEL else {})}


def _signature(head: str, role: str) -> tuple[str, str]:
    """Name and date of a commit's author or committer, the date as the Hub writes it.

    As in git, the name ends at the first `<` and the date begins behind the last `>`. One pass over the text, because a
    commit can come from any stranger.
    """
    start = head.find(f"\n{role} ") + 1
    end = head.find("\n", start) if start else 0
    line = head[start : end if end >= 0 else len(head)].removeprefix(f"{role} ")
    who, _, when = line.rpartition("> ") if len(line) <= MAX_COMMIT_LINE_CHARACTERS else ("", "", "")
    seconds = min(whole_number(when.partition(" ")[0]) or 0, _LAST_SECOND)
    name = who.partition("<")[0].strip()
    return name, datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
