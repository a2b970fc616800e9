"""Credit: whether other sources wait for a source. It loses credit when it holds others back and gives nothing useful
for a bounded time. Pure; time is handed in.

A source holds others back by a request, a claim, the pieces that it says it has, and its share; it loses credit in the
same way for each. A node keeps one account for each source over all blobs, so that a source that kept one blob waiting
does not begin with full credit at the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.budgets import LONGEST_WITHOUT_CREDIT_SECONDS, MAX_CREDIT_ACCOUNTS, WITHOUT_CREDIT_SECONDS
from hfpeer.net.lru_cache import LruCache


@dataclass
class Credit:
    """One source's account."""

    losses: int = 0
    """How often in a row the source has lost credit."""
    is_mute: bool = False
    """It did not tell in time which pieces of a blob it has, when it was last asked."""
    _until: float = 0.0
    _reset_at: float | None = None

    def is_lost(self, now: float) -> bool:
        """Whether no other source waits for this one now."""
        return now < self._until

    def keeps_request(self, now: float, *, is_slow: bool) -> bool:
        """Whether a running request is left to this source although others could go on with it. Without credit it keeps
        none that is slow."""
        return not (is_slow and self.is_lost(now))

    def lose(self, now: float) -> None:
        """The source kept others waiting. They go first for a while, each time for twice as long. A loss counts once
        while it lasts, so that requests that ran side by side count as one."""
        if not self.is_lost(now):
            seconds = WITHOUT_CREDIT_SECONDS * 2.0 ** min(self.losses, 30)
            self.losses += 1
            self._until = now + min(seconds, LONGEST_WITHOUT_CREDIT_SECONDS)

    def earn(self) -> None:
        """The source has brought a whole request in time."""
        self.losses = 0

    def reset(self, now: float) -> None:
        """The source is reached at another address now, and has credit again; at most once in a while."""
        if self._reset_at is None or now - self._reset_at >= 2 * WITHOUT_CREDIT_SECONDS:
            self._reset_at = now
            self.losses, self._until = 0, 0.0


class Credits:
    """The accounts of a node, by node id or by the name of an upstream. The least recently used are dropped when there
    are too many."""

    def __init__(self) -> None:
        self._accounts: LruCache[str, Credit] = LruCache(MAX_CREDIT_ACCOUNTS)

    def of(self, source: str) -> Credit:
        return self._accounts.get_or_put(source, Credit)
