"""How limits are written, at which hours they hold, and that a bucket keeps to its rate whoever asks and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.errors import InvalidName
from hfpeer.net.rates import LATE_SECONDS, Schedule, Span, TokenBucket, parse_rate, parse_schedule

NOON, NIGHT = 12 * 60, 23 * 60 + 30

rates = st.one_of(st.none(), st.integers(8, 10**8).map(lambda kilobytes: kilobytes * 1000.0))
minutes = st.integers(0, 1439)
schedules = st.builds(Schedule, st.lists(st.builds(Span, minutes, minutes, rates), max_size=4).map(tuple), rates)


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("200mbit", 25e6),
        ("25MB", 25e6),
        ("25MB/s", 25e6),
        ("1.5 Gbit", 187.5e6),
        ("64kbit", 8e3),
        ("1MiB", 1048576.0),
        ("none", None),
        ("NONE", None),
    ],
)
def test_a_rate_is_read_in_bits_and_in_bytes(text: str, bytes_per_second: float | None) -> None:
    assert parse_rate(text) == bytes_per_second


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "200",
        "-5mbit",
        "0mbit",
        "8kbit",
        "1e3mbit",
        "08:00-18:00",
        "08:00-18:00=",
        "08:00-25:00=1mbit",
        "08:60-09:00=1mbit",
        "1mbit,2mbit",
        "none,08:00-18:00=1mbit",
        "1mbit,",
    ],
)
def test_what_is_no_limit_is_refused_with_a_way_to_write_one(text: str) -> None:
    with pytest.raises(InvalidName) as refused:
        parse_schedule(text)
    assert refused.value.hint


def test_a_limit_of_the_office_hours_does_not_hold_at_night() -> None:
    schedule = parse_schedule("08:00-18:00=100mbit,none")
    assert schedule.rate_at(NOON) == 12.5e6
    assert [schedule.rate_at(minute) for minute in (8 * 60 - 1, 18 * 60, NIGHT)] == [None, None, None]
    assert schedule.rate_at(8 * 60) == schedule.rate_at(18 * 60 - 1) == 12.5e6


def test_hours_may_cross_midnight() -> None:
    schedule = parse_schedule("22:00-06:00=none,10mbit")
    assert [schedule.rate_at(minute) for minute in (NIGHT, 0, 5 * 60 + 59)] == [None, None, None]
    assert schedule.rate_at(6 * 60) == schedule.rate_at(NOON) == 1.25e6


def test_the_first_hours_that_fit_hold_and_without_a_rest_there_is_no_limit_then() -> None:
    schedule = parse_schedule("12:00-13:00=none, 08:00-18:00=1mbit")
    assert [schedule.rate_at(minute) for minute in (NOON, NOON + 60, NIGHT)] == [None, 125e3, None]


def test_hours_that_end_where_they_begin_are_the_whole_day() -> None:
    assert all(parse_schedule("00:00-24:00=1mbit,none").rate_at(minute) == 125e3 for minute in (0, NOON, 1439))


@pytest.mark.parametrize("text", ["none", "08:00-18:00=none,none"])
def test_no_limit_at_any_hour_is_known_as_such(text: str) -> None:
    assert parse_schedule(text).is_unlimited
    assert not parse_schedule("08:00-08:01=1mbit,none").is_unlimited


@given(schedules, minutes)
def test_a_schedule_is_read_back_as_it_was_written(schedule: Schedule, minute: int) -> None:
    again = parse_schedule(str(schedule))
    assert again.rate_at(minute) == pytest.approx(schedule.rate_at(minute))
    assert str(again) == str(schedule)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 0.5), st.floats(0, 1)), min_size=1, max_size=60))
def test_never_more_than_the_rate_leaves_a_bucket(asks: list[tuple[int, float, float]]) -> None:
    """Each ask: bytes, seconds since the one before, and which part of them moved in the end."""
    bucket, rate, now = TokenBucket(), 1e6, 0.0
    moved = []
    for size_bytes, pause_seconds, part in asks:
        now += pause_seconds
        moves_at = now + bucket.reserve(size_bytes, now, rate)
        unmoved = size_bytes * (1 - part)
        bucket.give_back(unmoved, rate)
        moved.append((moves_at, size_bytes - unmoved))
    for index, (since, _) in enumerate(moved):
        until, last = max(moved[index:])
        in_between = sum(size for at, size in moved[index:] if since <= at <= until)
        largest = max(size for size, _, _ in asks)
        assert in_between <= rate * (until - since + LATE_SECONDS) + largest + last


@given(st.floats(0.001, 0.09), st.integers(1000, 100_000))
def test_one_who_always_comes_back_a_little_late_still_gets_the_whole_rate(late: float, size_bytes: int) -> None:
    bucket, rate, now, moved = TokenBucket(), 1e6, 0.0, 0
    while now < 20:
        now += bucket.reserve(size_bytes, now, rate) + min(late, size_bytes / rate)
        moved += size_bytes
    assert moved >= 0.98 * rate * now


def test_turns_come_in_the_order_of_arrival_and_all_share_the_rate() -> None:
    bucket = TokenBucket()
    waits = [bucket.reserve(100_000, 10.0, 1e6) for _ in range(5)]
    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_what_did_not_move_is_there_for_the_next() -> None:
    bucket = TokenBucket()
    bucket.reserve(500_000, 10.0, 1e6)
    bucket.give_back(400_000, 1e6)
    assert bucket.reserve(1, 10.0, 1e6) == pytest.approx(0.1)


def test_who_was_idle_has_saved_nothing_up() -> None:
    bucket = TokenBucket()
    bucket.reserve(1_000_000, 10.0, 1e6)
    assert [bucket.reserve(500_000, 60.0, 1e6) for _ in range(2)] == pytest.approx([0.0, 0.5])
