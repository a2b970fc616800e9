"""Waiting for something to come true, instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LOOK_SECONDS = 0.01
Found = TypeVar("Found")


def wait_until(look: Callable[[], Found], what: str = "it comes true", seconds: float = 30.0) -> Found:
    """The first true answer of `look`. Raises TimeoutError that says what did not come true."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(LOOK_SECONDS)
