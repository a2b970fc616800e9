"""What a cleaning is asked for, and the words that name what is to go. Pure.

The words are those of `hf cache rm` and of hfpeer's own output: `ns/name`, `model/ns/name`, `datasets/ns/name`, each
with `@REV`; `hf://datasets/ns/name/file`; and the first digits of a commit or of a digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hfpeer.cache.cleaning.facts import PruneRules
from hfpeer.errors import InvalidName
from hfpeer.names import FilePath, RepoId, RepoType, Revision
from hfpeer.repo_words import NamedRepo, parse_repo_word

_HEX = re.compile(r"(?:sha256:|git-sha1:)?([0-9a-f]{6,64})")


@dataclass(frozen=True)
class Target:
    """One thing to remove. `repos` are the repos that the word can name, the likeliest first: the first that is in the
    cache is meant. `hex` are the first digits of a commit or a digest, if it can be that. Without a revision a file is
    removed from every revision."""

    word: str
    repos: tuple[RepoId, ...] = ()
    revision: Revision | None = None
    files: tuple[FilePath, ...] = ()
    hex: str = ""


@dataclass(frozen=True)
class CleanRequest:
    """Remove what `targets` name, or old revisions by the rules of `prune`, or garbage.

    `is_dry_run` only tells what would go. `is_forced` removes also last copies on the LAN and what is being read.
    `only` are the ids of the steps that the user has seen: no other goes.
    """

    targets: tuple[Target, ...] = ()
    prune: PruneRules | None = None
    collects_garbage: bool = False
    is_dry_run: bool = False
    is_forced: bool = False
    only: tuple[str, ...] | None = None


def parse_target(word: str, type: RepoType | str = RepoType.MODEL, hubs: Iterable[str] = ()) -> Target:
    """Reads a word; `type` is that of a repo without a prefix, `hubs` as in `parse_repo_word`. Raises InvalidName."""
    if "://" in word:
        return target_of(word, parse_repo_word(word, hubs=hubs))
    found = _HEX.fullmatch(word)
    hex = found[1] if found is not None else ""
    name, _, revision = word.partition("@")
    repos = _repos(name, RepoType(type)) if ":" not in name else ()
    if not repos and not hex:
        raise InvalidName(
            f"{word!r} names nothing in a cache.",
            hint="Write a repo (ORG/NAME, datasets/ORG/NAME), REPO@REV, hf://ORG/NAME/FILE, or the first digits of a "
            "commit or of a half-fetched blob, as `hfpeer cache ls --revisions` shows them.",
            word=word,
        )
    return Target(word, repos, Revision.parse(revision) if revision else None, (), hex)


def _repos(name: str, type: RepoType) -> tuple[RepoId, ...]:
    """The repos that a name can mean: with the prefix of hfpeer or of `hf cache`, else of the given type."""
    found = []
    first, _, rest = name.partition("/")
    for kind in RepoType:
        if first in (kind.value, kind.plural) and rest:
            found += _parsed(rest, kind)
    # `model/gpt2` may also be a repo of an organisation of that name; `models/…` and the like may not.
    if not found or first not in {kind.plural for kind in RepoType}:
        found += _parsed(name, type)
    return tuple(found)


def _parsed(name: str, type: RepoType) -> list[RepoId]:
    try:
        return [RepoId.parse(name, type)]
    except InvalidName:
        return []


def target_of(word: str, named: NamedRepo, files: Sequence[FilePath] = ()) -> Target:
    """What a word names that was read by `parse_repo_word`. Raises InvalidName for a folder of a repo."""
    if named.folder is not None:
        raise InvalidName(f"{word!r} names a folder, and files are removed one by one.", hint="Name files.", word=word)
    return Target(word, (named.repo,), named.revision, (*files, *filter(None, [named.file])))
