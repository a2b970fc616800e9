"""Sets of pieces as integers, one bit a piece. Pure.

A decision over 60,000 pieces and many sources then takes a few operations on integers.
"""

from __future__ import annotations

from collections.abc import Iterable


def bits_of(pieces: Iterable[int]) -> int:
    """A set of pieces as bits. The time grows with the pieces and the largest of them, not with their product."""
    numbers = list(pieces)
    raw = bytearray(max(numbers, default=-1) // 8 + 1)
    for number in numbers:
        raw[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(raw, "little")


def pieces_of(bits: int) -> tuple[int, ...]:
    """The inverse of `bits_of`, in order."""
    return tuple(at for at, digit in enumerate(reversed(f"{bits:b}")) if digit == "1") if bits else ()


def bits(pieces: range) -> int:
    """A set of consecutive pieces."""
    return (1 << len(pieces)) - 1 << pieces.start if pieces else 0


def lowest(pieces: int) -> int:
    """The first piece of a set that is not empty."""
    return (pieces & -pieces).bit_length() - 1


def first_pieces(bits: int, count: int) -> list[int]:
    """The first pieces of a set, at most `count`."""
    found: list[int] = []
    start = 0
    while bits and len(found) < count:
        skipped = lowest(bits)
        bits >>= skipped
        start += skipped
        window = bits & _WINDOW
        while window and len(found) < count:
            found.append(start + lowest(window))
            window &= window - 1
        bits >>= _WINDOW_PIECES
        start += _WINDOW_PIECES
    return found


_WINDOW_PIECES = 1024
"""An operation on the set as a whole is made once for this many pieces."""
_WINDOW = (1 << _WINDOW_PIECES) - 1
