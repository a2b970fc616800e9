"""Which answer for a name counts, row by row: the table of docs/en/reference/trust.md."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.names import Commit
from hfpeer.trust.precedence import RANKS, Contest, UpstreamAnswer, Voice, Word, age_seconds, decide, is_newer, named

A, B, C = (Commit(letter * 40) for letter in "abc")
NO_REPO, NO, SILENT, NOT_ASKED, ANSWERED = (
    UpstreamAnswer.NO_REPO,
    UpstreamAnswer.REFUSED,
    UpstreamAnswer.SILENT,
    UpstreamAnswer.NOT_ASKED,
    UpstreamAnswer.ANSWERED,
)
CONTEST = "contest"


def said(voice: Voice, commit: Commit = A, by: str = "one") -> Word:
    return Word(commit, voice, by)


PIN, HUB, MEMORY, HERE, CACHE, PUBLISHED, PEER, TOLD = Voice
ROWS = {
    "the owner's pin needs nobody": (SILENT, [said(PIN, B), said(MEMORY), said(PEER)], B),
    "the owner's pin holds against a hub": (ANSWERED, [said(HUB), said(PIN, B)], B),
    "a hub's answer now is the name": (ANSWERED, [said(HUB, B), said(MEMORY), said(HERE), said(PEER)], B),
    "hubs silent: what a hub said before": (SILENT, [said(PEER, B), said(HERE, C), said(MEMORY)], A),
    "hubs silent: memory stands against any number of peers": (
        SILENT,
        [said(MEMORY), *(said(PEER, B, str(n)) for n in range(9))],
        A,
    ),
    "hubs silent, nothing remembered: what this node published": (SILENT, [said(PEER, B), said(HERE)], A),
    "hubs silent: a commit of the cache that begins so": (SILENT, [said(PEER, B), said(CACHE)], A),
    "hubs silent: two commits of the cache that begin so": (SILENT, [said(CACHE), said(CACHE, B)], CONTEST),
    "hubs silent, unknown here: what a peer says": (SILENT, [said(PEER)], A),
    "hubs silent, unknown here: what all peers say alike": (SILENT, [said(PEER), said(PUBLISHED, A, "two")], A),
    "hubs silent, unknown here: peers that disagree": (SILENT, [said(PEER), said(PEER, B, "two")], CONTEST),
    "hubs silent: a peer's publication is one word of a peer": (SILENT, [said(PEER), said(PUBLISHED, B)], CONTEST),
    "hubs say no such repo: what this node published": (NO_REPO, [said(MEMORY, B), said(HERE), said(PUBLISHED, C)], A),
    "hubs say no such repo: what a peer published": (NO_REPO, [said(PEER, B), said(PUBLISHED)], A),
    "hubs say no such repo: peers that published different commits": (
        NO_REPO,
        [said(PUBLISHED), said(PUBLISHED, B, "two")],
        CONTEST,
    ),
    "hubs say no such repo: memory and peers' words do not count": (NO_REPO, [said(MEMORY), said(PEER, B)], None),
    "hubs say no such revision, or refuse: nothing but the pin counts": (
        NO,
        [said(MEMORY), said(HERE), said(PUBLISHED), said(PEER)],
        None,
    ),
    "hubs silent: what a peer says now stands against what peers said before": (SILENT, [said(TOLD), said(PEER, B)], B),
    "hubs silent, no peer says anything: what peers said before": (SILENT, [said(TOLD)], A),
    "hubs say no such repo: what peers said before does not count": (NO_REPO, [said(TOLD)], None),
    "nobody is asked: what peers said before": (NOT_ASKED, [said(TOLD)], A),
    "nobody is asked: memory": (NOT_ASKED, [said(MEMORY), said(HERE, B)], A),
    "nobody is asked: what this node published": (NOT_ASKED, [said(HERE)], A),
    "nobody says anything": (SILENT, [], None),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_table(row: str) -> None:
    hubs, words, expected = ROWS[row]
    verdict = decide(words, hubs)
    found = CONTEST if isinstance(verdict, Contest) else verdict and verdict.commit
    assert found == expected


def test_a_repo_that_a_hub_once_told_of_is_not_replaced_by_a_peers_publication() -> None:
    words = [said(PUBLISHED)]
    assert decide(words, NO_REPO, is_known_here=True) is None
    assert decide([*words, said(HERE, B)], NO_REPO, is_known_here=True) == said(HERE, B)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([said(PEER, A, "1"), said(PEER, B, "2"), said(PEER, B, "3")], B),
        ([said(PEER, A, "1"), said(PEER, B, "2")], CONTEST),
        ([said(PEER, A, "1"), said(PEER, B, "2"), said(PEER, B, "3"), said(PUBLISHED, A, "4")], CONTEST),
        ([said(CACHE, A), said(CACHE, B), said(CACHE, B)], CONTEST),
    ],
)
def test_where_peers_are_trusted_most_of_them_decide_and_a_tie_does_not(
    words: list[Word], expected: Commit | str
) -> None:
    verdict = decide(words, SILENT, trusts_peers=True)
    assert (CONTEST if isinstance(verdict, Contest) else verdict and verdict.commit) == expected


def test_a_contest_tells_the_sides_apart_and_the_largest_comes_first() -> None:
    contest = decide([said(PEER, A, "1"), said(PEER, B, "2"), said(PEER, B, "3")], SILENT)
    assert isinstance(contest, Contest)
    assert {commit: [word.by for word in words] for commit, words in contest.sides.items()} == {B: ["2", "3"], A: ["1"]}
    assert next(iter(contest.sides)) == B


def test_sources_that_agree_are_named_together() -> None:
    verdict = decide([said(PEER, A, name) for name in "vwxyz"], SILENT)
    assert isinstance(verdict, Word)
    assert verdict.by == "v, w, x and 2 more"
    assert (named(["a"]), named("ab"), named("aab")) == ("a", "a and b", "a and b")


WORDS = st.lists(st.builds(Word, st.sampled_from([A, B, C]), st.sampled_from(Voice), st.sampled_from("xyz")))


@given(WORDS, st.sampled_from(UpstreamAnswer), st.booleans(), st.lists(st.floats(0, 1e12)))
def test_the_order_and_the_ages_of_answers_decide_nothing(
    words: list[Word], hubs: UpstreamAnswer, is_known_here: bool, ages: Sequence[float]
) -> None:
    def shape(verdict: Word | Contest | None) -> object:
        return frozenset(verdict.sides) if isinstance(verdict, Contest) else verdict and verdict.commit

    aged = [Word(w.commit, w.voice, w.by, age) for w, age in zip(words, [*ages, *[0.0] * len(words)], strict=False)]
    verdict = shape(decide(words, hubs, is_known_here=is_known_here))
    assert shape(decide(reversed(aged), hubs, is_known_here=is_known_here)) == verdict


@given(WORDS, st.sampled_from(UpstreamAnswer), WORDS)
def test_no_answer_of_a_peer_replaces_one_that_is_known_here(
    words: list[Word], hubs: UpstreamAnswer, more: list[Word]
) -> None:
    own = [word for word in words if word.voice not in (PEER, PUBLISHED, TOLD)]
    verdict = decide(own, hubs)
    if verdict is not None:
        assert decide([*own, *(word for word in more if word.voice in (PEER, PUBLISHED))], hubs) == verdict


def test_every_state_of_the_hubs_has_its_ranks_with_each_voice_once() -> None:
    assert set(RANKS) == set(UpstreamAnswer)
    for ranks in RANKS.values():
        assert sum(map(len, ranks)) == len(frozenset().union(*ranks))


def test_an_answer_from_the_future_is_of_unknown_age_and_older_than_any_other() -> None:
    assert (age_seconds(5, 7), age_seconds(7, 7), age_seconds(8, 7)) == (2, 0, None)
    assert is_newer(6, 5, 7) and not is_newer(5, 6, 7)
    assert is_newer(1, 8, 7) and not is_newer(8, 1, 7)
    assert not is_newer(9, 8, 7)
