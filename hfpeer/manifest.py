"""The manifest: the files of a repo at a commit, and its JSON form for disk and wire.

A manifest with its commit object can be proved against the commit (`git.proof`). One without is attested: an upstream
listed it over TLS. Pure.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, AnyStr

from hfpeer.budgets import MAX_COMMIT_BYTES, MAX_MANIFEST_FILES, MAX_MANIFEST_PATH_BYTES
from hfpeer.errors import CorruptData, EntryNotFound, InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId, path_problem

FORMAT_VERSION = 1
JSON_ITEMS = 1000
"""Files whose text is made together."""
FILE_MODES = frozenset({"100644", "100755", "100664", "120000"})
"""Git's modes of files. Only old repos have 100664."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: its path in the repo, git mode (`100644`, `100755`, `120000`), size, and digest.

    `pointer_id` is the git blob id of the pointer of an LFS file, empty for a plain file. `pointer` is the text of the
    pointer where that is not canonical, so that it cannot be rebuilt.
    """

    path: FilePath
    size_bytes: int
    digest: Digest
    mode: str = "100644"
    pointer_id: str = ""
    pointer: bytes | None = None

    @property
    def blob_id(self) -> str:
        """The git blob id in the tree: the digest itself for a plain file, that of the pointer for an LFS file."""
        return self.pointer_id or self.digest.hex

    @property
    def is_lfs(self) -> bool:
        return self.digest.algorithm == "sha256"


@dataclass(frozen=True)
class OpaqueEntry:
    """A tree entry that is never fetched, but needed to fold the tree: a submodule, an empty tree, or a file whose name
    this system cannot store.

    For such a file a hub listed `size_bytes` and, if its LFS pointer can be rebuilt from it, `sha256`.
    """

    path: str
    mode: str
    object_id: str
    size_bytes: int | None = None
    sha256: str | None = None

    @property
    def is_file(self) -> bool:
        return self.mode in FILE_MODES


@dataclass(frozen=True)
class Manifest:
    """The files of `repo` at `commit`, sorted by path. `commit_object` is the raw commit object, if it is known."""

    repo: RepoId
    commit: Commit
    files: tuple[ManifestFile, ...]
    opaque: tuple[OpaqueEntry, ...] = ()
    commit_object: bytes | None = None

    @property
    def is_attested(self) -> bool:
        """Whether there is no commit object to prove it: it rests on the listing of an upstream."""
        return self.commit_object is None

    @cached_property
    def unusable(self) -> tuple[OpaqueEntry, ...]:
        """The files whose names this system cannot store. They are never fetched."""
        return tuple(entry for entry in self.opaque if entry.is_file)

    @cached_property
    def by_path(self) -> dict[FilePath, ManifestFile]:
        return {file.path: file for file in self.files}

    @cached_property
    def sizes(self) -> dict[Digest, int]:
        """By digest: the size in bytes of each blob of this commit, in the order of their first path."""
        return {file.digest: file.size_bytes for file in self.files}

    @property
    def size_bytes(self) -> int:
        """The bytes of all distinct blobs together."""
        return sum(self.sizes.values())

    def file(self, path: FilePath) -> ManifestFile:
        """The file at `path`. Raises EntryNotFound; the listing is complete, so the commit has no such file."""
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

    def to_json(self) -> str:
        """The form for disk and wire; `from_json` is its inverse."""
        return "".join(self.json_parts())

    def json_parts(self) -> Iterator[str]:
        """The same in parts: the text of a large manifest takes much memory."""
        facts = {
            "format_version": FORMAT_VERSION,
            "repo": self.repo.api_path,
            "commit": self.commit,
            "commit_object": _encode(self.commit_object),
        }
        yield f'{_dumps(facts)[:-1]},"files":['
        yield from json_items(map(_json_of_file, self.files))
        yield f'],"opaque":{_dumps([_opaque_to_json(entry) for entry in self.opaque])}}}'

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Reads the text of `to_json` and parses every name in it. Raises CorruptData for anything else."""
        try:
            # Each file is converted as soon as it is read: the JSON of a large listing would take too much memory.
            document = json.loads(text, object_hook=_file_if_one)
            if document["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {document['format_version']!r:.80}")
            _refuse_too_much(document["files"], document["opaque"])
            files = sorted(document["files"], key=lambda file: file.path)
            _refuse_contradictions(files)
            return cls(
                repo=RepoId.from_api_path(document["repo"]),
                commit=Commit.parse(document["commit"]),
                files=tuple(files),
                opaque=tuple(_opaque_from_json(*entry) for entry in document["opaque"]),
                commit_object=_commit_object(document["commit_object"]),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, InvalidName) as error:
            raise CorruptData(f"This is not a manifest: {str(error)[:300]}.", hint="Ask another source.") from error


def _refuse_too_much(files: Sequence[Any], opaque: Sequence[Any]) -> None:
    if len(files) + len(opaque) > MAX_MANIFEST_FILES:
        raise ValueError(f"it has more than {MAX_MANIFEST_FILES} files")
    if sum(len(file.path) for file in files) + sum(len(entry[0]) for entry in opaque) > MAX_MANIFEST_PATH_BYTES:
        raise ValueError(f"its paths take more than {MAX_MANIFEST_PATH_BYTES} bytes")


def _refuse_contradictions(files: list[ManifestFile]) -> None:
    """Raises ValueError for a list that no tree of git can have: a path twice, a path that is a file and a folder, or a
    blob with two sizes."""
    sizes: dict[Digest, int] = {}
    # In the order of paths, each folder is entered once, and a file comes before a folder of the same name.
    entered: list[str] = []
    names: list[set[str]] = [set()]
    for file in files:
        *folders, name = file.path.split("/")
        shared = common_start(entered, folders)
        del entered[shared:], names[shared + 1 :]
        for folder in folders[shared:]:
            if folder in names[-1]:
                raise ValueError(f"{file.path!r} lies below a file")
            entered.append(folder)
            names.append(set())
        if name in names[-1]:
            raise ValueError("a path occurs twice")
        names[-1].add(name)
        if sizes.setdefault(file.digest, file.size_bytes) != file.size_bytes:
            raise ValueError(f"{file.digest} has two sizes")


def common_start(first: Sequence[AnyStr], second: Sequence[AnyStr]) -> int:
    """The number of parts that two paths have in common at their start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


_dumps = functools.partial(json.dumps, separators=(",", ":"))
json_string = json.encoder.encode_basestring_ascii
"""A text as JSON, as `json.dumps` writes it, without its overhead for each of many."""


def json_items(items: Iterable[str], separator: str = ",") -> Iterator[str]:
    """The items of a JSON array or object with the separator between them, in parts of JSON_ITEMS."""
    iterator, start = iter(items), ""
    while part := list(islice(iterator, JSON_ITEMS)):
        yield start + separator.join(part)
        start = separator


def _json_of_file(file: ManifestFile) -> str:
    more = f',"blob_id":"{file.pointer_id}"' if file.is_lfs else ""
    if file.pointer is not None:
        more += f',"pointer":"{_encode(file.pointer)}"'
    size, path = file.size_bytes, json_string(file.path)
    return f'{{"path":{path},"mode":"{file.mode}","size_bytes":{size},"digest":"{file.digest}"{more}}}'


def _file_if_one(document: dict[str, Any]) -> dict[str, Any] | ManifestFile:
    return _file_from_json(document) if "digest" in document else document


def _file_from_json(document: dict[str, Any]) -> ManifestFile:
    size, mode = document["size_bytes"], document["mode"]
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise ValueError(f"{size!r:.80} is not a size")
    if mode not in FILE_MODES:
        raise ValueError(f"{mode!r:.80} is not the mode of a file")
    digest = Digest.parse(document["digest"])
    pointer_id = _object_id(document["blob_id"]) if digest.algorithm == "sha256" else ""
    path, pointer = FilePath.parse(document["path"]), _decode(document.get("pointer"))
    return ManifestFile(path, size, digest, sys.intern(mode), pointer_id, pointer)


def _opaque_to_json(entry: OpaqueEntry) -> list[Any]:
    known = [] if entry.size_bytes is None else [entry.size_bytes]
    return [entry.path, entry.mode, entry.object_id, *known, *([entry.sha256] if known and entry.sha256 else [])]


def _opaque_from_json(path: Any, mode: Any, object_id: Any, size_bytes: Any = None, sha256: Any = None) -> OpaqueEntry:
    if mode in FILE_MODES and path_problem(path) is None:
        raise ValueError(f"{path!r:.200} is a usable file among the unusable ones")
    if size_bytes is not None and (type(size_bytes) is not int or not 0 <= size_bytes < 1 << 63):
        raise ValueError(f"{size_bytes!r:.80} is not a size")
    named = None if sha256 is None else Digest.parse(f"sha256:{sha256}").hex
    return OpaqueEntry(str(path), str(mode), _object_id(object_id), size_bytes, named)


def _commit_object(text: str | None) -> bytes | None:
    raw = _decode(text)
    if raw is not None and len(raw) > MAX_COMMIT_BYTES:
        raise ValueError(f"its commit object takes more than {MAX_COMMIT_BYTES} bytes")
    return raw


def _object_id(text: str) -> str:
    return Digest.parse(f"git-sha1:{text}").hex


def _encode(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def _decode(text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("bad base64") from error
