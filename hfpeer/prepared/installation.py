"""Puts sets into the datasets cache, and takes them out: by a rename, under the lock that `datasets` holds for a build.

A set is filled in a folder of hfpeer's own on the same volume, outside of `ORG___name/`, because a strange folder
inside makes offline loads fail. `datasets` takes the folder with the newest mtime, so the set of the commit of main is
kept the newest. Nothing is written into a file that is there, and no link is followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hfpeer.cache.disk.locks import NO_FLOCK, POLL_SECONDS, take_flock
from hfpeer.cache.disk.os_errors import translated
from hfpeer.errors import BrokenCache, Locked
from hfpeer.names import RepoId
from hfpeer.prepared.layout import INCOMPLETE, OWN, SetPlace, dataset_folder, is_derived, is_strange
from hfpeer.prepared.listing import FoundSet, Leftover, folder_bytes, main_of
from hfpeer.system.cancellation import check_stop

LOCK_SECONDS = 30.0
"""Seconds to wait for a build by another program before giving up."""
OLD = ".old"
"""The end of the name of a set in hfpeer's folder that was replaced by another."""


@contextmanager
def staging(cache: Path, name: str, *, is_new: bool = False) -> Iterator[Path]:
    """hfpeer's folder in which one set is filled, for one process at a time. What a killed run left is there again,
    unless `is_new`. Then the folder goes after an error too, else it stays for the next try; `done_with` removes it.

    Raises Locked, NoSpace, BrokenCache.
    """
    folder = cache / OWN / name
    with translated("make a folder in the datasets cache", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder.with_name(f"{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o664)
    try:
        _take(fd, f"Another hfpeer is preparing the same set ({name}).", folder, seconds=0.0)
        with translated("make a folder in the datasets cache", folder):
            if is_new:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
        try:
            yield folder
        except BaseException:
            if is_new:
                done_with(folder)
            raise
    finally:
        os.close(fd)


def done_with(folder: Path) -> None:
    """Removes a folder of `staging`, with its lock. Called inside the block."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.with_name(f"{folder.name}.lock").unlink()
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


@contextmanager
def build_lock(cache: Path, place: SetPlace) -> Iterator[None]:
    """Holds the lock that `datasets` takes to build a set. Where another user's lock cannot be opened, or the volume
    has no flock, it goes on without. Raises Locked, BrokenCache."""
    path = place.lock(cache)
    with translated("lock a prepared set", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o664)
        except PermissionError:
            fd = -1
    try:
        if fd >= 0:
            _take(fd, f"Another program is building {place}.", path, seconds=LOCK_SECONDS)
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _take(fd: int, message: str, path: Path, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    try:
        while not take_flock(fd):
            check_stop()
            if time.monotonic() >= deadline:
                raise Locked(message, hint="Wait until it has ended; then run the command again.", path=str(path))
            time.sleep(POLL_SECONDS)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise


def install(
    cache: Path, hub_cache: Path, repo: RepoId, place: SetPlace, made: Path, *, keeps_derived: bool = False
) -> Path:
    """Makes the folder `made`, which has the whole set, the set at `place`; returns its new path.

    A set that is there is replaced; with `keeps_derived` the results of `map` in it go over to the new one, else they
    are removed with it. Raises Locked, NoSpace, BrokenCache; the old set is there then.
    """
    folder = place.folder(cache)
    with build_lock(cache, place), translated("put a prepared set in its place", folder):
        _sync(made)
        if keeps_derived and folder.is_dir():
            _move_derived(folder, made)
        at = _mtime_for(cache, hub_cache, repo, place)
        os.utime(made, ns=(at, at))
        old = cache / OWN / f"{hashlib.sha256(str(place).encode()).hexdigest()[:24]}{OLD}"
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise BrokenCache(
                f"{folder} should be a folder, but is a link or a file.", hint="Remove it.", path=str(folder)
            )
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    settle(cache, hub_cache, repo)
    return folder


def settle(cache: Path, hub_cache: Path, repo: RepoId) -> bool:
    """Makes the sets of the commit of main newer than those of other commits; returns whether one was not."""
    main, changed = main_of(hub_cache, repo), False
    for folder, others in _rivals(cache, repo, main):
        newest = max((_mtime_ns(other) for other in others), default=0)
        if _mtime_ns(folder) <= newest:
            with translated("set the time of a prepared set", folder):
                os.utime(folder, ns=(newest + _SECOND, newest + _SECOND))
            changed = True
    return changed


def remove_set(cache: Path, found: FoundSet) -> int:
    """Removes a set with all results of `map` in it; returns the bytes. Raises Locked, BrokenCache."""
    size_bytes = found.size_bytes + found.other_bytes
    with build_lock(cache, found.place), translated("remove a prepared set", found.folder):
        gone = cache / OWN / f"{found.place.dataset}.{os.getpid()}{OLD}"
        gone.parent.mkdir(exist_ok=True)
        found.folder.rename(gone)
        shutil.rmtree(gone)
    _remove_empty(cache, found)
    return size_bytes


def remove_leftovers(cache: Path, found: FoundSet) -> int:
    """Removes what killed builds left in the folder of a set and beside it; returns the bytes. Raises Locked when a
    build is running, BrokenCache."""
    total = remove_strange_files(cache, found)
    for path in sorted(found.folder.parent.glob(f"*{INCOMPLETE}")):
        if path.is_dir() and not path.is_symlink():
            total += _remove_incomplete(path)
    return total


def remove_strange_files(cache: Path, found: FoundSet) -> int:
    """Removes what killed builds left in the folder of a set; returns the bytes. Raises Locked, BrokenCache."""
    total = 0
    with build_lock(cache, found.place), translated("remove leftovers", found.folder):
        shards = [name for _, name in found.shards]
        at = found.folder.stat()
        for path in sorted(found.folder.iterdir()):
            if path.is_file() and not path.is_symlink() and found.info is not None and is_strange(path.name, shards):
                total += path.stat().st_size
                path.unlink()
        os.utime(found.folder, ns=(at.st_atime_ns, at.st_mtime_ns))
    return total


def remove_leftover(cache: Path, left: Leftover) -> int:
    """Removes the folder of a killed build, or one of hfpeer's own; returns the bytes. Raises Locked when a process
    fills it, BrokenCache."""
    if not left.is_own:
        return _remove_incomplete(left.path)
    with staging(cache, left.path.name):
        size_bytes = folder_bytes(left.path)
        done_with(left.path)
    return size_bytes


# Inside

_SECOND = 1_000_000_000


def _mtime_for(cache: Path, hub_cache: Path, repo: RepoId, place: SetPlace) -> int:
    """The mtime of a new set: now, but older than that of main if it is of another commit."""
    now = time.time_ns()
    main = main_of(hub_cache, repo)
    others = [path for path in (cache / place.dataset).glob("*/*/*") if path.is_dir()]
    if place.hash == main:
        return max([now, *(_mtime_ns(path) + _SECOND for path in others if path.name != main)])
    of_main = [_mtime_ns(path) for path in others if path.name == main]
    return min([now, *(at - _SECOND for at in of_main)])


def _rivals(cache: Path, repo: RepoId, main: str | None) -> Iterator[tuple[Path, list[Path]]]:
    """Each set of main, with the sets of other commits of which `datasets` may take one in its place."""
    folders = [path for path in (cache / dataset_folder(repo)).glob("*/*/*") if path.is_dir()]
    others = [path for path in folders if path.name != main and not path.name.endswith(INCOMPLETE)]
    for path in folders:
        if path.name == main:
            yield path, others


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _move_derived(old: Path, made: Path) -> None:
    for path in old.iterdir():
        if is_derived(path.name) and path.is_file() and not path.is_symlink():
            path.rename(made / path.name)


def _remove_incomplete(path: Path) -> int:
    """Removes a folder that a build left, unless a build holds the lock on it."""
    lock = path.with_name(path.name.removesuffix(INCOMPLETE) + "_builder.lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        fd = -1
    try:
        if fd >= 0:
            _take(fd, f"A build of {path.name.removesuffix(INCOMPLETE)} is running.", path, seconds=0.0)
        size_bytes = folder_bytes(path)
        with translated("remove an unfinished build", path):
            shutil.rmtree(path)
        return size_bytes
    finally:
        if fd >= 0:
            os.close(fd)


def _remove_empty(cache: Path, found: FoundSet) -> None:
    """Removes the locks of a set that is gone, and the folders above it that are empty then."""
    for path in (found.place.lock(cache), found.folder.with_name(f"{found.place.hash}{INCOMPLETE}_info.lock")):
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
    for folder in (found.folder.parent, found.folder.parent.parent, found.folder.parent.parent.parent, cache / OWN):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _sync(made: Path) -> None:
    """Makes the files of a folder durable."""
    paths: Sequence[Path] = [*sorted(made.iterdir()), made]
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
