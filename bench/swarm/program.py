"""Programs of a run: started in a host's network, watched to their end, and what they cost.

Owns processes: each has a session of its own and is killed by its id. Must never touch a process it did not start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
WATCH_SECONDS = 0.01
STOP_SECONDS = 10.0


class TimedOut(Exception):
    """Something took longer than it may."""


class Program:
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
        with suppress(TimedOut):
            wait_until(lambda: not self.is_running(), STOP_SECONDS, "the end of a process")

    def said(self) -> str:
        """The end of what it wrote."""
        return (self.output.read_text(errors="replace") + self.errors.read_text(errors="replace"))[-600:].strip()


def wait_until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises TimedOut that names what was waited for."""
    ends_at = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends_at:
            raise TimedOut(f"{what} did not come within {seconds:.0f} s")
        time.sleep(WATCH_SECONDS)


def machine_cpu() -> tuple[float, float]:
    """(busy, all) seconds of all cores so far."""
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
