"""The rule on who may see a commit, row by row: answers of hubs, in order, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hfpeer.names import Visibility
from hfpeer.trust.visibility import (
    ASK_AGAIN_SECONDS,
    WHOLE_REPO,
    Fact,
    Verdict,
    after,
    gives_file,
    gives_openly,
    is_due,
    repo_verdict,
    shows_commit,
    verdict,
)

OLD, NEW = "a" * 40, "b" * 40
ORIGIN, COMPANY, MIRROR, FORMER = "https://origin", "https://company", "https://mirror", "https://former"
HUBS = {ORIGIN, COMPANY, MIRROR}
PUBLIC, GATED, PRIVATE, UNKNOWN = Visibility.PUBLIC, Visibility.GATED, Visibility.PRIVATE, Visibility.UNKNOWN


@dataclass(frozen=True)
class Row:
    """Answers in order, as (hub, commit, visibility), and the verdicts on the two commits after them."""

    name: str
    said: tuple[tuple[str, str, Visibility], ...]
    old: Visibility
    new: Visibility


ROWS = [
    Row("nobody was asked", (), UNKNOWN, UNKNOWN),
    Row("the origin lists a commit: that one is public", ((ORIGIN, OLD, PUBLIC),), PUBLIC, UNKNOWN),
    Row("the origin refuses the repo", ((ORIGIN, WHOLE_REPO, PRIVATE),), PRIVATE, PRIVATE),
    Row("the origin calls it gated", ((ORIGIN, WHOLE_REPO, GATED),), GATED, GATED),
    Row("public, then private", ((ORIGIN, OLD, PUBLIC), (ORIGIN, WHOLE_REPO, PRIVATE)), PRIVATE, PRIVATE),
    Row("public, then gated", ((ORIGIN, OLD, PUBLIC), (ORIGIN, WHOLE_REPO, GATED)), GATED, GATED),
    Row("private, then public at a commit", ((ORIGIN, WHOLE_REPO, PRIVATE), (ORIGIN, NEW, PUBLIC)), UNKNOWN, PUBLIC),
    Row("the origin has no such commit", ((ORIGIN, NEW, PUBLIC), (ORIGIN, OLD, PRIVATE)), PRIVATE, PUBLIC),
    Row("a mirror calls it public: nothing", ((MIRROR, OLD, PUBLIC),), UNKNOWN, UNKNOWN),
    Row("a mirror calls it gated", ((MIRROR, WHOLE_REPO, GATED),), GATED, GATED),
    Row("public, then closed by a mirror", ((ORIGIN, OLD, PUBLIC), (MIRROR, WHOLE_REPO, PRIVATE)), PRIVATE, PRIVATE),
    Row(
        "closed by a mirror, and the origin says otherwise later",
        ((ORIGIN, OLD, PUBLIC), (MIRROR, WHOLE_REPO, PRIVATE), (ORIGIN, OLD, PUBLIC)),
        PUBLIC,
        UNKNOWN,
    ),
    Row(
        "closed by a mirror, which takes it back: a mirror opens nothing",
        ((ORIGIN, OLD, PUBLIC), (MIRROR, WHOLE_REPO, PRIVATE), (MIRROR, OLD, PUBLIC)),
        PRIVATE,
        PRIVATE,
    ),
    Row(
        "two origins: one has the commit, the other a private repo of that name, or none",
        ((ORIGIN, OLD, PUBLIC), (COMPANY, WHOLE_REPO, PRIVATE), (ORIGIN, NEW, PRIVATE)),
        PUBLIC,
        PRIVATE,
    ),
    Row(
        "a hub that is not set any more listed it: that holds",
        ((FORMER, OLD, PUBLIC),),
        PUBLIC,
        UNKNOWN,
    ),
    Row(
        "until an origin that is set refuses it",
        ((FORMER, OLD, PUBLIC), (COMPANY, WHOLE_REPO, PRIVATE)),
        PRIVATE,
        PRIVATE,
    ),
    Row(
        "a hub that is not set any more refused it, and the origin lists it",
        ((FORMER, WHOLE_REPO, PRIVATE), (ORIGIN, OLD, PUBLIC)),
        PUBLIC,
        UNKNOWN,
    ),
]


def facts_of(row: Row, dates: tuple[float, ...] = ()) -> tuple[Fact, ...]:
    facts: tuple[Fact, ...] = ()
    for number, (hub, commit, visibility) in enumerate(row.said):
        asked_at = dates[number % len(dates)] if dates else 100.0 + number
        # A former hub was configured when it answered.
        hubs = HUBS | {FORMER} if hub == FORMER else HUBS
        facts = after(facts, Fact(commit, hub, hub != MIRROR, visibility, asked_at), hubs)
    return facts


@pytest.mark.parametrize("dates", [(), (9e9, 1.0, 5e9)], ids=["in order", "clocks jump"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_who_may_see_it(row: Row, dates: tuple[float, ...]) -> None:
    """A later answer is newer, whatever the clock shows."""
    facts = facts_of(row, dates)
    assert (verdict(facts, OLD).visibility, verdict(facts, NEW).visibility) == (row.old, row.new)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_repo_is_open_if_a_commit_of_it_is_and_closed_if_all_are(row: Row) -> None:
    whole = repo_verdict(facts_of(row))
    assert whole.is_public == (PUBLIC in (row.old, row.new))
    assert whole.is_closed == (UNKNOWN not in (row.old, row.new) and PUBLIC not in (row.old, row.new))


def test_a_verdict_has_its_hub_and_date() -> None:
    facts = facts_of(Row("", ((ORIGIN, OLD, PUBLIC),), PUBLIC, UNKNOWN))
    assert verdict(facts, OLD) == Verdict(PUBLIC, ORIGIN, 100.0)
    assert verdict(facts, NEW) == Verdict()


def test_a_new_answer_replaces_the_one_before() -> None:
    facts: tuple[Fact, ...] = ()
    for number in range(10):
        facts = after(facts, Fact(OLD, ORIGIN, True, PUBLIC, float(number)), HUBS)
        facts = after(facts, Fact(WHOLE_REPO, MIRROR, False, GATED, float(number)), HUBS)
    assert len(facts) == 2


@pytest.mark.parametrize(
    ("asked_at", "now", "due"),
    [
        (None, 1000.0, True),
        (1000.0, 1000.0, False),
        (1000.0, 1000.0 + ASK_AGAIN_SECONDS - 1, False),
        (1000.0, 1000.0 + ASK_AGAIN_SECONDS, True),
        (1001.0, 1000.0, True),
    ],
    ids=["never", "just now", "within a day", "a day ago", "in the future"],
)
@pytest.mark.parametrize("place", [OLD, WHOLE_REPO])
def test_an_origin_is_asked_again_after_a_day(asked_at: float | None, now: float, due: bool, place: str) -> None:
    facts = [] if asked_at is None else [Fact(place, ORIGIN, True, PUBLIC if place else PRIVATE, asked_at)]
    assert is_due(facts, OLD, [ORIGIN], now) is due
    assert not is_due(facts, OLD, [], now), "nobody can be asked"
    assert is_due(facts, OLD, [ORIGIN, COMPANY], now), "another origin was never asked"


# Which files may leave: for each state of a commit, with and without an override.

LEAVES = [
    # verdict, published here, all given openly | shown to peers, files given for the commit
    (PUBLIC, False, False, True, True),
    (UNKNOWN, False, False, False, False),
    (UNKNOWN, False, True, True, False),
    (GATED, False, False, False, False),
    (GATED, False, True, False, False),
    (PRIVATE, False, False, False, False),
    (PRIVATE, False, True, False, False),
    (UNKNOWN, True, False, True, True),
    (PRIVATE, True, False, True, True),
]


@pytest.mark.parametrize(("said", "is_published", "is_given", "is_shown", "gives"), LEAVES)
def test_what_may_leave(said: Visibility, is_published: bool, is_given: bool, is_shown: bool, gives: bool) -> None:
    known = Verdict(said, ORIGIN, 1.0)
    for owner in (None, True, False):
        expected = is_shown if owner is None else owner
        assert shows_commit(known, owner=owner, is_published=is_published, is_given=is_given) is expected
        expected = gives if owner is None else owner
        assert gives_file(known, owner=owner, is_published=is_published, is_listed=True) is expected
    if not is_published:
        assert not gives_file(known, owner=None, is_published=False, is_listed=False), (
            "a list of a peer's opens nothing"
        )


@pytest.mark.parametrize("said", list(Visibility))
def test_bytes_given_openly_may_leave_until_a_hub_closes_their_repo(said: Visibility) -> None:
    is_open = said in (PUBLIC, UNKNOWN)
    for owner, expected in ((None, is_open), (True, is_open), (False, False)):
        assert gives_openly(Verdict(said), owner=owner) is expected
