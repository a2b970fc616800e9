"""Reads one repo from the disk, and tells what differs from what the catalog knows.

It changes nothing on the disk, and ignores unfinished downloads, files of other programs and broken repos. A repo may
have a hundred thousand files: for each that is as it was known, no object stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.disk import layout
from hfpeer.cache.index.scan.counting import ListedFiles
from hfpeer.cache.index.scan.seeing import row_of, stamp_of
from hfpeer.cache.index.schema import BlobRow, FileRow
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, FilePath, RepoId, Revision, path_problem
from hfpeer.system.cancellation import check_stop

SETTLED_SECONDS = 2.0
"""Seconds after its last change before the mtime of a folder counts. A folder may change twice within one mtime."""
_ETAG = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass
class FilesOnDisk:
    """The files of a snapshot: rows that are new or have changed, their number, and how many of them were known."""

    fresh: list[FileRow] = field(default_factory=list)
    count: int = 0
    known: int = 0


@dataclass
class RepoOnDisk:
    """One repo on the disk. Of its blobs: rows that are new or have changed, and how many were known. `folders` has the
    mtimes in nanoseconds of all its folders by path; 0 for one that changed less than SETTLED_SECONDS ago."""

    fresh_blobs: list[BlobRow] = field(default_factory=list)
    known_blobs: int = 0
    files: dict[Commit, FilesOnDisk] = field(default_factory=dict)
    refs: dict[str, tuple[Commit, float]] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)


COMPARED_TOGETHER = 2000
"""Files that are compared with the catalog together. More at a time would take memory."""
Stamps = Mapping[str, tuple[str, tuple[int, int, int, int]]]
"""By path: the digest and the `BlobRow.stamp` of blobs."""


def read_repo(
    cache: Path,
    repo: RepoId,
    known_blobs: Callable[[Sequence[str]], Stamps],
    known_files: Callable[[Commit, Sequence[str]], Mapping[str, FileRow]],
    listing_of: Callable[[Commit], ListedFiles | None],
    now: float | None = None,
) -> RepoOnDisk:
    """Reads one repo. `known_blobs` and `known_files` tell what the catalog knows at paths, of blobs and in a snapshot.
    `listing_of` returns the listing of a commit; it is called only for snapshots with regular files."""
    settled_ns = int(((time.time() if now is None else now) - SETTLED_SECONDS) * 1e9)
    return _Reading(cache, repo, known_blobs, known_files, listing_of, settled_ns).run()


class _Reading:
    def __init__(
        self,
        cache: Path,
        repo: RepoId,
        known_blobs: Callable[[Sequence[str]], Stamps],
        known_files: Callable[[Commit, Sequence[str]], Mapping[str, FileRow]],
        listing_of: Callable[[Commit], ListedFiles | None],
        settled_ns: int,
    ) -> None:
        self._cache = cache
        self._repo = repo
        self._known_blobs = known_blobs
        self._known_files = known_files
        self._listing_of = listing_of
        self._folders = Folders(settled_ns)
        self._found = RepoOnDisk(folders=self._folders.mtimes)
        self._sizes: dict[str, int] = {}
        """By file name: the bytes of each blob in `blobs/`."""
        self._seen: dict[str, tuple[str, os.stat_result]] = {}
        """By path: blobs that are not compared yet."""

    def run(self) -> RepoOnDisk:
        self._read_blobs()
        with self._folders.entries(layout.snapshots_folder(self._cache, self._repo)) as (_, entries):
            commits = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in commits:
            commit = _commit(name)
            if commit is not None:
                self._found.files[commit] = self._read_snapshot(commit)
        self._compare_blobs()
        self._read_refs()
        self._folders.note(self._cache / self._repo.folder / "trees")
        self._folders.note(layout.proofs_folder(self._cache, self._repo))
        return self._found

    def _read_blobs(self) -> None:
        folder = layout.blobs_folder(self._cache, self._repo)
        with self._folders.entries(folder) as (_, entries):
            for entry in entries:
                check_stop()
                if _ETAG.fullmatch(entry.name) is None:
                    continue
                try:
                    facts = entry.stat()
                except OSError:
                    continue
                if stat.S_ISREG(facts.st_mode):
                    self._sizes[entry.name] = facts.st_size
                    self._take_blob(f"{folder}{os.sep}{entry.name}", _digest(entry.name), facts)

    def _take_blob(self, path: str, digest: str, facts: os.stat_result) -> None:
        self._seen[path] = (digest, facts)
        if len(self._seen) == COMPARED_TOGETHER:
            self._compare_blobs()

    def _compare_blobs(self) -> None:
        known = self._known_blobs(list(self._seen))
        self._found.known_blobs += len(known)
        for path, (digest, facts) in self._seen.items():
            if known.get(path) != (digest, stamp_of(facts)):
                self._found.fresh_blobs.append(row_of(str(self._cache), path, digest, facts))
        self._seen.clear()

    def _read_snapshot(self, commit: Commit) -> FilesOnDisk:
        found = FilesOnDisk()
        rows = self._rows(commit)
        while seen := {row.path: row for row in islice(rows, COMPARED_TOGETHER)}:
            known = self._known_files(commit, list(seen))
            found.count += len(seen)
            found.known += len(known)
            found.fresh += (row for path, row in seen.items() if known.get(path) != row)
        return found

    def _rows(self, commit: Commit) -> Iterator[FileRow]:
        """The files of a snapshot."""
        real: list[str] = []
        top = layout.snapshot_path(self._cache, self._repo, commit)
        for path, entry, folder_fd in self._folders.files_below(top):
            linked = None
            with contextlib.suppress(OSError):  # a link that cannot be read counts as no link; a removal raises instead
                linked = _linked_name(entry, folder_fd) if entry.is_symlink() else None
            size_bytes = None if linked is None else self._sizes.get(linked)
            if linked is None or size_bytes is None:
                real.append(path)
            else:
                yield FileRow(path, _digest(linked), size_bytes)
        listed = (self._listing_of(commit) or {}) if real else {}
        for path in real:
            row = self._read_real_file(top / path, path, listed)
            if row is not None:
                yield row

    def _read_real_file(self, place: Path, path: str, listed: ListedFiles) -> FileRow | None:
        """A file that is no link to a blob of this repo: its digest is known only from a listing."""
        digest, size_bytes = listed.get(FilePath(path), (None, 0))
        try:
            facts = place.stat()
        except (OSError, ValueError):
            return None
        if digest is None or not stat.S_ISREG(facts.st_mode) or facts.st_size != size_bytes:
            is_no_file = digest is not None and not stat.S_ISREG(facts.st_mode)
            return None if is_no_file else FileRow(path, None, facts.st_size)
        self._take_blob(str(place), digest, facts)
        return FileRow(path, str(digest), size_bytes)

    def _read_refs(self) -> None:
        for name, entry, _ in self._folders.files_below(layout.refs_folder(self._cache, self._repo)):
            if not entry.is_file(follow_symlinks=False):
                continue
            try:
                ref = snapshots.read_ref(self._cache, self._repo, Revision.parse(name))
            except InvalidName:
                continue
            if ref is not None:
                self._found.refs[name] = ref


def _digest(name: str) -> str:
    """The digest of a blob, by its file name."""
    return f"git-sha1:{name}" if len(name) == 40 else f"sha256:{name}"


class Folders:
    """Reads folders, and notes the mtime of each in nanoseconds before it is read; 0 for one that changed after
    `settled_ns`."""

    def __init__(self, settled_ns: int = 1 << 63) -> None:
        self._settled_ns = settled_ns
        self.mtimes: dict[str, int] = {}

    def note(self, folder: Path) -> None:
        mtime_ns = mtime_of(folder)
        self.mtimes[str(folder)] = mtime_ns if mtime_ns < self._settled_ns else 0

    @contextmanager
    def entries(self, folder: Path) -> Iterator[tuple[int, Iterator[os.DirEntry[str]]]]:
        """The descriptor of a folder and its entries; none if it cannot be read."""
        self.note(folder)
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            yield -1, iter(())
            return
        try:
            with os.scandir(fd) as entries:
                yield fd, entries
        finally:
            os.close(fd)

    def files_below(self, top: Path) -> Iterator[tuple[str, os.DirEntry[str], int]]:
        """Every file below a folder that a repo may have: its path, its entry, and the descriptor of its folder. Links
        to folders count as files."""
        waiting = [("", top)]
        while waiting:
            prefix, place = waiting.pop()
            with self.entries(place) as (fd, entries):
                for entry in entries:
                    check_stop()
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{entry.name}/", place / entry.name))
                    elif _is_safe(entry.name):
                        yield prefix + entry.name, entry, fd


def _linked_name(link: os.DirEntry[str], folder_fd: int) -> str:
    return os.readlink(link.name, dir_fd=folder_fd).rpartition("/")[2]


def linked_blobs(cache: Path, repo: RepoId) -> tuple[set[str], dict[str, int]]:
    """The names of all blobs that a snapshot of the repo links to, and the mtimes of the folders that were read."""
    folders = Folders()
    linked: set[str] = set()
    for _, entry, folder_fd in folders.files_below(layout.snapshots_folder(cache, repo)):
        if entry.is_symlink():
            linked.add(_linked_name(entry, folder_fd))
    return linked, folders.mtimes


def folders_changed(folders: Mapping[str, int]) -> bool:
    """Whether one of the folders has another mtime by now."""
    return any(mtime_of(folder) != mtime_ns for folder, mtime_ns in folders.items())


def mtime_of(folder: Path | str) -> int:
    """The mtime of a folder in nanoseconds; -1 if it does not exist, so that creating it is a change."""
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116  a repo may have as many folders as files
    except OSError:
        return -1


def _commit(name: str) -> Commit | None:
    try:
        return Commit.parse(name)
    except InvalidName:
        return None


def _is_safe(name: str) -> bool:
    """Whether a file of a repo may have this name."""
    return not name.endswith(".incomplete") and (name.isascii() or path_problem(name) is None)
