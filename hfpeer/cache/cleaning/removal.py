"""Removes repos, revisions and files from the cache: first refs, then snapshots, then blobs, so that no link dangles.

A blob is removed, under the Hub client's lock, only if no snapshot on the disk links to it. That is read after its
links are gone, and again if a folder changed meanwhile. Files that no Hub client writes into a repo's folder stay, and
so does everything behind a link; `hf cache prune` cleans the shared store of blobs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.cleaning.survey import shared_store
from hfpeer.cache.cleaning.survey.repo_folder import UNFINISHED_SUFFIXES, etag_of
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import OpenFolders, opened
from hfpeer.cache.disk.locks import etag_lock, folder_lock, is_held, locked_ones
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.disk.writers import is_written
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.database import batches
from hfpeer.cache.index.scan import reading
from hfpeer.cache.records import Removed
from hfpeer.errors import BrokenCache, InvalidName, Locked
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.system.cancellation import check_stop

TOGETHER = 2000
"""Blobs that are removed under one lock of their folder."""
LOCKS_TOGETHER = 100
"""Blobs whose own locks are held at a time."""
LOCK_SECONDS = 2.0
"""Seconds to wait for the lock of a blob before it is kept as in use."""
MAX_LEFT = 20
"""At most this many paths in `Removed.left`."""


def remove(
    cache: Path,
    catalog: Catalog,
    repo: RepoId,
    commits: Sequence[Commit] | None,
    files: frozenset[FilePath] = frozenset(),
    listed: frozenset[str] = frozenset(),
) -> Removed:
    """Removes a repo (no commits), revisions (no files) or files of revisions. Raises BrokenCache.

    `listed` are the file names of all blobs of the commits, as far as they are known: an earlier, interrupted removal
    may have removed the links to them.
    """
    with translated("remove from the cache", layout.repo_folder(cache, repo)):
        return _Removal(cache, catalog, repo, listed).run(commits, files)


def remove_orphans(cache: Path, catalog: Catalog, repo: RepoId, names: set[str]) -> Removed:
    """Removes blobs of a repo, by their file names, of those that no snapshot links to. Raises BrokenCache."""
    with translated("remove from the cache", layout.repo_folder(cache, repo)):
        removal = _Removal(cache, catalog, repo)
        removal.remove_blobs(names)
        return removal.removed()


@dataclass
class _Removal:
    """One removal from one repo, which counts what it removes."""

    cache: Path
    catalog: Catalog
    repo: RepoId
    listed: frozenset[str] = frozenset()
    commits: list[str] = field(default_factory=list)
    files: int = 0
    freed_bytes: int = 0
    left: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)

    def run(self, commits: Sequence[Commit] | None, files: frozenset[FilePath]) -> Removed:
        folder = layout.repo_folder(self.cache, self.repo)
        if commits is None and folder.is_symlink() and not self._may_enter(folder):
            self._drop_link(folder)
        else:
            self._remove(commits, files)
        return self.removed()

    def removed(self) -> Removed:
        left, busy = (tuple(sorted(paths)[:MAX_LEFT]) for paths in (self.left, self.busy))
        return Removed(str(self.repo), tuple(self.commits), self.files, self.freed_bytes, left=left, busy=busy)

    def _remove(self, commits: Sequence[Commit] | None, files: frozenset[FilePath]) -> None:
        names = set() if commits is None or files else set(self.listed)
        chosen = self._commits() if commits is None else list(commits)
        for one in chosen:
            names |= self._remove_from_snapshot(one, files)
        self.remove_blobs(names)
        gone = [one for one in chosen if not os.path.lexists(layout.snapshot_path(self.cache, self.repo, one))]
        # The lists after the blobs: they tell a repeated removal which blobs an interrupted one has left.
        for one in gone:
            self._remove_lists(one)
        if not self._commits() and (commits is None or not self._names(layout.blobs_folder(self.cache, self.repo))):
            self._remove_rest()
        if self.freed_bytes and not self.commits and not files:
            self.commits += map(str, gone)
        # The refs last: a user repeats an interrupted removal by the same name.
        names_of_gone = [
            row.name for row in self.catalog.refs(self.repo.folder) if row.commit in {*gone, *self.commits}
        ]
        self.catalog.drop_refs(self.repo.folder, names_of_gone)

    # Links in place of folders

    def _may_enter(self, link: Path) -> bool:
        """Whether a link in the place of a repo's folder was made by this user or root, and leads to a folder of this
        user."""
        try:
            with opened(self.cache, link) as inside:
                return inside.stat().st_uid == os.geteuid()
        except (OSError, BrokenCache):
            return False

    def _drop_link(self, link: Path) -> None:
        """Removes a link in the place of a repo's folder, and nothing behind it."""
        self.commits, self.files = [str(commit) for commit in self._commits()], 1
        self.left.append(str(link.resolve()))
        link.unlink()
        self.catalog.drop_repo(self.repo.folder)

    # Parts of the repo

    def _commits(self) -> list[Commit]:
        found = []
        for name in sorted(self._names(layout.snapshots_folder(self.cache, self.repo))):
            with contextlib.suppress(InvalidName):
                found.append(Commit.parse(name))
        return found

    def _remove_from_snapshot(self, commit: Commit, files: frozenset[FilePath]) -> set[str]:
        """Unlinks files of one snapshot, by default all. Returns the names of the blobs that they linked to."""
        snapshot = layout.snapshot_path(self.cache, self.repo, commit)
        if not os.path.lexists(snapshot):
            return set()
        there = self._names_below(snapshot)
        chosen = _by_folder(snapshot, files) if files else there
        if all(names <= chosen.get(place, set()) for place, names in there.items()):
            self._remove_refs({str(commit)})
        names: set[str] = set()
        with OpenFolders(self.cache) as kept:
            for place, in_it in chosen.items():
                names.update(filter(None, (self._unlink(kept, place, name) for name in in_it)))
        self._remove_folders(snapshot)
        if os.path.lexists(snapshot):
            inside = {place: place.relative_to(snapshot) for place in chosen if place != snapshot.parent}
            gone = ((at / name).as_posix() for place, at in inside.items() for name in chosen[place])
            self.catalog.drop_files(self.repo.folder, commit, gone)
        else:
            self.commits.append(str(commit))
            self.catalog.drop_revision(self.repo.folder, commit)
        return names

    def _remove_lists(self, commit: Commit) -> None:
        """Removes what lies in the repo's folder on a commit: the Hub client's notes and list, and the proof."""
        self._clear(layout.absences_path(self.cache, self.repo, commit))
        self._remove_file(layout.tree_path(self.cache, self.repo, commit))
        self._remove_file(layout.proof_path(self.cache, self.repo, commit))

    def _remove_refs(self, commits: set[str]) -> None:
        """Removes the refs to removed commits. The Hub client reports a repo with a ref to nothing as corrupt."""
        folder = layout.refs_folder(self.cache, self.repo)
        for path in self._files_below(folder) if commits and not folder.is_symlink() else ():
            with contextlib.suppress(InvalidName):
                ref = snapshots.read_ref(self.cache, self.repo, Revision.parse(path.relative_to(folder).as_posix()))
                if ref is not None and ref[0] in commits:
                    self._remove_file(path)
        self._remove_folders(folder)

    def remove_blobs(self, names: set[str]) -> None:
        """Removes the blobs of these names to which no snapshot links."""
        linked, folders = reading.linked_blobs(self.cache, self.repo)
        with OpenFolders(self.cache) as kept, contextlib.closing(self._held(kept, sorted(names - linked))) as groups:
            for group in groups:
                check_stop()
                # Read once the locks are held, with which a program links to a blob.
                if reading.folders_changed(folders):
                    linked, folders = reading.linked_blobs(self.cache, self.repo)
                self._forget([self._remove_blob(kept, blob) for name, blob in group.items() if name not in linked])

    def _held(self, kept: OpenFolders, names: Sequence[str]) -> Generator[dict[str, Path], None, None]:
        """Groups of blobs, by file name their paths, whose writers are kept out until the next group is taken: by the
        lock of their folder, and by the lock of a blob itself where there is one, or the folder cannot be locked.
        Notes blobs that a writer holds as busy."""
        blobs = layout.blobs_folder(self.cache, self.repo)
        for some in batches(names, TOGETHER):
            try:
                with folder_lock(kept, blobs, LOCK_SECONDS) as is_locked:
                    digests = dict(filter(None, map(_digest_of, some)))
                    alone = locked_ones(kept, self.repo, digests.values()) if is_locked else set(digests.values())
                    yield {name: blobs / name for name, digest in digests.items() if digest not in alone}
                    for group in batches((name for name in digests if digests[name] in alone), LOCKS_TOGETHER):
                        with contextlib.ExitStack() as locks:
                            yield {name: blobs / name for name in group if self._holds(locks, kept, digests[name])}
            except Locked:
                self.busy += [str(blobs / name) for name in some]

    def _holds(self, locks: contextlib.ExitStack, kept: OpenFolders, digest: Digest) -> bool:
        """Takes the lock of a blob, or notes the blob as busy."""
        try:
            locks.enter_context(etag_lock(self.cache, self.repo, digest, LOCK_SECONDS, kept))
        except Locked:
            self.busy.append(str(layout.blob_path(self.cache, self.repo, digest)))
            return False
        return True

    def _remove_blob(self, kept: OpenFolders, blob: Path) -> Path:
        """Removes a file in `blobs/`. After a link into the shared store, also its entry if no other link needs it.
        Returns its path."""
        entry = shared_store.entry_behind(blob) if blob.is_symlink() else None
        self.freed_bytes += self._remove_file(blob, kept)
        if entry is not None:
            self.freed_bytes += shared_store.sweep(self.cache, entry) or 0
        return blob

    def _forget(self, removed: Sequence[Path]) -> None:
        """Drops removed blobs from the catalog together, but none that another process has put there again."""
        self.catalog.drop_blobs(str(blob) for blob in removed if not os.path.lexists(blob))

    def _remove_rest(self) -> None:
        """Removes the rest of a repo without snapshots: blobs without links, unfinished downloads, notes of the Hub
        client. Other files stay, with their folders."""
        folder = layout.repo_folder(self.cache, self.repo)
        blobs = layout.blobs_folder(self.cache, self.repo)
        with OpenFolders(self.cache) as kept:
            for path in self._files_below(blobs):
                if path.parent not in (blobs, blobs.parent):
                    continue
                if path.name.endswith(UNFINISHED_SUFFIXES) and is_being_written(self.cache, self.repo, path):
                    self.busy.append(str(path))
                else:
                    self._remove_blob(kept, path)
        self._remove_folders(blobs)
        self._clear(layout.refs_folder(self.cache, self.repo))
        self._clear(folder / ".no_exist")
        for own in (folder / "trees", layout.proofs_folder(self.cache, self.repo)):
            self._clear(own, lambda path: path.suffix == ".json")
        self._clear(layout.snapshots_folder(self.cache, self.repo), lambda path: False)
        self._clear(folder, lambda path: path.parent == folder and path.name.endswith(snapshots.ASIDE_SUFFIX))
        self.left += [
            str(path.resolve()) for path in self._files_below(folder) if path != folder and str(path) not in self.busy
        ]
        if folder.is_symlink():
            with contextlib.suppress(OSError):
                folder.resolve().rmdir()
            folder.unlink()
        self.catalog.drop_repo(self.repo.folder)

    # Names, folders, files: never through a link

    def _names(self, folder: Path) -> list[str]:
        """The names in a folder; none if it does not exist or is a link."""
        try:
            with opened(self.cache, folder) as inside:
                return [path.name for path in inside.iterdir()]
        except (FileNotFoundError, NotADirectoryError, BrokenCache):
            return []

    def _folders(self, folder: Path) -> dict[Path, set[str]]:
        """A folder and all folders below it, the outer ones first, with the names in each that are no folders; none if
        it does not exist or is a link."""
        found: dict[Path, set[str]] = {}
        stack = [folder]
        while stack:
            place = stack.pop()
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError, BrokenCache),
                opened(self.cache, place) as at,
            ):
                names = found[place] = set()
                with os.scandir(at) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(place / entry.name)
                        else:
                            names.add(entry.name)
        return found

    def _names_below(self, folder: Path) -> dict[Path, set[str]]:
        """By folder: the names of everything below a folder that is no folder; for a link, only the link itself."""
        if folder.is_symlink() and folder != layout.repo_folder(self.cache, self.repo):
            return {folder.parent: {folder.name}}
        return self._folders(folder)

    def _files_below(self, folder: Path) -> list[Path]:
        """The same as paths."""
        return [place / name for place, names in self._names_below(folder).items() for name in names]

    def _clear(self, folder: Path, is_ours: Callable[[Path], bool] = lambda path: True) -> None:
        """Removes the files below a folder for which `is_ours` holds, and the folders that are empty then."""
        for path in self._files_below(folder):
            if path == folder or is_ours(path):
                self._remove_file(path)
        self._remove_folders(folder)

    def _unlink(self, kept: OpenFolders, folder: Path, name: str) -> str | None:
        """Removes an entry of a folder of a snapshot. Returns the name of the blob that it linked to; None for a
        regular file, whose bytes are freed."""
        check_stop()
        blob = None
        try:
            at = kept.fd(folder)
            with contextlib.suppress(OSError):
                blob = os.readlink(name, dir_fd=at).rpartition("/")[2]
            freed_bytes = _removed_bytes(name, at)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self.files += 1
        self.freed_bytes += freed_bytes
        return blob

    def _remove_file(self, path: Path, kept: OpenFolders | None = None) -> int:
        """Removes a file if it exists and is not behind a link. Returns the number of bytes freed. `kept` keeps its
        folder open between many files."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, BrokenCache):
            if kept is not None:
                return _removed_bytes(path.name, kept.fd(path.parent))
            with OpenFolders(self.cache) as folders:
                return _removed_bytes(path.name, folders.fd(path.parent))
        return 0

    def _remove_folders(self, folder: Path) -> None:
        """Removes a folder and the folders below it, as far as they are empty."""
        for place in reversed(self._folders(folder).keys()):
            with contextlib.suppress(OSError, BrokenCache), opened(self.cache, place.parent) as around:
                (around / place.name).rmdir()


def is_being_written(cache: Path, repo: RepoId, path: Path) -> bool:
    """Whether a tool works on an unfinished download now: it holds the Hub client's lock, or has the file open."""
    lock = cache / layout.LOCKS / repo.folder / f"{etag_of(str(path))}.lock"
    return is_held(lock) or is_written(path) is True


def _removed_bytes(name: str, folder_fd: int) -> int:
    """Removes a name from a folder. Returns the bytes that this frees: 0 for a link, and for a file with another
    name."""
    facts = os.lstat(name, dir_fd=folder_fd)
    os.unlink(name, dir_fd=folder_fd)
    return facts.st_size if facts.st_nlink == 1 and not stat.S_ISLNK(facts.st_mode) else 0


def _by_folder(top: Path, paths: Iterable[FilePath]) -> dict[Path, set[str]]:
    """By folder: the names of files below `top`."""
    found: dict[Path, set[str]] = {}
    for path in paths:
        inner, _, name = path.rpartition("/")
        found.setdefault(top / inner, set()).add(name)
    return found


def _digest_of(name: str) -> tuple[str, Digest] | None:
    """The name of a blob's file, and its digest; None for any other name."""
    with contextlib.suppress(InvalidName):
        return name, Digest.from_etag(name)
    return None
