"""Sets of pieces as integers."""

from __future__ import annotations

import random

import pytest

from hfpeer.transfer.picker.bitfield import bits, bits_of, first_pieces, lowest, pieces_of


@pytest.mark.parametrize("count", [0, 1, 7, 1023, 1024, 1025, 5000])
def test_a_set_becomes_bits_and_pieces_again(count: int) -> None:
    pieces = sorted(random.Random(count).sample(range(6000), count))
    assert pieces_of(bits_of(reversed(pieces))) == tuple(pieces)
    assert bits_of([*pieces, *pieces]) == sum(1 << piece for piece in pieces)
    assert bits(range(3, 3 + count)) == bits_of(range(3, 3 + count))
    for wanted in (0, 1, count // 2, count, count + 1):
        assert first_pieces(bits_of(pieces), wanted) == pieces[:wanted]


def test_the_first_pieces_are_found_behind_a_long_gap() -> None:
    pieces = [5, 70_000, 70_001, 99_999]
    assert first_pieces(bits_of(pieces), 3) == pieces[:3]
    assert lowest(bits_of(pieces[1:])) == 70_000
