"""Starting, finding and stopping the daemon of one home, from outside and from inside.

Owns the pid file and its lock: whoever holds the lock is the daemon, so a crash leaves nothing stale. A detached
daemon tells its starter through a pipe that it is ready, or why it is not.
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

from hfpeer.control import ControlClient
from hfpeer.errors import BrokenCache, DaemonError, HfpeerError, Locked, NotRunning, from_problem
from hfpeer.operations import NodeStatus
from hfpeer.paths import Places
from hfpeer.settings import Settings

COMMAND = (sys.executable, "-m", "hfpeer_daemon.server")
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 20.0
TAIL_LINES = 8
_POLL_SECONDS = 0.02


class DaemonLock:
    """The lock on a home's pid file. Held by the daemon for as long as it lives; the kernel takes it back."""

    def __init__(self, places: Places) -> None:
        self._path = places.pid_file
        self._fd: int | None = None

    def acquire(self) -> None:
        """Makes this process the daemon of the home. Raises Locked, naming the one that is, or BrokenCache."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BrokenCache(f"{self._path} cannot be written: {error}.", hint="Check HFPEER_HOME.") from error
        if not _try_lock(fd):
            os.close(fd)
            raise Locked(
                f"A daemon is running already (process {holder_pid(self._path)}).",
                hint="hfpeer daemon status",
                pid=holder_pid(self._path),
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def holder_pid(pid_file: Path) -> int | None:
    """The process that holds the lock; None when none does, or it cannot be told."""
    try:
        fd = os.open(pid_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _try_lock(fd):
            return None
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() and _has_open(int(text), pid_file) else None
    finally:
        os.close(fd)


def is_locked(pid_file: Path) -> bool:
    """Whether a daemon lives."""
    try:
        fd = os.open(pid_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    """Takes the lock unless another has it; closing the descriptor gives it back."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has the file open; True where the system does not tell."""
    links = Path(f"/proc/{pid}/fd")
    if not Path("/proc/self/fd").is_dir():
        return True
    try:
        return any(link.samefile(path) for link in links.iterdir() if link.exists())
    except OSError:
        return False


async def find_daemon(settings: Settings) -> NodeStatus | None:
    """What the running daemon says of itself; None when there is none."""
    client = ControlClient(settings.places.control_socket)
    try:
        return await client.status()
    except NotRunning:
        return None


async def start_daemon(
    settings: Settings, timeout_seconds: float = START_TIMEOUT_SECONDS, command: Sequence[str] = COMMAND
) -> NodeStatus:
    """Starts a daemon that outlives this process, and gives its status once it answers.

    A daemon that runs already is left alone and its status given. Raises what kept it from starting: AddressInUse,
    InvalidName, BrokenCache and so on, or DaemonError with the end of its output.
    """
    running = await find_daemon(settings)
    if running is not None:
        return running
    await asyncio.to_thread(_start_detached, settings.places, command, timeout_seconds)
    client = ControlClient(settings.places.control_socket)
    return await client.status()


async def stop_daemon(settings: Settings, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> bool:
    """Stops the daemon and waits until it is gone; False when there was none.

    Asks through the control socket; a daemon that does not answer there gets SIGTERM. Raises DaemonError if it is
    still there after `timeout_seconds`.
    """
    pid_file = settings.places.pid_file
    if not is_locked(pid_file):
        return False
    pid = holder_pid(pid_file)
    client = ControlClient(settings.places.control_socket)
    try:
        await client.stop()
    except HfpeerError:
        _terminate(pid)
    deadline = time.monotonic() + timeout_seconds
    while is_locked(pid_file):
        if time.monotonic() > deadline:
            raise DaemonError(
                f"The daemon (process {pid}) has not stopped within {timeout_seconds:g} s.",
                hint=f"kill -9 {pid} ends it at once; nothing that was installed is lost.",
                pid=pid,
            )
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def restart_daemon(settings: Settings, command: Sequence[str] = COMMAND) -> NodeStatus:
    """Stops the daemon if there is one, and starts one. Raises as the two do."""
    await stop_daemon(settings)
    return await start_daemon(settings, command=command)


def _terminate(pid: int | None) -> None:
    if pid is not None:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


def _start_detached(places: Places, command: Sequence[str], timeout_seconds: float) -> None:
    """Blocking: starts the daemon in a session of its own and waits for its report."""
    output = places.log_file.with_name("startup.log")
    try:
        output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        sink = output.open("wb")
    except OSError as error:
        raise BrokenCache(f"{output} cannot be written: {error}.", hint="Check HFPEER_HOME.") from error
    reading, writing = os.pipe()
    try:
        with sink:
            # The process started here only forks the daemon, so that nobody has to wait for that one.
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
    _judge(report, output, timeout_seconds)


def _read_report(fd: int, timeout_seconds: float) -> bytes | None:
    """All that is written to the pipe until it is closed; None when that takes too long."""
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


def _judge(report: bytes | None, output: Path, timeout_seconds: float) -> None:
    """Returns if the report says that the daemon is ready, else raises why not."""
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
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])


class Reporter:
    """The daemon's end of the pipe: says once how the start went. Without a descriptor it says nothing."""

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
