"""Deletes the partials and temporary files that killed processes left in the cache, after they were idle long enough.

Idle time counts only while a daemon runs, by a monotonic clock: the system clock may be years wrong at a start, and
deleted bytes are lost. `leftovers.json` in the home keeps the idle times over restarts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hfpeer.cache.disk.directories import open_file, opened
from hfpeer.cache.disk.locks import locked
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.partial.claims import is_in_use
from hfpeer.cache.partial.files import partial_folders
from hfpeer.cache.snapshots import ASIDE_SUFFIX, write_file
from hfpeer.errors import BrokenCache
from hfpeer.system.cancellation import check_stop

MAX_STEP_SECONDS = 2 * 3600.0
"""Most seconds counted between two sweeps: a process that was suspended for days has not run."""


class Leftovers:
    """The leftovers in `cache`; `note` is the file with their idle times. Blocking, for one thread at a time."""

    def __init__(self, cache: Path, note: Path) -> None:
        self._cache = cache
        self._note = note

    def sweep(self, ran_seconds: float, max_idle_seconds: float) -> int:
        """Deletes leftovers that were idle for more than `max_idle_seconds`. Returns the number of bytes freed.

        `ran_seconds` is the time that the daemon has run since the last sweep. Raises NoSpace or BrokenCache when the
        idle times cannot be written.
        """
        before, now = self._read(), {}
        ran_seconds = min(ran_seconds, MAX_STEP_SECONDS)

        def is_stale(name: str, stamp: str) -> bool:
            known_stamp, idle_seconds = before.get(name, ("", 0.0))
            now[name] = (stamp, idle_seconds + ran_seconds if stamp == known_stamp else 0.0)
            return now[name][1] > max_idle_seconds

        freed_bytes = sweep(self._cache, is_stale)
        if now != before:
            write_file(self._note, json.dumps(now), 0o600)
        return freed_bytes

    def _read(self) -> dict[str, tuple[str, float]]:
        """By leftover: its last stamp and idle seconds. Empty if the file cannot be read."""
        try:
            document: dict[str, Any] = json.loads(self._note.read_bytes())
            return {name: (str(stamp), max(0.0, float(seconds))) for name, (stamp, seconds) in document.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def sweep(cache: Path, is_stale: Callable[[str, str], bool] = lambda name, stamp: True) -> int:
    """Deletes the leftovers of killed processes: partials that no process has open, and temporary files.

    `is_stale` decides for each, by its path below the cache and a stamp that every write changes. Returns the number of
    bytes freed on the disk. Raises BrokenCache.
    """
    freed_bytes = 0
    with translated("look at the cache", cache):
        repos = list(cache.glob("*--*"))
    for repo in repos:
        with contextlib.suppress(OSError, BrokenCache), opened(cache, repo) as inside:
            for stray in inside.glob(f".*{ASIDE_SUFFIX}"):
                if is_stale(f"{repo.name}/{stray.name}", _stamp(stray)):
                    stray.unlink()
    for folder in partial_folders(cache):
        check_stop()
        with contextlib.suppress(OSError, BrokenCache), opened(cache, folder) as inside:
            files = [path for path in (inside / "data", inside / "journal") if path.exists()]
            if files and is_stale(str(folder.relative_to(cache)), " ".join(map(_stamp, files))):
                freed_bytes += _sweep_one(folder, inside, files)
            with opened(cache, folder.parent) as around:
                (around / folder.name).rmdir()
    return freed_bytes


def remove_partial(cache: Path, folder: Path, stamp: str) -> int:
    """Deletes one partial, unless it was written since it had this stamp. Returns the number of bytes freed on the
    disk, 0 if it was. Raises Locked when a process has it open, OSError or BrokenCache."""
    with opened(cache, folder) as inside:
        files = [path for path in (inside / "data", inside / "journal") if path.exists()]
        if not files or " ".join(map(_stamp, files)) != stamp:
            return 0
        freed_bytes = _sweep_one(folder, inside, files)
        if (inside / "data").exists():
            raise locked(folder)
    with contextlib.suppress(OSError), opened(cache, folder.parent) as around:
        (around / folder.name).rmdir()
    return freed_bytes


def _stamp(path: Path) -> str:
    facts = path.lstat()
    return f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_size}"


def _sweep_one(folder: Path, inside: Path, files: Sequence[Path]) -> int:
    """Deletes the files of one partial, unless a process has it open. Returns the bytes freed."""
    fd = open_file(inside / "data", os.O_RDWR)
    try:
        if is_in_use(folder, fd):
            return 0
        size_bytes = os.fstat(fd).st_blocks * 512
        for path in files:
            path.unlink(missing_ok=True)
        return size_bytes
    finally:
        os.close(fd)
