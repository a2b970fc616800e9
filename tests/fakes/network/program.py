"""A program whose output goes to a file, watched to its end, and what it costs.

Owns processes: each has a session of its own and is killed by its id. Must never touch a process it did not start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fakes.waiting import wait_until

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 30.0


class HostProgram:
    """One process, its output in a file. `done_marker`, if any, is a file whose appearance counts as its success."""

    def __init__(
        self, argv: Sequence[str | Path], output: Path, environ: Mapping[str, str], done_marker: Path | None = None
    ) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self.output = output
        self.errors = output.with_suffix(".err")
        self.ended_at: float | None = None
        self.exit_code: int | None = None
        self._done_marker = done_marker
        self._cpu_seconds = 0.0
        with output.open("wb") as out, self.errors.open("wb") as err:
            self.began_at = time.monotonic()
            self._process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environ),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def is_running(self) -> bool:
        """Looks; reaps it when it has ended."""
        if self._process.returncode is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self._cpu_seconds = usage.ru_utime + usage.ru_stime
                self._end(self._process.returncode)
        return self._process.returncode is None

    def is_done(self) -> bool:
        """Whether it has ended, or has said that it is done while it goes on."""
        if self.is_running() and self._done_marker is not None and self._done_marker.exists():
            self._end(0)
        return self.ended_at is not None

    def _end(self, exit_code: int) -> None:
        if self.ended_at is None:
            self.ended_at = time.monotonic()
            self.exit_code = exit_code

    def cpu_seconds(self) -> float:
        """User and system seconds of it and of its children that have ended or still run."""
        if not self.is_running():
            return self._cpu_seconds
        return _cpu_seconds(self.pid) + sum(_cpu_seconds(child) for child in _children(self.pid))

    def kill(self) -> None:
        """SIGKILL to its session, and wait."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it does not hear."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if not self.is_running():
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        with suppress(TimeoutError):
            wait_until(lambda: not self.is_running(), "the end of a process", STOP_SECONDS)

    def said(self) -> str:
        """The end of what it wrote."""
        return (self.output.read_text(errors="replace") + self.errors.read_text(errors="replace"))[-600:].strip()


def kill_session(process: subprocess.Popen[Any]) -> None:
    """Ends a program with all that it started in its session, and closes its pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(STOP_SECONDS)
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def machine_cpu() -> tuple[float, float]:
    """(busy, all) seconds of all cores since the machine started."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS, sum(ticks) / TICKS


def _cpu_seconds(pid: int) -> float:
    """With what its ended children used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
