"""Starts, finds and stops the daemon of one home.

The process that holds the lock on the pid file is the daemon (`holder`). A detached daemon reports through a pipe that
it is ready, or why it is not. A service stays its manager's: it is neither ended nor replaced here.
"""

from __future__ import annotations

import asyncio
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
from hfpeer.control.holder import Holder, Service, find_holder, is_locked
from hfpeer.control.operations import NodeStatus
from hfpeer.errors import DaemonError, HfpeerError, Locked, NotRunning, VersionMismatch, from_problem
from hfpeer.system.ownership import check_own_folder, make_own_folder, not_writable, open_own, read_own
from hfpeer.version import __version__

COMMAND = (sys.executable, "-m", "hfpeer_daemon.server")
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 20.0
KILL_AFTER_SECONDS = 4.2
"""Seconds after which a daemon that has not ended is killed. Installed files cannot get lost by that."""
ENDING_SECONDS = 6.0
"""Seconds for which a start waits for a daemon that holds the home and does not answer, if it is not a new one."""
TAIL_LINES = 8
_POLL_SECONDS = 0.02


async def find_daemon(settings: Settings) -> NodeStatus | None:
    """The status of the running daemon; None when there is none."""
    client = ControlClient(settings.places.control_socket)
    try:
        return await client.status()
    except NotRunning:
        return None


async def require_daemon(settings: Settings) -> NodeStatus:
    """The status of the running daemon. Raises NotRunning when there is none, DaemonError when one holds the home and
    cannot be reached."""
    found = await find_daemon(settings)
    if found is not None:
        return found
    holder = find_holder(settings.places.pid_file)
    if holder is not None:
        raise holder.unreachable(settings.home)
    raise none_runs(settings)


def none_runs(settings: Settings) -> NotRunning:
    """The error for a command that needs a daemon, where this user has none. It names another user's at the endpoint's
    port."""
    from hfpeer.control.other_daemons import other_daemon_at

    other = other_daemon_at(settings.endpoint_listen.port)
    if other is None:
        return NotRunning("No daemon runs.", hint="`hfpeer daemon start` starts it.")
    hint = f"{other.sentence} For one of your own: `hfpeer daemon start`."
    return NotRunning("No daemon of yours runs.", hint=hint, endpoint=str(other.endpoint))


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
            if not _is_new(settings.places.pid_file, timeout_seconds):
                deadline = min(deadline, time.monotonic() + ENDING_SECONDS)
            while (holder := find_holder(settings.places.pid_file)) and await find_daemon(settings) is None:
                if time.monotonic() > deadline or (holder.is_elsewhere and holder.host):
                    raise holder.unreachable(settings.home) from None
                await asyncio.sleep(_POLL_SECONDS)
    return running


def _is_new(pid_file: Path, seconds: float) -> bool:
    """Whether the daemon that holds the home began in these last seconds, so that it may still be starting."""
    try:
        return abs(time.time() - pid_file.stat().st_mtime) < seconds
    except OSError:
        return False


async def stop_daemon(settings: Settings, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> bool:
    """Stops the daemon and waits until it has ended; False when there was none.

    Asks through the control socket; a daemon that does not answer there gets SIGTERM, and one that has not ended after
    KILL_AFTER_SECONDS gets SIGKILL. Raises DaemonError for a service, whose manager would start it again, for a daemon
    on another host, and if it is still there after `timeout_seconds`.
    """
    pid_file = settings.places.pid_file
    check_own_folder(settings.places.home)
    holder = find_holder(pid_file)
    if holder is None:
        return False
    if holder.service is not None and not holder.is_elsewhere:
        raise _is_managed(holder, holder.service, "stop")
    began_at = time.monotonic()
    client = ControlClient(settings.places.control_socket)
    try:
        await client.stop()
    except HfpeerError:
        if holder.is_elsewhere:
            raise holder.unreachable(settings.home) from None
        _signal(holder.pid, signal.SIGTERM)
    kill_at, deadline = began_at + KILL_AFTER_SECONDS, began_at + timeout_seconds
    while now := find_holder(pid_file):
        if time.monotonic() > kill_at and now.pid == holder.pid:
            _signal(holder.pid, signal.SIGKILL)
            kill_at = deadline
        if time.monotonic() > deadline:
            raise DaemonError(
                f"The daemon ({holder}) has not stopped within {timeout_seconds:g} s.",
                hint="Stop it where it runs."
                if holder.is_elsewhere
                else f"`kill -9 {holder.pid}` ends it at once; installed files are not lost.",
                pid=holder.pid,
            )
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def restart_daemon(settings: Settings, command: Sequence[str] = COMMAND) -> NodeStatus:
    """Stops the daemon if there is one, and starts one. Raises as the two do.

    A daemon that is a service, or was started in the foreground without a terminal, as in a container, stays the same
    process: it reads its settings anew.
    """
    holder = find_holder(settings.places.pid_file)
    if holder is not None and holder.is_in_place and not holder.is_elsewhere:
        return await _reload(settings, holder)
    await stop_daemon(settings)
    return await start_daemon(settings, command=command)


async def _reload(settings: Settings, holder: Holder) -> NodeStatus:
    """Makes a daemon read its settings anew, and waits until it answers again."""
    try:
        before = await find_daemon(settings)
    except VersionMismatch:
        before = None
    if before is None or before.version != __version__:
        raise _is_managed(holder, holder.service, "restart")
    began_at = time.monotonic()
    _signal(holder.pid, signal.SIGHUP)
    while True:
        now = await find_daemon(settings)
        if now is not None and now.started_at != before.started_at:
            return now
        if not is_locked(settings.places.pid_file):
            raise DaemonError("The daemon ended while it read its settings anew.", hint="Its log says why.")
        if time.monotonic() - began_at > START_TIMEOUT_SECONDS:
            raise _not_ready(START_TIMEOUT_SECONDS)
        await asyncio.sleep(_POLL_SECONDS)


def _is_managed(holder: Holder, service: Service | None, verb: str) -> DaemonError:
    if service is None:
        return DaemonError(
            f"The daemon ({holder}) was started in the foreground, so {verb} it where it was started.",
            hint="In a container that is the container itself.",
            pid=holder.pid,
        )
    return DaemonError(
        f"The daemon ({holder}) is the service {service.unit}, which its service manager starts and stops.",
        hint=service.command(verb),
        pid=holder.pid,
    )


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
