"""When a followed repo is looked at: by its period, a little moved, soon after a time that was missed."""

from __future__ import annotations

import pytest

from hfpeer.control.followed import FollowedRepo
from hfpeer.names import RepoId
from hfpeer.node.operations.fleet import schedule

DAY = 86400.0


def followed(next_at: float, every_seconds: float = DAY) -> FollowedRepo:
    return FollowedRepo(RepoId.parse("acme/m"), every_seconds=every_seconds, next_at=next_at)


@pytest.mark.parametrize(
    ("next_at", "is_due"),
    [(0.0, True), (1e6, True), (1e6 - 1, True), (1e6 + 1, False), (1e6 + DAY, False), (1e6 + 2 * DAY, True)],
    ids=["never", "now", "missed", "soon", "in a period", "by a clock that went wrong"],
)
def test_a_look_is_due_when_its_time_has_come_was_missed_or_makes_no_sense(next_at: float, is_due: bool) -> None:
    assert schedule.is_due(followed(next_at), 1e6) is is_due


def test_the_next_look_is_a_period_later_give_or_take_a_tenth() -> None:
    looks = [schedule.next_look_at(followed(0), 1e6, dice, had_answer=True) - 1e6 for dice in (0.0, 0.5, 1.0)]
    assert looks == pytest.approx([0.9 * DAY, DAY, 1.1 * DAY])


def test_without_an_answer_it_is_sooner_but_never_sooner_than_a_short_period() -> None:
    assert schedule.next_look_at(followed(0), 0.0, 0.5, had_answer=False) == schedule.RETRY_SECONDS
    assert schedule.next_look_at(followed(0, 300.0), 0.0, 0.5, had_answer=False) == 300.0


def test_the_pause_ends_with_the_next_look_and_is_bounded() -> None:
    assert schedule.seconds_to_next([followed(1e6 + 5), followed(1e6 + 7)], 1e6, 60.0) == 5.0
    assert schedule.seconds_to_next([followed(1e6 + 500)], 1e6, 60.0) == 60.0
    assert schedule.seconds_to_next([], 1e6, 60.0) == 60.0
