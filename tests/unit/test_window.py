"""What many peers together may have under way to a node."""

from __future__ import annotations

import pytest

from hfpeer.peers.ranges.window import MIN_SENDER_BYTES, MIN_TOTAL_BYTES, RATE_SECONDS, UNBOUNDED_SENDERS, SharedWindow

HOME_SECONDS = 0.0002


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def window_of(senders: int, clock: Clock | None = None) -> SharedWindow:
    window = SharedWindow(clock or Clock())
    for _ in range(senders):
        window.add_sender()
    return window


def receive(window: SharedWindow, clock: Clock, bytes_per_second: float) -> None:
    clock.now += RATE_SECONDS
    window.note_received(int(bytes_per_second * RATE_SECONDS))


@pytest.mark.parametrize("senders", range(UNBOUNDED_SENDERS + 1))
def test_few_send_as_they_like(senders: int) -> None:
    assert window_of(senders).share(HOME_SECONDS) is None


def test_many_share_what_may_be_under_way_and_nobody_is_left_without_any() -> None:
    window = window_of(4)
    assert window.share(HOME_SECONDS) == MIN_TOTAL_BYTES // 4
    for _ in range(96):
        window.add_sender()
    assert window.share(HOME_SECONDS) == MIN_SENDER_BYTES
    for _ in range(98):
        window.remove_sender()
    assert window.share(HOME_SECONDS) is None


def test_a_fast_line_may_hold_more() -> None:
    clock = Clock()
    window = window_of(4, clock)
    receive(window, clock, 12.5e6)
    assert window.share(HOME_SECONDS) == MIN_TOTAL_BYTES // 4
    receive(window, clock, 1.25e9)
    assert (window.share(HOME_SECONDS) or 0) > 4 * MIN_TOTAL_BYTES // 4


@pytest.mark.parametrize("round_trip_seconds", [HOME_SECONDS, 0.005, 0.1])
def test_whoever_is_far_away_soon_fills_the_line_too(round_trip_seconds: float) -> None:
    clock = Clock()
    window, line = window_of(4, clock), 125e6
    for _ in range(10):
        part = window.share(round_trip_seconds)
        assert part is not None
        receive(window, clock, min(line, 4 * part / round_trip_seconds))
    assert 4 * (window.share(round_trip_seconds) or 0) >= 2 * line * round_trip_seconds


def test_after_a_pause_it_is_the_first_window_again() -> None:
    clock = Clock()
    window = window_of(4, clock)
    receive(window, clock, 1.25e9)
    clock.now += 60.0
    window.note_received(1)
    assert window.share(HOME_SECONDS) == MIN_TOTAL_BYTES // 4
