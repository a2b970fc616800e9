"""The assignment of pieces to nodes, which every node computes alike."""

from __future__ import annotations

import time
from functools import reduce
from operator import or_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.transfer.picker.assignment import Assignment

memberships = st.sets(
    st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1), min_size=1, max_size=9
)


def shares_of(membership: set[str], count: int, rank: int = 1, salt: str = "sha256:ab") -> dict[str, int]:
    """The share of each member, as the member itself computes it."""
    return {node: Assignment(node, salt, count).within(membership - {node}, rank) for node in membership}


def named(count: int) -> set[str]:
    return {f"node-{number}" for number in range(count)}


@given(memberships, st.integers(0, 80), st.text(max_size=5))
def test_every_piece_is_owned_by_exactly_one_node(membership: set[str], count: int, salt: str) -> None:
    owned = shares_of(membership, count, salt=salt)
    assert reduce(or_, owned.values()) == (1 << count) - 1
    assert sum(share.bit_count() for share in owned.values()) == count


@given(memberships, st.integers(0, 80))
def test_every_node_knows_the_share_of_each_other(membership: set[str], count: int) -> None:
    owned = shares_of(membership, count)
    for node in membership:
        assert Assignment(node, "sha256:ab", count).by_owner(membership - {node}) == owned


@given(memberships, st.integers(1, 80))
def test_each_rank_adds_every_piece_once_more_and_the_last_covers_all(membership: set[str], count: int) -> None:
    for rank in range(1, len(membership) + 1):
        owned = shares_of(membership, count, rank)
        for piece in range(count):
            assert sum(share >> piece & 1 for share in owned.values()) == rank
    for rank in (len(membership), len(membership) + 5):
        assert set(shares_of(membership, count, rank).values()) == {(1 << count) - 1}


@pytest.mark.parametrize("nodes", [3, 8, 16])
def test_when_a_node_leaves_few_pieces_of_others_change_hands(nodes: int) -> None:
    membership = named(nodes)
    before, after = shares_of(membership, 512), shares_of(membership - {"node-0"}, 512)
    taken = [share & ~before[node] & ~before["node-0"] for node, share in after.items()]
    assert sum(share.bit_count() for share in taken) < 512 // 6


def test_an_assignment_follows_leechers_that_come_and_go() -> None:
    shares = Assignment("a", "salt", 64)
    alone = shares.within([], 1)
    together = shares.within(["b", "c"], 1)
    assert alone == (1 << 64) - 1
    assert 0 < together.bit_count() < 64
    assert shares.within(["a", "c", "b", "b"], 1) == together, "sequence, repetition and the own id do not matter"
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


@pytest.mark.slow
@given(st.integers(4000, 9000))
def test_every_piece_of_a_large_file_is_owned_by_exactly_one(count: int) -> None:
    owned = shares_of(named(3), count)
    assert reduce(or_, owned.values()) == (1 << count) - 1
    assert sum(share.bit_count() for share in owned.values()) == count


def test_another_blob_is_assigned_differently() -> None:
    assert shares_of(named(4), 64, salt="one") != shares_of(named(4), 64, salt="two")


@pytest.mark.timed
def test_a_change_of_members_costs_little_more_for_a_hundred_times_as_large_a_file() -> None:
    membership = sorted(named(16))

    def seconds_for(count: int) -> float:
        shares = Assignment("me", "salt", count)
        shares.within(membership, 1)
        began_at = time.process_time()
        for gone in range(3):
            shares.within(membership[:gone] + membership[gone + 1 :], 1)
        return time.process_time() - began_at

    assert min(seconds_for(600_000) for _ in range(3)) < 15 * min(seconds_for(6_000) for _ in range(3))
