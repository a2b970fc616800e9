"""The fields that messages of peers have beside the fields of `json_fields`: pieces, and the error for a message."""

from __future__ import annotations

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


def piece(text: object) -> int:
    number = whole_number(text) if isinstance(text, str) else None
    if number is None:
        raise ValueError(f"{text!r:.80} is not the number of a piece")
    return number
