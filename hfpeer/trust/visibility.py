"""The one rule on who may see a commit, and which of its files may leave this node: facts in, a verdict out. Pure.

A fact is the answer of one hub to an asker without a token, and its date. Only an origin opens, and only the commit
that it listed. Every hub can close: the refusal of an origin closes the whole repo, that of a mirror holds until an
origin says otherwise. Bytes that peers, or mirrors that saw no token, gave openly may be passed on while no hub has
closed their repo. The owner's override stands above all. Peers, callers of the endpoint and `ls` get the same verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hfpeer.names import Commit, Visibility

ASK_AGAIN_SECONDS = 24 * 3600.0
"""Seconds before an origin is asked again about a commit."""
WHOLE_REPO = ""
"""Stands for the commit in a fact about the whole repo."""


@dataclass(frozen=True)
class Fact:
    """The answer of the hub at the URL `hub` on a commit, or on the whole repo. `asked_at` is seconds since the
    epoch."""

    commit: str
    hub: str
    is_origin: bool
    visibility: Visibility
    asked_at: float

    @property
    def closes(self) -> bool:
        return self.visibility is not Visibility.PUBLIC


@dataclass(frozen=True)
class Verdict:
    """Who may see a commit, by the answer of which hub and when; UNKNOWN before the first answer that counts."""

    visibility: Visibility = Visibility.UNKNOWN
    said_by: str = ""
    asked_at: float | None = None

    @property
    def is_public(self) -> bool:
        return self.visibility is Visibility.PUBLIC

    @property
    def is_closed(self) -> bool:
        return self.visibility in (Visibility.GATED, Visibility.PRIVATE)


def after(known: Iterable[Fact], said: Fact, hubs: Collection[str]) -> tuple[Fact, ...]:
    """The facts of a repo after a new answer of a hub. `hubs` are the URLs of the configured hubs.

    The answer that comes later is the newer one, whatever its date: clocks jump.
    """
    known = tuple(known)
    if not said.is_origin and not said.closes:
        return known
    return (*(fact for fact in known if not _replaces(said, fact, is_former=fact.hub not in hubs)), said)


def _replaces(said: Fact, fact: Fact, *, is_former: bool) -> bool:
    """Whether the new answer `said` replaces a fact. A hub that is no longer configured cannot be asked again: its
    answer holds until a configured hub says otherwise."""
    is_same_place = fact.commit in (said.commit, WHOLE_REPO)
    if not said.is_origin:
        return fact.hub == said.hub and fact.commit == said.commit
    if not said.closes:
        return is_same_place and (fact.hub == said.hub or (fact.closes and (is_former or not fact.is_origin)))
    if said.commit == WHOLE_REPO:
        return fact.hub == said.hub or (is_former and not fact.closes)
    return fact.commit == said.commit and (fact.hub == said.hub or (is_former and not fact.closes))


def verdict(facts: Iterable[Fact], commit: Commit | str) -> Verdict:
    """The verdict on a commit. A mirror's refusal comes first. Else one origin that listed the commit is enough: an
    origin with another repo of the same name refuses every commit of this one."""
    about = [fact for fact in facts if fact.commit in (commit, WHOLE_REPO)]
    closed = [fact for fact in about if fact.closes]
    by_mirrors = [fact for fact in closed if not fact.is_origin]
    listed = [fact for fact in about if fact.is_origin and not fact.closes]
    return _strongest(by_mirrors or listed or closed)


def repo_verdict(facts: Iterable[Fact]) -> Verdict:
    """The verdict on a repo: PUBLIC if an origin listed any commit of it and no hub has closed it since."""
    facts = tuple(facts)
    closed = [fact for fact in facts if fact.closes and (not fact.is_origin or fact.commit == WHOLE_REPO)]
    by_mirrors = [fact for fact in closed if not fact.is_origin]
    listed = [fact for fact in facts if fact.is_origin and not fact.closes]
    return _strongest(by_mirrors or listed or closed)


def _strongest(facts: Iterable[Fact]) -> Verdict:
    """The verdict of facts that are all open or all closed. Gated says more than private."""
    ranked = sorted(facts, key=lambda fact: (fact.visibility is Visibility.GATED, fact.asked_at))
    return Verdict(ranked[-1].visibility, ranked[-1].hub, ranked[-1].asked_at) if ranked else Verdict()


def is_due(facts: Iterable[Fact], commit: Commit | str, origins: Iterable[str], now: float) -> bool:
    """Whether an origin has to be asked about a commit: its answer is missing, a day old, or from the future."""
    asked = {(fact.hub, fact.commit): fact.asked_at for fact in facts}
    for origin in origins:
        ages = [now - asked[origin, place] for place in (commit, WHOLE_REPO) if (origin, place) in asked]
        if not any(0 <= age < ASK_AGAIN_SECONDS for age in ages):
            return True
    return False


def shows_commit(said: Verdict, *, owner: bool | None, is_published: bool, is_given: bool) -> bool:
    """Whether peers may see a commit: its manifest, its refs, its entry in the catalog.

    `owner` is the owner's override, if any; `is_published`: this node made the commit; `is_given`: all of it that is
    here was given openly.
    """
    if owner is not None:
        return owner
    return is_published or said.is_public or (is_given and not said.is_closed)


def gives_file(said: Verdict, *, owner: bool | None, is_published: bool, is_listed: bool) -> bool:
    """Whether peers may have a file because a commit has it. `is_listed`: the commit's proof, or its origin, lists
    it."""
    if owner is not None:
        return owner
    return is_published or (said.is_public and is_listed)


def gives_openly(repo: Verdict, *, owner: bool | None) -> bool:
    """Whether peers may have the bytes that were given openly to a repo."""
    return owner is not False and not repo.is_closed
