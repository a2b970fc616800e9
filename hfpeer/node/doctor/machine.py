"""This machine: the home, the disk of the cache, the limits of a process, the daemons. Blocking."""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from hfpeer.cache.disk.os_errors import MOVES_HOME, free_bytes, obstacle, storage_error
from hfpeer.cache.disk.volume import Volume, nearest_folder, try_volume
from hfpeer.config.settings import Settings
from hfpeer.control.environment import Difference
from hfpeer.control.other_daemons import daemon_of, listeners
from hfpeer.control.results import NodeStatus
from hfpeer.errors import HfpeerError
from hfpeer.language.amounts import human_size
from hfpeer.node.doctor.findings import Finding, fault, ok, warning
from hfpeer.version import __version__

LOW_BYTES, LOWEST_BYTES = 20 * 10**9, 10**9
"""Less free space than LOW_BYTES is worth a warning, less than LOWEST_BYTES a fault: models are large."""
HOME_BYTES = 10**7
"""Less free space for hfpeer's own data is a fault."""
TRIAL_BYTES = 32 * 1024 * 1024
SLOW_BYTES_PER_SECOND = 50 * 10**6
"""A disk that writes slower than this is slower than a LAN of 1 Gbit/s."""
MIN_OPEN_FILES = 1024


def look_at_daemon(
    settings: Settings, status: NodeStatus | None, found: Iterable[Difference] = ()
) -> Iterator[Finding]:
    """Whether a daemon runs, and whether it is of this version and over this cache. `found` are the differences of its
    environment."""
    if status is None or not status.is_daemon:
        if status is not None and status.holder:
            yield fault(
                "daemon",
                f"A daemon ({status.holder}) holds this home and does not answer.",
                "`hfpeer daemon status` says more.",
            )
        else:
            yield warning("daemon", "No daemon runs: nothing is shared, and no peer is asked.", "`hfpeer daemon start`")
    else:
        yield ok("daemon", f"It runs (pid {status.pid}), hfpeer {status.version}.")
        if status.version != __version__:
            yield warning("daemon", f"This command is of version {__version__}.", "`hfpeer daemon restart`")
        if Path(status.cache) != settings.cache:
            yield warning(
                "cache",
                f"The daemon keeps its cache in {status.cache}, this shell in {settings.cache}.",
                "Unset HF_HOME and HF_HUB_CACHE here, or set them alike and `hfpeer daemon restart`.",
            )
        for note in status.notes:
            yield warning("daemon", note)
    for difference in found:
        yield warning("environment", difference.sentence, difference.hint)
    for uid in {one.uid for one in listeners()} - {os.geteuid()}:
        other = daemon_of(uid)
        if other is not None:
            yield warning("daemon", other.sentence)


def look_at_disk(settings: Settings) -> Iterator[Finding]:
    """The volume of the cache: whether it can be written, its free space, its speed, and what it cannot do."""
    if stands := _stands_there(settings.cache):
        yield fault("disk", f"{stands[0]}.", stands[1])
        return
    cache = nearest_folder(settings.cache)
    try:
        volume = try_volume(cache)
    except (OSError, HfpeerError) as error:
        found = storage_error(error, "look at the cache", cache) if isinstance(error, OSError) else error
        yield fault("disk", found.message, "`hfpeer conf cache set DIR`")
        return
    if not volume.is_writable:
        yield fault(
            "disk",
            f"This user cannot write to {cache}.",
            "`hfpeer conf cache set DIR` names another folder, or ask its owner for the right to write.",
        )
    free = f"{human_size(volume.free_bytes)} of {human_size(volume.size_bytes)} are free in {cache}."
    if volume.size_bytes and volume.free_bytes < LOW_BYTES:
        make = fault if volume.free_bytes < LOWEST_BYTES else warning
        yield make("disk space", free, "`hfpeer cache du` shows what takes the space, `hfpeer cache prune` makes room.")
    else:
        yield ok("disk space", free)
    yield from _abilities(volume)
    if volume.is_writable and volume.free_bytes > 2 * TRIAL_BYTES:
        rate = _write_rate(cache)
        sentence = f"It writes {rate / 1e6:,.0f} MB/s."
        if rate < SLOW_BYTES_PER_SECOND:
            yield warning("disk speed", sentence, "`hfpeer conf cache set DIR` moves new files to a faster disk.")
        else:
            yield ok("disk speed", sentence)


def look_at_home(settings: Settings) -> Iterator[Finding]:
    """Whether the disk of the home has room for the catalog and the queue."""
    free = free_bytes(settings.home)
    if free is not None and free < HOME_BYTES:
        yield fault(
            "home",
            f"{human_size(free)} are free in hfpeer's home {settings.home}.",
            f"Make room there, or {MOVES_HOME}.",
        )


def _stands_there(cache: Path) -> tuple[str, str] | None:
    """What stands where the folder of the cache is due, and the hint."""
    try:
        os.scandir(cache).close()
    except OSError as error:
        return obstacle(cache, error)
    return None


def look_at_limits() -> Iterator[Finding]:
    """How many files and sockets a process of this user may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sentence = f"A process may have {soft:,} files open."
    if 0 <= soft < MIN_OPEN_FILES:
        yield warning(
            "open files", sentence, f"`ulimit -n {max(MIN_OPEN_FILES, min(hard, 65536))}` before the daemon starts."
        )
    else:
        yield ok("open files", sentence)


def _abilities(volume: Volume) -> Iterator[Finding]:
    lacking = [sentence for sentence in volume.consequences if volume.is_writable]
    if not lacking:
        yield ok("file system", f"{volume.file_system} has all that a cache uses.")
    for sentence in lacking:
        yield warning("file system", f"{volume.file_system}: {sentence}", "`hfpeer conf cache set DIR`")


def _write_rate(folder: Path) -> float:
    """Bytes a second of a short write to the disk."""
    chunk = os.urandom(1024 * 1024)
    began = time.monotonic()
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(TRIAL_BYTES // len(chunk)):
            file.write(chunk)
        file.flush()
        os.fdatasync(file.fileno())
    return TRIAL_BYTES / max(1e-6, time.monotonic() - began)
