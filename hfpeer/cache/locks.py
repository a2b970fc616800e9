"""The locks of the cache, by the Hub client's own rules, so that both can work on one cache at a time.

Hub protocol: a writer of `blobs/<etag>` holds a BSD flock on `.locks/<repo folder>/<etag>.lock`. The lock file is
never truncated and never removed. Locks are advisory: what others see must rest on renames, not on these.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock, Timeout

from hfpeer.cache.failures import translated
from hfpeer.cache.layout import lock_path
from hfpeer.errors import Locked
from hfpeer.names import Digest, RepoId

POLL_SECONDS = 0.05
NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def etag_lock(cache: Path, repo: RepoId, digest: Digest, timeout_seconds: float | None = None) -> Iterator[None]:
    """Holds the Hub client's lock on one blob of one repo. Excludes threads as well as processes; not reentrant.

    Blocks without limit by default, as the clients do. Raises Locked after `timeout_seconds`, BrokenCache when the
    lock file cannot be made.
    """
    path = lock_path(cache, repo, digest)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    with translated("lock a blob", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = _open_locked(path, deadline)
    if fd is None:
        with _soft_lock(path, timeout_seconds):
            yield
        return
    try:
        yield
    finally:
        os.close(fd)


def take_flock(fd: int) -> bool:
    """Whether an exclusive flock on `fd` could be taken at once. Raises OSError where there is no flock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def names(path: Path, fd: int) -> bool:
    """Whether `path` still names the file that is open as `fd`."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)


def _open_locked(path: Path, deadline: float | None) -> int | None:
    """An fd that holds the lock; None where the file system has no flock."""
    while True:
        fd, is_new = _open(path)
        try:
            if take_flock(fd) and names(path, fd):
                return fd
        except OSError as error:
            os.close(fd)
            if error.errno not in NO_FLOCK:
                raise
            if is_new:
                path.unlink(missing_ok=True)
            return None
        os.close(fd)
        _pause(path, deadline)


def _open(path: Path) -> tuple[int, bool]:
    """An fd of the lock file and whether it was made just now; a new one is writable for the group."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_EXCL, 0o664)
    except FileExistsError:
        return os.open(path, flags, 0o664), False
    os.fchmod(fd, 0o664)
    return fd, True


def _pause(path: Path, deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise locked(path)
    time.sleep(POLL_SECONDS)


@contextmanager
def _soft_lock(path: Path, timeout_seconds: float | None) -> Iterator[None]:
    """The Hub client's way out on file systems without flock: the lock is that the file exists."""
    lock = SoftFileLock(path, timeout=-1 if timeout_seconds is None else timeout_seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise locked(path) from error
    try:
        yield
    finally:
        lock.release()


def locked(path: Path) -> Locked:
    return Locked(
        "Another process is writing the same file of the cache.",
        hint="Wait for it, or stop it; then try again.",
        path=str(path),
    )
