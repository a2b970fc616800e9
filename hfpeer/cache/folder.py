"""Reads a local folder as the commit that it becomes when it is published. It writes nothing.

The same folder gives the same commit on every machine: author, time and message are fixed, order is git's, and only
names, contents, exec bits and links count. Files over 10 MB (10,000,000 bytes), and those that a `.gitattributes` of
the folder marks `filter=lfs`, are LFS files, as on the Hub. `.git`, `.cache/huggingface` and empty folders are left
out. What cannot be published as it is gets refused, never bent.
"""

from __future__ import annotations

import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dulwich.attrs import (
    AttributeValue,
    GitAttributes,
    Pattern,
    compile_gitattributes_patterns,
    parse_git_attributes,
)

from hfpeer.cache.blobs import hash_file
from hfpeer.errors import InvalidName, Locked, StorageError
from hfpeer.gitproof import MAX_POINTER_BYTES, commit_body, object_id, parse_pointer, pointer_text, prove, root_tree
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId

LFS_THRESHOLD_BYTES = 10_000_000
"""Larger files are LFS files. The Hub takes no larger ones as plain git blobs."""
AUTHOR = "hfpeer <hfpeer@localhost>"
MESSAGE = "Published by hfpeer"
DEFAULT_THREADS = 4


@dataclass(frozen=True)
class FolderCommit:
    """A folder as a proved commit, and where the bytes of each of its blobs are.

    `sources` maps a digest to a file that had these bytes when it was read; copy and verify rather than link, since
    its owner may go on writing to it. `texts` holds blobs that are no files: the targets of symbolic links.
    """

    manifest: Manifest
    sources: Mapping[Digest, Path]
    texts: Mapping[Digest, bytes]


@dataclass(frozen=True)
class _Entry:
    """A file or link of the folder as it was listed."""

    path: FilePath
    place: Path
    status: os.stat_result

    @property
    def mode(self) -> str:
        if stat.S_ISLNK(self.status.st_mode):
            return "120000"
        return "100755" if self.status.st_mode & stat.S_IXUSR else "100644"


def read_folder(
    folder: Path, repo: RepoId, *, on_bytes: Callable[[int], None] | None = None, threads: int = DEFAULT_THREADS
) -> FolderCommit:
    """The commit of a folder. `on_bytes` hears how many more bytes were hashed, from one thread at a time.

    Raises InvalidName for what cannot be in a repo (an impossible name, a link that leaves the folder, a device, an
    LFS pointer without its content, an empty folder), Locked for a file that changes meanwhile, and StorageError for
    one that cannot be read.
    """
    entries = sorted(_entries(folder), key=lambda entry: entry.path)
    if not entries:
        raise InvalidName(f"There is no file to publish in {folder}.", folder=str(folder))
    is_lfs = _lfs_rule(folder, {entry.path for entry in entries if entry.mode != "120000"})
    hashing = _Hashing(folder, is_lfs, on_bytes)
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="read-folder") as pool:
        try:
            files = tuple(pool.map(hashing.file, entries))
        except BaseException:
            hashing.stop()
            pool.shutdown(cancel_futures=True)
            raise
    manifest = _commit(repo, files)
    prove(manifest)
    sources = {file.digest: entry.place for file, entry in zip(files, entries, strict=True) if file.mode != "120000"}
    return FolderCommit(manifest, sources, hashing.texts)


def _commit(repo: RepoId, files: tuple[ManifestFile, ...]) -> Manifest:
    body = commit_body(root_tree(files), author=AUTHOR, time_seconds=0, message=MESSAGE)
    return Manifest(repo, Commit(object_id("commit", body)), files, (), body)


def _entries(folder: Path) -> Iterator[_Entry]:
    """Every file and link below the folder. Links to folders are not entered."""
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop()
        for child in _scan(place):
            path = prefix + child.name
            status = child.stat(follow_symlinks=False)
            if _is_left_out(path):
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting.append((place / child.name, path + "/"))
            elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield _Entry(FilePath.parse(path), place / child.name, status)
            else:
                raise _unfit(path, "is neither a file nor a folder nor a link", "Take it out of the folder.")


def _scan(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as children:
            return list(children)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidName(f"{place} is no folder.", hint="Name a folder that exists.", folder=str(place)) from error
    except OSError as error:
        raise _unreadable(place, error) from error


def _is_left_out(path: str) -> bool:
    """What git and huggingface_hub keep there for themselves. Source: huggingface_hub DEFAULT_IGNORE_PATTERNS."""
    name = path.rpartition("/")[2]
    return name == ".git" or path == ".cache/huggingface" or path.endswith("/.cache/huggingface")


def _lfs_rule(folder: Path, paths: set[FilePath]) -> Callable[[FilePath], bool]:
    """Which files the folder's own `.gitattributes` make LFS files, the deeper ones overriding the upper ones."""

    def patterns(directory: bytes) -> list[tuple[Pattern, Mapping[bytes, AttributeValue]]]:
        path = os.fsdecode(directory + b"/.gitattributes" if directory else b".gitattributes")
        if path not in paths:
            return []
        try:
            with (folder / path).open("rb") as file:
                return compile_gitattributes_patterns(parse_git_attributes(file), path.encode(), directory)
        except OSError as error:
            raise _unreadable(folder / path, error) from error

    lock = threading.Lock()
    attributes = GitAttributes(patterns(b""), directory_loader=patterns)

    def is_lfs(path: FilePath) -> bool:
        with lock:
            return attributes.match_path(path.encode()).get(b"filter") == b"lfs"

    return is_lfs


class _Hashing:
    """Makes manifest files of entries, in any thread, and counts the bytes."""

    def __init__(
        self, folder: Path, is_lfs: Callable[[FilePath], bool], on_bytes: Callable[[int], None] | None
    ) -> None:
        self.texts: dict[Digest, bytes] = {}
        self._folder = folder
        self._is_lfs = is_lfs
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._is_stopped = False

    def stop(self) -> None:
        """Makes the threads end soon: what they are doing is of no use any more."""
        self._is_stopped = True

    def file(self, entry: _Entry) -> ManifestFile:
        if entry.mode == "120000":
            return self._link(entry)
        try:
            descriptor = os.open(entry.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(entry.place, error) from error
        try:
            return self._plain_or_lfs(entry, descriptor)
        finally:
            os.close(descriptor)

    def _link(self, entry: _Entry) -> ManifestFile:
        try:
            target = os.readlink(entry.place)  # noqa: PTH115  (a Path would not keep the text as it is)
        except OSError as error:
            raise _unreadable(entry.place, error) from error
        _check_link(self._folder, entry.path, target)
        text = os.fsencode(target)
        digest = Digest("git-sha1", object_id("blob", text))
        self.texts[digest] = text
        return ManifestFile(entry.path, len(text), digest, entry.mode)

    def _plain_or_lfs(self, entry: _Entry, descriptor: int) -> ManifestFile:
        size = entry.status.st_size
        is_lfs = size > LFS_THRESHOLD_BYTES or self._is_lfs(entry.path)
        _check_unchanged(entry, os.fstat(descriptor))
        if size <= MAX_POINTER_BYTES and parse_pointer(os.pread(descriptor, size, 0)) is not None:
            raise _unfit(entry.path, "is an LFS pointer, not the file it stands for", "Run `git lfs pull` first.")
        algorithm = "sha256" if is_lfs else "git-sha1"
        found = hash_file(descriptor, algorithm, size, self._count, lambda: self._is_stopped)
        _check_unchanged(entry, os.fstat(descriptor))
        digest = Digest(algorithm, found or "")
        blob_id = object_id("blob", pointer_text(digest.hex, size)) if is_lfs else ""
        return ManifestFile(entry.path, size, digest, entry.mode, blob_id)

    def _count(self, size_bytes: int) -> None:
        if self._on_bytes is not None:
            with self._lock:
                self._on_bytes(size_bytes)


def _check_link(folder: Path, path: FilePath, target: str) -> None:
    """Raises InvalidName for a link that leads out of the folder, by its text or by where it ends."""
    place = folder / path
    by_text = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    leaves = target.startswith("/") or by_text.split("/")[0] == ".."
    if leaves or not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
        hint = "Replace it by what it stands for: `cp -rL` makes a copy of the folder without links."
        raise _unfit(path, f"is a link that leaves the folder, to {target!r}", hint)


def _check_unchanged(entry: _Entry, now: os.stat_result) -> None:
    def stamp(status: os.stat_result) -> tuple[int, ...]:
        return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    if stamp(entry.status) != stamp(now):
        hint = "Publish again when nothing writes to the folder."
        raise Locked(f"{entry.place} changed while it was read.", hint=hint, path=str(entry.path))


def _unfit(path: str, reason: str, hint: str) -> InvalidName:
    printable = path.encode("utf-8", "replace").decode()
    return InvalidName(f"{printable!r} {reason}, so the folder cannot be published.", hint=hint, path=printable)


def _unreadable(place: Path, error: OSError) -> StorageError:
    name = os.fsencode(place).decode("utf-8", "replace")
    hint = "Give this user the right to read it, and see that nothing removes it meanwhile."
    return StorageError(f"{name} cannot be read: {error.strerror or error}.", hint=hint, path=name)
