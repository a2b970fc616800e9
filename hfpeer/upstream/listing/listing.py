"""Makes a manifest from a hub's listing and its git trees. Pure.

The tree API has sizes and LFS digests; git has modes, submodules, and the proof that nothing is missing. If both are
there they must agree, entry by entry; without git, the listing alone makes an attested manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from hfpeer.errors import ForgedManifest, InvalidName
from hfpeer.git.lfs import pointer_text
from hfpeer.git.proof import is_file_name, object_id, path_from_git
from hfpeer.git.trees import GitEntry
from hfpeer.manifest import FILE_MODES, Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.upstream.listing.git import GitSnapshot


@dataclass(frozen=True)
class TreeEntry:
    """A file in the tree API: `blob_id` is git's; `digest` and `size_bytes` are of the content."""

    path: str
    blob_id: str
    size_bytes: int
    digest: Digest

    @property
    def is_lfs(self) -> bool:
        return self.digest.algorithm == "sha256"

    @property
    def has_canonical_pointer(self) -> bool:
        """Whether git's pointer can be rebuilt from digest and size."""
        return not self.is_lfs or object_id("blob", pointer_text(self.digest.hex, self.size_bytes)) == self.blob_id


def read_listing(entries: Iterable[Any]) -> dict[str, TreeEntry]:
    """The files among the entries of the tree API, by path. Raises ValueError for an entry that the Hub would not
    send."""
    return {file.path: file for file in (_listed(entry) for entry in entries) if file is not None}


def read_siblings(siblings: Iterable[Any]) -> dict[str, TreeEntry]:
    """The files among the siblings of a revision that come with size and digest (`blobs=true`), by path. Raises
    ValueError for one that the Hub would not send."""
    return {
        file.path: file
        for file in (
            _listed({**one, "type": "file", "path": one["rfilename"], "oid": one["blobId"], "lfs": _lfs_of(one)})
            for one in siblings
            if isinstance(one, Mapping) and {"rfilename", "blobId", "size"} <= one.keys()
        )
        if file is not None
    }


def read_headers(path: str, headers: Mapping[str, str]) -> TreeEntry:
    """A file by the headers of its response. Source: huggingface_hub `get_hf_file_metadata`: the etag is the git blob
    id of a plain file and the sha256 of an LFS file. Raises ValueError where they do not tell size and digest."""
    etag = (headers.get("x-linked-etag") or headers.get("etag", "")).removeprefix("W/").strip('"')
    size = headers.get("x-linked-size") or headers.get("content-length", "")
    try:
        if len(etag) == 64:
            digest, size_bytes = Digest.parse(f"sha256:{etag}"), _size(int(size))
            blob_id = object_id("blob", pointer_text(digest.hex, size_bytes))
            return TreeEntry(path, blob_id, size_bytes, digest)
        digest = Digest.parse(f"git-sha1:{etag}")
        return TreeEntry(path, digest.hex, _size(int(size)), digest)
    except (TypeError, ValueError, InvalidName) as error:
        raise ValueError(f"it tells no size and digest of {path!r}") from error


def _lfs_of(sibling: Mapping[str, Any]) -> Any:
    """The `lfs` of a sibling as the tree API has it."""
    lfs = sibling.get("lfs")
    return {"oid": lfs["sha256"], "size": lfs["size"]} if isinstance(lfs, Mapping) and "sha256" in lfs else lfs


def _listed(entry: Any) -> TreeEntry | None:
    try:
        if entry["type"] != "file":
            return None
        blob = Digest.parse(f"git-sha1:{entry['oid']}")
        lfs = entry.get("lfs")
        if lfs is None:
            return TreeEntry(_text(entry["path"]), blob.hex, _size(entry["size"]), blob)
        return TreeEntry(_text(entry["path"]), blob.hex, _size(lfs["size"]), Digest.parse(f"sha256:{lfs['oid']}"))
    except (KeyError, TypeError, AttributeError, InvalidName) as error:
        raise ValueError(f"{entry!r:.200} is no entry of a listing") from error


def missing_from(listing: Mapping[str, TreeEntry], snapshot: GitSnapshot) -> list[str]:
    """Paths of files that are in git and not in the listing."""
    return [path for path in map(_file_path, snapshot.entries) if path is not None and path not in listing]


def odd_pointers(listing: Mapping[str, TreeEntry], snapshot: GitSnapshot) -> list[TreeEntry]:
    """The LFS files of the commit whose pointers cannot be rebuilt, so that their text must be fetched."""
    paths = {path for path in map(_file_path, snapshot.entries) if path is not None}
    return [file for path, file in listing.items() if path in paths and not file.has_canonical_pointer]


def proved_manifest(
    repo: RepoId,
    commit: Commit,
    listing: Mapping[str, TreeEntry],
    snapshot: GitSnapshot,
    pointers: Mapping[str, bytes],
) -> Manifest:
    """The manifest on which git's entries and the listing agree; `pointers` maps paths to pointers that cannot be
    rebuilt.

    The caller still proves it. Raises ForgedManifest if git and the listing disagree.
    """
    files: list[ManifestFile] = []
    opaque: list[OpaqueEntry] = []
    for entry in snapshot.entries:
        path = _file_path(entry)
        if path is None:
            opaque.append(_kept_back(path_from_git(entry.path), entry.mode, entry.object_id, listing))
            continue
        listed = listing.get(path)
        if listed is None or listed.blob_id != entry.object_id:
            what = "lacks" if listed is None else "has another version of"
            _refuse(repo, commit, f"it {what} {path!r}")
        files.append(_manifest_file(listed, entry.mode, pointers.get(path)))
    # The listing can only show a name that is not UTF-8 with replacement characters.
    known = {path_from_git(entry.path) for entry in snapshot.entries}
    invented = [path for path in listing if path not in known and "\ufffd" not in path]
    if invented:
        _refuse(repo, commit, f"the commit has no {min(invented)!r}")
    return Manifest(repo, commit, _sorted(files), tuple(opaque), snapshot.commit_object)


def attested_manifest(repo: RepoId, commit: Commit, listing: Mapping[str, TreeEntry]) -> Manifest:
    """The manifest from the listing alone. Files with names that hfpeer refuses become opaque entries."""
    files = [_manifest_file(file, "100644", None) for path, file in listing.items() if is_file_name(path)]
    opaque = [
        _kept_back(path, "100644", file.blob_id, listing) for path, file in listing.items() if not is_file_name(path)
    ]
    return Manifest(repo, commit, _sorted(files), tuple(opaque))


def _kept_back(path: str, mode: str, object_id: str, listing: Mapping[str, TreeEntry]) -> OpaqueEntry:
    """An entry that hfpeer cannot hold, with size and digest from the listing."""
    listed = listing.get(path)
    if mode not in FILE_MODES or listed is None or listed.blob_id != object_id or not listed.has_canonical_pointer:
        return OpaqueEntry(path, mode, object_id)
    return OpaqueEntry(path, mode, object_id, listed.size_bytes, listed.digest.hex if listed.is_lfs else None)


def _manifest_file(listed: TreeEntry, mode: str, pointer: bytes | None) -> ManifestFile:
    pointer_id = listed.blob_id if listed.is_lfs else ""
    return ManifestFile(FilePath(listed.path), listed.size_bytes, listed.digest, mode, pointer_id, pointer)


def _sorted(files: Iterable[ManifestFile]) -> tuple[ManifestFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _file_path(entry: GitEntry) -> str | None:
    """The entry's path if it is a file that hfpeer can hold."""
    path = path_from_git(entry.path)
    return path if entry.mode in FILE_MODES and is_file_name(path) else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise TypeError(value)
    return value


def _refuse(repo: RepoId, commit: Commit, reason: str) -> NoReturn:
    raise ForgedManifest(
        f"The listing of {repo} at {commit.short} contradicts its git tree: {reason}.",
        hint="Ask another source for it.",
        repo=str(repo),
        commit=str(commit),
    )
