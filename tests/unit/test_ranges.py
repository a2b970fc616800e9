"""Ranges behave as the plain sets of integers they stand for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.ranges import ByteRange, PieceGrid, RangeSet

numbers = st.integers(0, 40)
pairs = st.tuples(numbers, numbers)
edits = st.lists(st.tuples(st.sampled_from(["add", "discard"]), numbers, numbers), max_size=30)


def both(steps: list[tuple[str, int, int]]) -> tuple[RangeSet, set[int]]:
    ranges, plain = RangeSet(), set[int]()
    for what, start, stop in steps:
        getattr(ranges, what)(start, stop)
        plain = plain | set(range(start, stop)) if what == "add" else plain - set(range(start, stop))
    return ranges, plain


@given(edits)
def test_a_range_set_holds_what_a_plain_set_holds(steps: list[tuple[str, int, int]]) -> None:
    ranges, plain = both(steps)
    assert {number for start, stop in ranges for number in range(start, stop)} == plain
    assert ranges.total == len(plain)
    assert bool(ranges) == bool(plain)


@given(edits)
def test_its_ranges_are_sorted_and_never_touch(steps: list[tuple[str, int, int]]) -> None:
    listed = list(both(steps)[0])
    assert all(start < stop for start, stop in listed)
    assert all(before.stop < after.start for before, after in pairwise(listed))


@given(edits, pairs)
def test_covers_and_gaps_agree_with_a_plain_set(steps: list[tuple[str, int, int]], pair: tuple[int, int]) -> None:
    ranges, plain = both(steps)
    asked = set(range(*pair))
    gaps = list(ranges.gaps(*pair))
    assert {number for start, stop in gaps for number in range(start, stop)} == asked - plain
    assert all(start < stop for start, stop in gaps)
    assert gaps == sorted(gaps)
    assert ranges.covers(*pair) == (asked <= plain)


@given(edits, edits)
def test_a_copy_is_independent(steps: list[tuple[str, int, int]], more: list[tuple[str, int, int]]) -> None:
    ranges, _ = both(steps)
    before = list(ranges)
    copy = ranges.copy()
    assert copy == ranges
    for what, start, stop in more:
        getattr(copy, what)(start, stop)
    assert list(ranges) == before


@given(st.lists(pairs, max_size=10))
def test_equal_sets_are_equal_however_they_were_made(listed: list[tuple[int, int]]) -> None:
    assert RangeSet(listed) == RangeSet(reversed(listed))
    assert RangeSet([(0, 1)]) != RangeSet([(0, 2)])


def test_a_range_prints_as_people_write_it() -> None:
    assert str(ByteRange(3, 7)) == "[3, 7)"
    assert ByteRange(3, 7).size_bytes == 4
    assert repr(RangeSet([(0, 1), (3, 7)])) == "RangeSet([[0, 1), [3, 7)])"


@given(st.integers(0, 100), st.integers(1, 20))
def test_pieces_tile_the_blob(size_bytes: int, piece_size_bytes: int) -> None:
    grid = PieceGrid(size_bytes, piece_size_bytes)
    covered = [number for piece in range(grid.count) for number in range(*grid.range_of(piece))]
    assert covered == list(range(size_bytes))


@given(st.integers(0, 100), st.integers(1, 20), pairs)
def test_pieces_inside_and_touching_agree_with_their_ranges(size: int, piece_size: int, pair: tuple[int, int]) -> None:
    grid = PieceGrid(size, piece_size)
    start, stop = min(pair[0], size), min(pair[1], size)
    asked = set(range(start, stop))
    pieces = [(piece, set(range(*grid.range_of(piece)))) for piece in range(grid.count)]
    assert list(grid.pieces_touching(start, stop)) == [piece for piece, numbers in pieces if numbers & asked]
    if asked:
        assert list(grid.pieces_inside(start, stop)) == [piece for piece, numbers in pieces if numbers <= asked]


@given(st.integers(0, 100), st.integers(1, 20), numbers)
def test_nothing_is_inside_of_nothing(size: int, piece_size: int, at: int) -> None:
    assert not PieceGrid(size, piece_size).pieces_inside(min(at, size), min(at, size))


@pytest.mark.parametrize("piece", [-1, 3])
def test_a_piece_outside_the_grid_is_refused(piece: int) -> None:
    with pytest.raises(IndexError):
        PieceGrid(25, 10).range_of(piece)
