"""The short version of `python -m bench.kills --at-calls`: a command cut off at any system call can be repeated."""

from __future__ import annotations

import pytest

from bench import calls


@pytest.mark.parametrize("fault", ["KILL", "ENOSPC"])
def test_a_publish_that_was_cut_off_can_be_repeated(fault: str) -> None:
    (tally,) = calls.measure(["publish"], [fault], 6)
    assert tally.wrong == []
    assert tally.rounds == 6


@pytest.mark.parametrize("fault", ["KILL", "ENOSPC"])
def test_a_repair_that_was_cut_off_can_be_repeated(fault: str) -> None:
    (tally,) = calls.measure(["repair"], [fault], 6)
    assert tally.wrong == []
    assert tally.rounds == 6


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["KILL", "EIO"])
def test_whatever_was_cut_off_can_be_repeated(fault: str) -> None:
    for tally in calls.measure(calls.COMMANDS, [fault], 3):
        assert tally.wrong == []
        assert tally.rounds > 0
