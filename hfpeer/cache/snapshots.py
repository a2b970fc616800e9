"""Writes the files that other tools read: `blobs/`, links or files in `snapshots/`, `refs/`, listings in `trees/`.

Every file is put in place by a rename, so that a reader finds the old or the new one, never a part. Blobs are verified
before they come here. No existing file is opened for writing: it may be a link into a store that several users share.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from itertools import repeat
from pathlib import Path

from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import OpenFolders, open_folder, open_to_readers, opened, path_of
from hfpeer.cache.disk.linking import UNSUPPORTED, HardLinks, OnChunk, Way, place_file
from hfpeer.cache.disk.mounts import inode_of
from hfpeer.cache.disk.os_errors import MOVES_CACHE, MOVES_HOME, storage_error, translated
from hfpeer.cache.disk.same_names import leads_elsewhere, refuse_another
from hfpeer.errors import BrokenCache, InvalidName
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision

ASIDE_SUFFIX = ".hfpeer"
"""The end of the names of temporary files in a repo's folder."""
UNFINISHED = ".incomplete"
"""The end of the names of temporary files beside blobs."""
TOLD_REF_AT = 0
"""The mtime of a ref file with an answer of peers. It marks the file also after a copy and without a catalog."""
SYNC_THREADS = 16
"""Threads that sync small files: a file system makes concurrent syncs durable together."""
SYNCED_BY_THREAD = 4
"""Small files for which one more thread is worth its start."""


def temporary(path: Path) -> Path:
    """A fresh name beside a blob. By its ending the Hub client prunes it like an unfinished download."""
    return path.with_name(f"{path.name[:200]}.{secrets.token_hex(4)}{UNFINISHED}")


def aside(folder: Path) -> Path:
    """A fresh name in a repo's folder, which the Hub client ignores, for files that are no blobs."""
    return folder / f".{secrets.token_hex(4)}{ASIDE_SUFFIX}"


def write_file(
    path: Path,
    text: str | Iterable[str],
    mode: int = 0o666,
    *,
    fresh: Path | None = None,
    is_synced: bool = False,
    elsewhere: str = MOVES_HOME,
) -> os.stat_result:
    """Writes a small file, or a larger one in parts, to `fresh`, or to a new name beside `path`, and renames it to
    `path`. Makes its folder. Returns the facts of the file.

    Raises NoSpace or BrokenCache, whose hint names `elsewhere`, as of `storage_error`.
    """
    fresh, parts = fresh or temporary(path), [text] if isinstance(text, str) else text
    with translated("write a file", path, len(text) if isinstance(text, str) else 0, elsewhere=elsewhere):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                if mode & stat.S_IRGRP:
                    open_to_readers(file.fileno(), path.parent)
                file.writelines(part.encode() for part in parts)
                file.flush()
                if is_synced:
                    os.fsync(file.fileno())
                facts = os.fstat(file.fileno())
            fresh.replace(path)
        except BaseException:
            _drop([fresh])
            raise
    return facts


@contextlib.contextmanager
def written_aside(
    cache: Path, repo: RepoId, bodies: Mapping[Digest, bytes]
) -> Iterator[Callable[[Digest], os.stat_result]]:
    """Writes each body to a temporary file beside its blob and syncs them together, far faster than one by one.

    Yields a function that renames the file of a digest to its blob and returns its facts. The other files are deleted
    after the block. Raises NoSpace or BrokenCache.
    """
    blobs = layout.blobs_folder(cache, repo)
    inodes: dict[str, int] = {}
    token = secrets.token_hex(4)

    def fresh_name(digest: Digest) -> str:
        return f"{digest.hex}.{token}{UNFINISHED}"

    with contextlib.ExitStack() as undo:
        undo.push(lambda cls, error, trace: _remove_if_empty(cache, blobs) if cls else None)
        with translated("write small files", blobs, sum(map(len, bodies.values()))):
            folder = open_folder(cache, blobs, makes=True)
            undo.callback(os.close, folder)
            left = set(bodies)
            undo.callback(lambda: _drop(map(fresh_name, left), folder))
            writes = [(fresh_name(digest), body) for digest, body in bodies.items()]
            threads = min(SYNC_THREADS, -(-len(writes) // SYNCED_BY_THREAD))
            with ThreadPoolExecutor(threads) as pool:
                for written in pool.map(_write_synced, repeat(folder), (writes[at::threads] for at in range(threads))):
                    inodes.update(written)

        def put(digest: Digest) -> os.stat_result:
            name = fresh_name(digest)
            try:
                os.replace(name, digest.hex, src_dir_fd=folder, dst_dir_fd=folder)
                left.discard(digest)
                facts = os.stat(digest.hex, dir_fd=folder, follow_symlinks=False)
                if inode_of(facts) == inodes[name]:
                    return facts
                os.unlink(digest.hex, dir_fd=folder)
            except OSError as error:
                raise storage_error(error, "put a blob into the cache", blobs / digest.hex) from error
            raise swapped(blobs / digest.hex)

        yield put


def _drop(files: Iterable[Path | str], dir_fd: int | None = None) -> None:
    """Deletes temporary files, if they exist. `Leftovers` sweeps those that cannot be deleted now."""
    for path in files:
        with contextlib.suppress(OSError):
            os.unlink(path, dir_fd=dir_fd)


def _remove_if_empty(cache: Path, blobs: Path) -> None:
    """Removes the folders that a failed write has made: another user could not write into them."""
    for folder in (blobs, blobs.parent):
        with contextlib.suppress(OSError, BrokenCache), opened(cache, folder.parent) as around:
            (around / folder.name).rmdir()


def _write_synced(folder_fd: int, writes: Iterable[tuple[str, bytes]]) -> list[tuple[str, int]]:
    """Writes and syncs new files in a folder. Returns the name and inode of each."""
    inodes = []
    for name, body in writes:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder_fd)
        try:
            written = os.write(fd, body)
            while written < len(body):
                written += os.write(fd, memoryview(body)[written:])
            facts = os.fstat(fd)
            if not facts.st_mode & stat.S_IRGRP:
                open_to_readers(fd, folder_fd)
            os.fsync(fd)
            inodes.append((name, inode_of(facts)))
        finally:
            os.close(fd)
    return inodes


def swapped(path: Path) -> BrokenCache:
    """The error for a file that another process replaced between its writing and its renaming."""
    return BrokenCache(
        f"Another process replaced {path} while hfpeer wrote it, so it was not put into the cache.",
        hint="Check which users may write to the cache; then try again.",
        path=str(path),
    )


def copy_blob(
    source: Path,
    target: Path,
    check: Callable[[Path], None] = lambda copy: None,
    hard_links: HardLinks = HardLinks.BLOBS,
    on_chunk: OnChunk = lambda count: None,
) -> Way:
    """Gives the bytes of `source` a second place at `target`, durably, by the first way that works (`linking`).
    Returns that way.

    With `hard_links` as BLOBS the copy may be a hard link: only for blobs, which are never written in place, and for
    files that are removed right after. `check` is called with the copy before it becomes visible, and may raise. A link
    as `source` is followed. After an error `source` has its mode again.
    """
    fresh = temporary(target)
    with translated("copy a blob", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(source.stat().st_mode)
        try:
            way = place_file(source, fresh, hard_links, on_chunk)
            if way is not Way.HARD_LINK:
                open_to_readers(fresh, target.parent)
            check(fresh)
            fresh.replace(target)
        except BaseException:
            if fresh.exists() and hard_links is HardLinks.READ_ONLY and source.samefile(fresh):
                source.chmod(mode)
            _drop([fresh])
            raise
    return way


class Found(Enum):
    """What lies where a link should be."""

    LINK = "link"
    FILE = "file"
    OTHER = "other"


class Links:
    """The links of one snapshot to its blobs. For one thread; `folders` keeps the folders open.

    `look` and `make` are called for each of many files, so they make no Path for a file.
    """

    def __init__(self, folders: OpenFolders, repo: RepoId, commit: Commit) -> None:
        self._folders = folders
        self._repo = layout.repo_folder(folders.cache, repo)
        self._blobs = layout.blobs_folder(folders.cache, repo)
        self._top = layout.snapshot_path(folders.cache, repo, commit)
        self._inner, self._folder = "", self._top
        self._missing: Path | None = None
        """The last folder that was not there."""

    def _split(self, path: FilePath) -> tuple[Path, str]:
        """The folder of a file, and its name. Files come mostly folder by folder."""
        inner, _, name = path.rpartition("/")
        if inner != self._inner:
            self._inner, self._folder = inner, self._top / inner
        return self._folder, name

    def look(self, path: FilePath, digest: Digest) -> Found:
        """What lies at `snapshots/<commit>/<path>`: the link to `blobs/<etag>`, with no link on the way to it, a
        regular file, or anything else."""
        folder, name = self._split(path)
        if folder is self._missing:
            return Found.OTHER
        try:
            folder_fd = self._folders.fd(folder)
        except (OSError, BrokenCache):
            self._missing = folder
            return Found.OTHER
        try:
            is_right = os.readlink(name, dir_fd=folder_fd) == layout.link_target(path, digest)
        except OSError as error:
            is_file = error.errno == errno.EINVAL and stat.S_ISREG(os.stat(name, dir_fd=folder_fd).st_mode)
            return Found.FILE if is_file else Found.OTHER
        return Found.LINK if is_right else Found.OTHER

    def make(self, path: FilePath, digest: Digest) -> Path | None:
        """Makes `snapshots/<commit>/<path>` a relative link to `blobs/<etag>`.

        On a file system without links the blob itself is moved there, as the Hub client does, out of `blobs/`. Returns
        the path where it is then; None for a blob that stays.
        """
        folder, name = self._split(path)
        target = layout.link_target(path, digest)
        self._missing = None

        def link(folder_fd: int) -> Path | None:
            try:
                os.symlink(target, name, dir_fd=folder_fd)
            except FileExistsError:
                return self._replace(folder_fd, name, target, digest)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                return self._move(folder_fd, name, digest)
            return None

        try:
            return self._folders.within(folder, link, makes=True)
        except OSError as error:
            raise storage_error(error, "link a file into a snapshot", folder / name) from error

    def put_file(self, path: FilePath, digest: Digest, *, keeps_blob: bool) -> Path:
        """Makes `snapshots/<commit>/<path>` a regular file, for HF_HUB_DISABLE_SYMLINKS: the blob is moved there, or
        with `keeps_blob` copied. Returns the path where the bytes are then.

        Users edit such files, so a blob with a second name is copied too. Source: huggingface_hub `_create_symlink`.
        """
        folder, name = self._split(path)
        blob = self._blobs / digest.hex

        def put(folder_fd: int) -> Path:
            if not keeps_blob and blob.lstat().st_nlink == 1 and not blob.is_symlink():
                return self._move(folder_fd, name, digest)
            refuse_another(folder_fd, name, folder / name)
            around = self._folders.fd(self._repo)
            fresh = aside(self._repo).name
            try:
                place_file(blob, path_of(around, self._repo) / fresh)
                open_to_readers(path_of(around, self._repo) / fresh, folder_fd)
                os.replace(fresh, name, src_dir_fd=around, dst_dir_fd=folder_fd)
            except BaseException:
                _drop([fresh], around)
                raise
            if not keeps_blob:
                _drop([digest.hex], self._folders.fd(self._blobs))
            return folder / name

        with translated("put a file into a snapshot", folder / name):
            return self._folders.within(folder, put, makes=True)

    def _replace(self, folder_fd: int, name: str, target: str, digest: Digest) -> Path | None:
        """Replaces a file in a folder by a link, unless it is that link already. Raises NotThisVolume if its name leads
        to another file."""
        refuse_another(folder_fd, name, self._folder / name)
        with contextlib.suppress(OSError):
            if os.readlink(name, dir_fd=folder_fd) == target:
                return None
        around = self._folders.fd(self._repo)
        fresh = aside(self._repo).name
        try:
            os.symlink(target, fresh, dir_fd=around)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            return self._move(folder_fd, name, digest)
        try:
            os.replace(fresh, name, src_dir_fd=around, dst_dir_fd=folder_fd)
        except BaseException:
            _drop([fresh], around)
            raise
        return None

    def _move(self, folder_fd: int, name: str, digest: Digest) -> Path:
        """Moves a blob into a folder, on a file system without links. Returns its path. Raises NotThisVolume as
        `_replace`."""
        refuse_another(folder_fd, name, self._folder / name)
        os.replace(digest.hex, name, src_dir_fd=self._folders.fd(self._blobs), dst_dir_fd=folder_fd)
        return self._folder / name


def write_ref(cache: Path, repo: RepoId, revision: Revision, commit: Commit) -> None:
    """Writes `commit` to `refs/<revision>`. A full commit id needs no ref and gets none, nor does a name that the
    volume takes for another ref."""
    path = layout.ref_path(cache, repo, revision)
    if not revision.is_commit and not leads_elsewhere(cache, path):
        write_inside(cache, repo, path, str(commit))


def write_told_ref(cache: Path, repo: RepoId, revision: Revision, commit: Commit) -> None:
    """Writes `commit`, an answer of peers, to `refs/<revision>` for other tools, marked by the mtime TOLD_REF_AT."""
    path = layout.ref_path(cache, repo, revision)
    if not revision.is_commit and not leads_elsewhere(cache, path):
        write_inside(cache, repo, path, str(commit))
        with opened(cache, path.parent) as folder:
            os.utime(folder / path.name, (TOLD_REF_AT, TOLD_REF_AT), follow_symlinks=False)


def read_ref(cache: Path, repo: RepoId, revision: Revision) -> tuple[Commit, float] | None:
    """The commit in `refs/<revision>` and the file's mtime in seconds since the epoch; None without a valid file."""
    path = layout.ref_path(cache, repo, revision)
    if leads_elsewhere(cache, path):
        return None
    try:
        return Commit.parse(path.read_text(encoding="utf-8").strip()), path.stat().st_mtime
    except (OSError, UnicodeDecodeError, InvalidName):
        return None


def write_tree(cache: Path, repo: RepoId, commit: Commit, files: Iterable[ManifestFile]) -> None:
    """Writes the full listing of a commit for the Hub client, unless there is one."""
    path = layout.tree_path(cache, repo, commit)
    with translated("write a file", path):
        if path.exists():
            return
    write_inside(cache, repo, path, layout.tree_parts(files))


def note_absent(cache: Path, repo: RepoId, commit: Commit, paths: Iterable[FilePath]) -> None:
    """Writes the Hub client's notes on files that a commit does not have."""
    place = layout.absences_path(cache, repo, commit)
    for path in paths:
        with translated("write a file", place):
            if not (place / path).exists():
                write_inside(cache, repo, place / path, "")


def write_inside(cache: Path, repo: RepoId, path: Path, text: str | Iterable[str]) -> None:
    """Writes a small file of a repo that is no blob, as `write_file` does. The umask decides its mode."""
    with (
        translated("write a file", path, len(text) if isinstance(text, str) else 0),
        opened(cache, path.parent, makes=True) as folder,
        opened(cache, layout.repo_folder(cache, repo)) as around,
    ):
        write_file(folder / path.name, text, fresh=aside(around), elsewhere=MOVES_CACHE)


def read_tree(path: Path) -> dict[FilePath, tuple[Digest, int]] | None:
    """The full listing of a commit as the Hub client wrote it: digest and size by path. None if there is none."""
    try:
        return parse_tree(path.read_bytes())
    except OSError:
        return None


def is_tree_of(path: Path, files: Iterable[ManifestFile]) -> bool:
    """Whether the full listing of a commit has the very bytes that `write_tree` writes for these files. It is not
    parsed: that would take much memory."""
    try:
        with path.open("rb") as file:
            return all(
                file.read(len(part)) == part for part in map(str.encode, layout.tree_parts(files))
            ) and not file.read(1)
    except OSError:
        return False


def parse_tree(text: bytes) -> dict[FilePath, tuple[Digest, int]] | None:
    """Reads the text of such a file. None if it is malformed, or of another format."""
    try:
        document = json.loads(text)
        if document["format_version"] != 1:
            return None
        return {FilePath.parse(name): _read_entry(entry) for name, entry in document["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, InvalidName):
        return None


def _read_entry(entry: dict[str, object]) -> tuple[Digest, int]:
    sha256 = entry.get("lfs_sha256")
    digest = f"sha256:{sha256}" if sha256 else f"git-sha1:{entry['blob_id']}"
    size = entry["lfs_size"] if sha256 else entry["size"]
    if not isinstance(size, int):
        raise ValueError(f"{size!r} is not a size")
    return Digest.parse(digest), size
