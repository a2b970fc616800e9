"""Makes a manifest of what a hub lists and what its git proves. Pure.

The tree API knows sizes and LFS digests, git knows modes, submodules and that nothing is missing. Where both are at
hand they must agree, entry by entry; where git is not, the listing alone makes an attested manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from hfpeer.errors import ForgedManifest, InvalidName
from hfpeer.gitproof import FILE_MODES, is_file_name, object_id, path_from_git, pointer_text
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.upstream.git import GitEntry, GitSnapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """A file as the tree API shows it: `blob_id` is git's, `digest` and `size_bytes` are of the content."""

    path: str
    blob_id: str
    size_bytes: int
    digest: Digest

    @property
    def is_lfs(self) -> bool:
        return self.digest.algorithm == "sha256"

    @property
    def has_canonical_pointer(self) -> bool:
        """Whether the pointer that git holds can be rebuilt from digest and size."""
        return not self.is_lfs or object_id("blob", pointer_text(self.digest.hex, self.size_bytes)) == self.blob_id


def read_listing(entries: Iterable[Any]) -> dict[str, Listed]:
    """The files among the entries of the tree API, by path. Raises ValueError for what the Hub would not send."""
    return {file.path: file for file in (_listed(entry) for entry in entries) if file is not None}


def _listed(entry: Any) -> Listed | None:
    try:
        if entry["type"] != "file":
            return None
        blob = Digest.parse(f"git-sha1:{entry['oid']}")
        lfs = entry.get("lfs")
        if lfs is None:
            return Listed(_text(entry["path"]), blob.hex, _size(entry["size"]), blob)
        return Listed(_text(entry["path"]), blob.hex, _size(lfs["size"]), Digest.parse(f"sha256:{lfs['oid']}"))
    except (KeyError, TypeError, AttributeError, InvalidName) as error:
        raise ValueError(f"{entry!r:.200} is no entry of a listing") from error


def missing_from(listing: Mapping[str, Listed], snapshot: GitSnapshot) -> list[str]:
    """Paths of files that git has and the listing lacks."""
    return [path for path in map(_file_path, snapshot.entries) if path is not None and path not in listing]


def odd_pointers(listing: Mapping[str, Listed], snapshot: GitSnapshot) -> list[Listed]:
    """The LFS files of the commit whose pointers cannot be rebuilt, so that their text has to be fetched."""
    paths = {path for path in map(_file_path, snapshot.entries) if path is not None}
    return [file for path, file in listing.items() if path in paths and not file.has_canonical_pointer]


def proved_manifest(
    repo: RepoId,
    commit: Commit,
    listing: Mapping[str, Listed],
    snapshot: GitSnapshot,
    pointers: Mapping[str, bytes],
) -> Manifest:
    """The manifest that git's entries and the listing agree on; `pointers` holds the odd ones, by path.

    It is still to be proved. Raises ForgedManifest where the two disagree.
    """
    files: list[ManifestFile] = []
    opaque: list[OpaqueEntry] = []
    for entry in snapshot.entries:
        path = _file_path(entry)
        if path is None:
            opaque.append(OpaqueEntry(path_from_git(entry.path), entry.mode, entry.object_id))
            continue
        listed = listing.get(path)
        if listed is None or listed.blob_id != entry.object_id:
            what = "lacks" if listed is None else "has another version of"
            _refuse(repo, commit, f"it {what} {path!r}")
        files.append(_manifest_file(listed, entry.mode, pointers.get(path)))
    # A name that is no UTF-8 can only be listed with replacement characters.
    known = {path_from_git(entry.path) for entry in snapshot.entries}
    invented = [path for path in listing if path not in known and "\ufffd" not in path]
    if invented:
        _refuse(repo, commit, f"the commit has no {min(invented)!r}")
    return Manifest(repo, commit, _sorted(files), tuple(opaque), snapshot.commit_object)


def attested_manifest(repo: RepoId, commit: Commit, listing: Mapping[str, Listed]) -> Manifest:
    """What the listing alone says. Files whose names hfpeer refuses are left out."""
    named = [file for path, file in listing.items() if is_file_name(path)]
    if len(named) < len(listing):
        log.warning("%s at %s: %d files have impossible names", repo, commit.short, len(listing) - len(named))
    return Manifest(repo, commit, _sorted(_manifest_file(file, "100644", None) for file in named))


def _manifest_file(listed: Listed, mode: str, pointer: bytes | None) -> ManifestFile:
    return ManifestFile(FilePath(listed.path), listed.size_bytes, listed.digest, mode, listed.blob_id, pointer)


def _sorted(files: Iterable[ManifestFile]) -> tuple[ManifestFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _file_path(entry: GitEntry) -> str | None:
    """The entry's path if it is a file that hfpeer can have."""
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
        f"The listing of {repo} at {commit.short} does not fit its git tree: {reason}.",
        hint="Ask another source for it.",
        repo=str(repo),
        commit=str(commit),
    )
