"""A user's folder that hfpeer fills with files of a repo: opens it without following links, puts files in by a rename.

A file appears under its name only when it is whole. Until then it lies in `.cache/huggingface/hfpeer/` of the folder.
No existing file is opened for writing, and no folder below the top is reached through a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from hfpeer.cache.disk.directories import open_file, path_of
from hfpeer.cache.disk.locks import NO_FLOCK, POLL_SECONDS, take_flock
from hfpeer.cache.disk.os_errors import storage_error
from hfpeer.errors import BrokenCache, Locked
from hfpeer.system.cancellation import check_stop

T = TypeVar("T")

METADATA = (".cache", "huggingface")
"""The Hub client's folder inside a `local_dir`. Source: huggingface_hub `_local_folder`."""
UNFINISHED = (*METADATA, "hfpeer")
"""The folder of files that are not whole yet."""
LOCK = "lock"
"""The lock file in UNFINISHED: one process at a time fills a folder and sweeps what a killed one left."""
LOCK_SECONDS = 600.0
"""Seconds to wait for another process that fills the same folder."""
MAX_TEXT_BYTES = 64 * 1024 * 1024
"""Bytes of the largest metadata file that is read."""
_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ELSEWHERE = "choose another folder"


class PlainFolder:
    """One folder while it is filled. A context manager, for one thread. Paths are relative, with `/`.

    Every method raises NoSpace, BrokenCache and Locked with a sentence that names the file.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self._top_fd = self._unfinished_fd = self._lock_fd = -1

    def __enter__(self) -> PlainFolder:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            with self._translated("make the folder", self.top):
                self.top.mkdir(parents=True, exist_ok=True)
                self._top_fd = os.open(self.top, _FLAGS & ~os.O_NOFOLLOW)
            self._unfinished_fd = self._open(UNFINISHED, makes=True)
            self._lock()
            undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the folder and releases its lock."""
        for fd in (self._lock_fd, self._unfinished_fd, self._top_fd):
            if fd >= 0:
                os.close(fd)
        self._top_fd = self._unfinished_fd = self._lock_fd = -1

    def facts(self, path: str) -> os.stat_result | None:
        """The facts of a file, of the link itself if it is one; None if there is none. A folder or a special file in
        its place is an error."""
        with self._within(path, "look at a file") as (folder, name):
            if folder < 0:
                return None
            try:
                facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None
        if not (stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode)):
            what = "a folder" if stat.S_ISDIR(facts.st_mode) else "a special file"
            raise self._in_the_way(self.top / path, f"is {what}, but has to be a file")
        return facts

    def read(self, path: str, work: Callable[[int], T]) -> T | None:
        """Calls `work` with a descriptor of a file that is no link, and returns its result. None if there is none."""
        with self._within(path, "read a file") as (folder, name):
            if folder < 0:
                return None
            try:
                fd = open_file(name, os.O_RDONLY, is_written=False, dir_fd=folder)
            except FileNotFoundError:
                return None
            try:
                return work(fd)
            finally:
                os.close(fd)

    def read_text(self, path: str) -> str | None:
        """The text of a small file; None without a readable one."""
        try:
            body = self.read(path, lambda fd: os.pread(fd, MAX_TEXT_BYTES, 0))
            return None if body is None else body.decode()
        except (BrokenCache, UnicodeDecodeError):
            return None

    def put(self, path: str, write: Callable[[Path], T], needed_bytes: int = 0) -> T:
        """Makes a file: `write` is called with a new name to write to, which is then renamed to `path`. Returns the
        result of `write`. `needed_bytes` is what this file and the next ones need, for the message of a full disk."""
        with self._within(path, "write a file", makes=True, needed_bytes=needed_bytes) as (folder, name):
            try:
                return self._put(self._unfinished_fd, self.top.joinpath(*UNFINISHED), folder, name, write)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            # A volume is mounted on a folder inside: there the file is finished beside its place.
            return self._put(folder, (self.top / path).parent, folder, name, write)

    def put_text(self, path: str, text: str) -> None:
        """Makes a small file."""
        self.put(path, lambda fresh: fresh.write_text(text), len(text))

    # Inside

    def _put(self, aside_fd: int, aside: Path, folder_fd: int, name: str, write: Callable[[Path], T]) -> T:
        """Writes a file under a new name in the folder `aside`, and renames it."""
        fresh = f".{secrets.token_hex(8)}.incomplete"
        try:
            result = write(path_of(aside_fd, aside) / fresh)
            os.replace(fresh, name, src_dir_fd=aside_fd, dst_dir_fd=folder_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=aside_fd)
            raise
        return result

    @contextlib.contextmanager
    def _within(
        self, path: str, doing: str, *, makes: bool = False, needed_bytes: int = 0
    ) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder of a file, and the file's name; -1 if there is no such folder."""
        *parts, name = path.split("/")
        with self._translated(doing, self.top / path, needed_bytes):
            try:
                fd = self._open(parts, makes=makes)
            except FileNotFoundError:
                if makes:
                    raise
                yield -1, name
                return
            try:
                yield fd, name
            finally:
                os.close(fd)

    def _open(self, parts: Sequence[str], *, makes: bool) -> int:
        """The descriptor of a folder below the top, one component after the other."""
        fd = os.dup(self._top_fd)
        for depth, name in enumerate(parts, 1):
            place = self.top.joinpath(*parts[:depth])
            try:
                with self._translated("open a folder", place, lets=FileNotFoundError):
                    if makes:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(name, dir_fd=fd)
                    inner = self._open_one(fd, name, place)
            finally:
                os.close(fd)
            fd = inner
        return fd

    def _open_one(self, fd: int, name: str, place: Path) -> int:
        try:
            return os.open(name, _FLAGS, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                raise
        if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            raise self._in_the_way(place, f"is a link to {os.readlink(name, dir_fd=fd)}, and hfpeer does not follow it")
        raise self._in_the_way(place, "is a file, but has to be a folder")

    def _lock(self) -> None:
        """Waits for the lock of the folder, then removes what a killed process left. Without flock it does neither."""
        place = self.top.joinpath(*UNFINISHED, LOCK)
        deadline = time.monotonic() + LOCK_SECONDS
        with self._translated("lock the folder", place):
            self._lock_fd = open_file(LOCK, os.O_RDWR | os.O_CREAT, is_written=False, dir_fd=self._unfinished_fd)
            try:
                while not take_flock(self._lock_fd):
                    check_stop()
                    if time.monotonic() >= deadline:
                        raise Locked(
                            f"Another process is filling the folder {self.top}.",
                            hint="Wait until it has ended, or stop it; then try again.",
                            path=str(self.top),
                        )
                    time.sleep(POLL_SECONDS)
            except OSError as error:
                if error.errno not in NO_FLOCK:
                    raise
                return
            for left in path_of(self._unfinished_fd, place.parent).iterdir():
                if left.name != LOCK:
                    with contextlib.suppress(OSError):
                        os.unlink(left.name, dir_fd=self._unfinished_fd)

    @contextlib.contextmanager
    def _translated(
        self, doing: str, path: Path, needed_bytes: int = 0, *, lets: type[OSError] | tuple[type[OSError], ...] = ()
    ) -> Iterator[None]:
        """Raises a sentence for an OSError that leaves the block, except those that it `lets` through."""
        try:
            yield
        except lets:
            raise
        except FileExistsError as error:
            raise self._in_the_way(path, "is a file, but has to be a folder") from error
        except IsADirectoryError as error:
            raise self._in_the_way(path, "is a folder, but has to be a file") from error
        except OSError as error:
            raise storage_error(error, doing, path, needed_bytes, elsewhere=_ELSEWHERE) from error

    def _in_the_way(self, place: Path, what: str) -> BrokenCache:
        return BrokenCache(
            f"{place} {what}.", hint=f"Move it away, or {_ELSEWHERE}; then run the command again.", path=str(place)
        )
