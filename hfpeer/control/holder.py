"""Who is the daemon of a home: the process that holds the lock on its pid file.

The kernel releases the lock when that process ends, so a crash leaves no stale one. Other hosts and containers may
share a home: the file names the host. A process id counts only if that process is seen to have the file open.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hfpeer.config.paths import Places
from hfpeer.errors import DaemonError, Locked
from hfpeer.system.ownership import make_own_folder, not_writable, open_own

LOCK_PATIENCE_SECONDS = 0.2
"""Seconds for which a starting daemon waits for the lock: a check whether it is held takes it for an instant."""
MAX_PID_FILE_BYTES = 4096
_POLL_SECONDS = 0.02
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


@dataclass(frozen=True)
class Service:
    """A daemon that a service manager started and would start again. `unit` is its name for systemd, `is_of_user`
    whether it is one of the user's own manager."""

    unit: str
    is_of_user: bool

    def command(self, verb: str) -> str:
        """The command with which the manager does it."""
        return f"systemctl {'--user ' if self.is_of_user else ''}{verb} {self.unit}"


def service_of(environ: Mapping[str, str], groups: str) -> Service | None:
    """The service that this process is; None if no service manager started it. `groups` is /proc/self/cgroup.

    The variables are inherited by all that a service starts, such as a terminal, so a process with a terminal is none.
    Source: systemd.exec(5), systemd.unit(5).
    """
    if not (environ.get("NOTIFY_SOCKET") or environ.get("INVOCATION_ID")):
        return None
    parts = [part for line in groups.splitlines() for part in line.rpartition(":")[2].split("/")]
    units = [part.removesuffix(".service") for part in parts if part.endswith(".service")]
    own = [unit for unit in units if not unit.startswith("user@")]
    is_of_user = len(own) < len(units) if own else os.geteuid() != 0
    return Service(own[-1] if own else "hfpeerd", is_of_user)


@dataclass(frozen=True)
class Holder:
    """The daemon that holds a home. `pid` is None if no such process is seen: then it runs at `host`, another machine
    or a container. `is_in_place`: it has no terminal, and was not detached, so something else waits for it."""

    pid: int | None
    host: str = ""
    service: Service | None = None
    is_in_place: bool = False

    @property
    def is_elsewhere(self) -> bool:
        return self.pid is None

    def __str__(self) -> str:
        if self.pid is not None:
            return f"process {self.pid}"
        if self.host == socket.gethostname():
            return f"in a container of this host, {self.host}"
        return f"on the host {self.host}" if self.host else "on another machine or in a container that shares this home"

    def unreachable(self, home: Path) -> DaemonError:
        """The error for a command that needs it and cannot reach it."""
        if self.pid is not None:
            return DaemonError(
                f"A daemon (process {self.pid}) holds {home}, but does not answer.",
                hint="`hfpeer daemon restart` ends it and starts another; `hfpeer daemon logs` may tell why.",
                pid=self.pid,
                host=self.host,
            )
        where = f"on {self.host}" if self.host and self.host != socket.gethostname() else "where it runs"
        return DaemonError(
            f"A daemon {self} holds {home}, and cannot be reached from here.",
            hint=f"Stop it {where} (`hfpeer daemon stop`), or set HFPEER_HOME to a folder of this machine.",
            host=self.host,
        )


class DaemonLock:
    """The lock on a home's pid file. The daemon holds it until it ends."""

    def __init__(self, places: Places, *, is_detached: bool = True) -> None:
        self._path = places.pid_file
        self._control_socket = places.control_socket
        self._is_in_place = not is_detached and not sys.stderr.isatty()
        self._fd: int | None = None

    def acquire(self) -> None:
        """Makes this process the daemon of the home. Raises Locked, naming the other daemon, or BrokenCache."""
        try:
            make_own_folder(self._path.parent)
            fd = open_own(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise not_writable(self._path, error) from error
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while not (is_held := _try_lock(fd, self._path)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not is_held:
            holder = _read(fd, self._path)
            os.close(fd)
            raise Locked(
                f"A daemon is running already ({holder}).",
                hint="hfpeer daemon status",
                pid=holder.pid,
                host=holder.host,
            )
        service = service_of(os.environ, _groups()) if self._is_in_place else None
        facts = {
            "host": socket.gethostname(),
            "is_in_place": self._is_in_place,
            "service": None if service is None else asdict(service),
        }
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n{json.dumps(facts)}\n{self._control_socket}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def find_holder(pid_file: Path) -> Holder | None:
    """The daemon that holds the lock; None if there is none."""
    try:
        fd = open_own(pid_file, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _try_lock(fd, pid_file) else _read(fd, pid_file)
    finally:
        os.close(fd)


def is_locked(pid_file: Path) -> bool:
    """Whether a daemon holds the lock."""
    return find_holder(pid_file) is not None


def _read(fd: int, pid_file: Path) -> Holder:
    """What a pid file says. Its lines: the process id, facts as JSON, and the control socket. The file of an older
    version has no facts, and one that is being written may be empty."""
    first, *others = os.pread(fd, MAX_PID_FILE_BYTES, 0).decode(errors="replace").splitlines() or [""]
    pid = int(first) if first.isdecimal() and _has_open(int(first), pid_file) else None
    try:
        facts = json.loads(others[0]) if others else {}
        service = Service(**facts["service"]) if facts.get("service") else None
        return Holder(pid, str(facts["host"]), service, bool(facts["is_in_place"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Holder(pid)


def _try_lock(fd: int, path: Path) -> bool:
    """Takes the lock unless another has it; closing the descriptor gives it back. Where the volume has no locks, the
    process that the file names counts as the holder, as long as this process can see it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        pid = _read(fd, path).pid
        return pid is None or pid == os.getpid()
    return True


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has the file open; True on systems without /proc/PID/fd."""
    links = Path(f"/proc/{pid}/fd")
    if not Path("/proc/self/fd").is_dir():
        return True
    try:
        return any(link.samefile(path) for link in links.iterdir() if link.exists())
    except OSError:
        return False


def _groups() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""
