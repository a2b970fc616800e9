"""The bytes that a source sends, as a Protocol, and the error of a source that fails. Pure."""

from __future__ import annotations

from typing import Protocol


class Body(Protocol):
    """The bytes `[start, stop)` of a blob as a source sends them. Blocking: for a worker thread."""

    def readinto(self, view: memoryview) -> int:
        """Fills the front of `view` and returns the number of bytes; 0 at the end. Raises SourceFault if the source
        ends early."""
        ...

    def pass_over(self, view: memoryview) -> int:
        """Fills the front of `view` with bytes before the range, which a source without ranges sends first; 0 if the
        range comes next. `readinto` passes over them, too. Raises SourceFault."""
        ...

    def close(self) -> None:
        """Returns the connection to its pool if the body was read to its end, else closes it."""
        ...

    def abort(self) -> None:
        """Makes a `readinto` that blocks in another thread fail at once. Thread-safe."""
        ...


class SourceFault(Exception):
    """A source did not send what was requested. For the picker; not shown to people as it is.

    `is_permanent`: this source can never send this blob. `is_unreachable`: no connection was made.
    `retry_after_seconds`: the source asked not to be asked again for that long. `ignores_ranges`: it gives the blob
    only from its beginning. `is_no_failure`: it may be asked again at once, in another way.
    """

    def __init__(
        self,
        reason: str,
        *,
        is_permanent: bool = False,
        is_unreachable: bool = False,
        retry_after_seconds: float | None = None,
        ignores_ranges: bool = False,
        is_no_failure: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_permanent = is_permanent
        self.is_unreachable = is_unreachable
        self.retry_after_seconds = retry_after_seconds
        self.ignores_ranges = ignores_ranges
        self.is_no_failure = is_no_failure
