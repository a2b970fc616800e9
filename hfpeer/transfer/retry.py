"""How long a source rests after it failed. Pure."""

from __future__ import annotations

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 15.0


def backoff_seconds(failures: int) -> float:
    """The rest after `failures` (1 and up) failures in a row: it doubles, up to a bound."""
    return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (failures - 1)))
