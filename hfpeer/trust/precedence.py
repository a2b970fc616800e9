"""Which answer for a name counts: the whole rule, as one table and one function. Pure.

The answer of a hub now counts most, then an earlier answer of a hub, then a publication of this node, then what all
peers answer alike. An answer of a peer never replaces one that is known here, whatever date it bears. Earlier answers
count only while the hubs are silent: where a hub says that there is no such repo, only publications on the LAN count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from hfpeer.names import Commit

MAX_NAMED = 3
"""At most this many peers with the same answer are named in a message."""


class Voice(str, Enum):
    """The kinds of answers for a name, the highest rank first."""

    PIN = "pin"
    """The owner typed the commit id itself."""
    HUB = "hub"
    """A hub, asked now."""
    MEMORY = "memory"
    """A hub, asked before, or a ref file that another tool of the Hub wrote."""
    PUBLISHED_HERE = "published here"
    """This node published it."""
    CACHE = "cache"
    """The id of a commit in the cache begins with the name."""
    PUBLISHED = "published"
    """A peer published it."""
    PEER = "peer"
    """A peer passes on the answer of a hub."""
    TOLD = "told"
    """Peers answered it before, and the cache shows it to other tools."""


class UpstreamAnswer(str, Enum):
    """The answer of all hubs together."""

    ANSWERED = "answered"
    NO_REPO = "no repo"
    """No hub has such a repo, or shows it to this token."""
    REFUSED = "no"
    """A hub has the repo, but not this revision, or refuses it."""
    SILENT = "silent"
    """No hub that decides answers. A mirror's no while the origin is silent counts as silence."""
    NOT_ASKED = "not asked"


Ranks = tuple[frozenset[Voice], ...]
_AT_PEERS = frozenset({Voice.PUBLISHED, Voice.PEER})
_WITHOUT_HUBS: Ranks = (
    *(frozenset({voice}) for voice in (Voice.PIN, Voice.MEMORY, Voice.PUBLISHED_HERE, Voice.CACHE)),
    _AT_PEERS,
    frozenset({Voice.TOLD}),
)
RANKS: Mapping[UpstreamAnswer, Ranks] = {
    UpstreamAnswer.ANSWERED: (frozenset({Voice.PIN}), frozenset({Voice.HUB})),
    UpstreamAnswer.NO_REPO: (frozenset({Voice.PIN}), frozenset({Voice.PUBLISHED_HERE}), frozenset({Voice.PUBLISHED})),
    UpstreamAnswer.REFUSED: (frozenset({Voice.PIN}),),
    UpstreamAnswer.SILENT: _WITHOUT_HUBS,
    UpstreamAnswer.NOT_ASKED: _WITHOUT_HUBS,
}
"""By the answer of the hubs: the kinds of answers that count, the highest rank first. Those in one set rank equal."""


@dataclass(frozen=True)
class Word:
    """An answer for a name by the source `by`. `age_seconds` is None for an answer given now, or of unknown age."""

    commit: Commit
    voice: Voice
    by: str
    age_seconds: float | None = None


@dataclass(frozen=True)
class Contest:
    """Answers of one rank that disagree: by commit, that with the most answers first."""

    sides: Mapping[Commit, tuple[Word, ...]]


def decide(
    words: Iterable[Word], hubs: UpstreamAnswer, *, is_known_here: bool = False, trusts_peers: bool = False
) -> Word | Contest | None:
    """The answer that counts, or None.

    The highest rank that has an answer decides, if all its answers name one commit. Else the result is a Contest; with
    `trusts_peers` the majority of the peers decides, but not a tie. `is_known_here`: a hub has told this node of the
    repo before. Then a peer's publication must not take its place when the hubs no longer show it.
    """
    said = list(words)
    for rank in RANKS[hubs]:
        if hubs is UpstreamAnswer.NO_REPO and is_known_here and rank <= _AT_PEERS:
            return None
        voices = [word for word in said if word.voice in rank]
        if voices:
            return _agreed(voices, trusts_peers=trusts_peers and rank <= _AT_PEERS)
    return None


def _agreed(voices: Sequence[Word], *, trusts_peers: bool) -> Word | Contest:
    """The answer of all, or of the majority if `trusts_peers`; else the contest."""
    sides: dict[Commit, tuple[Word, ...]] = {}
    for word in voices:
        sides[word.commit] = (*sides.get(word.commit, ()), word)
    ordered = sorted(sides.values(), key=len, reverse=True)
    if len(ordered) == 1 or (trusts_peers and len(ordered[0]) > len(ordered[1])):
        return replace(ordered[0][0], by=named(word.by for word in ordered[0]))
    return Contest({side[0].commit: side for side in ordered})


def named(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b, c and 4 more`."""
    unique = list(dict.fromkeys(names))
    shown, more = unique[:MAX_NAMED], len(unique) - MAX_NAMED
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def age_seconds(at: float, now: float) -> float | None:
    """The age of an answer given at the time `at`; None if that time is in the future.

    Then a clock has jumped, and the age is unknown: such an answer must not pass for a fresh one.
    """
    return now - at if at <= now else None


def is_newer(at: float, than: float, now: float) -> bool:
    """Whether one answer is newer than another. An answer from the future, after a clock jumped, counts as older."""
    ages = age_seconds(at, now), age_seconds(than, now)
    if ages[0] is None or ages[1] is None:
        return ages[0] is not None and ages[1] is None
    return ages[0] < ages[1]
