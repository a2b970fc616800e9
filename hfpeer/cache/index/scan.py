"""Reads the cache from the disk and brings the catalog up to date: other tools write there too, and a catalog may be
lost.

It reads names, links and stats, never the bytes of a blob, so blobs that it finds are unverified. It changes nothing
on the disk, and ignores unfinished downloads, files of other programs and broken repos.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.access import why_unreadable
from hfpeer.cache.disk.mounts import inode_of
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.schema import BlobRow, FileRow, RefRow, RevisionRow
from hfpeer.cache.manifests import Manifests
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.system.cancellation import check_stop
from hfpeer.trust.precedence import is_newer

log = logging.getLogger(__name__)

SETTLED_SECONDS = 2.0
"""Seconds after its last change before the mtime of a folder counts. A folder may change twice within one mtime."""
TRIES = 5
"""Reads of a repo in which a removal runs meanwhile."""
ListedFiles = dict[FilePath, tuple[Digest, int]]


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


@dataclass
class RepoOnDisk:
    """One repo on the disk. `folders` has the mtimes in nanoseconds of all its folders by path; 0 for one that changed
    less than SETTLED_SECONDS ago."""

    blobs: dict[str, BlobRow] = field(default_factory=dict)
    files: dict[Commit, dict[str, FileRow]] = field(default_factory=dict)
    refs: dict[str, tuple[Commit, float]] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)


def see_blob(cache: Path, path: Path | str, digest: Digest) -> BlobRow | None:
    """A row for the regular file at `path`, with nothing known of its bytes; None if there is none."""
    try:
        facts = os.stat(path)  # noqa: PTH116  a Path for each of many files takes longer
    except (OSError, ValueError):
        return None
    return row_of(str(cache), str(path), str(digest), facts) if stat.S_ISREG(facts.st_mode) else None


def row_of(
    cache: str,
    path: str,
    digest: str,
    facts: os.stat_result,
    verified_at: float | None = None,
    *,
    is_given: bool = False,
) -> BlobRow:
    """A row for a regular file. Without `verified_at` nothing is known of its bytes."""
    return BlobRow(
        path,
        path.removeprefix(f"{cache}{os.sep}").split(os.sep, 1)[0] or os.sep,
        digest,
        facts.st_size,
        facts.st_mtime_ns,
        inode_of(facts),
        verified_at,
        is_given=is_given,
        ctime_ns=ctime_of_link(facts),
        cache=cache,
    )


def stamp_of(facts: os.stat_result) -> tuple[int, int, int, int]:
    """The facts of a file that a row holds for; see `BlobRow.stamp`."""
    return facts.st_size, facts.st_mtime_ns, inode_of(facts), ctime_of_link(facts)


def ctime_of_link(facts: os.stat_result) -> int:
    """The ctime in nanoseconds of a read-only file with several names, 0 for any other file.

    Such a file may have a name outside the cache (`linking.HardLinks.READ_ONLY`), where another program can write to it
    and set its mtime back. Its ctime, which no program can set, then tells of the write.
    """
    is_link = facts.st_nlink > 1 and not facts.st_mode & 0o222
    return facts.st_ctime_ns if is_link else 0


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
    known, is_proved, is_possible = listing(cache, manifests, repo, commit)

    def to_row(files: int, size_bytes: int, before: RevisionRow | None) -> RevisionRow:
        last_used_at = before.used_at if before is not None else _used_at(layout.snapshot_path(cache, repo, commit))
        is_complete = (
            None if known is None else is_possible and _has_all(catalog, str(cache), repo, commit, known, files)
        )
        return RevisionRow(
            repo.folder,
            commit,
            files,
            size_bytes,
            is_complete,
            is_proved,
            last_used_at if used_at is None else used_at,
            str(cache),
        )

    catalog.sum_up(repo.folder, commit, str(cache), to_row)


def _has_all(catalog: Catalog, cache: str, repo: RepoId, commit: Commit, known: ListedFiles, files: int) -> bool:
    """Whether every listed file is here with its size."""
    if files < len(known):
        return False
    sizes = {row.path: row.size_bytes for row in catalog.files(repo.folder, commit, cache)}
    return all(sizes.get(path) == size_bytes for path, (_, size_bytes) in known.items())


def _used_at(snapshot: Path) -> float:
    try:
        return snapshot.stat().st_mtime
    except OSError:
        return time.time()


def read_repo(
    cache: Path, repo: RepoId, listing_of: Callable[[Commit], ListedFiles | None], now: float | None = None
) -> RepoOnDisk:
    """Reads one repo. `listing_of` returns the listing of a commit; it is called only for snapshots with regular
    files."""
    found = RepoOnDisk()
    settled_ns = int(((time.time() if now is None else now) - SETTLED_SECONDS) * 1e9)
    by_name = {}
    for entry in _entries(layout.blobs_folder(cache, repo), found, settled_ns):
        check_stop()
        row = _read_blob(cache, entry)
        if row is not None:
            found.blobs[row.path] = by_name[entry.name] = row
    for entry in _entries(layout.snapshots_folder(cache, repo), found, settled_ns):
        commit = _commit(entry.name)
        if commit is not None and entry.is_dir(follow_symlinks=False):
            found.files[commit] = _read_snapshot(
                cache, commit, Path(entry.path), found, by_name, listing_of, settled_ns
            )
    for name, entry in _walk(layout.refs_folder(cache, repo), found, settled_ns):
        ref = _read_ref(cache, repo, name)
        if ref is not None and entry.is_file(follow_symlinks=False):
            found.refs[name] = ref
    _note_folder(cache / repo.folder / "trees", found, settled_ns)
    _note_folder(layout.proofs_folder(cache, repo), found, settled_ns)
    return found


def _read_blob(cache: Path, entry: os.DirEntry[str]) -> BlobRow | None:
    try:
        return see_blob(cache, Path(entry.path), Digest.parse(f"{_ALGORITHMS[len(entry.name)]}:{entry.name}"))
    except (KeyError, InvalidName):
        return None


_ALGORITHMS = {40: "git-sha1", 64: "sha256"}


def _read_snapshot(
    cache: Path,
    commit: Commit,
    folder: Path,
    found: RepoOnDisk,
    by_name: dict[str, BlobRow],
    listing_of: Callable[[Commit], ListedFiles | None],
    settled_ns: int,
) -> dict[str, FileRow]:
    rows: dict[str, FileRow] = {}
    real: list[tuple[str, Path]] = []
    for name, entry in _walk(folder, found, settled_ns):
        blob = None
        with contextlib.suppress(OSError):  # a link that cannot be read counts as no link; a removal raises instead
            blob = by_name.get(_linked_name(entry)) if entry.is_symlink() else None
        if blob is not None:
            rows[name] = FileRow(name, blob.digest, blob.size_bytes)
        else:
            real.append((name, Path(entry.path)))
    known = (listing_of(commit) or {}) if real else {}
    for name, path in real:
        row = _read_real_file(cache, name, path, known, found)
        if row is not None:
            rows[name] = row
    return rows


def _linked_name(link: os.DirEntry[str]) -> str:
    return os.readlink(link.path).rpartition("/")[2]  # noqa: PTH115 - ten thousand of these


def _read_real_file(cache: Path, name: str, path: Path, known: ListedFiles, found: RepoOnDisk) -> FileRow | None:
    """A file that is no link to a blob of this repo: its digest is known only from a listing."""
    digest, size_bytes = known.get(FilePath(name), (None, 0))
    if digest is None:
        try:
            return FileRow(name, None, path.stat().st_size)
        except OSError:
            return None
    blob = see_blob(cache, path, digest)
    if blob is None or blob.size_bytes != size_bytes:
        return None if blob is None else FileRow(name, None, blob.size_bytes)
    found.blobs[blob.path] = blob
    return FileRow(name, str(digest), size_bytes)


def _read_ref(cache: Path, repo: RepoId, name: str) -> tuple[Commit, float] | None:
    try:
        return snapshots.read_ref(cache, repo, Revision.parse(name))
    except InvalidName:
        return None


def _commit(name: str) -> Commit | None:
    try:
        return Commit.parse(name)
    except InvalidName:
        return None


def _walk(folder: Path, found: RepoOnDisk, settled_ns: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below `folder`, with its path, if a repo may have that path. Links to folders count as files."""
    stack = [("", folder)]
    while stack:
        prefix, place = stack.pop()
        for entry in _entries(place, found, settled_ns):
            check_stop()
            if entry.is_dir(follow_symlinks=False):
                stack.append((f"{prefix}{entry.name}/", Path(entry.path)))
            elif _is_safe(entry.name):
                yield prefix + entry.name, entry


def _is_safe(name: str) -> bool:
    try:
        FilePath.parse(name)
    except InvalidName:
        return False
    return not name.endswith(".incomplete")


def _entries(folder: Path, found: RepoOnDisk, settled_ns: int) -> list[os.DirEntry[str]]:
    """The entries of a folder, after noting its mtime; none if it cannot be read."""
    _note_folder(folder, found, settled_ns)
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _note_folder(folder: Path, found: RepoOnDisk, settled_ns: int) -> None:
    mtime_ns = _mtime_ns(folder)
    found.folders[str(folder)] = mtime_ns if mtime_ns < settled_ns else 0


def _mtime_ns(folder: Path | str) -> int:
    """The mtime of a folder; -1 if it does not exist, so that creating it is a change."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return -1


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

    def _repos(self) -> tuple[list[RepoId], tuple[str, ...], tuple[str, ...]]:
        repos, skipped, closed = [], [], []
        for entry in sorted(_entries(self._cache, RepoOnDisk(), 0), key=lambda entry: entry.name):
            try:
                repo = RepoId.from_folder(entry.name)
            except InvalidName:
                continue
            folder = self._cache / repo.folder
            try:
                is_repo = stat.S_ISDIR((folder / "snapshots").stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                is_repo = False
            except OSError as error:
                skipped.append(f"{entry.name}: {error.strerror}")
                closed.append(f"{folder} is passed over: {why_unreadable(folder, error)[0]}.")
                _tell_once(closed[-1])
                continue
            if is_repo:
                repos.append(repo)
            else:
                skipped.append(f"{entry.name}: no snapshots")
        return repos, tuple(skipped), tuple(closed)

    def _scan(self, repo: RepoId, folders: str | None, checks_blobs: bool) -> ScanResult:
        if folders is not None and _is_unchanged(folders) and not (checks_blobs and self._has_changed_blob(repo)):
            rows = self._catalog.revisions(repo.folder, cache=self._key)
            return ScanResult(1, 0, len(rows), sum(row.files for row in rows))
        for _ in range(TRIES):
            removals = self._removals()
            found = read_repo(self._cache, repo, lambda commit: self._listing(repo, commit))
            if removals == self._removals():
                break
        is_changed = self._apply(repo, found)
        self._catalog.set_folders(repo.folder, json.dumps(found.folders), self._key)
        return ScanResult(1, int(is_changed), len(found.files), sum(map(len, found.files.values())))

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
        known = {row.path: row for row in self._catalog.blobs_of_repo(repo.folder, self._key)}
        fresh = [row for path, row in found.blobs.items() if path not in known or _differs(row, known[path])]
        gone = [path for path in known if path not in found.blobs and _is_gone(Path(path))]
        self._catalog.put_found_blobs(fresh)
        self._catalog.drop_blobs(gone)
        return bool(fresh or gone)

    def _apply_files(self, repo: RepoId, commit: Commit, files: dict[str, FileRow]) -> bool:
        known = {row.path: row for row in self._catalog.files(repo.folder, commit, self._key)}
        place = layout.snapshot_path(self._cache, repo, commit)
        fresh = [row for path, row in files.items() if known.get(path) != row]
        gone = [path for path in known if path not in files and _is_gone(place / path)]
        self._catalog.put_files(repo.folder, commit, fresh, self._key)
        self._catalog.drop_files(repo.folder, commit, gone, self._key)
        before = self._catalog.revisions(repo.folder, commit, self._key)
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
        paths = [row.path for row in self._catalog.blobs_of_repo(folder, self._key)]
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


def _is_gone(path: Path) -> bool:
    """Whether a path no longer exists. A path that may not be read is not gone."""
    try:
        path.stat()
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
    return all(mtime_ns != 0 and _mtime_ns(folder) == mtime_ns for folder, mtime_ns in times.items())


def _differs(found: BlobRow, known: BlobRow) -> bool:
    return replace(known, verified_at=None, is_corrupt=False, is_given=False) != found


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


def linked_blobs(cache: Path, repo: RepoId) -> tuple[set[str], dict[str, int]]:
    """The names of all blobs that a snapshot of the repo links to, and the mtimes of the folders that were read."""
    found = RepoOnDisk()
    linked: set[str] = set()
    for commit in _entries(layout.snapshots_folder(cache, repo), found, 1 << 63):
        linked.update(_links_below(Path(commit.path), found))
    return linked, found.folders


def _links_below(folder: Path, found: RepoOnDisk) -> Iterable[str]:
    for _, entry in _walk(folder, found, 1 << 63):
        if entry.is_symlink():
            yield _linked_name(entry)


def folders_changed(folders: dict[str, int]) -> bool:
    """Whether one of the folders has another mtime by now."""
    return any(_mtime_ns(folder) != mtime_ns for folder, mtime_ns in folders.items())
