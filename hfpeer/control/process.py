"""Starts, finds and stops the daemon of one home.

The process that holds the lock on the pid file is the daemon. The kernel releases the lock when it ends, so a crash
leaves no stale one. A detached daemon reports through a pipe that it is ready, or why it is not.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfpeer.config.paths import Places
from hfpeer.config.settings import Settings
from hfpeer.control.client import ControlClient
from hfpeer.control.operations import NodeStatus
from hfpeer.errors import DaemonError, HfpeerError, Locked, NotRunning, from_problem
from hfpeer.system.ownership import check_own_folder, make_own_folder, not_writable, open_own, read_own

COMMAND = (sys.executable, "-m", "hfpeer_daemon.server")
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 20.0
KILL_AFTER_SECONDS = 4.2
"""Seconds after which a daemon that has not ended is killed. Installed files cannot get lost by that."""
LOCK_PATIENCE_SECONDS = 0.2
"""Seconds for which a starting daemon waits for the lock: a check whether it is held takes it for an instant."""
TAIL_LINES = 8
_POLL_SECONDS = 0.02


class DaemonLock:
    """The lock on a home's pid file. The daemon holds it until it ends."""

    def __init__(self, places: Places) -> None:
        self._path = places.pid_file
        self._control_socket = places.control_socket
        self._fd: int | None = None

    def acquire(self) -> None:
        """Makes this process the daemon of the home. Raises Locked, naming the other daemon, or BrokenCache."""
        try:
            make_own_folder(self._path.parent)
            fd = open_own(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise not_writable(self._path, error) from error
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while not (is_held := _try_lock(fd)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not is_held:
            os.close(fd)
            raise Locked(
                f"A daemon is running already ({_called(holder_pid(self._path))}).",
                hint="hfpeer daemon status",
                pid=holder_pid(self._path),
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n{self._control_socket}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def holder_pid(pid_file: Path) -> int | None:
    """The process that holds the lock; None when there is none, or its id cannot be found out."""
    try:
        fd = open_own(pid_file, os.O_RDWR)
    except OSError:
        return None
    try:
        if _try_lock(fd):
            return None
        text = os.pread(fd, 32, 0).partition(b"\n")[0].strip()
        return int(text) if text.isdigit() and _has_open(int(text), pid_file) else None
    finally:
        os.close(fd)


def is_locked(pid_file: Path) -> bool:
    """Whether a daemon holds the lock."""
    try:
        fd = open_own(pid_file, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)


def _called(pid: int | None) -> str:
    """A daemon in a message. One without an id is no process of this machine, although it holds the lock."""
    return "on another machine or in a container that shares this home" if pid is None else f"process {pid}"


def _try_lock(fd: int) -> bool:
    """Takes the lock unless another has it; closing the descriptor gives it back."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
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


async def find_daemon(settings: Settings) -> NodeStatus | None:
    """The status of the running daemon; None when there is none."""
    client = ControlClient(settings.places.control_socket)
    try:
        return await client.status()
    except NotRunning:
        return None


async def start_daemon(
    settings: Settings, timeout_seconds: float = START_TIMEOUT_SECONDS, command: Sequence[str] = COMMAND
) -> NodeStatus:
    """Starts a daemon that outlives this process, unless one is running. Returns its status when it answers.

    Raises the error that ended its start, for example AddressInUse, InvalidName or BrokenCache, or DaemonError with the
    end of its output.
    """
    deadline = time.monotonic() + timeout_seconds
    while (running := await find_daemon(settings)) is None:
        try:
            await asyncio.to_thread(_start_detached, settings.places, command, timeout_seconds)
        except Locked:
            # Another start was faster, or the previous daemon is still ending.
            while is_locked(settings.places.pid_file) and await find_daemon(settings) is None:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
    return running


async def stop_daemon(settings: Settings, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> bool:
    """Stops the daemon and waits until it has ended; False when there was none.

    Asks through the control socket; a daemon that does not answer there gets SIGTERM, and one that has not ended after
    KILL_AFTER_SECONDS gets SIGKILL. Raises DaemonError if it is still there after `timeout_seconds`.
    """
    pid_file = settings.places.pid_file
    check_own_folder(settings.places.home)
    if not is_locked(pid_file):
        return False
    pid = holder_pid(pid_file)
    began_at = time.monotonic()
    client = ControlClient(settings.places.control_socket)
    try:
        await client.stop()
    except HfpeerError:
        _signal(pid, signal.SIGTERM)
    kill_at, deadline = began_at + KILL_AFTER_SECONDS, began_at + timeout_seconds
    while is_locked(pid_file):
        if time.monotonic() > kill_at and holder_pid(pid_file) == pid:
            _signal(pid, signal.SIGKILL)
            kill_at = deadline
        if time.monotonic() > deadline:
            raise DaemonError(
                f"The daemon ({_called(pid)}) has not stopped within {timeout_seconds:g} s.",
                hint="Stop it where it runs."
                if pid is None
                else f"`kill -9 {pid}` ends it at once; installed files are not lost.",
                pid=pid,
            )
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def restart_daemon(settings: Settings, command: Sequence[str] = COMMAND) -> NodeStatus:
    """Stops the daemon if there is one, and starts one. Raises as the two do."""
    await stop_daemon(settings)
    return await start_daemon(settings, command=command)


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _start_detached(places: Places, command: Sequence[str], timeout_seconds: float) -> None:
    """Starts the daemon in a session of its own and waits for its report. Blocks."""
    output = places.log_file.with_name("startup.log")
    try:
        make_own_folder(places.home)
        make_own_folder(output.parent)
        sink = os.fdopen(open_own(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")
    except OSError as error:
        raise not_writable(output, error) from error
    reading, writing = os.pipe()
    try:
        with sink:
            # This process only forks the daemon and ends, so that the daemon is no child of ours.
            try:
                subprocess.run(
                    [*command, "--detach", "--report-fd", str(writing)],
                    env={**os.environ, "HFPEER_HOME": str(places.home)},
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    pass_fds=[writing],
                    start_new_session=True,
                    timeout=timeout_seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise _not_ready(timeout_seconds) from None
        os.close(writing)
        writing = -1
        report = _read_report(reading, timeout_seconds)
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)
    _check_report(report, output, timeout_seconds)


def _read_report(fd: int, timeout_seconds: float) -> bytes | None:
    """The bytes written to the pipe until it is closed; None after the time-out."""
    deadline = time.monotonic() + timeout_seconds
    report = b""
    while True:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        chunk = os.read(fd, 65536)
        if not chunk:
            return report
        report += chunk


def _check_report(report: bytes | None, output: Path, timeout_seconds: float) -> None:
    """Returns if the report says that the daemon is ready, else raises the error in it."""
    if report is None:
        raise _not_ready(timeout_seconds)
    try:
        document = json.loads(report)
    except ValueError:
        raise DaemonError(
            f"The daemon ended while it started. The end of its output:\n{_tail(output)}", log=str(output)
        ) from None
    if "problem" in document:
        raise from_problem(document["problem"])


def _not_ready(timeout_seconds: float) -> DaemonError:
    return DaemonError(
        f"The daemon has not become ready within {timeout_seconds:g} s.", hint="hfpeer daemon logs shows why."
    )


def _tail(path: Path) -> str:
    try:
        lines = read_own(path).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])


class Reporter:
    """The daemon's end of the pipe: reports once how the start went. Without a descriptor it does nothing."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def ready(self) -> None:
        self._send({"ready": True})

    def failed(self, error: HfpeerError) -> None:
        self._send({"problem": error.to_problem()})

    def _send(self, document: dict[str, Any]) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.write(fd, json.dumps(document, default=str).encode())
            except BrokenPipeError:
                pass
            os.close(fd)
