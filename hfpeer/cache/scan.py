"""What the cache holds, read from the disk: for what other tools put there or took away, and after a lost catalogue.

It reads names, links and stats and never a blob's bytes, so what it finds is unverified. It changes nothing on the
disk, and what it does not understand it leaves out: unfinished downloads, foreign files, broken repos.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfpeer.cache import layout, snapshots
from hfpeer.cache.catalog import BlobRow, Catalog, FileRow, RefRow, RevisionRow
from hfpeer.cache.manifests import Manifests
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision

log = logging.getLogger(__name__)

SETTLED_SECONDS = 2.0
"""A folder that changed so shortly before it was read may change again without a new mtime: it is read again."""
TRIES = 5
Listing = dict[FilePath, tuple[Digest, int]]


@dataclass(frozen=True)
class ScanResult:
    """What a scan saw: repos, those of them that had changed, snapshots, files in these, and folders it could not
    make sense of, with the reason."""

    repos: int = 0
    changed_repos: int = 0
    revisions: int = 0
    files: int = 0
    seconds: float = 0.0
    skipped: tuple[str, ...] = ()


@dataclass
class RepoOnDisk:
    """One repo as it lies on the disk. `folders` are the mtimes (ns) of all folders read, by path; 0 means not
    settled."""

    blobs: dict[str, BlobRow] = field(default_factory=dict)
    files: dict[Commit, dict[str, FileRow]] = field(default_factory=dict)
    refs: dict[str, tuple[Commit, float]] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)


def see_blob(cache: Path, path: Path, digest: Digest) -> BlobRow | None:
    """A row for the file at `path` as it is now; None if there is no regular file. Nothing is known of its bytes."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    try:
        relative = path.relative_to(cache)
    except ValueError:
        relative = path
    return BlobRow(str(relative), relative.parts[0], str(digest), facts.st_size, facts.st_mtime_ns, facts.st_ino)


def listing(cache: Path, manifests: Manifests, repo: RepoId, commit: Commit) -> tuple[Listing | None, bool]:
    """The full listing of a commit as far as it is known here, and whether it is proved."""
    manifest = manifests.load(repo, commit)
    if manifest is not None:
        return {file.path: (file.digest, file.size_bytes) for file in manifest.files}, not manifest.is_attested
    return snapshots.read_tree(layout.tree_path(cache, repo, commit)), False


def sum_up(
    cache: Path, catalog: Catalog, manifests: Manifests, repo: RepoId, commit: Commit, used_at: float | None = None
) -> None:
    """Brings a revision's row up to date with its files and its listing. One without files is forgotten."""
    known, is_proved = listing(cache, manifests, repo, commit)
    with catalog.summing:
        files, size_bytes = catalog.sum_of_files(repo.folder, commit)
        if not files:
            catalog.drop_revision(repo.folder, commit)
            return
        before = catalog.revisions(repo.folder, commit)
        if used_at is None:
            used_at = before[0].used_at if before else _used_at(layout.snapshot_path(cache, repo, commit))
        is_complete = None if known is None else files >= len(known) and _is_complete(catalog, repo, commit, known)
        catalog.put_revision(RevisionRow(repo.folder, commit, files, size_bytes, is_complete, is_proved, used_at))


def _is_complete(catalog: Catalog, repo: RepoId, commit: Commit, known: Listing) -> bool:
    return known.keys() <= {row.path for row in catalog.files(repo.folder, commit)}


def _used_at(snapshot: Path) -> float:
    try:
        return snapshot.stat().st_mtime
    except OSError:
        return time.time()


def read_repo(
    cache: Path, repo: RepoId, listing_of: Callable[[Commit], Listing | None], now: float | None = None
) -> RepoOnDisk:
    """Reads one repo. `listing_of` gives a commit's listing; it is asked only for files that are no links."""
    found = RepoOnDisk()
    settled_ns = int(((time.time() if now is None else now) - SETTLED_SECONDS) * 1e9)
    by_name = {}
    for entry in _entries(layout.blobs_folder(cache, repo), found, settled_ns):
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
    listing_of: Callable[[Commit], Listing | None],
    settled_ns: int,
) -> dict[str, FileRow]:
    rows: dict[str, FileRow] = {}
    real: list[tuple[str, Path]] = []
    for name, entry in _walk(folder, found, settled_ns):
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


def _read_real_file(cache: Path, name: str, path: Path, known: Listing, found: RepoOnDisk) -> FileRow | None:
    """A file that is no link to a blob of ours: its digest is known only if a listing tells it."""
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
    """Every file below `folder` whose path is one a repo may have, with that path. Links to folders are files."""
    stack = [("", folder)]
    while stack:
        prefix, place = stack.pop()
        for entry in _entries(place, found, settled_ns):
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
    """What is in a folder, its mtime noted before it is read; nothing if it cannot be read."""
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
    """When a folder changed; -1 if it is not there, so that its appearing is a change."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return -1


class Scanner:
    """Brings a catalogue up to date with the disk, repo by repo.

    `removals` counts removals of this process; if it moves while a repo is read, the repo is read again, so that
    nothing removed comes back.
    """

    def __init__(self, cache: Path, catalog: Catalog, manifests: Manifests, removals: Callable[[], int]) -> None:
        self._cache = cache
        self._catalog = catalog
        self._manifests = manifests
        self._removals = removals

    def scan_all(self, on_batch: Callable[[int], None] | None = None) -> ScanResult:
        """Every repo. Raises BrokenCache only if the cache folder itself cannot be read."""
        began, result = time.monotonic(), ScanResult()
        repos, skipped = self._repos()
        known = {folder: folders for folder, (_, folders) in self._catalog.repos().items()}
        for repo in repos:
            result = _add(result, self._scan(repo, known.get(repo.folder)))
            if on_batch is not None:
                on_batch(result.files)
        gone = (known.keys() | {row.repo for row in self._catalog.revisions()}) - {repo.folder for repo in repos}
        for folder in gone:
            result = replace(result, changed_repos=result.changed_repos + self._forget(folder))
        if result.changed_repos:
            self._catalog.bump()
        return replace(result, seconds=time.monotonic() - began, skipped=skipped)

    def scan_one(self, repo: RepoId) -> ScanResult:
        """One repo."""
        began = time.monotonic()
        _, folders = self._catalog.repos().get(repo.folder, (None, None))
        result = self._scan(repo, folders)
        if result.changed_repos:
            self._catalog.bump()
        return replace(result, seconds=time.monotonic() - began)

    def _repos(self) -> tuple[list[RepoId], tuple[str, ...]]:
        repos, skipped = [], []
        for entry in sorted(_entries(self._cache, RepoOnDisk(), 0), key=lambda entry: entry.name):
            try:
                repo = RepoId.from_folder(entry.name)
            except InvalidName:
                continue
            if (self._cache / repo.folder / "snapshots").is_dir():
                repos.append(repo)
            else:
                skipped.append(f"{entry.name}: no snapshots")
        return repos, tuple(skipped)

    def _scan(self, repo: RepoId, folders: str | None) -> ScanResult:
        if folders is not None and _is_unchanged(folders):
            rows = self._catalog.revisions(repo.folder)
            return ScanResult(1, 0, len(rows), sum(row.files for row in rows))
        for _ in range(TRIES):
            removals = self._removals()
            found = read_repo(self._cache, repo, lambda commit: self._listing(repo, commit))
            if removals == self._removals():
                break
        is_changed = self._apply(repo, found)
        self._catalog.set_repo(repo.folder, folders=json.dumps(found.folders))
        return ScanResult(1, int(is_changed), len(found.files), sum(map(len, found.files.values())))

    def _apply(self, repo: RepoId, found: RepoOnDisk) -> bool:
        """Writes down what differs; whether anything did."""
        is_changed = self._apply_blobs(repo, found)
        for commit, files in found.files.items():
            is_changed |= self._apply_files(repo, commit, files)
        for row in self._catalog.revisions(repo.folder):
            if row.commit not in found.files and not (self._cache / repo.folder / "snapshots" / row.commit).exists():
                self._catalog.drop_revision(repo.folder, row.commit)
                is_changed = True
        return self._apply_refs(repo, found) or is_changed

    def _apply_blobs(self, repo: RepoId, found: RepoOnDisk) -> bool:
        known = {row.path: row for row in self._catalog.blobs_of_repo(repo.folder)}
        fresh = [row for path, row in found.blobs.items() if path not in known or _differs(row, known[path])]
        gone = [path for path in known if path not in found.blobs and not (self._cache / path).exists()]
        self._catalog.put_blobs(fresh)
        self._catalog.drop_blobs(gone)
        return bool(fresh or gone)

    def _apply_files(self, repo: RepoId, commit: Commit, files: dict[str, FileRow]) -> bool:
        known = {row.path: row for row in self._catalog.files(repo.folder, commit)}
        place = layout.snapshot_path(self._cache, repo, commit)
        fresh = [row for path, row in files.items() if known.get(path) != row]
        gone = [path for path in known if path not in files and not (place / path).exists()]
        self._catalog.put_files(repo.folder, commit, fresh)
        self._catalog.drop_files(repo.folder, commit, gone)
        before = self._catalog.revisions(repo.folder, commit)
        sum_up(self._cache, self._catalog, self._manifests, repo, commit)
        return self._catalog.revisions(repo.folder, commit) != before

    def _apply_refs(self, repo: RepoId, found: RepoOnDisk) -> bool:
        known = {row.name: row for row in self._catalog.refs(repo.folder)}
        fresh = [
            RefRow(repo.folder, name, commit, changed_at, "cache")
            for name, (commit, changed_at) in found.refs.items()
            if name not in known or (known[name].commit != commit and known[name].resolved_at < changed_at)
        ]
        self._catalog.put_refs(fresh)
        return bool(fresh)

    def _listing(self, repo: RepoId, commit: Commit) -> Listing | None:
        return listing(self._cache, self._manifests, repo, commit)[0]

    def _forget(self, folder: str) -> int:
        """Forgets a repo that is not there any more, but not what was said about its visibility."""
        paths = [row.path for row in self._catalog.blobs_of_repo(folder)]
        revisions = self._catalog.revisions(folder)
        if (self._cache / folder / "snapshots").is_dir() or not (paths or revisions):
            return 0
        self._catalog.drop_blobs(paths)
        for row in revisions:
            self._catalog.drop_revision(folder, row.commit)
        self._catalog.set_repo(folder, folders=None)
        return 1


def _is_unchanged(folders: str) -> bool:
    times: dict[str, int] = json.loads(folders)
    return all(mtime_ns != 0 and _mtime_ns(folder) == mtime_ns for folder, mtime_ns in times.items())


def _differs(found: BlobRow, known: BlobRow) -> bool:
    return replace(known, verified_at=None, is_corrupt=False) != found


def _add(total: ScanResult, one: ScanResult) -> ScanResult:
    return ScanResult(
        total.repos + one.repos,
        total.changed_repos + one.changed_repos,
        total.revisions + one.revisions,
        total.files + one.files,
    )


def linked_blobs(cache: Path, repo: RepoId) -> tuple[set[str], dict[str, int]]:
    """The names of all blobs that a snapshot of the repo links to, and the folders' mtimes when that was read."""
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
    """Whether one of the folders has changed since."""
    return any(_mtime_ns(folder) != mtime_ns for folder, mtime_ns in folders.items())
