"""Manners of long work on files: how many threads it takes, at which priority, and what it leaves in the page cache."""

from __future__ import annotations

import contextlib
import os
import threading

NICENESS = 10
"""The priority of the threads that hash: programs that wait for the CPU go first."""
DROP_BYTES = 8 * 1024 * 1024
"""Bytes read between two calls that drop them from the page cache."""
_nice = threading.local()


def cores() -> int:
    """The cores that this process may use; where that cannot be asked, those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def be_nice() -> None:
    """Lowers the priority of this thread once. Linux only: elsewhere it would be that of the process."""
    if not getattr(_nice, "is_set", False):
        _nice.is_set = True
        with contextlib.suppress(OSError, AttributeError):
            if os.uname().sysname == "Linux":
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def drop_pages(fd: int, offset: int, length: int) -> None:
    """Drops bytes that were read from the page cache, so that they push out none of other programs."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
