"""Progress as plain lines, one now and then, where no bars can be drawn: in a pipe, or a terminal without cursor."""

from __future__ import annotations

import time
from collections.abc import Callable

from hfpeer.transfer.events import Progressed, SourceFailed

EVERY_SECONDS = 30.0
"""Seconds between two lines."""


class ProgressLines:
    """Prints a line with `say` for the first progress after `every_seconds`, then after each further time. `describe`
    makes its text. Called from any thread."""

    def __init__(
        self,
        say: Callable[[str], None],
        describe: Callable[[Progressed], str],
        *,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._describe = describe
        self._every_seconds = every_seconds
        self._clock = clock
        self._next_at = clock() + every_seconds
        self._failed: dict[str, SourceFailed] = {}

    def note_failure(self, event: SourceFailed) -> None:
        """The next line names the source, with its latest reason: a source that fails again and again is no news."""
        self._failed[event.source] = event

    def __call__(self, event: Progressed) -> None:
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + self._every_seconds
        self._say(f"{self._describe(event)}.")
        failed, self._failed = self._failed, {}
        for failure in failed.values():
            self._say(f"{failure.source} gave up on {failure.path} ({failure.reason}).")
