"""The bounds on how long, and with how little, a source may hold back others: each is tried on both sides."""

from __future__ import annotations

from typing import cast

import pytest

from hfpeer.budgets import (
    FAR_HOLD_SECONDS,
    HOLD_BYTES,
    HOLD_FILES,
    HOLD_FLOOR_BYTES_PER_SECOND,
    LONGEST_WITHOUT_CREDIT_SECONDS,
    MAX_CREDIT_ACCOUNTS,
    NEAR_FLOOR_BYTES_PER_SECOND,
    NEAR_FLOOR_FILES_PER_SECOND,
    NEAR_HOLD_SECONDS,
    WITHOUT_CREDIT_SECONDS,
)
from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.source_state import RangeRequest
from hfpeer.transfer.small.promises import SLOW_SECONDS, Hold
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob
from hfpeer.transfer.sources.tiers import Tier


def held(tier: Tier) -> tuple[Picker, RangeRequest]:
    """A source that was asked at 0.0, and another idle one of its tier."""
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("silent", tier, 1)
    request = picker.next_request(0.0)
    assert request is not None
    picker.add_source("other", tier, 1)
    return picker, request


@pytest.mark.parametrize(("tier", "seconds"), [(Tier.PEER, NEAR_HOLD_SECONDS), (Tier.MIRROR, FAR_HOLD_SECONDS)])
def test_a_silent_source_keeps_its_request_until_the_bound(tier: Tier, seconds: float) -> None:
    picker, request = held(tier)
    assert picker.overdue(seconds - 0.1) == []
    assert picker.overdue(seconds) == [(request, f"silent for {seconds:.0f} s")]


@pytest.mark.parametrize(("tier", "seconds"), [(Tier.PEER, NEAR_HOLD_SECONDS), (Tier.MIRROR, FAR_HOLD_SECONDS)])
def test_a_source_that_gives_its_floor_keeps_its_request(tier: Tier, seconds: float) -> None:
    floor_bytes = int(HOLD_FLOOR_BYTES_PER_SECOND * seconds)
    for size_bytes, keeps in ((floor_bytes, True), (floor_bytes - 1, False)):
        picker, request = held(tier)
        picker.sources["other"].in_flight = 1  # an idle one would be tried
        picker.received(request, size_bytes, seconds - 0.1)
        assert (picker.overdue(seconds) == []) is keeps


def test_a_source_that_lost_its_credit_elsewhere_keeps_no_long_request_while_another_can_serve_it() -> None:
    picker, request = held(Tier.PEER)
    picker.received(request, MIB // 2, 2.0)
    picker.sources[request.source].credit.lose(2.0)
    assert picker.overdue(2.1) == [(request, "its source has kept other requests waiting")]
    picker.sources["other"].credit.lose(2.0)
    assert picker.overdue(2.1) == [], "no other source is any better"


@pytest.mark.parametrize("rate_bytes", [100_000, NEAR_FLOOR_BYTES_PER_SECOND])
def test_a_source_that_was_never_tried_replaces_one_that_is_slow_for_a_lan(rate_bytes: int) -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("slow", Tier.PEER, 1)
    request = picker.next_request(0.0)
    assert request is not None
    picker.add_source("hub", Tier.ORIGIN, 1)
    for second in range(1, 3):
        picker.received(request, rate_bytes, float(second))
    is_slow = rate_bytes < NEAR_FLOOR_BYTES_PER_SECOND
    assert [why for _, why in picker.overdue(2.0)] == (
        [f"would take {request.remaining_bytes / rate_bytes:.0f} s more, and another source is idle"] if is_slow else []
    )


@pytest.mark.parametrize("missing", [0, 1])
def test_a_peer_that_gives_as_much_as_a_lan_is_asked_before_the_hubs(missing: int) -> None:
    picker = Picker(PieceGrid(64 * MIB), RangeSet())
    picker.add_source("peer", Tier.PEER, 1)
    request = picker.next_request(0.0)
    assert request is not None
    picker.add_source("hub", Tier.MIRROR, 1)
    picker.received(request, NEAR_FLOOR_BYTES_PER_SECOND - missing, 1.0)
    assert (picker.next_request(1.0) is not None) is bool(missing)


def a_hold() -> Hold:
    hold = Hold(cast(PeerSource, None))
    hold.begin([cast(WantedBlob, None)], 10.0)
    return hold


@pytest.mark.parametrize(
    ("files", "size_bytes", "is_enough"),
    [
        (HOLD_FILES, 0, True),
        (HOLD_FILES - 1, 0, False),
        (2, HOLD_BYTES // 2, True),
        (2, HOLD_BYTES // 2 - 1, False),
    ],
)
def test_enough_small_files_or_bytes_restart_the_time_of_a_hold(files: int, size_bytes: int, is_enough: bool) -> None:
    hold = a_hold()
    for _ in range(files):
        hold.came(1, size_bytes, 12.0)
    assert hold.since == (12.0 if is_enough else 10.0)


@pytest.mark.parametrize(
    ("files", "size_bytes", "is_slow"),
    [
        (NEAR_FLOOR_FILES_PER_SECOND, 0, False),
        (NEAR_FLOOR_FILES_PER_SECOND - 1, 0, True),
        (2, NEAR_FLOOR_BYTES_PER_SECOND // 2, False),
        (2, NEAR_FLOOR_BYTES_PER_SECOND // 2 - 1, True),
    ],
)
def test_a_peer_is_slow_below_both_floors(files: int, size_bytes: int, is_slow: bool) -> None:
    hold = a_hold()
    for _ in range(files):
        hold.came(1, size_bytes, 10.5)
    assert hold.is_slow(10.0 + SLOW_SECONDS / 2) is None
    assert hold.is_slow(11.0) is is_slow


def test_a_peer_that_breaks_off_again_and_again_is_slow_too() -> None:
    hold = Hold(cast(PeerSource, None))
    for turn in range(5):
        hold.begin([cast(WantedBlob, None)], 10.0 + turn / 4)
        hold.came(1, 64 * 1024, 10.0 + turn / 4)
    assert hold.is_slow(11.1) is True
    hold.end()
    hold.begin([cast(WantedBlob, None)], 20.0)
    assert hold.is_slow(20.1) is None, "another promise"


def test_credit_is_lost_for_twice_as_long_each_time_up_to_a_bound() -> None:
    credit, now, seconds = Credits().of("peer"), 0.0, WITHOUT_CREDIT_SECONDS
    for _ in range(10):
        credit.lose(now)
        assert credit.is_lost(now + seconds - 0.1) and not credit.is_lost(now + seconds)
        now, seconds = now + seconds, min(2 * seconds, LONGEST_WITHOUT_CREDIT_SECONDS)


def test_the_accounts_of_sources_are_bounded() -> None:
    credits = Credits()
    credits.of("first").lose(0.0)
    for number in range(MAX_CREDIT_ACCOUNTS - 1):
        credits.of(f"other {number}")
    assert credits.of("first").losses == 1
    for number in range(MAX_CREDIT_ACCOUNTS):
        credits.of(f"another {number}")
    assert credits.of("first").losses == 0
