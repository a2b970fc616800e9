"""Checks single fields of JSON that a stranger, or an older version, wrote. Pure.

Each takes the value of a field and gives it back, or raises ValueError that shows the value, cut short. The receiver of
a push brings this module to machines with Python 3.8.
"""

from __future__ import annotations

import math
from collections.abc import Collection

LARGEST = (1 << 63) - 1
"""The largest number that SQLite and file systems hold."""
MAX_TEXT = 255
"""At most this many characters of a name, unless another limit is given."""


def number(value: object, largest: int = LARGEST) -> int:
    """A whole number from 0 to `largest`; no boolean, no float."""
    if type(value) is not int or not 0 <= value <= largest:
        raise ValueError(f"{value!r:.80} is not a number from 0 to {largest}")
    return value


def moment(value: object) -> float:
    """Seconds since the epoch."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r:.80} is not a time")
    return float(value)


def text(value: object, most: int = MAX_TEXT) -> str:
    """A printable text of at most this many characters."""
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise ValueError(f"{value!r:.80} is not a text of at most {most} printable characters")
    return value


def one_of(value: object, words: Collection[str]) -> str:
    """One of these words."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{value!r:.80} is none of {', '.join(words)}")
    return value
