"""The door at which the operating system's errors become hfpeer's: full, read-only, forbidden, gone.

It owns the sentences a person reads when the disk refuses, and must never hide an error it does not know.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfpeer.errors import BrokenCache, NoSpace, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_error(error: OSError, doing: str, path: Path, needed_bytes: int = 0) -> StorageError:
    """The error of our tree for `error`, met while `doing` something to `path`.

    `doing` completes "hfpeer could not …". `needed_bytes` is what the work still needs on the volume.
    """
    if error.errno in _FULL:
        return _no_space(error, doing, path, needed_bytes)
    hint = {
        errno.EROFS: "The volume is mounted read-only: remount it, or move the cache with `hfpeer conf cache set`.",
        errno.EACCES: "Give this user write access to the folder, or move the cache with `hfpeer conf cache set`.",
        errno.EPERM: "Give this user write access to the folder, or move the cache with `hfpeer conf cache set`.",
        errno.EIO: "The disk reports a fault: look at the system's log before trusting it again.",
        errno.EMFILE: "Too many files are open: raise the limit (`ulimit -n`).",
    }.get(error.errno or 0, "Look at the folder; what is complete is kept, and a later run continues.")
    return BrokenCache(
        f"hfpeer could not {doing}: {error.strerror or error} ({path}).", hint=hint, path=str(path), errno=error.errno
    )


def _no_space(error: OSError, doing: str, path: Path, needed_bytes: int) -> NoSpace:
    volume = _volume(path)
    free = _free_bytes(volume)
    needs = f"{needed_bytes:,} bytes are needed, " if needed_bytes else ""
    limits = {
        errno.EDQUOT: "this user's quota is used up",
        errno.EFBIG: "the file is larger than this process may write",
    }
    reason = limits.get(error.errno or 0, "the volume is full")
    return NoSpace(
        f"hfpeer could not {doing}: {reason}. {needs}{free:,} bytes are free on {volume}.",
        hint="Make room (`hf cache prune`, `hfpeer model remove`), or move the cache with `hfpeer conf cache set`. "
        "What has arrived is kept: a later run continues.",
        path=str(path),
        volume=str(volume),
        needed_bytes=needed_bytes,
        free_bytes=free,
    )


def _volume(path: Path) -> Path:
    """The mount point of `path`, or of the nearest parent that exists."""
    for folder in (path, *path.parents):
        if folder.is_dir():
            path = folder.resolve()
            break
    return next((folder for folder in (path, *path.parents) if folder.is_mount()), path)


def _free_bytes(volume: Path) -> int:
    try:
        facts = os.statvfs(volume)
    except OSError:
        return 0
    return facts.f_bavail * facts.f_frsize


@contextmanager
def translated(doing: str, path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Raises NoSpace or BrokenCache for any OSError that leaves the block. `doing` completes "hfpeer could not …"."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, path, needed_bytes) from error
