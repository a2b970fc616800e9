"""Brings the catalog up to date with one cache folder, repo by repo: other tools write there too, and a catalog may be
lost."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.access import why_unreadable
from hfpeer.cache.disk.same_names import reaches_another
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.scan import reading
from hfpeer.cache.index.scan.counting import ListedFiles, listing, sum_up
from hfpeer.cache.index.scan.reading import FilesOnDisk, Folders, RepoOnDisk, mtime_of
from hfpeer.cache.index.scan.seeing import stamp_of
from hfpeer.cache.index.schema import RefRow
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, RepoId
from hfpeer.system.cancellation import check_stop
from hfpeer.trust.precedence import is_newer

log = logging.getLogger(__name__)

TRIES = 5
"""Reads of a repo in which a removal runs meanwhile."""


@dataclass(frozen=True)
class ScanResult:
    """The counts of a scan: repos, changed repos, snapshots and their files; and the folders that it skipped, each with
    the reason. `closed` are sentences on repos that this user may not read."""

    repos: int = 0
    changed_repos: int = 0
    revisions: int = 0
    files: int = 0
    seconds: float = 0.0
    skipped: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


class Scanner:
    """Brings a catalog up to date with one cache folder, repo by repo.

    `removals` counts the removals of this process. If the count grows while a repo is read, the repo is read again, so
    that nothing removed comes back. `is_published` tells the commits that this node published: their ref files are no
    answers of a hub.
    """

    def __init__(
        self,
        cache: Path,
        catalog: Catalog,
        manifests: Manifests,
        removals: Callable[[], int],
        is_published: Callable[[RepoId, Commit], bool],
    ) -> None:
        self._cache = cache
        self._key = str(cache)
        self._catalog = catalog
        self._manifests = manifests
        self._removals = removals
        self._is_published = is_published

    def scan_all(self, on_batch: Callable[[int], None] | None = None, *, checks_blobs: bool = False) -> ScanResult:
        """Scans every repo; `on_batch` is called after each with the number of files scanned. `checks_blobs`: reads a
        repo anew also if only a blob has another size or mtime, which changes no folder."""
        began, result = time.monotonic(), ScanResult()
        repos, skipped, closed = self._repos()
        known = self._catalog.repos(self._key)
        for repo in repos:
            check_stop()
            result = added(result, self._scan(repo, known.get(repo.folder), checks_blobs))
            if on_batch is not None:
                on_batch(result.files)
        gone = (known.keys() | {row.repo for row in self._catalog.revisions(cache=self._key)}) - {
            repo.folder for repo in repos
        }
        for folder in gone:
            result = replace(result, changed_repos=result.changed_repos + self._forget(folder))
        if result.changed_repos:
            self._catalog.bump()
        return replace(result, seconds=time.monotonic() - began, skipped=skipped, closed=closed)

    def scan_one(self, repo: RepoId, *, checks_blobs: bool = False) -> ScanResult:
        """Scans one repo."""
        began = time.monotonic()
        result = self._scan(repo, self._catalog.repos(self._key).get(repo.folder), checks_blobs)
        if result.changed_repos:
            self._catalog.bump()
        return replace(result, seconds=time.monotonic() - began)

    def scan_revisions(self, repo: RepoId) -> ScanResult:
        """Scans one repo if a snapshot has come or gone. What other tools changed inside of one is not noticed."""
        known = {row.commit for row in self._catalog.revisions(repo.folder, cache=self._key)}
        with Folders().entries(layout.snapshots_folder(self._cache, repo)) as (_, entries):
            names = {entry.name for entry in entries}
        return ScanResult() if names == known else self.scan_one(repo)

    def _repos(self) -> tuple[list[RepoId], tuple[str, ...], tuple[str, ...]]:
        repos, skipped, closed = [], [], []
        with Folders().entries(self._cache) as (_, entries):
            names = sorted(entry.name for entry in entries)
        for name in names:
            try:
                repo = RepoId.from_folder(name)
            except InvalidName:
                continue
            folder = self._cache / repo.folder
            try:
                is_repo = stat.S_ISDIR((folder / "snapshots").stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                is_repo = False
            except OSError as error:
                skipped.append(f"{name}: {error.strerror}")
                closed.append(f"{folder} is passed over: {why_unreadable(folder, error)[0]}.")
                _tell_once(closed[-1])
                continue
            if is_repo:
                repos.append(repo)
            else:
                skipped.append(f"{name}: no snapshots")
        return repos, tuple(skipped), tuple(closed)

    def _scan(self, repo: RepoId, folders: str | None, checks_blobs: bool) -> ScanResult:
        if folders is not None and _is_unchanged(folders) and not (checks_blobs and self._has_changed_blob(repo)):
            rows = self._catalog.revisions(repo.folder, cache=self._key)
            return ScanResult(1, 0, len(rows), sum(row.files for row in rows))
        for _ in range(TRIES):
            removals = self._removals()
            found = self._read(repo)
            if removals == self._removals():
                break
        is_changed = self._apply(repo, found)
        self._catalog.set_folders(repo.folder, json.dumps(found.folders), self._key)
        return ScanResult(1, int(is_changed), len(found.files), sum(files.count for files in found.files.values()))

    def _read(self, repo: RepoId) -> RepoOnDisk:
        if reaches_another(self._cache, repo.folder):
            return RepoOnDisk()  # the folder is that of another repo
        return reading.read_repo(
            self._cache,
            repo,
            self._catalog.stamps_at,
            lambda commit, paths: self._catalog.files_at(repo.folder, commit, self._key, paths),
            lambda commit: self._listing(repo, commit),
        )

    def _has_changed_blob(self, repo: RepoId) -> bool:
        """Whether a blob is another file than the one that the catalog knows, by its stamp."""
        for path, stamp in self._catalog.stamps_of_repo(repo.folder, self._key):
            check_stop()
            try:
                facts = os.stat(path)  # noqa: PTH116  a Path for each of many blobs takes longer
            except (OSError, ValueError):
                return True
            if not stat.S_ISREG(facts.st_mode) or stamp_of(facts) != stamp:
                return True
        return False

    def _apply(self, repo: RepoId, found: RepoOnDisk) -> bool:
        """Records the differences. Returns whether there were any."""
        is_changed = self._apply_blobs(repo, found)
        for commit, files in found.files.items():
            is_changed |= self._apply_files(repo, commit, files)
        for row in self._catalog.revisions(repo.folder, cache=self._key):
            if row.commit not in found.files and _is_gone(self._cache / repo.folder / "snapshots" / row.commit):
                self._catalog.drop_revision(repo.folder, row.commit, self._key)
                is_changed = True
        return self._apply_refs(repo, found) or is_changed

    def _apply_blobs(self, repo: RepoId, found: RepoOnDisk) -> bool:
        gone = []
        if self._catalog.count_blobs(repo.folder, self._key) > found.known_blobs:
            gone = [path for path, _ in self._catalog.stamps_of_repo(repo.folder, self._key) if _is_gone(path)]
        self._catalog.put_found_blobs(found.fresh_blobs)
        self._catalog.drop_blobs(gone)
        return bool(found.fresh_blobs or gone)

    def _apply_files(self, repo: RepoId, commit: Commit, files: FilesOnDisk) -> bool:
        place = layout.snapshot_path(self._cache, repo, commit)
        gone = []
        if self._catalog.count_files(repo.folder, commit, self._key) > files.known:
            known = self._catalog.sizes(repo.folder, commit, self._key)
            gone = [path for path in known if _is_gone(f"{place}{os.sep}{path}")]
        self._catalog.put_files(repo.folder, commit, files.fresh, self._key)
        self._catalog.drop_files(repo.folder, commit, gone, self._key)
        before = self._catalog.revisions(repo.folder, commit, self._key)
        if before and before[0].is_complete and before[0].files == files.count and not (files.fresh or gone):
            return False
        sum_up(self._cache, self._catalog, self._manifests, repo, commit)
        return self._catalog.revisions(repo.folder, commit, self._key) != before

    def _apply_refs(self, repo: RepoId, found: RepoOnDisk) -> bool:
        known = {row.name: row for row in self._catalog.refs(repo.folder)}
        fresh = [
            RefRow(repo.folder, name, commit, changed_at, "cache")
            for name, (commit, changed_at) in found.refs.items()
            if changed_at != snapshots.TOLD_REF_AT
            and (name not in known or is_overwritten(known[name], commit, changed_at))
        ]
        fresh = [row for row in fresh if not self._is_published(repo, Commit(row.commit))]
        self._catalog.put_refs(fresh)
        return bool(fresh)

    def _listing(self, repo: RepoId, commit: Commit) -> ListedFiles | None:
        return listing(self._cache, self._manifests, repo, commit)[0]

    def _forget(self, folder: str) -> int:
        """Removes a repo that is gone from the catalog, but not the facts on its visibility. Returns 1 if it did."""
        paths = [path for path, _ in self._catalog.stamps_of_repo(folder, self._key)]
        revisions = self._catalog.revisions(folder, cache=self._key)
        if not _is_gone(self._cache / folder / "snapshots") or not (paths or revisions):
            return 0
        self._catalog.drop_blobs(paths)
        for row in revisions:
            self._catalog.drop_revision(folder, row.commit, self._key)
        self._catalog.set_folders(folder, None, self._key)
        return 1


def is_overwritten(known: RefRow, commit: Commit, changed_at: float, now: float | None = None) -> bool:
    """Whether another tool wrote `commit` to a ref after the known answer was given.

    An answer from the future, by a wrong clock, counts as older: else it would win until then.
    """
    now = time.time() if now is None else now
    is_from_future = known.resolved_at > now
    return known.commit != commit and (is_from_future or is_newer(changed_at, known.resolved_at, now))


def _is_gone(path: Path | str) -> bool:
    """Whether a path no longer exists. A path that may not be read is not gone."""
    try:
        os.stat(path)  # noqa: PTH116  a Path for each of many files takes longer
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


_told: set[str] = set()


def _tell_once(sentence: str) -> None:
    """Logs that a folder is passed over, once in the life of this process: a daemon scans all the time."""
    if sentence not in _told:
        _told.add(sentence)
        log.info("%s", sentence)


def _is_unchanged(folders: str) -> bool:
    times: dict[str, int] = json.loads(folders)
    return all(mtime_ns != 0 and mtime_of(folder) == mtime_ns for folder, mtime_ns in times.items())


def added(total: ScanResult, one: ScanResult) -> ScanResult:
    """The counts of two scans together."""
    return ScanResult(
        total.repos + one.repos,
        total.changed_repos + one.changed_repos,
        total.revisions + one.revisions,
        total.files + one.files,
        total.seconds + one.seconds,
        (*total.skipped, *one.skipped),
        (*total.closed, *one.closed),
    )
