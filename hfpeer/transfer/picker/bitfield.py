"""Sets of pieces as integers, one bit a piece. Pure.

A decision over 60,000 pieces and many sources then takes a few operations on integers.
"""

from __future__ import annotations

from collections.abc import Iterable


def bits_of(pieces: Iterable[int]) -> int:
    """A set of pieces as bits."""
    bits = 0
    for piece in pieces:
        bits |= 1 << piece
    return bits


def pieces_of(bits: int) -> tuple[int, ...]:
    """The inverse of `bits_of`, in order."""
    return tuple(at for at, digit in enumerate(reversed(f"{bits:b}")) if digit == "1") if bits else ()


def bits(pieces: range) -> int:
    """A set of consecutive pieces."""
    return (1 << len(pieces)) - 1 << pieces.start if pieces else 0


def lowest(pieces: int) -> int:
    """The first piece of a set that is not empty."""
    return (pieces & -pieces).bit_length() - 1
