"""Runs a program and measures it: CPU seconds, seconds, and the peak of anonymous memory of all its processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.02
"""Seconds between two looks at the memory."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """The cost of one run. `code` is its exit code."""

    code: int
    cpu_seconds: float
    seconds: float
    peak_mb: float


def measured(
    words: Sequence[str],
    environ: Mapping[str, str],
    helpers: Sequence[int] = (),
    stop: Callable[[float], bool] = lambda seconds: False,
) -> Cost:
    """Runs a program of Python to its end, or kills it when `stop` says so of its seconds. `helpers` are processes that
    work for it: what they use counts."""
    before = _children_seconds() + sum(map(_cpu_seconds, helpers))
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *words], env=dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(_anonymous_mb, {*_tree(process.pid), *helpers})))
        if stop(time.monotonic() - began):
            process.kill()
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    used = _children_seconds() + sum(map(_cpu_seconds, helpers)) - before
    return Cost(process.returncode, used, seconds, peak)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found, new = {pid}, {pid}
    while new:
        new = {child for parent in new for child in _children(parent)} - found
        found |= new
    return found


def _children(pid: int) -> set[int]:
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children.update(map(int, _read(task).split()))
    return children


def _anonymous_mb(pid: int) -> float:
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def _cpu_seconds(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def _read(file: Path) -> str:
    """A file of /proc; empty when its process is gone."""
    try:
        return file.read_text()
    except OSError:
        return ""
