"""Takes the place of `filelock` in the receiver, on volumes where flock does not work: there it goes on without a lock.

Nothing rests on locks: they only save work.
"""

from __future__ import annotations


class Timeout(Exception):
    """Never raised."""


class SoftFileLock:
    """A lock that everyone has."""

    def __init__(self, path: object, timeout: float = -1) -> None:
        pass

    def acquire(self) -> None:
        """Does nothing."""

    def release(self) -> None:
        """Does nothing."""
