"""Numbers that strangers write: a hint can only shorten a wait, and no digits of theirs end in an exception."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.budgets import (
    MAX_HINT_HEADER_CHARACTERS,
    MAX_RATE_LIMIT_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    MAX_SMALL_BODY_BYTES,
)
from hfpeer.errors import CorruptData
from hfpeer.net.http1 import parse_delay_seconds, whole_number
from hfpeer.peers.protocol.pieces import PieceNews
from hfpeer.upstream.access import is_small
from hfpeer.upstream.responses.refusals import asked_rest

LONG = "9" * 5000
"""More digits than `int` reads."""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("12", 12.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("3600", 3600.0),
        ("3601", MAX_RATE_LIMIT_SECONDS),
        ("99999999999", MAX_RATE_LIMIT_SECONDS),
        (LONG, MAX_RATE_LIMIT_SECONDS),
        ("0" * 5000, 0.0),
        ("1." + LONG, 1.9999999899999999),
        ("1e300", None),
        ("inf", None),
        ("nan", None),
        ("-5", None),
        ("+5", None),
        ("1_0", None),
        ("٣", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RATE_LIMIT_SECONDS),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        (f"Fri, 31 Dec {LONG} 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 99:59:59 GMT", None),
        ("", None),
    ],
)
def test_a_rest_of_a_hub_is_cut_off_at_an_hour_and_needs_a_number_or_a_date(header: str, seconds: float | None) -> None:
    found = asked_rest({"retry-after": header}, time.time()).seconds
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(("header", "seconds"), [("300", 300.0), ("301", 300.0), (LONG, 300.0), ("tomorrow", None)])
def test_a_rest_of_a_peer_is_cut_off_at_minutes_and_needs_a_number(header: str, seconds: float | None) -> None:
    assert parse_delay_seconds(header, MAX_RETRY_AFTER_SECONDS) == seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ('"api";r=0;t=7', 8.0),
        ('"api";r=0;t=3599', MAX_RATE_LIMIT_SECONDS),
        (f'"api";r=0;t={LONG[:900]}', MAX_RATE_LIMIT_SECONDS),
        ('"api";r=0;t=1e300', 4.0),
        ('"api";r=5;t=7', 4.0),
        ('"api";r=0', 4.0),
        (" " * MAX_HINT_HEADER_CHARACTERS + '"api";r=0;t=7', 4.0),
        (";" * 100_000, 4.0),
    ],
)
def test_what_is_left_of_a_rate_is_read_in_one_pass(header: str, seconds: float) -> None:
    assert asked_rest({"ratelimit": header, "retry-after": "4"}).seconds == seconds


@given(st.text(max_size=40) | st.from_regex(r"[0-9eE+._-]{1,30}", fullmatch=True))
def test_no_text_makes_a_wait_longer_or_raises(text: str) -> None:
    for headers in ({"retry-after": text}, {"ratelimit": f'"x";r=0;t={text}'}):
        seconds = asked_rest(headers, time.time()).seconds
        assert seconds is None or 0 <= seconds <= MAX_RATE_LIMIT_SECONDS
    assert (parse_delay_seconds(text, 1.0) or 0) <= 1.0


@given(st.text(max_size=30))
def test_a_whole_number_is_ascii_digits_within_its_bound(text: str) -> None:
    is_one = 1 <= len(text) <= 19 and set(text) <= set("0123456789") and int(text) <= 1000
    assert whole_number(text, 1000) == (int(text) if is_one else None)


@pytest.mark.parametrize("text", ["+5", "-5", " 5", "5 ", "1_000", "٣", "²", "0x5", "5.0", "", LONG])
def test_lengths_and_places_in_other_spellings_are_none(text: str) -> None:
    assert whole_number(text) is None
    assert not is_small({"content-length": text})
    with pytest.raises(CorruptData):
        PieceNews.from_json({"added": [], "claimed": [], "firsthand": {text: "ab"}})


def test_a_body_is_small_up_to_its_bound() -> None:
    assert is_small({"content-length": str(MAX_SMALL_BODY_BYTES)})
    assert not is_small({"content-length": str(MAX_SMALL_BODY_BYTES + 1)})
