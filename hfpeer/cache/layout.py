"""Where things lie in the Hub cache: names to paths, and nothing else.

Every path is made of parsed names, so none can leave the cache. Pure: no input or output. Source: huggingface_hub
`repo_folder_name`, `_get_pointer_path`, `_hf_hub_download_to_cache_dir` and `_tree_cache`.
"""

from __future__ import annotations

from pathlib import Path

from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision

LOCKS = ".locks"
"""The Hub client's lock folder. `hf cache` looks neither into it nor at it."""
PARTIALS = ".hfpeer"


def repo_folder(cache: Path, repo: RepoId) -> Path:
    """`<cache>/models--ns--name`."""
    return cache / repo.folder


def blobs_folder(cache: Path, repo: RepoId) -> Path:
    return cache / repo.folder / "blobs"


def blob_path(cache: Path, repo: RepoId, digest: Digest) -> Path:
    """`blobs/<etag>`; the etag is the bare hex of the digest."""
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
    """`.no_exist/<commit>`: the Hub client's notes of files that are not in the commit."""
    return cache / repo.folder / ".no_exist" / commit


def tree_path(cache: Path, repo: RepoId, commit: Commit) -> Path:
    """`trees/<commit>.json`: the Hub client's listing of the commit."""
    return cache / repo.folder / "trees" / f"{commit}.json"


def lock_path(cache: Path, repo: RepoId, digest: Digest) -> Path:
    return cache.joinpath(LOCKS, repo.folder, f"{digest.hex}.lock")


def partials_folder(cache: Path) -> Path:
    """Where blobs grow: on the cache's own volume, so that a rename publishes them."""
    return cache / LOCKS / PARTIALS


def partial_folder(cache: Path, digest: Digest) -> Path:
    return cache / LOCKS / PARTIALS / digest.hex


def link_target(path: FilePath, digest: Digest) -> str:
    """What the link at `snapshots/<commit>/<path>` says: `../../blobs/<etag>`, one `../` more per folder level."""
    return "../" * (2 + path.count("/")) + "blobs/" + digest.hex
