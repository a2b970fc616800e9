"""Taking things out of the cache, in the order that never leaves a dangling name: snapshots, refs, blobs.

A blob goes only if no snapshot on the disk links to it any more, looked up after the links are gone and again when
anything changed meanwhile, under the Hub client's lock. Nothing outside the repo's folder is touched: what a blob
links to in the shared store stays there for `hf cache prune`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hfpeer.cache import layout, scan, snapshots
from hfpeer.cache.catalog import Catalog
from hfpeer.cache.failures import translated
from hfpeer.cache.locks import etag_lock
from hfpeer.cache.records import Removed
from hfpeer.errors import InvalidName, Locked
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision

LOCK_SECONDS = 2.0
"""A blob whose lock is held for longer is in use: it stays."""


@dataclass
class _Count:
    commits: list[str] = field(default_factory=list)
    files: int = 0
    freed_bytes: int = 0


def remove(cache: Path, catalog: Catalog, repo: RepoId, commit: Commit | None, files: frozenset[FilePath]) -> Removed:
    """Removes a repo (no commit), a revision (no files) or files of a revision. Raises BrokenCache."""
    count = _Count()
    with translated("remove from the cache", layout.repo_folder(cache, repo)):
        names = set()
        for one in _commits(cache, repo) if commit is None else [commit]:
            names |= _remove_from_snapshot(cache, catalog, repo, one, files, count)
        _remove_refs(cache, catalog, repo, set(count.commits))
        _remove_blobs(cache, catalog, repo, names, count)
        if not _commits(cache, repo):
            _remove_rest(cache, catalog, repo, count)
    return Removed(str(repo), tuple(count.commits), count.files, count.freed_bytes)


def _commits(cache: Path, repo: RepoId) -> list[Commit]:
    folder = layout.snapshots_folder(cache, repo)
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(InvalidName):
            found.append(Commit.parse(path.name))
    return found


def _remove_from_snapshot(
    cache: Path, catalog: Catalog, repo: RepoId, commit: Commit, files: frozenset[FilePath], count: _Count
) -> set[str]:
    """Unlinks files of one snapshot, all of them if none are named; the names of the blobs they were links to."""
    snapshot = layout.snapshot_path(cache, repo, commit)
    if not snapshot.is_dir():
        return set()
    paths = [snapshot / path for path in files] if files else _files_below(snapshot)
    names = {name for path in paths if (name := _unlink(path, count)) is not None}
    _remove_empty_folders(snapshot)
    catalog.drop_files(repo.folder, commit, [path.relative_to(snapshot).as_posix() for path in paths])
    if not snapshot.exists():
        count.commits.append(str(commit))
        shutil.rmtree(layout.absences_path(cache, repo, commit), ignore_errors=True)
        layout.tree_path(cache, repo, commit).unlink(missing_ok=True)
        catalog.drop_revision(repo.folder, commit)
    return names


def _files_below(folder: Path) -> list[Path]:
    return [
        Path(place) / name for place, folders, files in os.walk(folder) for name in [*files, *_links(place, folders)]
    ]


def _links(place: str, folders: Iterable[str]) -> list[str]:
    return [name for name in folders if (Path(place) / name).is_symlink()]


def _unlink(path: Path, count: _Count) -> str | None:
    """Removes one entry of a snapshot; the name of the blob it was a link to. A real file is gone with its bytes."""
    try:
        name = path.readlink().name if path.is_symlink() else None
        freed_bytes = _bytes_of(path)
        path.unlink()
    except FileNotFoundError:
        return None
    count.files += 1
    count.freed_bytes += freed_bytes
    return name


def _bytes_of(path: Path) -> int:
    """What removing this name gives back: nothing for a link, nor for a file that has another name."""
    facts = path.lstat()
    return facts.st_size if facts.st_nlink == 1 and not path.is_symlink() else 0


def _remove_empty_folders(folder: Path) -> None:
    for place, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(place).rmdir()


def _remove_refs(cache: Path, catalog: Catalog, repo: RepoId, commits: set[str]) -> None:
    """Removes the refs to commits that are gone: a ref to nothing makes a repo corrupt for the Hub client."""
    folder = layout.refs_folder(cache, repo)
    names = []
    for path in [path for path in folder.rglob("*") if path.is_file()] if commits else ():
        with contextlib.suppress(InvalidName):
            ref = snapshots.read_ref(cache, repo, Revision.parse(path.relative_to(folder).as_posix()))
            if ref is not None and ref[0] in commits:
                path.unlink(missing_ok=True)
    _remove_empty_folders(folder)
    names = [row.name for row in catalog.refs(repo.folder) if row.commit in commits]
    catalog.drop_refs(repo.folder, names)


def _remove_blobs(cache: Path, catalog: Catalog, repo: RepoId, names: set[str], count: _Count) -> None:
    linked, folders = scan.linked_blobs(cache, repo)
    for name in sorted(names - linked):
        with contextlib.suppress(InvalidName, Locked):
            digest = Digest.from_etag(name)
            with etag_lock(cache, repo, digest, LOCK_SECONDS):
                if scan.folders_changed(folders):
                    linked, folders = scan.linked_blobs(cache, repo)
                if name not in linked:
                    _remove_blob(cache, catalog, repo, digest, count)


def _remove_blob(cache: Path, catalog: Catalog, repo: RepoId, digest: Digest, count: _Count) -> None:
    blob = layout.blob_path(cache, repo, digest)
    with contextlib.suppress(FileNotFoundError):
        freed_bytes = _bytes_of(blob)
        blob.unlink()
        count.freed_bytes += freed_bytes
    catalog.drop_blobs([str(blob.relative_to(cache))])


def _remove_rest(cache: Path, catalog: Catalog, repo: RepoId, count: _Count) -> None:
    """Removes the folder of a repo without snapshots: blobs nothing ever linked to, unfinished downloads, notes."""
    folder = layout.repo_folder(cache, repo)
    blobs = layout.blobs_folder(cache, repo)
    count.freed_bytes += sum(_bytes_of(path) for path in (blobs.iterdir() if blobs.is_dir() else ()))
    if folder.exists():
        shutil.rmtree(folder.resolve())
        if folder.is_symlink():
            folder.unlink()
    catalog.drop_repo(repo.folder)
