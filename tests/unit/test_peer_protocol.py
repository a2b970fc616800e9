"""What nodes say to each other is read back as it was meant, or refused as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.budgets import MAX_GOSSIPED_MEMBERS
from hfpeer.errors import CorruptData
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews, parse_following

PIECES = st.lists(st.integers(0, 1 << 20), max_size=5).map(tuple)
FIRSTHAND = st.dictionaries(st.integers(0, 1 << 20), st.text("0123456789abcdef", min_size=32, max_size=32), max_size=5)
COMPANY = st.dictionaries(st.text("0123456789abcdef", min_size=1, max_size=32), st.integers(0, 1 << 40), max_size=5)
NEWS = st.builds(PieceNews, PIECES, PIECES, FIRSTHAND, COMPANY)
PLAIN = {"added": [1], "claimed": [], "firsthand": {}}


@given(NEWS)
def test_news_arrive_as_they_were_sent(news: PieceNews) -> None:
    line = news.to_line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert parse_following(json.loads(line)) == news


def test_a_piece_map_arrives_as_it_was_sent_whole_or_not() -> None:
    for bits in (None, b"", b"\1\xff"):
        told = PieceMap(3, 2, 1, bits)
        assert parse_following(json.loads(told.to_line())) == told


@given(NEWS, st.integers(0, 1 << 20))
def test_of_pieces_that_a_blob_cannot_have_nothing_is_left(news: PieceNews, count: int) -> None:
    kept = news.within(count)
    assert kept.added == tuple(piece for piece in news.added if piece < count)
    assert kept.claimed == tuple(piece for piece in news.claimed if piece < count)
    assert kept.firsthand == {piece: said for piece, said in news.firsthand.items() if piece < count}
    assert kept.members == news.members


def test_of_pieces_before_the_first_nothing_is_left_either() -> None:
    assert PieceNews((0,), (1,), {-1: "ab", 1: "cd"}).within(2) == PieceNews((0,), (1,), {1: "cd"})


@pytest.mark.parametrize(
    "change",
    [
        {"added": [True]},
        {"added": [1.0]},
        {"added": ["1"]},
        {"added": [1 << 63]},
        {"added": "12"},
        {"added": None},
        {"claimed": [-1]},
        {"claimed": {"1": 1}},
        {"claimed": 7},
        {"firsthand": {"one": "ab"}},
        {"firsthand": {"1": 2}},
        {"firsthand": {"1": "a" * 65}},
        {"firsthand": {"1": "a\n"}},
        {"firsthand": {"9" * 5000: "ab"}},
        {"firsthand": ["1"]},
        {"firsthand": None},
        {"members": None},
        {"members": ["node"]},
        {"members": {"node": -1}},
        {"members": {"node": "1"}},
        {"members": {"n" * 65: 1}},
    ],
)
def test_news_with_one_thing_wrong_are_refused(change: dict[str, Any]) -> None:
    assert parse_following(PLAIN) == PieceNews((1,))
    with pytest.raises(CorruptData):
        parse_following({**PLAIN, **change})


@pytest.mark.parametrize("lacking", PLAIN)
def test_news_that_lack_something_are_refused(lacking: str) -> None:
    with pytest.raises(CorruptData):
        parse_following({name: value for name, value in PLAIN.items() if name != lacking})


@pytest.mark.parametrize("document", [None, 7, "bits", ["bits"], [], {}, {"bits": 1}, {"bits": None}])
def test_what_is_neither_news_nor_a_map_is_refused(document: Any) -> None:
    with pytest.raises(CorruptData):
        parse_following(document)


def test_only_some_members_of_a_message_are_read() -> None:
    crowd = {f"node{number}": number for number in range(1000)}
    news = parse_following({**PLAIN, "members": crowd})
    assert isinstance(news, PieceNews)
    assert len(news.members) == MAX_GOSSIPED_MEMBERS
