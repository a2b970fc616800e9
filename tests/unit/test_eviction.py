"""A cache with a budget gives up what was not used for the longest time, and nothing that cannot be had again."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from fakes.stub_node import TINY
from hfpeer.cache.cleaning.facts import Leftover, StoredBlob, StoredRevision
from hfpeer.cache.cleaning.planning.eviction import (
    Budget,
    enough,
    evicted,
    first_steps,
    freed_bytes,
    least_recently_used,
    used_bytes,
)
from hfpeer.cache.cleaning.planning.plan import Facts, Plan
from hfpeer.cache.cleaning.planning.protection import Care, Copies, protected
from hfpeer.cache.owner.pins import Pin
from hfpeer.errors import InvalidName
from hfpeer.names import RepoId, RepoType

AUTOMATIC, ALONE = Care(is_automatic=True), Copies()


def key(number: int) -> tuple[str, str]:
    return f"models--acme--m{number}", f"{number:040x}"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


PUBLIC = {"said_by": "https://hub", "visibility": "public", "is_shared": True}


def facts(
    used_at: Sequence[float] | Mapping[int, float],
    *,
    shared: int = 0,
    pinned: Collection[int] = (),
    word: Mapping[str, object] = PUBLIC,
) -> Facts:
    """A cache of models by number, with the time of the last use of each. Each has a blob of 100 bytes of its own, and
    one of `shared` bytes together with the others."""
    times = dict(used_at) if isinstance(used_at, Mapping) else dict(enumerate(used_at))
    revisions = [
        StoredRevision(replace(TINY, repo=f"acme/m{n}", commit=key(n)[1], **{**PUBLIC, **word}), 0, at)  # type: ignore[arg-type]
        for n, at in times.items()
    ]
    blobs = [StoredBlob(digest(n), 100, 100, frozenset([key(n)]), False) for n in times]
    if shared:
        blobs.append(StoredBlob(digest(999), shared, shared, frozenset(map(key, times)), False))
    return Facts(revisions, blobs, (), 1000.0, pinned={key(n) for n in pinned})


def plan_of(known: Facts, wanted: int, copies: Copies = ALONE, care: Care = AUTOMATIC) -> Plan:
    plan = protected(evicted(known, least_recently_used(known)), known, copies, care)
    return first_steps(plan, known, wanted)


def gone(plan: Plan) -> list[int]:
    return [int(commit, 16) for _, commit in plan.revisions]


@pytest.mark.parametrize(
    ("budget", "used", "free", "coming", "excess"),
    [
        (Budget(), 10**12, 0, 10**12, 0),
        (Budget(1000), 900, 50, 100, 0),
        (Budget(1000), 900, 50, 101, 1),
        (Budget(1000), 1200, 50, 0, 200),
        (Budget(None, 500), 900, 500, 0, 0),
        (Budget(None, 500), 900, 450, 100, 150),
        (Budget(None, 500), 900, None, 100, 0),
        (Budget(1000, 500), 900, 400, 200, 300),
    ],
)
def test_the_stricter_bound_counts(budget: Budget, used: int, free: int | None, coming: int, excess: int) -> None:
    assert budget.excess_bytes(used, free, coming) == excess


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    known = facts([30, 10, 20, 40])
    assert gone(plan_of(known, 150)) == [1, 2]
    assert gone(plan_of(known, 100)) == [1]
    assert gone(plan_of(known, 0)) == []
    assert enough(least_recently_used(known), known, 10**9) == 4


def test_a_blob_that_others_use_frees_nothing_until_the_last() -> None:
    known = facts([1, 2, 3], shared=1000)
    assert used_bytes(known) == 1300
    assert gone(plan_of(known, 250)) == [0, 1, 2]
    assert freed_bytes(evicted(known, [key(0), key(1)]), known) == 200


def test_garbage_goes_first_but_not_that_of_a_repo_that_is_added_now() -> None:
    known = replace(facts([1, 2]), busy={"acme/m9"})
    leftovers = [Leftover("temporary", f"/{name}", 60, 60, 0.0, repo=f"acme/{name}") for name in ("m8", "m9")]
    plan = protected(evicted(known, least_recently_used(known), leftovers), known, ALONE, AUTOMATIC)
    assert [one.path for one in plan.leftovers] == ["/m8"]
    assert gone(first_steps(plan, known, 60)) == []
    assert gone(first_steps(plan, known, 160)) == [0]
    assert first_steps(plan, known, 160).leftovers == plan.leftovers


def test_pins_stay() -> None:
    plan = plan_of(facts([1, 2, 3], pinned=[0]), 250)
    assert gone(plan) == [1, 2]
    assert [one.reason for one in plan.kept] == ["pinned"]


@pytest.mark.parametrize(
    ("copies", "takes_last", "expected"),
    [
        (Copies(), False, [0, 1]),
        (Copies(2, 2, {digest(1)}), False, [1]),
        (Copies(2, 2, {digest(1)}), True, [0, 1]),
        (Copies(2, 0), False, [0, 1]),
    ],
)
def test_the_last_copy_on_the_lan_stays_unless_allowed(copies: Copies, takes_last: bool, expected: list[int]) -> None:
    care = replace(AUTOMATIC, takes_last_copies=takes_last)
    assert gone(plan_of(facts([1, 2]), 200, copies, care)) == expected


@pytest.mark.parametrize(
    "word",
    [
        {"visibility": "published", "is_published_here": True, "published_by": "me"},
        {"visibility": "unknown", "said_by": ""},
        {"visibility": "given", "said_by": ""},
    ],
)
def test_what_no_hub_gives_goes_only_if_a_peer_has_it(word: dict[str, object]) -> None:
    known = facts([1, 2], word=word)
    for care in (AUTOMATIC, replace(AUTOMATIC, takes_last_copies=True)):
        assert gone(plan_of(known, 200, Copies(), care)) == []
        assert gone(plan_of(known, 200, Copies(3, 3, {digest(1)}), care)) == [1]


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("acme/tiny", True),
        ("acme/*", True),
        ("*", True),
        ("other/*", False),
        ("acme/tiny@main", True),
        ("acme/tiny@v2", False),
        ("acme/tiny@0123456", True),
        ("acme/tiny@0", False),
        ("ACME/tiny", False),
        ("datasets/acme/tiny", False),
    ],
)
def test_a_pin_is_a_pattern_of_repos_and_perhaps_a_revision(pattern: str, fits: bool) -> None:
    pin = Pin.parse(pattern)
    assert pin.fits(RepoId.parse("acme/tiny"), "0123456789" * 4, ["main"]) is fits
    assert str(pin) == pattern


def test_a_pin_of_a_noun_is_of_its_type() -> None:
    assert str(Pin.parse("squad", RepoType.DATASET)) == "datasets/squad"
    for text in ("", "a b", "a/b/c", "/etc", "acme/tiny@"):
        with pytest.raises(InvalidName, match="no pattern"):
            Pin.parse(text)


@dataclass
class Member:
    """One node of a simulated LAN, with a cache of models of the same size."""

    used_at: dict[int, float] = field(default_factory=dict)


@pytest.mark.parametrize("nodes", [6, 100])
def test_a_lan_of_nodes_with_budgets_loses_nothing(nodes: int) -> None:
    """Each node has room for ten of forty models. Adds happen anywhere, in any order; a model that some node had is at
    some node at the end, although every node evicts."""
    dice = random.Random(nodes)
    lan = [Member() for _ in range(nodes)]
    budget, seen, refused = Budget(1000), set[int](), 0
    for step in range(30 * nodes):
        node, model = dice.choice(lan), min(39, int(dice.expovariate(1 / 12)))
        if model in node.used_at:
            node.used_at[model] = step
            continue
        known = facts(node.used_at)
        held = {digest(n) for other in lan if other is not node for n in other.used_at}
        excess = budget.excess_bytes(used_bytes(known), None, 100)
        plan = plan_of(known, excess, Copies(nodes - 1, nodes - 1, held)) if excess else Plan()
        if freed_bytes(plan, known) < excess:
            refused += 1
            continue
        for number in gone(plan):
            del node.used_at[number]
        node.used_at[model] = step
        seen.add(model)
        assert len(node.used_at) * 100 <= 1000
        assert seen == {number for member in lan for number in member.used_at}
    assert refused < 3 * nodes, "most adds find something that may go"
