"""The layout of the Hub cache: names to paths.

Every path is made of parsed names, so none can leave the cache. Pure. Source: huggingface_hub `repo_folder_name`,
`_get_pointer_path`, `_hf_hub_download_to_cache_dir` and `_tree_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from hfpeer.manifest import ManifestFile, json_items, json_string
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision

LOCKS = ".locks"
"""The folder of the Hub client's locks. `hf cache` ignores it."""
PARTIALS = ".hfpeer"
"""The folder of partials inside LOCKS."""
ABSENCES = ".no_exist"
"""The folder of the Hub client's notes on files that commits do not have, inside a repo's folder."""
PROOFS = ".hfpeer"
"""The folder of proofs inside a repo's folder."""
SET_ASIDE = "set-aside"
"""The folder inside a repo's folder for files that were in the way of a repair. No tool reads it."""


def repo_folder(cache: Path, repo: RepoId) -> Path:
    """`<cache>/models--ns--name`."""
    return cache / repo.folder


def blobs_folder(cache: Path, repo: RepoId) -> Path:
    return cache / repo.folder / "blobs"


def blob_path(cache: Path, repo: RepoId, digest: Digest) -> Path:
    """`blobs/<etag>`; the etag is the hex of the digest."""
    return cache.joinpath(repo.folder, "blobs", digest.hex)


def snapshots_folder(cache: Path, repo: RepoId) -> Path:
    return cache / repo.folder / "snapshots"


def snapshot_path(cache: Path, repo: RepoId, commit: Commit) -> Path:
    return cache / repo.folder / "snapshots" / commit


def snapshot_file(cache: Path, repo: RepoId, commit: Commit, path: FilePath) -> Path:
    return cache.joinpath(repo.folder, "snapshots", commit, path)


def refs_folder(cache: Path, repo: RepoId) -> Path:
    return cache / repo.folder / "refs"


def ref_path(cache: Path, repo: RepoId, revision: Revision) -> Path:
    """`refs/<revision>`, nested as the revision is: `refs/refs/pr/1`."""
    return cache / repo.folder / "refs" / revision


def absences_path(cache: Path, repo: RepoId, commit: Commit) -> Path:
    """`.no_exist/<commit>`: the Hub client's notes on files that the commit does not have."""
    return cache / repo.folder / ABSENCES / commit


def tree_path(cache: Path, repo: RepoId, commit: Commit) -> Path:
    """`trees/<commit>.json`: the Hub client's listing of the commit."""
    return cache / repo.folder / "trees" / f"{commit}.json"


def proofs_folder(cache: Path, repo: RepoId) -> Path:
    """`.hfpeer`: hfpeer's own folder in a repo's folder, with the proofs of its commits. The Hub client ignores it."""
    return cache / repo.folder / PROOFS


def proof_path(cache: Path, repo: RepoId, commit: Commit) -> Path:
    """`.hfpeer/<commit>.json`: the manifest of the commit with its commit object."""
    return cache / repo.folder / PROOFS / f"{commit}.json"


def locks_folder(cache: Path, repo: RepoId) -> Path:
    return cache.joinpath(LOCKS, repo.folder)


def lock_name(digest: Digest) -> str:
    return f"{digest.hex}.lock"


def lock_path(cache: Path, repo: RepoId, digest: Digest) -> Path:
    return cache.joinpath(LOCKS, repo.folder, lock_name(digest))


def partials_folder(cache: Path) -> Path:
    """The folder of all partials, on the volume of the cache, so that a rename can make them blobs."""
    return cache / LOCKS / PARTIALS


def partial_folder(cache: Path, digest: Digest, owner: str = "") -> Path:
    """The folder of a partial: that of all processes, or of one `owner` (see `partial.claims`)."""
    return cache / LOCKS / PARTIALS / (f"{digest.hex}.{owner}" if owner else digest.hex)


def link_target(path: FilePath, digest: Digest) -> str:
    """The target of the link at `snapshots/<commit>/<path>`: `../../blobs/<etag>`, with one more `../` per folder."""
    return "../" * (2 + path.count("/")) + "blobs/" + digest.hex


def tree_text(files: Iterable[ManifestFile]) -> str:
    """The full listing of a commit as the Hub client keeps it in `trees/`. It has no Xet hashes, because hfpeer does
    not use Xet. Source: huggingface_hub `_tree_cache`."""
    return "".join(tree_parts(files))


def tree_parts(files: Iterable[ManifestFile]) -> Iterator[str]:
    """The same in parts."""
    yield '{"format_version": 1, "files": {'
    yield from json_items(map(_tree_entry, files), ", ")
    yield "}}"


def _tree_entry(file: ManifestFile) -> str:
    size, path = file.size_bytes, json_string(file.path)
    lfs = f', "lfs_sha256": "{file.digest.hex}", "lfs_size": {size}' if file.is_lfs else ""
    return f'{path}: {{"size": {size}, "blob_id": "{file.blob_id}"{lfs}}}'
