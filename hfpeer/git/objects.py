"""A commit as git's objects, rebuilt from its manifest: the raw commit, its trees, its blobs. Pure.

Trees and LFS pointers are built again; the caller reads the content of plain blobs from files. A manifest knows no
other commit, so history begins here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from dulwich.objects import parse_tree

from hfpeer.git.lfs import pointer_of
from hfpeer.git.proof import EMPTY_TREE, TREE_MODE, tree_bodies
from hfpeer.manifest import Manifest, ManifestFile

Kind: TypeAlias = Literal["commit", "tree", "blob"]
_LIMIT = re.compile(r"blob:limit=(\d{1,15})([kmg]?)")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_PARENT = re.compile(rb"parent ([0-9a-f]{40})\n")


@dataclass(frozen=True)
class GitObject:
    """One object: its body, or for a plain blob the file at `commit` that has its bytes."""

    kind: Kind
    id: str
    body: bytes | None = None
    file: ManifestFile | None = None
    commit: str = ""


@dataclass(frozen=True)
class Filter:
    """The objects that a client leaves out (`--filter` of git rev-list): blobs of at least this size in bytes, and all
    trees."""

    blob_limit_bytes: int | None = None
    has_trees: bool = True

    @classmethod
    def parse(cls, text: str | None) -> Filter | None:
        """The filter; None if hfpeer does not support it."""
        limit = _LIMIT.fullmatch(text or "")
        if limit:
            return cls(int(limit[1]) * _UNITS[limit[2]])
        return {None: cls(), "blob:none": cls(0), "tree:0": cls(0, has_trees=False)}.get(text)

    def takes(self, file: ManifestFile) -> bool:
        """Whether the git blob of this file is included."""
        if self.blob_limit_bytes is None:
            return True
        size_bytes = len(pointer_of(file)) if file.is_lfs else file.size_bytes
        return size_bytes < self.blob_limit_bytes


class CommitObjects:
    """The objects of one commit. The manifest must have its commit object."""

    def __init__(self, manifest: Manifest) -> None:
        assert manifest.commit_object is not None
        self.commit = str(manifest.commit)
        self.body = manifest.commit_object
        self._manifest = manifest

    @cached_property
    def parents(self) -> tuple[str, ...]:
        head = self.body.partition(b"\n\n")[0] + b"\n"
        return tuple(found.decode() for found in _PARENT.findall(head))

    @property
    def has_all_blobs(self) -> bool:
        """Whether hfpeer can hold every file. Git allows some names that hfpeer refuses."""
        return not self._manifest.unusable

    @cached_property
    def trees(self) -> dict[str, bytes]:
        """Tree id -> body, the root tree first."""
        trees = tree_bodies(self._manifest.files, self._manifest.opaque)[1]
        if any(entry.mode == TREE_MODE for entry in self._manifest.opaque):
            trees[EMPTY_TREE] = b""
        return trees

    @cached_property
    def blobs(self) -> dict[str, ManifestFile]:
        """Blob id -> a file with that content, in the order of the paths."""
        blobs: dict[str, ManifestFile] = {}
        for file in self._manifest.files:
            blobs.setdefault(file.blob_id, file)
        return blobs

    def whole(self, taken: Filter) -> Iterator[GitObject]:
        """The commit and everything below it that passes the filter."""
        yield GitObject("commit", self.commit, self.body)
        if taken.has_trees:
            yield from (GitObject("tree", tree, body) for tree, body in self.trees.items())
        yield from (self._blob(blob) for blob, file in self.blobs.items() if taken.takes(file))

    def single(self, id: str, taken: Filter) -> Iterator[GitObject]:
        """A tree or blob that was requested by its id, and everything below it that passes the filter."""
        if id in self.blobs:
            yield self._blob(id)
        elif id in self.trees:
            yield from self._below(id, taken)

    def _below(self, root: str, taken: Filter) -> Iterator[GitObject]:
        waiting, seen = [root], {root}
        while waiting:
            tree = waiting.pop()
            yield GitObject("tree", tree, self.trees[tree])
            below = {entry[2].decode() for entry in parse_tree(self.trees[tree], 20)} - seen
            seen |= below
            waiting += [id for id in below if id in self.trees and taken.has_trees]
            blobs = ((id, self.blobs[id]) for id in below if id in self.blobs)
            yield from (self._blob(id) for id, file in blobs if taken.takes(file))

    def _blob(self, id: str) -> GitObject:
        file = self.blobs[id]
        if file.is_lfs:
            return GitObject("blob", id, pointer_of(file))
        return GitObject("blob", id, None, file, self.commit)


def each_once(objects: Iterable[GitObject], excluding: Collection[str] = ()) -> list[GitObject]:
    """Every object once, in the order commits, trees, blobs, without the ids in `excluding`."""
    kept = {object.id: object for object in objects if object.id not in excluding}
    order: dict[Kind, int] = {"commit": 0, "tree": 1, "blob": 2}
    return sorted(kept.values(), key=lambda object: order[object.kind])
