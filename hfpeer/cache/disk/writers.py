"""Finds out whether a process has a file open for writing, by asking the kernel for a read lease.

The kernel gives a lease only while no process has the file open for writing, whichever user or container it belongs to.
Source: fcntl(2), F_SETLEASE.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal


def is_open_for_writing(fd: int) -> bool | None:
    """Whether a process writes to the file that is open read-only as `fd`; None where the file system or the system
    cannot tell."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        # A program that opens the file meanwhile makes the kernel send this signal. It is ignored by default.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def is_written(path: str | os.PathLike[str]) -> bool | None:
    """The same for a path. A link counts as unknown, and a file that cannot be opened too."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return is_open_for_writing(fd)
    finally:
        os.close(fd)
