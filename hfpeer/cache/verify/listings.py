"""The list of the files of a commit, from the best witness that can be found without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import read_proof
from hfpeer.cache.disk import layout
from hfpeer.cache.snapshots import read_tree
from hfpeer.cache.verify.findings import LISTED, NAMED, PROVED
from hfpeer.errors import CorruptData
from hfpeer.names import Commit, Digest, RepoId


@dataclass(frozen=True)
class Listing:
    """Digest and size in bytes by path; empty if the grade is NAMED. `bad_proof` says why the file in the repo's folder
    proves nothing."""

    grade: str
    files: dict[str, tuple[Digest, int]]
    bad_proof: str = ""


def find_listing(cache: Path, manifests: Manifests, repo: RepoId, commit: Commit) -> Listing:
    """The listing of a commit. The proof in the repo's folder is proved anew; `manifests` are those of the home, which
    were proved when they came. Raises Stopped."""
    bad_proof = ""
    try:
        manifest = read_proof(cache, repo, commit)
    except CorruptData as error:
        manifest, bad_proof = None, error.message
    manifest = manifest or manifests.load(repo, commit)
    if manifest is not None:
        files: dict[str, tuple[Digest, int]] = {file.path: (file.digest, file.size_bytes) for file in manifest.files}
        return Listing(LISTED if manifest.is_attested else PROVED, files, bad_proof)
    tree = read_tree(layout.tree_path(cache, repo, commit))
    return Listing(
        NAMED if tree is None else LISTED, {str(path): known for path, known in (tree or {}).items()}, bad_proof
    )
