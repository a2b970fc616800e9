"""The list of the files of a commit, from the best witness that can be found without a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import is_proof_same, read_proof
from hfpeer.cache.disk import layout
from hfpeer.cache.snapshots import read_tree
from hfpeer.cache.verify.findings import LISTED, NAMED, PROVED
from hfpeer.errors import CorruptData
from hfpeer.git.proof import prove
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, RepoId


@dataclass(frozen=True)
class Listing:
    """The files by path; empty if the grade is NAMED. `bad_proof` says why the file in the repo's folder proves
    nothing."""

    grade: str
    files: Mapping[str, ManifestFile]
    bad_proof: str = ""


def find_listing(cache: Path, manifests: Manifests, repo: RepoId, commit: Commit) -> Listing:
    """The listing of a commit. The proof in the repo's folder is proved anew; `manifests` are those of the home, which
    were proved when they came. Raises Stopped."""
    bad_proof = ""
    try:
        manifest = _proved(cache, manifests, repo, commit)
    except CorruptData as error:
        manifest, bad_proof = None, error.message
    manifest = manifest or manifests.load(repo, commit)
    if manifest is not None:
        by_path: Any = manifest.by_path  # paths are texts
        return Listing(LISTED if manifest.is_attested else PROVED, by_path, bad_proof)
    tree = read_tree(layout.tree_path(cache, repo, commit))
    files: dict[str, ManifestFile] = {
        path: ManifestFile(path, size_bytes, digest) for path, (digest, size_bytes) in (tree or {}).items()
    }
    return Listing(NAMED if tree is None else LISTED, files, bad_proof)


def _proved(cache: Path, manifests: Manifests, repo: RepoId, commit: Commit) -> Manifest | None:
    """The manifest that the repo's folder proves. One with the same text in the home, which may be in memory, is not
    read a second time. Raises CorruptData."""
    if is_proof_same(cache, repo, commit, manifests.path(repo, commit)):
        known = manifests.load(repo, commit)
        if known is not None:
            prove(known)
            return known
    return read_proof(cache, repo, commit)
