"""How long to wait before a source that failed is asked again. Pure."""

from __future__ import annotations

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 15.0


def backoff_seconds(failures: int, retry_after_seconds: float | None = None) -> float:
    """Seconds to wait after `failures` (1 and up) failures in a row. They double with each failure, up to
    LONGEST_SECONDS.

    `retry_after_seconds` is what the source asked for, and counts instead; it is bounded where its header is read.
    """
    if retry_after_seconds is not None:
        return max(FIRST_SECONDS, retry_after_seconds)
    return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (failures - 1)))
