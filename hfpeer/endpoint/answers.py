"""The Hub's JSON, made of a manifest: listings, siblings, info, one-commit histories. Nothing of Xet is ever in it.

Pure: no input or output. What a manifest does not know (likes, tags, the card) comes as `facts` that a hub once told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from hfpeer.gitproof import folder_trees, pointer_text
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import RepoId, RepoType

Json = dict[str, Any]
XET_KEYS = frozenset({"xetHash", "xet_hash", "xetEnabled"})
_SIGNATURE = re.compile(r"(?P<name>.*?) <[^>]*> (?P<seconds>\d{1,11}) [+-]\d{4}")


class Listing:
    """The entries of one manifest as the tree API shows them, made once and asked often."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @cached_property
    def entries(self) -> dict[str, Json]:
        """Files and folders by path, sorted by path."""
        manifest = self.manifest
        folders = folder_trees(manifest.files, manifest.opaque)
        shown = {path: _folder_entry(path, tree) for path, tree in folders.items()}
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
    """What `/api/{type}s/{id}` answers, at the manifest's commit."""
    siblings = [_sibling(file, with_blobs) for file in manifest.files]
    return {**_least_known(manifest), **facts, "sha": manifest.commit, "siblings": siblings}


def facts_of(document: Mapping[str, Any]) -> Json:
    """What is worth keeping of a hub's info: all but what the manifest knows better."""
    kept = {key: value for key, value in document.items() if key not in ("sha", "siblings", *XET_KEYS)}
    return {key: without_xet(value) for key, value in kept.items()}


def expanded(document: Mapping[str, Any], fields: Iterable[str]) -> Json:
    """Only the fields that were asked for, and those that name the repo."""
    return {name: document[name] for name in ("_id", "id", *fields) if name in document}


def history(manifest: Manifest) -> list[Json]:
    """The commits that a manifest knows: its own, if it has it."""
    if manifest.commit_object is None:
        return []
    head, _, message = manifest.commit_object.decode("utf-8", "replace").partition("\n\n")
    author, date = _signature(head, "author")
    title = message.strip().partition("\n")[0]
    return [
        {"id": manifest.commit, "title": title, "message": message.strip(), "authors": [{"user": author}], "date": date}
    ]


def pointer_of(file: ManifestFile) -> bytes:
    """The text that git has of an LFS file."""
    return file.pointer or pointer_text(file.digest.hex, file.size_bytes)


def without_xet(document: Any) -> Any:
    """The same document without what would lead a client to Xet."""
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


def _sibling(file: ManifestFile, with_blobs: bool) -> Json:
    if not with_blobs:
        return {"rfilename": file.path}
    sibling: Json = {"rfilename": file.path, "size": file.size_bytes, "blobId": file.blob_id}
    if file.is_lfs:
        sibling["lfs"] = {"sha256": file.digest.hex, "size": file.size_bytes, "pointerSize": len(pointer_of(file))}
    return sibling


def _least_known(manifest: Manifest) -> Json:
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
    """Name and date of a commit's author or committer, the date as the Hub writes it."""
    line = next((line for line in head.split("\n") if line.startswith(f"{role} ")), "")
    found = _SIGNATURE.fullmatch(line.removeprefix(f"{role} "))
    name, seconds = (found["name"], min(int(found["seconds"]), 253402300799)) if found else ("", 0)
    return name, datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
