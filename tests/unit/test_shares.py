"""Shares: who asks a holder for which piece, as every node computes it for itself."""

from __future__ import annotations

import time
from functools import reduce
from operator import or_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.transfer.shares import Shares

companies = st.sets(st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1), min_size=1, max_size=9)


def shares_of(company: set[str], count: int, rank: int = 1, salt: str = "sha256:ab") -> dict[str, int]:
    """What each of a company takes for its own."""
    return {node: Shares(node, salt, count).within(company - {node}, rank) for node in company}


def named(count: int) -> set[str]:
    return {f"node-{number}" for number in range(count)}


@given(companies, st.integers(0, 80), st.text(max_size=5))
def test_every_piece_is_owned_by_exactly_one_of_all_who_want_it(company: set[str], count: int, salt: str) -> None:
    owned = shares_of(company, count, salt=salt)
    assert reduce(or_, owned.values()) == (1 << count) - 1
    assert sum(share.bit_count() for share in owned.values()) == count


@given(companies, st.integers(0, 80))
def test_everybody_knows_what_each_of_the_others_owns(company: set[str], count: int) -> None:
    owned = shares_of(company, count)
    for node in company:
        assert Shares(node, "sha256:ab", count).by_owner(company - {node}) == owned


@given(companies, st.integers(1, 80))
def test_each_rank_adds_every_piece_once_more_and_the_last_covers_all(company: set[str], count: int) -> None:
    for rank in range(1, len(company) + 1):
        owned = shares_of(company, count, rank)
        for piece in range(count):
            assert sum(share >> piece & 1 for share in owned.values()) == rank
    for rank in (len(company), len(company) + 5):
        assert set(shares_of(company, count, rank).values()) == {(1 << count) - 1}


@pytest.mark.parametrize("nodes", [3, 8, 16])
def test_when_a_node_leaves_few_pieces_of_others_change_hands(nodes: int) -> None:
    company = named(nodes)
    before, after = shares_of(company, 512), shares_of(company - {"node-0"}, 512)
    taken = [share & ~before[node] & ~before["node-0"] for node, share in after.items()]
    assert sum(share.bit_count() for share in taken) < 512 // 6


def test_one_who_keeps_its_shares_sees_company_come_and_go() -> None:
    shares = Shares("a", "salt", 64)
    alone = shares.within([], 1)
    together = shares.within(["b", "c"], 1)
    assert alone == (1 << 64) - 1
    assert 0 < together.bit_count() < 64
    assert shares.within(["a", "c", "b", "b"], 1) == together, "order, repetition and oneself do not matter"
    assert shares.within([], 1) == alone


@pytest.mark.parametrize("nodes", [2, 8, 16])
def test_shares_are_even(nodes: int) -> None:
    for count in (40, 512, 4096):
        for share in shares_of(named(nodes), count).values():
            assert abs(share.bit_count() - count / nodes) < 2


def test_shares_are_even_in_every_part_of_the_file() -> None:
    part = (1 << 64) - 1
    for share in shares_of(named(8), 512).values():
        for start in range(0, 512, 64):
            assert 4 <= (share >> start & part).bit_count() <= 12


@given(st.integers(4000, 9000))
def test_every_piece_of_a_large_file_is_owned_by_exactly_one(count: int) -> None:
    owned = shares_of(named(3), count)
    assert reduce(or_, owned.values()) == (1 << count) - 1
    assert sum(share.bit_count() for share in owned.values()) == count


def test_another_blob_is_shared_out_otherwise() -> None:
    assert shares_of(named(4), 64, salt="one") != shares_of(named(4), 64, salt="two")


def test_a_change_of_company_costs_little_even_for_a_large_file() -> None:
    company = sorted(named(16))
    shares = Shares("me", "salt", 60_000)
    shares.within(company, 1)
    began_at = time.process_time()
    for gone in range(3):
        shares.within(company[:gone] + company[gone + 1 :], 1)
    assert (time.process_time() - began_at) / 3 < 0.15
