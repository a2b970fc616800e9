"""Proves a manifest from its commit: file list -> git trees -> commit object -> commit id.

A commit id is the SHA-1 of a text that names a tree, a tree names its entries by SHA-1, and an LFS pointer names the
sha256 of its file. So a commit id suffices to tell a true manifest from a forged one, whatever its source. Pure:
hashing only. As strong as SHA-1 in the way git uses it.

`prove` cannot check what trees do not hold: the size of a plain file (a wrong size only makes the fetch fail, because
the digest covers it), and whether a plain blob is an LFS pointer. An LFS file that is listed as a plain file with its
pointer's text gives the same tree. Therefore, after the fetch of a plain file of at most `MAX_POINTER_BYTES` from an
untrusted manifest, call `parse_pointer` and refuse a pointer.

Entries that are no files stay in the manifest as opaque entries, because the trees cannot be rebuilt without them:
submodules, empty trees, and files whose names git allows but FilePath does not (not UTF-8, too long, too deep). Such
files are never fetched, and do not prevent the proof of the rest. No other entry may be opaque: it could hide a file.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple, NoReturn

from hfpeer.budgets import MAX_FOLDER_PATH_BYTES, MAX_PATH_SEGMENTS, MAX_TREES
from hfpeer.errors import ForgedManifest
from hfpeer.git.lfs import parse_pointer, pointer_text
from hfpeer.manifest import FILE_MODES, Manifest, ManifestFile, OpaqueEntry, common_start
from hfpeer.names import path_problem

TREE_MODE = "40000"
SUBMODULE_MODE = "160000"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

_PATH = attrgetter("path")
_OBJECT_ID = re.compile(r"[0-9a-f]{40}")
_COMMIT_TREE = re.compile(rb"tree ([0-9a-f]{40})\n")


class _Leaf(NamedTuple):
    """One entry of a tree to build: git's full path as bytes, git's mode, and the object's id in hex."""

    path: bytes
    mode: str
    object_id: str


def object_id(kind: str, body: bytes) -> str:
    """The git id, in hex, of an object of this kind (`blob`, `tree`, `commit`)."""
    return hashlib.sha1(b"%b %d\0%b" % (kind.encode(), len(body), body), usedforsecurity=False).hexdigest()


def is_file_name(path: str) -> bool:
    """Whether hfpeer can hold a file of this name. Git allows some names that hfpeer refuses."""
    return path_problem(path) is None


def path_from_git(path: bytes) -> str:
    """Git's path as text. Bytes that are not UTF-8 become lone surrogates; `path_to_git` restores them."""
    return path.decode("utf-8", "surrogateescape")


def path_to_git(path: str) -> bytes:
    """The inverse of `path_from_git`. Raises UnicodeEncodeError for text that it cannot have returned."""
    return path.encode("utf-8", "surrogateescape")


def prove(manifest: Manifest) -> None:
    """Checks the manifest against its commit: every path, mode, digest and LFS size, nothing more and nothing less.

    Raises ForgedManifest, also for a manifest without its commit object, because that proves nothing.
    """
    raw = manifest.commit_object
    if raw is None:
        _refuse(manifest, "it comes without its commit object")
    if object_id("commit", raw) != manifest.commit:
        _refuse(manifest, "its commit object is another commit's")
    named = _COMMIT_TREE.match(raw)
    if named is None:
        _refuse(manifest, "its commit object names no tree")
    try:
        for file in manifest.files:
            _check_blob(file)
        for entry in manifest.opaque:
            _check_opaque(entry)
        tree = _fold(_leaves(manifest.files, manifest.opaque))
    except (_Mismatch, UnicodeEncodeError) as error:
        _refuse(manifest, str(error), error)
    if tree != named[1].decode():
        _refuse(manifest, f"its files fold to the tree {tree[:12]}, the commit names {named[1].decode()[:12]}")


def root_tree(files: Iterable[ManifestFile], opaque: Iterable[OpaqueEntry] = ()) -> str:
    """The id of the git tree with exactly these entries. Raises ForgedManifest if no tree can hold them."""
    try:
        return _fold(_leaves(files, opaque))
    except (_Mismatch, UnicodeEncodeError) as error:
        raise ForgedManifest(f"These files are no git tree: {error}.") from error


def folder_trees(files: Iterable[ManifestFile], opaque: Iterable[OpaqueEntry] = ()) -> dict[str, str]:
    """Path -> tree id of every folder below the root, except folders too deep for a file and those beyond
    MAX_FOLDER_PATH_BYTES. Raises ForgedManifest if no tree can hold these entries."""
    trees: dict[bytes, str] = {}
    try:
        _folded(_leaves(files, opaque), trees=trees)
    except (_Mismatch, UnicodeEncodeError) as error:
        raise ForgedManifest(f"These files are no git tree: {error}.") from error
    return {path_from_git(path): tree for path, tree in trees.items()}


def tree_bodies(files: Iterable[ManifestFile], opaque: Iterable[OpaqueEntry] = ()) -> tuple[str, dict[str, bytes]]:
    """The id of the root tree, and the raw body of every tree by its id, the root's first. Raises ForgedManifest if no
    tree can hold these entries."""
    bodies: dict[str, bytes] = {}
    try:
        root = _folded(_leaves(files, opaque), bodies).root
    except (_Mismatch, UnicodeEncodeError) as error:
        raise ForgedManifest(f"These files are no git tree: {error}.") from error
    return root, dict(reversed(bodies.items()))


def _leaves(files: Iterable[ManifestFile], opaque: Iterable[OpaqueEntry]) -> Iterator[_Leaf]:
    """The entries in git's order. Of each of many files only the reference is sorted: no leaf stays in memory."""
    # The texts of paths that are UTF-8 are in the order of their bytes.
    of_files = (_Leaf(path_to_git(file.path), file.mode, file.blob_id) for file in sorted(files, key=_PATH))
    others = [_Leaf(path_to_git(entry.path), entry.mode, entry.object_id) for entry in opaque]
    return heapq.merge(of_files, sorted(others, key=_place), key=_place) if others else of_files


def _place(leaf: _Leaf) -> bytes:
    """The place of an entry in git's order: with `/` after the name of a tree."""
    return leaf.path + b"/" if leaf.mode == TREE_MODE else leaf.path


def _fold(leaves: Iterable[_Leaf]) -> str:
    """The id of the root tree."""
    return _folded(leaves).root


def _folded(
    leaves: Iterable[_Leaf], bodies: dict[str, bytes] | None = None, trees: dict[bytes, str] | None = None
) -> _Folding:
    """Builds all trees in one pass over the ordered entries, with only the folders of the current path open. Puts their
    bodies into `bodies` by id, and the ids of folders that are not too deep into `trees` by path.

    Sorted by full path, with `/` after the name of a tree, entries are in git's own order at every level. The time
    grows with the bytes of the paths, at any depth.
    """
    folding = _Folding(bodies, trees)
    for leaf in leaves:
        folding.add(leaf)
    folding.finish()
    return folding


class _Folder:
    """An open folder: its unfinished tree, and the names in it."""

    __slots__ = ("body", "names")

    def __init__(self) -> None:
        self.body = bytearray()
        self.names: set[bytes] = set()


class _Folding:
    """The open folders of the current path, outermost first, and the names of all but the root."""

    def __init__(self, bodies: dict[str, bytes] | None, trees: dict[bytes, str] | None) -> None:
        self._bodies = bodies
        self._trees = trees
        self._open = [_Folder()]
        self._entered: list[bytes] = []
        self._count = 1
        self._path_bytes = 0
        self.root = ""

    def add(self, leaf: _Leaf) -> None:
        if not leaf.path or b"\0" in leaf.path or _OBJECT_ID.fullmatch(leaf.object_id) is None:
            raise _Mismatch(f"{leaf.path!r:.200} is no entry of a tree")
        *folders, name = leaf.path.split(b"/")
        shared = common_start(self._entered, folders)
        while len(self._entered) > shared:
            self._close()
        for folder in folders[shared:]:
            self._enter(folder, leaf.path)
        if not name:
            raise _Mismatch(f"{leaf.path!r:.200} has an empty name")
        if name in self._open[-1].names:
            raise _Mismatch(f"{leaf.path!r:.200} occurs twice")
        self._put(leaf.mode, name, bytes.fromhex(leaf.object_id))

    def finish(self) -> None:
        while self._entered:
            self._close()
        self.root = self._named(bytes(self._open[0].body))

    def _enter(self, name: bytes, path: bytes) -> None:
        self._count += 1
        if not name or name in self._open[-1].names:
            raise _Mismatch(f"a folder of {path!r:.200} is a file too, or has no name")
        if self._count > MAX_TREES:
            raise _Mismatch(f"it has more than {MAX_TREES} folders")
        self._entered.append(name)
        self._open.append(_Folder())

    def _close(self) -> None:
        tree = self._named(bytes(self._open.pop().body))
        if self._trees is not None and len(self._entered) < MAX_PATH_SEGMENTS:
            path = b"/".join(self._entered)
            self._path_bytes += len(path)
            if self._path_bytes <= MAX_FOLDER_PATH_BYTES:
                self._trees[path] = tree
        self._put(TREE_MODE, self._entered.pop(), bytes.fromhex(tree))

    def _named(self, body: bytes) -> str:
        tree = object_id("tree", body)
        if self._bodies is not None:
            self._bodies[tree] = body
        return tree

    def _put(self, mode: str, name: bytes, raw_id: bytes) -> None:
        folder = self._open[-1]
        folder.names.add(name)
        folder.body.extend(b"%b %b\0%b" % (mode.encode("ascii"), name, raw_id))


def commit_body(tree: str, *, author: str, time_seconds: int, message: str) -> bytes:
    """A raw commit without parents; `author` is `name <mail>`, the time zone is UTC. Its id is `object_id`."""
    signature = f"{author} {time_seconds} +0000"
    return f"tree {tree}\nauthor {signature}\ncommitter {signature}\n\n{message}\n".encode()


class _Mismatch(ValueError):
    """The fault of an entry, as the end of a sentence."""


def _check_blob(file: ManifestFile) -> None:
    if file.mode not in FILE_MODES:
        raise _Mismatch(f"{file.mode!r} of {file.path!r} is no mode of a file")
    if not file.is_lfs:
        if file.pointer_id or file.pointer is not None:
            raise _Mismatch(f"{file.path!r} is listed with two digests")
        return
    text = pointer_text(file.digest.hex, file.size_bytes) if file.pointer is None else file.pointer
    if object_id("blob", text) != file.pointer_id or parse_pointer(text) != (file.digest, file.size_bytes):
        raise _Mismatch(f"the digest or size of {file.path!r} is not what its LFS pointer says")


def _check_opaque(entry: OpaqueEntry) -> None:
    is_legal = (
        entry.mode == SUBMODULE_MODE
        or (entry.mode == TREE_MODE and entry.object_id == EMPTY_TREE)
        or (entry.is_file and not is_file_name(entry.path))
    )
    if not is_legal:
        raise _Mismatch(f"{entry.path!r:.200} is listed as an opaque entry of mode {entry.mode!r:.20}")
    if entry.sha256 is not None:
        text = pointer_text(entry.sha256, entry.size_bytes or 0)
        if object_id("blob", text) != entry.object_id:
            raise _Mismatch(f"the digest or size of {entry.path!r:.200} is not what its LFS pointer says")


def _refuse(manifest: Manifest, reason: str, cause: Exception | None = None) -> NoReturn:
    raise ForgedManifest(
        f"The listing of {manifest.repo} at {manifest.commit.short} is forged or broken: {reason}.",
        hint="Ask another source for it.",
        repo=str(manifest.repo),
        commit=str(manifest.commit),
    ) from cause
