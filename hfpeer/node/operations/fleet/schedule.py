"""When a followed repo is looked at next. Pure: the time and the dice are handed in.

Times are seconds since the epoch, because they must outlive the process and the boot.
"""

from __future__ import annotations

from collections.abc import Iterable

from hfpeer.control.followed import FollowedRepo

JITTER = 0.1
"""The part of a period by which a look comes earlier or later, so that many nodes do not ask at once."""
RETRY_SECONDS = 900.0
"""Seconds until a look is repeated that brought no answer, if the period is not shorter."""


def is_due(one: FollowedRepo, now: float) -> bool:
    """Whether it is to be looked at now, also if its time passed while the node was off. A time farther ahead than a
    period was noted by a clock that went wrong."""
    return not now < one.next_at <= now + one.every_seconds * (1 + JITTER)


def next_look_at(one: FollowedRepo, now: float, dice: float, *, had_answer: bool) -> float:
    """The time of the next look after one at `now`. `dice` is from 0 to 1."""
    seconds = one.every_seconds if had_answer else min(one.every_seconds, RETRY_SECONDS)
    return now + seconds * (1 + JITTER * (2 * dice - 1))


def seconds_to_next(followed: Iterable[FollowedRepo], now: float, most: float) -> float:
    """Seconds until the next of them is due, at most `most`."""
    return min((most, *(one.next_at - now for one in followed if not is_due(one, now))))
