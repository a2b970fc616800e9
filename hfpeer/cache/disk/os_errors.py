"""Turns errors of the operating system into hfpeer's: disk full, read-only, forbidden, gone.

The messages for users are here. An unknown error keeps the text of the system.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from pathlib import Path
from types import TracebackType

from hfpeer.cache.disk.access import how_to_open, nearest_folder
from hfpeer.cache.disk.mounts import mount_of
from hfpeer.errors import BrokenCache, NoSpace, NotThisVolume, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AWAY = {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV, errno.ENXIO}
"""A network volume without its server, or a disk that was unplugged."""


_OBSTRUCTED = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY}
"""A file, a link or a folder may stand where the other is due."""


MOVES_CACHE = "move the cache with `hfpeer conf cache set`"
"""The way out of a volume or a folder that cannot be written, for a cache."""
MOVES_HOME = "set HFPEER_HOME to a folder on another volume"
"""The same for hfpeer's own home."""


def storage_error(
    error: OSError, doing: str, path: Path, needed_bytes: int = 0, *, elsewhere: str = MOVES_CACHE
) -> StorageError:
    """The error for an OSError at `path`. `doing` completes "hfpeer could not …". `needed_bytes` is what the work still
    needs on the volume. `elsewhere` completes the hint "…, or …"."""
    path = _named(path)
    if error.errno == errno.EFBIG and not _has_file_limit():
        return _too_large(doing, path, elsewhere)
    if error.errno in _FULL:
        return _no_space(error, doing, path, needed_bytes, elsewhere)
    if error.errno in _OBSTRUCTED and (found := obstacle(path, error)):
        reason, hint = found
        return BrokenCache(f"hfpeer could not {doing}: {reason}.", hint=hint, path=str(path), errno=error.errno)
    if isinstance(error, PermissionError):
        hint = _how_to_open(path, elsewhere)
        return BrokenCache(
            f"hfpeer could not {doing}: {error.strerror or error} ({path}).",
            hint=hint,
            path=str(path),
            errno=error.errno,
        )
    hint = {
        errno.EROFS: f"The volume is mounted read-only: remount it, or {elsewhere}.",
        errno.EIO: "The disk reports a fault: read the system's log before you use it again.",
        errno.EMFILE: "Too many files are open: raise the limit (`ulimit -n`).",
        **dict.fromkeys(_AWAY, f"Nothing is lost. {_again(path)}, then run the command again."),
    }.get(error.errno or 0, "Check the folder, then run the command again: it continues where this one stopped.")
    return BrokenCache(
        f"hfpeer could not {doing}: {error.strerror or error} ({path}).", hint=hint, path=str(path), errno=error.errno
    )


def _named(path: Path) -> Path:
    """The path for people: of a path through an open descriptor, that of its folder."""
    if not str(path).startswith("/proc/self/fd/"):
        return path
    return Path(os.path.realpath(path.parent), path.name)


def _place_of(error: OSError, path: Path) -> Path:
    """The place that the system names, if that is a whole path; else `path`."""
    named = error.filename2 or error.filename
    return Path(named) if isinstance(named, str) and named.startswith("/") else path


def obstacle(path: Path, error: OSError) -> tuple[str, str] | None:
    """What stands in the way at a path or above it, and the hint; None if nothing does."""
    path = _place_of(error, path)
    wants_file = error.errno == errno.EISDIR
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not os.path.exists(place):  # noqa: PTH110 - a loop of links is none that exists
            target = os.readlink(place)  # noqa: PTH115 - as it was written
            return (
                f"{place} is a link to {target}, which is not there",
                "Mount the disk that it leads to, or remove the link. Then run the command again.",
            )
        if place.exists() and place.is_dir() == (wants_file and place == path):
            name = shlex.quote(str(place))
            hint = f"Move it away, such as by `mv {name} {name}.old`. Then run the command again."
            if place == path and wants_file:
                return f"{place} is a folder, and has to be a file", hint
            if place != path or error.errno in (errno.ENOTDIR, errno.EEXIST):
                return f"{place} is a file, and has to be a folder", hint
    return None


def _again(path: Path) -> str:
    """The first half of a hint: mount the volume again."""
    point = mount_of(path).point
    return f"Mount {point} again" if point not in ("", "/") else "Plug its disk in, or mount its volume, again"


def _has_file_limit() -> bool:
    """Whether this process may not write files of any size (`ulimit -f`)."""
    import resource

    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def _too_large(doing: str, path: Path, elsewhere: str) -> NotThisVolume:
    mount = mount_of(path)
    kind = f" ({mount.file_system})" if mount.file_system else ""
    return NotThisVolume(
        f"hfpeer could not {doing}: the volume {mount.point or path.anchor}{kind} holds no file of that size ({path}). "
        "FAT holds none of 4 GiB or more.",
        hint=f"Format it as exFAT or ext4, or {elsewhere}. Nothing is lost.",
        path=str(path),
        volume=mount.point,
    )


def _how_to_open(path: Path, elsewhere: str) -> str:
    """The command that opens the closed folder, or a general hint if it is none by its mode."""
    with contextlib.suppress(OSError):
        folder = nearest_folder(path)
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{how_to_open(folder)}; or {elsewhere}."
    return f"Give this user write access to the folder, or {elsewhere}."


def _no_space(error: OSError, doing: str, path: Path, needed_bytes: int, elsewhere: str) -> NoSpace:
    volume = _volume(path)
    free = _free_bytes(volume)
    needs = f"{needed_bytes:,} bytes are needed, " if needed_bytes else ""
    room = "an unknown number of bytes is" if free is None else f"{free:,} bytes are"
    limits = {
        errno.EDQUOT: "this user's quota is used up",
        errno.EFBIG: "the file is larger than this process may write",
    }
    reason = limits.get(error.errno or 0, "the volume is full")
    if error.errno == errno.ENOSPC and _has_no_inode(volume):
        reason = "the volume can hold no more files (`df -i` shows it)"
    hint = f"Make room, or {elsewhere}. Then run the command again: it continues where this one stopped."
    if elsewhere == MOVES_CACHE:
        hint = (
            f"Make room (`hfpeer cache prune`, `hfpeer model rm`), or {elsewhere}. "
            "Then run the command again: it continues where this one stopped."
        )
    return NoSpace(
        f"hfpeer could not {doing}: {reason}. {needs}{room} free on {volume}.",
        hint=hint,
        path=str(path),
        volume=str(volume),
        needed_bytes=needed_bytes,
        free_bytes=free,
    )


def _volume(path: Path) -> Path:
    """The mount point of `path`, or of its nearest parent that exists."""
    path = nearest_folder(path).resolve()
    return next((folder for folder in (path, *path.parents) if folder.is_mount()), path)


def free_bytes(path: Path) -> int | None:
    """The bytes that are free on the volume of `path`, or of its nearest parent that exists; None if that is
    unknown."""
    return _free_bytes(_volume(path))


def _free_bytes(volume: Path) -> int | None:
    try:
        return free_of(os.statvfs(volume))
    except OSError:
        return None


def _has_no_inode(volume: Path) -> bool:
    """Whether a volume with a fixed number of files has none left."""
    with contextlib.suppress(OSError):
        facts = os.statvfs(volume)
        return facts.f_files > 0 and facts.f_favail == 0
    return False


def free_of(facts: os.statvfs_result) -> int | None:
    """The free bytes of a volume; None for one that tells no size, as some programs over FUSE do."""
    return facts.f_bavail * facts.f_frsize if facts.f_blocks else None


class translated:
    """Raises NoSpace or BrokenCache for an OSError that leaves the block; parameters as of `storage_error`."""

    __slots__ = ("_doing", "_elsewhere", "_needed_bytes", "_path")

    def __init__(self, doing: str, path: Path, needed_bytes: int = 0, *, elsewhere: str = MOVES_CACHE) -> None:
        self._doing = doing
        self._elsewhere = elsewhere
        self._path = path
        self._needed_bytes = needed_bytes

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, OSError):
            found = storage_error(error, self._doing, self._path, self._needed_bytes, elsewhere=self._elsewhere)
            raise found from error
