"""Derives the row of a revision from its files: how many there are, their bytes, and whether these are all of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.disk import layout
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.schema import RevisionRow
from hfpeer.names import Commit, Digest, FilePath, RepoId

ListedFiles = dict[FilePath, tuple[Digest, int]]


def listing(cache: Path, manifests: Manifests, repo: RepoId, commit: Commit) -> tuple[ListedFiles | None, bool, bool]:
    """The full listing of a commit, if it is known here; whether it is proved; and whether this system can store all of
    its files."""
    manifest = manifests.load(repo, commit)
    if manifest is not None:
        files = {file.path: (file.digest, file.size_bytes) for file in manifest.files}
        return files, not manifest.is_attested, not manifest.unusable
    return snapshots.read_tree(layout.tree_path(cache, repo, commit)), False, True


def sum_up(
    cache: Path, catalog: Catalog, manifests: Manifests, repo: RepoId, commit: Commit, used_at: float | None = None
) -> None:
    """Derives a revision's row anew from its files and its listing. A revision without files is dropped."""
    manifest = manifests.load(repo, commit)
    tree = snapshots.read_tree(layout.tree_path(cache, repo, commit)) if manifest is None else None

    def is_complete(files: int) -> bool | None:
        if manifest is not None:
            listed = ((file.path, file.size_bytes) for file in manifest.files)
            is_possible = not manifest.unusable and files >= len(manifest.files)
            return is_possible and _has_all(catalog, str(cache), repo, commit, listed)
        if tree is not None:
            sizes = ((path, size_bytes) for path, (_, size_bytes) in tree.items())
            return files >= len(tree) and _has_all(catalog, str(cache), repo, commit, sizes)
        return None

    def to_row(files: int, size_bytes: int, before: RevisionRow | None) -> RevisionRow:
        last_used_at = before.used_at if before is not None else _used_at(layout.snapshot_path(cache, repo, commit))
        return RevisionRow(
            repo.folder,
            commit,
            files,
            size_bytes,
            is_complete(files),
            manifest is not None and not manifest.is_attested,
            last_used_at if used_at is None else used_at,
            str(cache),
        )

    catalog.sum_up(repo.folder, commit, str(cache), to_row)


def _has_all(catalog: Catalog, cache: str, repo: RepoId, commit: Commit, known: Iterable[tuple[FilePath, int]]) -> bool:
    """Whether every listed file is here with its size."""
    sizes = catalog.sizes(repo.folder, commit, cache)
    return all(sizes.get(path) == size_bytes for path, size_bytes in known)


def _used_at(snapshot: Path) -> float:
    try:
        return snapshot.stat().st_mtime
    except OSError:
        return time.time()
