"""Opens folders of the cache without following links, for all code that writes to the cache or removes from it.

Other users may be allowed to write into a cache, and a link of theirs must not lead hfpeer out of it. So a folder is
opened one component at a time, and its files are reached through its descriptor. The folder of a repo may be a link to
another volume, made by this user or root. Below it, and below `.locks`, no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import cache as remembered
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from hfpeer.cache.disk.layout import LOCKS
from hfpeer.cache.disk.same_names import reaches_another, refuse_another
from hfpeer.errors import BrokenCache
from hfpeer.system.ownership import user_name

_T = TypeVar("_T")

TRIES = 20
"""Tries to open a name that other processes make and remove meanwhile."""
MAX_OPEN = 8
"""Folders that stay open for one piece of work. Many files lie in few folders, and descriptors are scarce."""
_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_OF_GROUP = stat.S_ISGID | stat.S_IRWXG


@contextlib.contextmanager
def opened(cache: Path, folder: Path, *, makes: bool = False) -> Iterator[Path]:
    """A path to a folder below the cache that stays valid when the folder is renamed or replaced by a link.

    With `makes` the folder is made if it does not exist. Raises BrokenCache for a link on the way, else OSError.
    """
    fd = open_folder(cache, folder, makes=makes)
    try:
        yield path_of(fd, folder)
    finally:
        os.close(fd)


def open_folder(cache: Path, folder: Path, *, makes: bool = False) -> int:
    """The descriptor of such a folder, for `path_of`. The caller closes it."""
    above = len(cache.parts)
    if folder.parts[:above] != cache.parts:
        raise ValueError(f"{folder} is not below {cache}")
    parts = folder.parts[above:]
    try:
        fd = os.open(cache, _FLAGS)
    except FileNotFoundError:
        if not makes:
            raise
        make_folders(cache)
        fd = os.open(cache, _FLAGS)
    for depth in range(len(parts)):
        try:
            inner = _open_part(fd, parts, depth, cache, makes)
        finally:
            os.close(fd)
        fd = inner
    return fd


class OpenFolders:
    """Folders of a cache that stay open for one piece of work, so that each is opened once, not once per file.

    A context manager, for one thread.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._fds: dict[Path, int] = {}

    def __enter__(self) -> OpenFolders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for folder in list(self._fds):
            self.forget(folder)

    def within(self, folder: Path, work: Callable[[int], _T], *, makes: bool = False) -> _T:
        """Calls `work` with the descriptor of a folder and returns its result. After a FileNotFoundError the folder is
        opened anew for a second call, because another process may have removed it since."""
        is_kept = folder in self._fds
        try:
            return work(self.fd(folder, makes=makes))
        except FileNotFoundError:
            if not is_kept:
                raise
        self.forget(folder)
        return work(self.fd(folder, makes=makes))

    def fd(self, folder: Path, *, makes: bool = False) -> int:
        """The descriptor of a folder, as `open_folder` returns it. It stays open until MAX_OPEN others were used."""
        fd = self._fds.pop(folder, -1)
        if fd < 0:
            fd = open_folder(self.cache, folder, makes=makes)
            if len(self._fds) >= MAX_OPEN:
                self.forget(next(iter(self._fds)))
        self._fds[folder] = fd
        return fd

    def forget(self, folder: Path) -> None:
        """Closes a folder. The next use opens it anew."""
        fd = self._fds.pop(folder, -1)
        if fd >= 0:
            os.close(fd)


def path_of(fd: int, folder: Path) -> Path:
    """A path through the descriptor of a folder, or the folder's own path where the system has no such paths."""
    return Path(f"/proc/self/fd/{fd}") if _has_descriptor_paths() else folder


def open_file(
    path: Path | str, flags: int, mode: int = 0o666, *, is_written: bool = True, dir_fd: int | None = None
) -> int:
    """Opens a regular file in an `opened` folder, or by its name in that of `dir_fd`; if it `is_written`, one without a
    second name. With O_CREAT in `flags`, a link, a special file or a hard link in its place is removed first. Raises
    OSError."""
    for _ in range(TRIES):
        try:
            return _open_regular(path, flags, mode, is_written, dir_fd)
        except _Stray:
            if not flags & os.O_CREAT:
                break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path, dir_fd=dir_fd)
    raise OSError(errno.ELOOP, "There is a link or a special file in its place", str(path))


class _Stray(Exception):
    """The name leads to a link, a special file, or a file with a second name."""


def _open_regular(path: Path | str, flags: int, mode: int, is_written: bool, dir_fd: int | None) -> int:
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise _Stray from error
        raise
    facts = os.fstat(fd)
    if stat.S_ISREG(facts.st_mode) and (facts.st_nlink <= 1 or not is_written):
        return fd
    os.close(fd)
    raise _Stray


@remembered
def _has_descriptor_paths() -> bool:
    return Path("/proc/self/fd").is_dir()


def _open_part(fd: int, parts: tuple[str, ...], depth: int, cache: Path, makes: bool) -> int:
    name = parts[depth]
    for _ in range(TRIES):
        try:
            found = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=fd)
        except FileNotFoundError:
            if not makes:
                raise
            _make(fd, name)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                raise
            link = _link(fd, name)
            if link is None:
                raise
            if depth == 0 and name != LOCKS and link.st_uid in (os.geteuid(), 0):
                return os.open(name, _FLAGS, dir_fd=fd)
            if not (makes and _is_replaceable(parts, depth)):
                raise _refusal(cache.joinpath(*parts[: depth + 1]), link) from error
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
        else:
            if _has_foreign_name(parts, depth):
                _check_spelling(fd, name, cache.joinpath(*parts[: depth + 1]), found, makes=makes)
            return found
    raise OSError(errno.EBUSY, "Another process makes and removes it all the time", str(cache.joinpath(*parts)))


def _has_foreign_name(parts: tuple[str, ...], depth: int) -> bool:
    """Whether the folder is that of a repo, or in a snapshot, or among refs: others have chosen its name."""
    return parts[0] != LOCKS and (depth == 0 or depth > 1)


def _check_spelling(fd: int, name: str, path: Path, found: int, *, makes: bool) -> None:
    """Closes a folder that was found by another spelling than its own: to a reader it is not there, and it cannot be
    made."""
    try:
        if makes:
            refuse_another(fd, name, path)
        elif reaches_another(fd, name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BaseException:
        os.close(found)
        raise


def make_folders(folder: Path) -> None:
    """Makes a folder, and those above it, as `_make` does. Links are followed. Raises OSError."""
    missing = []
    for place in (folder, *folder.parents):
        if place.is_dir():
            break
        missing.append(place)
    for place in reversed(missing):
        fd = os.open(place.parent, _FLAGS)
        try:
            _make(fd, place.name)
        finally:
            os.close(fd)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def open_to_readers(file: int | Path, folder: int | Path) -> None:
    """Lets the group read a new file of this user, in a folder that the group may write to, whatever the umask."""
    with contextlib.suppress(OSError):
        facts = os.stat(file)  # noqa: PTH116 - a descriptor or a path
        if facts.st_mode & stat.S_IRGRP:
            return
        around = os.stat(folder)  # noqa: PTH116
        if _is_of_group(around, folder):
            if facts.st_gid != around.st_gid:
                os.chown(file, -1, around.st_gid)
            os.chmod(file, stat.S_IMODE(facts.st_mode) | stat.S_IRGRP)  # noqa: PTH101


def _make(fd: int, name: str) -> None:
    """Makes a folder. In a folder that a group may write to, it is made the same, whatever the umask of this user."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=fd)
        around = os.stat(fd)
        if _is_of_group(around, fd):
            with contextlib.suppress(OSError):
                _open_to_group(fd, name, around)


def _is_of_group(facts: os.stat_result, folder: int | Path) -> bool:
    """Whether the bits of a folder's mode let its group write to it, so that new entries are to be the group's too."""
    is_writable = bool(facts.st_mode & stat.S_IWGRP) and not facts.st_mode & stat.S_ISVTX
    return is_writable and not _has_access_list(folder)


def _open_to_group(fd: int, name: str, around: os.stat_result) -> None:
    """Gives a new folder the group of the folder around it, and its group's rights."""
    facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if facts.st_gid != around.st_gid:
        os.chown(name, -1, around.st_gid, dir_fd=fd, follow_symlinks=False)
    mode = stat.S_IMODE(facts.st_mode) | (around.st_mode & _OF_GROUP)
    if mode != stat.S_IMODE(facts.st_mode):
        os.chmod(name, mode, dir_fd=fd)


def _has_access_list(folder: int | Path) -> bool:
    """Whether a folder has an access control list. Then the bits of its mode for the group are a mask, and not the
    group's rights, and the list itself says what new folders get."""
    if not hasattr(os, "getxattr"):
        return False
    try:
        place = f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder
        os.getxattr(place, "system.posix_acl_access")
    except OSError:
        return False
    return True


def _link(fd: int, name: str) -> os.stat_result | None:
    facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
    return facts if stat.S_ISLNK(facts.st_mode) else None


def _is_replaceable(parts: tuple[str, ...], depth: int) -> bool:
    """Whether no tool makes links to folders there: inside a snapshot, and among the partials."""
    return depth > 1 if parts[0] == LOCKS else depth > 2 and parts[1] == "snapshots"


def _refusal(path: Path, link: os.stat_result) -> BrokenCache:
    maker = user_name(link.st_uid)
    return BrokenCache(
        f"{path} should be a folder, but is a link of user {maker}. hfpeer does not follow it.",
        hint="Remove the link, or move the folder itself there.",
        path=str(path),
    )
