"""Writes the files that other tools read: `blobs/`, links or files in `snapshots/`, `refs/`, listings in `trees/`.

Every file is put in place by a rename, so that a reader finds the old or the new one, never a part. Blobs are verified
before they come here. No existing file is opened for writing: it may be a link into a store that several users share.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import OpenFolders, open_folder, opened, path_of
from hfpeer.cache.disk.linking import UNSUPPORTED, HardLinks, OnChunk, Way, place_file
from hfpeer.cache.disk.mounts import inode_of
from hfpeer.cache.disk.os_errors import translated
from hfpeer.errors import BrokenCache, InvalidName
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision

ASIDE_SUFFIX = ".hfpeer"
"""The end of the names of temporary files in a repo's folder."""
TOLD_REF_AT = 0
"""The mtime of a ref file with an answer of peers. It marks the file also after a copy and without a catalog."""
SYNC_THREADS = 16
"""Threads that sync small files: a file system makes concurrent syncs durable together."""


def temporary(path: Path) -> Path:
    """A fresh name beside a blob. By its ending the Hub client prunes it like an unfinished download."""
    return path.with_name(f"{path.name[:200]}.{secrets.token_hex(4)}.incomplete")


def aside(folder: Path) -> Path:
    """A fresh name in a repo's folder, which the Hub client ignores, for files that are no blobs."""
    return folder / f".{secrets.token_hex(4)}{ASIDE_SUFFIX}"


def write_file(path: Path, text: str, mode: int = 0o666, *, fresh: Path | None = None, is_synced: bool = False) -> None:
    """Writes a small file to `fresh`, or to a new name beside `path`, and renames it to `path`. Makes its folder.

    Raises NoSpace or BrokenCache.
    """
    fresh, body = fresh or temporary(path), text.encode()
    with translated("write a file", path, len(body)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                file.write(body)
                file.flush()
                if is_synced:
                    os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            _drop([fresh])
            raise


@contextlib.contextmanager
def written_aside(cache: Path, repo: RepoId, bodies: Mapping[Digest, bytes]) -> Iterator[Callable[[Digest], None]]:
    """Writes each body to a temporary file beside its blob and syncs them together, far faster than one by one.

    Yields a function that renames the file of a digest to its blob. The other files are deleted after the block. Raises
    NoSpace or BrokenCache.
    """
    blobs = layout.blobs_folder(cache, repo)
    if not bodies:
        yield lambda digest: None
        return
    inodes: dict[str, int] = {}
    with contextlib.ExitStack() as undo:
        undo.push(lambda cls, error, trace: _remove_if_empty(cache, blobs) if cls else None)
        with translated("write small files", blobs, sum(map(len, bodies.values()))):
            folder = open_folder(cache, blobs, makes=True)
            undo.callback(os.close, folder)
            fresh = {digest: temporary(blobs / digest.hex).name for digest in bodies}
            undo.callback(lambda: _drop(fresh.values(), folder))
            writes = list(zip(fresh.values(), bodies.values(), strict=True))
            threads = min(SYNC_THREADS, len(writes))
            with ThreadPoolExecutor(threads) as pool:
                for written in pool.map(_write_synced, repeat(folder), (writes[at::threads] for at in range(threads))):
                    inodes.update(written)

        def put(digest: Digest) -> None:
            with translated("put a blob into the cache", blobs / digest.hex):
                name = fresh[digest]
                os.replace(name, digest.hex, src_dir_fd=folder, dst_dir_fd=folder)
                del fresh[digest]
                if inode_of(os.stat(digest.hex, dir_fd=folder, follow_symlinks=False)) != inodes[name]:
                    os.unlink(digest.hex, dir_fd=folder)
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
            rest = memoryview(body)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
            inodes.append((name, inode_of(os.fstat(fd))))
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
            check(fresh)
            fresh.replace(target)
        except BaseException:
            if fresh.exists() and hard_links is HardLinks.READ_ONLY and source.samefile(fresh):
                source.chmod(mode)
            _drop([fresh])
            raise
    return way


def is_linked(folders: OpenFolders, repo: RepoId, commit: Commit, path: FilePath, digest: Digest) -> bool:
    """Whether `snapshots/<commit>/<path>` is the link to `blobs/<etag>`, with no link on the way to it."""
    place = layout.snapshot_file(folders.cache, repo, commit, path)
    try:
        return os.readlink(place.name, dir_fd=folders.fd(place.parent)) == layout.link_target(path, digest)
    except (OSError, BrokenCache):
        return False


def link_file(folders: OpenFolders, repo: RepoId, commit: Commit, path: FilePath, digest: Digest) -> Path:
    """Makes `snapshots/<commit>/<path>` a relative link to `blobs/<etag>`. Returns the path where the bytes are then.

    On a file system without links the blob itself is moved there, as the Hub client does, out of `blobs/`.
    """
    cache = folders.cache
    place, blob = layout.snapshot_file(cache, repo, commit, path), layout.blob_path(cache, repo, digest)
    target = layout.link_target(path, digest)

    def link(folder: int) -> Path:
        try:
            os.symlink(target, place.name, dir_fd=folder)
        except FileExistsError:
            return _relink(folders, folder, layout.repo_folder(cache, repo), target, blob, place)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            return _move(folders, blob, folder, place)
        return blob

    with translated("link a file into a snapshot", place):
        return folders.within(place.parent, link, makes=True)


def _relink(folders: OpenFolders, folder: int, repo_folder: Path, target: str, blob: Path, place: Path) -> Path:
    """Replaces the file at `place`, in `folder`, by a link, unless it is that link already."""
    with contextlib.suppress(OSError):
        if os.readlink(place.name, dir_fd=folder) == target:
            return blob
    around = folders.fd(repo_folder)
    fresh = aside(repo_folder).name
    try:
        os.symlink(target, fresh, dir_fd=around)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return _move(folders, blob, folder, place)
    try:
        os.replace(fresh, place.name, src_dir_fd=around, dst_dir_fd=folder)
    except BaseException:
        _drop([fresh], around)
        raise
    return blob


def _move(folders: OpenFolders, blob: Path, folder: int, place: Path) -> Path:
    """Moves a blob to `place`, in `folder`, on a file system without links. Returns `place`."""
    os.replace(blob.name, place.name, src_dir_fd=folders.fd(blob.parent), dst_dir_fd=folder)
    return place


def place_file_of(
    folders: OpenFolders, repo: RepoId, commit: Commit, path: FilePath, digest: Digest, *, keeps_blob: bool
) -> Path:
    """Makes `snapshots/<commit>/<path>` a regular file, for HF_HUB_DISABLE_SYMLINKS: the blob is moved there, or with
    `keeps_blob` copied. Returns the path where the bytes are then.

    Users edit such files, so a blob with a second name is copied too. Source: huggingface_hub `_create_symlink`.
    """
    cache = folders.cache
    place, blob = layout.snapshot_file(cache, repo, commit, path), layout.blob_path(cache, repo, digest)
    repo_folder = layout.repo_folder(cache, repo)

    def put(folder: int) -> Path:
        if not keeps_blob and blob.lstat().st_nlink == 1 and not blob.is_symlink():
            return _move(folders, blob, folder, place)
        around = folders.fd(repo_folder)
        fresh = aside(repo_folder).name
        try:
            place_file(blob, path_of(around, repo_folder) / fresh)
            os.replace(fresh, place.name, src_dir_fd=around, dst_dir_fd=folder)
        except BaseException:
            _drop([fresh], around)
            raise
        if not keeps_blob:
            _drop([blob.name], folders.fd(blob.parent))
        return place

    with translated("put a file into a snapshot", place):
        return folders.within(place.parent, put, makes=True)


def write_ref(cache: Path, repo: RepoId, revision: Revision, commit: Commit) -> None:
    """Writes `commit` to `refs/<revision>`. A full commit id needs no ref and gets none."""
    if not revision.is_commit:
        write_inside(cache, repo, layout.ref_path(cache, repo, revision), str(commit))


def write_told_ref(cache: Path, repo: RepoId, revision: Revision, commit: Commit) -> None:
    """Writes `commit`, an answer of peers, to `refs/<revision>` for other tools, marked by the mtime TOLD_REF_AT."""
    if not revision.is_commit:
        path = layout.ref_path(cache, repo, revision)
        write_inside(cache, repo, path, str(commit))
        with opened(cache, path.parent) as folder:
            os.utime(folder / path.name, (TOLD_REF_AT, TOLD_REF_AT), follow_symlinks=False)


def read_ref(cache: Path, repo: RepoId, revision: Revision) -> tuple[Commit, float] | None:
    """The commit in `refs/<revision>` and the file's mtime in seconds since the epoch; None without a valid file."""
    path = layout.ref_path(cache, repo, revision)
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
    write_inside(cache, repo, path, json.dumps(layout.tree_document(files), indent=1))


def note_absent(cache: Path, repo: RepoId, commit: Commit, paths: Iterable[FilePath]) -> None:
    """Writes the Hub client's notes on files that a commit does not have."""
    place = layout.absences_path(cache, repo, commit)
    for path in paths:
        with translated("write a file", place):
            if not (place / path).exists():
                write_inside(cache, repo, place / path, "")


def write_inside(cache: Path, repo: RepoId, path: Path, text: str) -> None:
    """Writes a small file of a repo that is no blob, as `write_file` does. The umask decides its mode."""
    with (
        translated("write a file", path, len(text)),
        opened(cache, path.parent, makes=True) as folder,
        opened(cache, layout.repo_folder(cache, repo)) as around,
    ):
        write_file(folder / path.name, text, fresh=aside(around))


def read_tree(path: Path) -> dict[FilePath, tuple[Digest, int]] | None:
    """The full listing of a commit as the Hub client wrote it: digest and size by path. None if there is none."""
    try:
        return parse_tree(path.read_bytes())
    except OSError:
        return None


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
