"""When a hub answered last, for people."""

from __future__ import annotations

from hfpeer.upstream.reach import Reach


def test_a_hub_answered_failed_and_answers_again() -> None:
    now = 10.0
    reach = Reach(lambda: now)
    assert (reach.answered_seconds_ago, reach.failed_seconds_ago) == (None, None)
    reach.note_failure()
    now = 12.0
    assert (reach.answered_seconds_ago, reach.failed_seconds_ago) == (None, 2.0)
    reach.note_answer()
    now = 15.0
    assert (reach.answered_seconds_ago, reach.failed_seconds_ago) == (3.0, None)
    reach.note_failure()
    now = 16.0
    assert (reach.answered_seconds_ago, reach.failed_seconds_ago) == (4.0, 1.0)
