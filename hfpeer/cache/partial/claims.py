"""Decides which folder of a partial this process may write to, so that no two processes ever write to one.

Where locks work, the processes of a machine share one folder for each digest, and a lock on its data decides. Where
they do not, or other machines may not see them, each process has a folder that is named after it, and a rename decides.
A folder whose process has ended is taken over by a rename, with the bytes in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path

from hfpeer.cache.disk.directories import open_file, open_folder, opened, path_of
from hfpeer.cache.disk.layout import partial_folder, partials_folder
from hfpeer.cache.disk.locks import NO_FLOCK, keeps_others_out, locked, names, take_flock
from hfpeer.cache.disk.mounts import mount_of
from hfpeer.cache.partial.journal import boot_id
from hfpeer.errors import BrokenCache
from hfpeer.names import Digest

TRIES = 20
"""Tries to open a partial whose folder other processes remove or rename meanwhile."""
_RELEASED = "free"
"""The beginning of the owner of a folder that its process has left while another had the folder of all processes."""
_mine: set[Path] = set()
_mine_guard = threading.Lock()


@dataclass(frozen=True)
class Claim:
    """The folder of a partial that this process may write to: open, with its data. `release` is called once, after the
    caller has closed both; it returns the folder where the files are then."""

    folder: Path
    folder_fd: int
    data_fd: int
    release: Callable[[], Path]


def claim(cache: Path, digest: Digest) -> Claim:
    """Opens the partial of a blob, and makes it if there is none. Raises Locked, BrokenCache or OSError."""
    if mount_of(cache).is_network or not _has_locks(cache):
        return _by_name(cache, digest)
    try:
        return _with_lock(cache, partial_folder(cache, digest))
    except PermissionError:
        # The files of another user: this user has files of its own.
        return _with_lock(cache, partial_folder(cache, digest, f"u{os.geteuid()}"))


def is_in_use(folder: Path, data_fd: int) -> bool:
    """Whether a process has the partial in this folder open, as far as that can be known. `data_fd` is its data."""
    owner = _owner_of(folder)
    if "-" in owner and not owner.startswith(_RELEASED):
        return _is_alive(owner)
    try:
        return not take_flock(data_fd)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return False


def may_be_claimed(folder: Path) -> bool:
    """Whether this process could go on from the partial in this folder, as its name says."""
    owner = _owner_of(folder)
    return owner in ("", f"u{os.geteuid()}") or ("-" in owner and _is_free(owner))


# By a lock


@remembered
def _has_locks(cache: Path) -> bool:
    """Whether locks work on the volume of a cache. It is tried once."""
    place = partials_folder(cache)
    name = f"trial-{secrets.token_hex(6)}"
    with contextlib.suppress(OSError), opened(cache, place, makes=True) as folder:
        os.close(open_file(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        try:
            return keeps_others_out(folder / name)
        finally:
            (folder / name).unlink()
    return True  # nothing can be made there: the claim itself says why


def _with_lock(cache: Path, folder: Path) -> Claim:
    for _ in range(TRIES):
        opened_now = _open(cache, folder)
        if opened_now is None:
            continue
        folder_fd, data_fd = opened_now
        try:
            if not take_flock(data_fd):
                raise locked(folder)
            if names(folder / "data", data_fd):
                return Claim(folder, folder_fd, data_fd, lambda: folder)
        except BaseException:
            os.close(data_fd)
            os.close(folder_fd)
            raise
        os.close(data_fd)
        os.close(folder_fd)
    raise locked(folder / "data")


def _open(cache: Path, folder: Path) -> tuple[int, int] | None:
    """The descriptors of a folder and of its data; None if another process removed it meanwhile."""
    folder_fd = open_folder(cache, folder, makes=True)
    try:
        return folder_fd, open_file(path_of(folder_fd, folder) / "data", os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        os.close(folder_fd)
        return None
    except BaseException:
        os.close(folder_fd)
        raise


# By a name


def _by_name(cache: Path, digest: Digest) -> Claim:
    folder = partial_folder(cache, digest, _own_name())
    with _mine_guard:
        if folder in _mine:
            raise locked(folder)
        _mine.add(folder)
    try:
        for _ in range(TRIES):
            _take_over(cache, digest, folder)
            opened_now = _open(cache, folder)
            if opened_now is not None:
                return Claim(folder, *opened_now, lambda: _give_back(cache, digest, folder))
        raise locked(folder)
    except BaseException:
        with _mine_guard:
            _mine.discard(folder)
        raise


def _take_over(cache: Path, digest: Digest, folder: Path) -> None:
    """Renames a folder that no process uses to the one of this process, if there is one. Raises Locked if another
    process of this machine has one."""
    try:
        with opened(cache, partials_folder(cache)) as around:
            if (around / folder.name).exists():
                return
            found = [one for one in around.iterdir() if one.name.partition(".")[0] == digest.hex]
            if any(_is_alive(_owner_of(one)) for one in found):
                raise locked(folder)
            for one in found:
                if _is_free(_owner_of(one)) and os.access(one / "data", os.R_OK | os.W_OK):
                    with contextlib.suppress(OSError):
                        one.rename(around / folder.name)
                        return
    except FileNotFoundError:
        return


def _give_back(cache: Path, digest: Digest, folder: Path) -> Path:
    """Renames the folder of this process to the one of all processes, so that any of them goes on from it."""
    left = folder
    with contextlib.suppress(OSError, BrokenCache), opened(cache, folder.parent) as around:
        for owner in ("", f"{_RELEASED}-{secrets.token_hex(4)}"):
            target = partial_folder(cache, digest, owner)
            if (around / target.name).exists():
                continue
            (around / folder.name).rename(around / target.name)
            left = target
            break
    with _mine_guard:
        _mine.discard(folder)
    return left


# Owners: "" is any process, "u1000" any of a user, "HOST-PID-START" one process, "free-…" none


def _owner_of(folder: Path) -> str:
    return folder.name.partition(".")[2]


def _own_name() -> str:
    return f"{_host()}-{os.getpid()}-{_started(os.getpid())}"


def _is_free(owner: str) -> bool:
    """Whether no process can be writing there. A folder of another machine is not free, whatever became of it."""
    if "-" not in owner or owner.startswith(_RELEASED):
        return True
    return owner.partition("-")[0] == _host() and not _is_alive(owner)


def _is_alive(owner: str) -> bool:
    """Whether it is a process of this machine that runs."""
    host, _, process = owner.partition("-")
    pid, _, started = process.partition("-")
    return host == _host() and pid.isdecimal() and _started(int(pid)) == started != ""


@remembered
def _host() -> str:
    """The kernel, since its start, and the namespace in which process ids mean something."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        namespace = ""
    boot = boot_id() or secrets.token_hex(8)
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:12]


def _started(pid: int) -> str:
    """When a process was started, in ticks of the kernel; "" if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return _without_proc(pid)
    return "" if fields[:1] in ([b"Z"], [b"X"]) else fields[19].decode()


def _without_proc(pid: int) -> str:
    """The same where processes cannot be looked at: only whether one with this id runs."""
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "0"
