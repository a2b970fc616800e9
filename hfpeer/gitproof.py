"""Proves a manifest from its commit: file list -> git trees -> commit object -> commit id.

A commit id is the SHA-1 of a text that names a tree, a tree names its entries by SHA-1, and an LFS file's pointer
names its sha256. So whoever knows a commit id can tell a true listing from a forged one, whoever sends it. Pure:
hashing only. The strength is that of SHA-1 as git ids use it.

What trees cannot say, and `prove` therefore does not: the size of a plain file (its digest covers the size, so a
wrong one only makes the fetch fail), and whether a plain blob's text is an LFS pointer: an LFS file listed as the
plain file that its pointer is folds to the same tree. Whoever has fetched a plain file of at most
`MAX_POINTER_BYTES` from an untrusted listing must therefore ask `parse_pointer` and refuse what it recognises.

Entries that are no files stay in the manifest as opaque ones, because their folders do not fold without them:
submodules, empty trees, and files whose names git allows but FilePath does not (a backslash, no UTF-8). The last
are never fetched, and do not keep the rest of the repo from being proved. Anything else is refused as opaque, so
that nobody can hide a file that way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from hfpeer.errors import ForgedManifest, InvalidName
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Digest, FilePath

FILE_MODES = frozenset({"100644", "100755", "100664", "120000"})
"""Git's modes of files. 100664 is found in old repos only."""
TREE_MODE = "40000"
SUBMODULE_MODE = "160000"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

MAX_POINTER_BYTES = 1024
"""Longer texts are never LFS pointers. Source: git-lfs `docs/spec.md`."""
MAX_TREES = 1_000_000
"""A listing with more folders is refused: it was made to burn time."""

_OBJECT_ID = re.compile(r"[0-9a-f]{40}")
_COMMIT_TREE = re.compile(rb"tree ([0-9a-f]{40})\n")
_POINTER_OID = re.compile(r"sha256:([0-9a-f]{64})")
_POINTER_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_POINTER_VERSIONS = frozenset(
    {"https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2"}
)


class _Leaf(NamedTuple):
    """One entry to be folded: git's full path as bytes, git's mode, and the id of the object, in hex."""

    path: bytes
    mode: str
    object_id: str


def object_id(kind: str, body: bytes) -> str:
    """The git id, in hex, of an object of that kind (`blob`, `tree`, `commit`)."""
    return hashlib.sha1(b"%b %d\0%b" % (kind.encode(), len(body), body), usedforsecurity=False).hexdigest()


def pointer_text(sha256_hex: str, size_bytes: int) -> bytes:
    """The canonical LFS pointer of a file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256_hex}\nsize {size_bytes}\n".encode()


def parse_pointer(text: bytes) -> tuple[Digest, int] | None:
    """The digest and size in bytes that an LFS pointer names; None if the text is no pointer.

    Canonical or not: extra keys, CRLF and a missing last newline are read as git-lfs reads them.
    """
    if len(text) > MAX_POINTER_BYTES or not text.startswith(b"version "):
        return None
    try:
        lines = [line.partition(" ") for line in text.decode("utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError:
        return None
    fields = {key: value.rstrip() for key, _, value in lines}
    oid = _POINTER_OID.fullmatch(fields.get("oid", ""))
    size = _POINTER_SIZE.fullmatch(fields.get("size", ""))
    if len(fields) != len(lines) or fields["version"] not in _POINTER_VERSIONS or oid is None or size is None:
        return None
    return Digest("sha256", oid[1]), int(size[0])


def is_file_name(path: str) -> bool:
    """Whether hfpeer can have a file of this name: git allows some that it refuses."""
    try:
        FilePath.parse(path)
    except InvalidName:
        return False
    return True


def path_from_git(path: bytes) -> str:
    """Git's path as text. Bytes that are no UTF-8 become lone surrogates, and `path_to_git` brings them back."""
    return path.decode("utf-8", "surrogateescape")


def path_to_git(path: str) -> bytes:
    """The inverse of `path_from_git`. Raises UnicodeEncodeError for text that never came from it."""
    return path.encode("utf-8", "surrogateescape")


def prove(manifest: Manifest) -> None:
    """Checks that the manifest is what its commit says: every path, mode, digest and LFS size, nothing more or less.

    Raises ForgedManifest; also for a manifest without its commit object, since that proves nothing.
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
    """The id of the git tree that holds exactly these entries. Raises ForgedManifest if no tree can."""
    try:
        return _fold(_leaves(files, opaque))
    except (_Mismatch, UnicodeEncodeError) as error:
        raise ForgedManifest(f"These files are no git tree: {error}.") from error


def folder_trees(files: Iterable[ManifestFile], opaque: Iterable[OpaqueEntry] = ()) -> dict[str, str]:
    """The tree id of every folder below the root, by its path. Raises ForgedManifest if no tree can hold these."""
    try:
        folding = _folded(_leaves(files, opaque))
    except (_Mismatch, UnicodeEncodeError) as error:
        raise ForgedManifest(f"These files are no git tree: {error}.") from error
    return {path_from_git(path): tree for path, tree in folding.trees.items()}


def tree_bodies(files: Iterable[ManifestFile], opaque: Iterable[OpaqueEntry] = ()) -> tuple[str, dict[str, bytes]]:
    """The id of the root tree, and the raw body of every tree by its id, the root's first. Raises ForgedManifest if no
    tree can hold these."""
    bodies: dict[str, bytes] = {}
    try:
        root = _folded(_leaves(files, opaque), bodies).root
    except (_Mismatch, UnicodeEncodeError) as error:
        raise ForgedManifest(f"These files are no git tree: {error}.") from error
    return root, dict(reversed(bodies.items()))


def _leaves(files: Iterable[ManifestFile], opaque: Iterable[OpaqueEntry]) -> Iterator[_Leaf]:
    for file in files:
        yield _Leaf(path_to_git(file.path), file.mode, file.blob_id)
    for entry in opaque:
        yield _Leaf(path_to_git(entry.path), entry.mode, entry.object_id)


def _fold(leaves: Iterable[_Leaf]) -> str:
    """The id of the root tree."""
    return _folded(leaves).root


def _folded(leaves: Iterable[_Leaf], bodies: dict[str, bytes] | None = None) -> _Folding:
    """All trees, by one pass over the sorted entries with only the current path's folders open. Their bodies are put
    into `bodies`.

    Sorted by full path, with `/` after the name of a tree, entries come in git's own order at every level.
    """
    ordered = sorted(leaves, key=lambda leaf: leaf.path + b"/" if leaf.mode == TREE_MODE else leaf.path)
    folding = _Folding({leaf.path for leaf in ordered}, bodies)
    if len(folding.leaf_paths) != len(ordered):
        raise _Mismatch("a path occurs twice")
    for leaf in ordered:
        folding.add(leaf)
    folding.finish()
    return folding


class _Folding:
    """The open folders of the current path, outermost first: (path with its last `/`, name, tree body so far)."""

    def __init__(self, leaf_paths: set[bytes], bodies: dict[str, bytes] | None) -> None:
        self.leaf_paths = leaf_paths
        self._bodies = bodies
        self._open: list[tuple[bytes, bytes, bytearray]] = [(b"", b"", bytearray())]
        self._trees = 1
        self.trees: dict[bytes, str] = {}
        self.root = ""

    def add(self, leaf: _Leaf) -> None:
        if not leaf.path or b"\0" in leaf.path or _OBJECT_ID.fullmatch(leaf.object_id) is None:
            raise _Mismatch(f"{leaf.path!r:.200} is no entry of a tree")
        while not leaf.path.startswith(self._open[-1][0]):
            self._close()
        folder = self._open[-1][0]
        *names, name = leaf.path[len(folder) :].split(b"/")
        for ancestor in names:
            self._enter(ancestor)
        if not name:
            raise _Mismatch(f"{leaf.path!r:.200} has an empty name")
        self._put(leaf.mode, name, bytes.fromhex(leaf.object_id))

    def finish(self) -> None:
        while len(self._open) > 1:
            self._close()
        self.root = self._named(bytes(self._open[0][2]))

    def _enter(self, name: bytes) -> None:
        path = self._open[-1][0] + name
        self._trees += 1
        if not name or path in self.leaf_paths:
            raise _Mismatch(f"{path!r:.200} is both a file and a folder")
        if self._trees > MAX_TREES:
            raise _Mismatch(f"it has more than {MAX_TREES} folders")
        self._open.append((path + b"/", name, bytearray()))

    def _close(self) -> None:
        path, name, body = self._open.pop()
        tree = self.trees[path[:-1]] = self._named(bytes(body))
        self._put(TREE_MODE, name, bytes.fromhex(tree))

    def _named(self, body: bytes) -> str:
        tree = object_id("tree", body)
        if self._bodies is not None:
            self._bodies[tree] = body
        return tree

    def _put(self, mode: str, name: bytes, raw_id: bytes) -> None:
        self._open[-1][2].extend(b"%b %b\0%b" % (mode.encode("ascii"), name, raw_id))


def commit_body(tree: str, *, author: str, time_seconds: int, message: str) -> bytes:
    """A raw commit without parents; `author` is `name <mail>`, the time zone is UTC. Its id is `object_id`."""
    signature = f"{author} {time_seconds} +0000"
    return f"tree {tree}\nauthor {signature}\ncommitter {signature}\n\n{message}\n".encode()


class _Mismatch(ValueError):
    """What is wrong with an entry, as the end of a sentence."""


def _check_blob(file: ManifestFile) -> None:
    if file.mode not in FILE_MODES:
        raise _Mismatch(f"{file.mode!r} of {file.path!r} is not the mode of a file")
    if not file.is_lfs:
        if file.blob_id != file.digest.hex or file.pointer is not None:
            raise _Mismatch(f"{file.path!r} is listed with two digests")
        return
    text = pointer_text(file.digest.hex, file.size_bytes) if file.pointer is None else file.pointer
    if object_id("blob", text) != file.blob_id or parse_pointer(text) != (file.digest, file.size_bytes):
        raise _Mismatch(f"the digest or size of {file.path!r} is not what its LFS pointer says")


def _check_opaque(entry: OpaqueEntry) -> None:
    is_legal = (
        entry.mode == SUBMODULE_MODE
        or (entry.mode == TREE_MODE and entry.object_id == EMPTY_TREE)
        or (entry.mode in FILE_MODES and not is_file_name(entry.path))
    )
    if not is_legal:
        raise _Mismatch(f"{entry.path!r} is kept back as an entry of mode {entry.mode!r}")


def _refuse(manifest: Manifest, reason: str, cause: Exception | None = None) -> NoReturn:
    raise ForgedManifest(
        f"The listing of {manifest.repo} at {manifest.commit.short} is forged or broken: {reason}.",
        hint="Ask another source for it.",
        repo=str(manifest.repo),
        commit=str(manifest.commit),
    ) from cause
