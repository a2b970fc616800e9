"""What a user says of splits, as rows."""

from __future__ import annotations

import pytest

from hfpeer.conversion.plan import Part
from hfpeer.conversion.request.splits import highest_rank, parse_splits, rank
from hfpeer.conversion.sources.selection import Selection
from hfpeer.errors import InvalidName


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("train", (0, 33)),
        ("train[:10]", (0, 10)),
        ("train[10:]", (10, 33)),
        ("train[-5:]", (28, 33)),
        ("train[:-5]", (0, 28)),
        ("train[:50%]", (0, 16)),
        ("train[50%:]", (16, 33)),
        ("train[-10%:]", (30, 33)),
        ("train[:99]", (0, 33)),
        ("train[20:10]", (20, 20)),
    ],
)
def test_a_slice_is_the_rows_that_datasets_takes(text: str, rows: tuple[int, int]) -> None:
    (choice,) = parse_splits([text])
    (term,) = choice.terms
    assert term.rows(33) == rows


def test_outputs_have_names_of_their_own() -> None:
    choices = parse_splits(["train+test", "dev=train[:5]", "validation.clean"])
    assert [choice.name for choice in choices] == ["train+test", "dev", "validation.clean"]
    assert [term.split for term in choices[0].terms] == ["train", "test"]


@pytest.mark.parametrize("text", ["", "train[", "train[:x]", "a b", "../x=train", "train[1:2:3]", "x=", "tr/ain"])
def test_a_mistake_is_named(text: str) -> None:
    with pytest.raises(InvalidName, match="names no split"):
        parse_splits([text])


def test_two_outputs_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidName, match="written as 'train'"):
        parse_splits(["train[:10]", "train[10:20]"])


def test_a_draw_is_the_same_in_any_number_of_parts() -> None:
    chosen = highest_rank(7, [("train", 0, 100)], 10)
    whole = {row for row in range(100) if rank(7, "train", row) <= chosen}
    assert len(whole) == 10 and highest_rank(8, [("train", 0, 100)], 10) != chosen
    found = set()
    for first in (0, 30, 60):
        part = Part(0, "train", 0, 3, "train", (), row=first, highest_rank=chosen)
        selection = Selection.of(part, 7)
        found |= {first + place for place in selection.chosen(0, 30 if first < 60 else 40)}
    assert found == whole


def test_a_selection_ends_where_the_slice_ends() -> None:
    part = Part(0, "train", 0, 1, "train", (), skip=5, take=10)
    selection = Selection.of(part, None)
    assert list(selection.chosen(0, 8)) == [5, 6, 7] and list(selection.chosen(8, 8)) == list(range(7))
    assert selection.wants_any(0, 6) and not selection.wants_any(0, 5) and not selection.wants_any(15, 20)
    assert selection.ends_before(15) and not selection.ends_before(14)
