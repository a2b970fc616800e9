"""The locks of the cache, by the rules of the Hub client, so that both can work on one cache at the same time.

A writer of `blobs/<etag>` holds a BSD flock on `.locks/<repo folder>/<etag>.lock`, which is never truncated and never
removed. Locks are advisory: they save work, but only renames keep readers safe. Source: huggingface_hub `WeakFileLock`.

Where hfpeer writes or removes many small blobs it holds one flock on the folder `blobs` itself, and the lock of a blob
only if there is one: a Hub client that works on a blob has made it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock, Timeout

from hfpeer.cache.disk.directories import OpenFolders, open_file
from hfpeer.cache.disk.layout import lock_name, lock_path, locks_folder
from hfpeer.cache.disk.mounts import inode_of
from hfpeer.cache.disk.os_errors import translated
from hfpeer.errors import BrokenCache, Locked
from hfpeer.names import Digest, RepoId

POLL_SECONDS = 0.05
"""Seconds between two tries to take a lock. It is polled because another process's unlock cannot notify us."""
NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_FOLDER_LOCK = NO_FLOCK | {
    *(errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM),
    *(errno.EBADF, errno.EINVAL, errno.EISDIR),  # NFS locks only files that are open for writing
}


@contextmanager
def etag_lock(
    cache: Path,
    repo: RepoId,
    digest: Digest,
    timeout_seconds: float | None = None,
    folders: OpenFolders | None = None,
) -> Iterator[None]:
    """Holds the Hub client's lock on one blob of one repo, against threads and processes. Not reentrant.

    Blocks without limit by default, as the client does. Where another user's rights forbid even to read the lock file,
    or to make one, or the volume is mounted read-only, it goes on without the lock. Raises Locked after
    `timeout_seconds`, BrokenCache for a link in the way or a fault of the disk. With `folders` the folder of locks
    stays open between the locks of many blobs.
    """
    path = lock_path(cache, repo, digest)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    is_allowed, fd = True, None
    with translated("lock a blob", path):
        try:
            if folders is None:
                with OpenFolders(cache) as folders:
                    fd = _open_locked(folders, path, deadline)
            else:
                fd = _open_locked(folders, path, deadline)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            is_allowed = False
    if not is_allowed:
        yield
        return
    if fd is None:
        with _soft_lock(path, timeout_seconds):
            yield
        return
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def folder_lock(folders: OpenFolders, folder: Path, timeout_seconds: float) -> Iterator[bool]:
    """Holds a lock on a folder of the cache, against other callers of this function only. Yields whether it is held:
    False where this user, or the file system, cannot lock a folder, and where there is none. Raises Locked after
    `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    fd = None
    with translated("lock a folder", folder), contextlib.suppress(BrokenCache):
        try:
            fd = _open_locked_folder(folders, folder, deadline)
        except OSError as error:
            if error.errno not in _NO_FOLDER_LOCK:
                raise
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def _open_locked_folder(folders: OpenFolders, folder: Path, deadline: float) -> int:
    while True:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folders.fd(folder))
        try:
            if take_flock(fd) and names(folder, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        folders.forget(folder)
        _pause(folder, deadline)


def locked_ones(folders: OpenFolders, repo: RepoId, digests: Iterable[Digest]) -> set[Digest]:
    """Those of these blobs that have a lock, of a Hub client or of an earlier writer, held or not."""
    try:
        folder = folders.fd(locks_folder(folders.cache, repo))
    except OSError:
        return set()
    return {digest for digest in digests if os.access(lock_name(digest), os.F_OK, dir_fd=folder)}


def take_flock(fd: int) -> bool:
    """Takes an exclusive flock on `fd` if it is free; returns whether it was. Raises OSError without flock support."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def keeps_others_out(file: Path) -> bool:
    """Whether a lock that one opener of a file holds keeps another out. On some volumes every lock succeeds, on others
    none. Raises OSError if the file cannot be opened."""
    with file.open("rb+") as one, file.open("rb+") as other, contextlib.suppress(OSError):
        return take_flock(one.fileno()) and not take_flock(other.fileno())
    return False


def is_held(path: Path) -> bool:
    """Whether another process holds the flock on a file. False if there is no such file, it cannot be opened, or the
    file system has no flock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    else:
        return False
    finally:
        os.close(fd)


def names(path: Path, fd: int) -> bool:
    """Whether `path` still names the file that is open as `fd`."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (inode_of(here), here.st_dev) == (inode_of(there), there.st_dev)


def _open_locked(folders: OpenFolders, path: Path, deadline: float | None) -> int | None:
    """An fd that holds the lock; None on a file system without flock."""
    name = path.name
    while True:
        fd, is_new = folders.within(path.parent, lambda at: _open(name, at), makes=True)
        try:
            if take_flock(fd) and names(path, fd):
                return fd
        except OSError as error:
            os.close(fd)
            if error.errno not in NO_FLOCK:
                raise
            if is_new:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folders.fd(path.parent))
            return None
        os.close(fd)
        folders.forget(path.parent)
        _pause(path, deadline)


def _open(name: str, folder_fd: int) -> tuple[int, bool]:
    """An fd of the lock file, and whether it is new. A new one is made writable for the group. One of another user that
    this user may only read serves as well: flock needs no right to write."""
    flags = os.O_RDWR | os.O_CREAT
    try:
        fd = open_file(name, flags | os.O_EXCL, 0o664, is_written=False, dir_fd=folder_fd)
    except FileExistsError:
        try:
            return open_file(name, flags, 0o664, is_written=False, dir_fd=folder_fd), False
        except PermissionError:
            return open_file(name, os.O_RDONLY, is_written=False, dir_fd=folder_fd), False
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o664)
    return fd, True


def _pause(path: Path, deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise locked(path)
    time.sleep(POLL_SECONDS)


@contextmanager
def _soft_lock(path: Path, timeout_seconds: float | None) -> Iterator[None]:
    """The lock on file systems without flock: the file itself, as the Hub client does it."""
    lock = SoftFileLock(path, timeout=-1 if timeout_seconds is None else timeout_seconds)
    with contextlib.suppress(OSError):  # where no file can be made, work goes on without the lock
        try:
            lock.acquire()
        except Timeout as error:
            raise locked(path) from error
    try:
        yield
    finally:
        lock.release()


def locked(path: Path) -> Locked:
    """The error for a lock that another process holds."""
    return Locked(
        "Another process is writing the same file of the cache.",
        hint="Wait until it has ended, or stop it; then try again.",
        path=str(path),
    )
