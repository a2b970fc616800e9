"""The manifest: the files of a repo at a commit, and its JSON form for disk and wire.

A manifest with its commit object can be proved against the commit (`gitproof`); one without is attested:
believed because an upstream said so over TLS. Pure: no input or output.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hfpeer.errors import CorruptData, EntryNotFound, InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ManifestFile:
    """One file: where it lies in the repo, its git mode (`100644`, `100755`, `120000`), size, and digest.

    `blob_id` is the git blob id the tree lists: the digest itself for a plain file, the pointer's for an LFS
    file. `pointer` is kept only where the LFS pointer is not the canonical text and so cannot be rebuilt.
    """

    path: FilePath
    size_bytes: int
    digest: Digest
    mode: str = "100644"
    blob_id: str = ""
    pointer: bytes | None = None

    def __post_init__(self) -> None:
        if not self.blob_id and not self.is_lfs:
            object.__setattr__(self, "blob_id", self.digest.hex)

    @property
    def is_lfs(self) -> bool:
        return self.digest.algorithm == "sha256"


@dataclass(frozen=True)
class OpaqueEntry:
    """A tree entry that is no file (a submodule, an empty tree): needed to fold the tree, never fetched."""

    path: str
    mode: str
    object_id: str


@dataclass(frozen=True)
class Manifest:
    """The files of `repo` at `commit`, sorted by path. `commit_object` is the raw commit, if it is known."""

    repo: RepoId
    commit: Commit
    files: tuple[ManifestFile, ...]
    opaque: tuple[OpaqueEntry, ...] = ()
    commit_object: bytes | None = None

    @property
    def is_attested(self) -> bool:
        """Whether there is no proof: an upstream's word is all there is."""
        return self.commit_object is None

    @cached_property
    def by_path(self) -> dict[FilePath, ManifestFile]:
        return {file.path: file for file in self.files}

    @cached_property
    def sizes(self) -> dict[Digest, int]:
        """Digest -> size in bytes: the blobs of this commit, each once, in the order of their first path."""
        return {file.digest: file.size_bytes for file in self.files}

    @property
    def size_bytes(self) -> int:
        """The size of all distinct blobs together."""
        return sum(self.sizes.values())

    def file(self, path: FilePath) -> ManifestFile:
        """The file at `path`. Raises EntryNotFound: the listing is complete, so absence is proved."""
        found = self.by_path.get(path)
        if found is None:
            raise EntryNotFound(
                f"There is no file {path!r} in {self.repo} at {self.commit.short}.",
                hint=f"`hfpeer {self.repo.type.value} ls -r {self.repo.full_name} -v {self.commit.short}` lists it.",
                repo=str(self.repo),
                commit=str(self.commit),
                path=str(path),
            )
        return found

    def without_proof(self) -> Manifest:
        return replace(self, commit_object=None)

    def to_json(self) -> str:
        """The codec for disk and wire; `from_json` is its inverse."""
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "repo": self.repo.api_path,
                "commit": self.commit,
                "commit_object": _encode(self.commit_object),
                "files": [_file_to_json(file) for file in self.files],
                "opaque": [[entry.path, entry.mode, entry.object_id] for entry in self.opaque],
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Reads what `to_json` wrote. Every name in it is parsed. Raises CorruptData for anything else."""
        try:
            document = json.loads(text)
            if document["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {document['format_version']}")
            files = sorted((_file_from_json(file) for file in document["files"]), key=lambda file: file.path)
            _refuse_contradictions(files)
            return cls(
                repo=RepoId.from_api_path(document["repo"]),
                commit=Commit.parse(document["commit"]),
                files=tuple(files),
                opaque=tuple(OpaqueEntry(str(p), str(m), _object_id(o)) for p, m, o in document["opaque"]),
                commit_object=_decode(document["commit_object"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidName) as error:
            raise CorruptData(f"This is not a manifest: {error}.", hint="Ask another source.") from error


def _refuse_contradictions(files: list[ManifestFile]) -> None:
    """Raises ValueError for what no tree of git can hold: one path twice, a file that is a folder too, one blob with
    two sizes."""
    paths = {file.path for file in files}
    if len(paths) != len(files):
        raise ValueError("a path occurs twice")
    sizes: dict[Digest, int] = {}
    for file in files:
        folders = file.path.split("/")[:-1]
        if any("/".join(folders[:depth]) in paths for depth in range(1, len(folders) + 1)):
            raise ValueError(f"{file.path!r} lies below a file")
        if sizes.setdefault(file.digest, file.size_bytes) != file.size_bytes:
            raise ValueError(f"{file.digest} has two sizes")


def _file_to_json(file: ManifestFile) -> dict[str, Any]:
    document: dict[str, Any] = {
        "path": file.path,
        "mode": file.mode,
        "size": file.size_bytes,
        "digest": str(file.digest),
    }
    if file.is_lfs:
        document["blob_id"] = file.blob_id
    if file.pointer is not None:
        document["pointer"] = _encode(file.pointer)
    return document


def _file_from_json(document: dict[str, Any]) -> ManifestFile:
    size, mode = document["size"], document["mode"]
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise ValueError(f"{size!r} is not a size")
    if mode not in ("100644", "100755", "120000", "100664"):
        raise ValueError(f"{mode!r} is not the mode of a file")
    digest = Digest.parse(document["digest"])
    blob_id = _object_id(document["blob_id"]) if digest.algorithm == "sha256" else digest.hex
    return ManifestFile(FilePath.parse(document["path"]), size, digest, mode, blob_id, _decode(document.get("pointer")))


def _object_id(text: str) -> str:
    return Digest.parse(f"git-sha1:{text}").hex


def _encode(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def _decode(text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("bad base64") from error
