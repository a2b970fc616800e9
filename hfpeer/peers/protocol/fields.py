"""Reads single fields of a message. Raises ValueError for a value of another type or size."""

from __future__ import annotations

import math

from hfpeer.errors import CorruptData, InvalidName
from hfpeer.net.http1 import whole_number


class reading:
    """Turns any error while a message is read into CorruptData that names the message."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, cls: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (LookupError, TypeError, ValueError, AttributeError, InvalidName, OverflowError)):
            raise CorruptData(
                f"A peer sent something that is not a {self._what}: {str(error)[:300]}.", hint="Is it the same version?"
            ) from error


def whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r:.80} is not a count")
    return value


def piece(text: object) -> int:
    number = whole_number(text) if isinstance(text, str) else None
    if number is None:
        raise ValueError(f"{text!r:.80} is not the number of a piece")
    return number


def moment(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r:.80} is not a time")
    return float(value)


def text(value: object, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise ValueError(f"{value!r:.80} is not a short text")
    return value
