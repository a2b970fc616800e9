"""The tree of errors: who handles one by its code, its exit code or its class can rely on all three."""

from __future__ import annotations

from collections import Counter

import pytest

from hfpeer import errors
from hfpeer.errors import CODES, HfpeerError, from_problem

EVERY_ERROR = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, HfpeerError)]
each_error = pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.__name__)


def test_no_two_errors_share_a_code() -> None:
    assert [code for code, uses in Counter(error.code for error in EVERY_ERROR).items() if uses > 1] == []
    assert set(CODES.values()) == set(EVERY_ERROR)


@each_error
def test_an_error_says_what_it_means_and_how_it_ends(error: type[HfpeerError]) -> None:
    meaning = vars(error).get("__doc__") or ""
    assert meaning.split("\n")[0].endswith(".")
    assert 1 <= error.exit_code < 64
    assert 400 <= error.http_status < 600


@each_error
def test_a_kind_of_error_exits_as_its_kind(error: type[HfpeerError]) -> None:
    kinds = [kind for kind in error.__bases__ if kind is not HfpeerError and issubclass(kind, HfpeerError)]
    assert all(error.exit_code == kind.exit_code for kind in kinds)


@each_error
def test_the_picture_of_the_tree_shows_an_error_with_its_code(error: type[HfpeerError]) -> None:
    shown = [line.replace("│", " ").split() for line in (errors.__doc__ or "").splitlines()]
    assert any([error.__name__, error.code] in (words[:2], words[1:3]) for words in shown)


@each_error
def test_an_error_is_the_same_at_the_other_end_of_the_wire(error: type[HfpeerError]) -> None:
    sent = error("It rains.", hint="Take a coat.", repo="gpt2")
    received = from_problem(sent.to_problem())
    assert type(received) is error
    assert (received.message, received.hint, received.facts) == ("It rains.", "Take a coat.", {"repo": "gpt2"})
