"""Finds sets at peers that share them, and takes one: checked against the commit, or on the peer's word if the user
says so.

The catalogs of peers name a set by a ref: its commit, its config, and whether that peer has built it itself. Its bytes
move as any revision does. What a set is, and which versions read it, is known before its shards move.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from hfpeer.control.operations import AddRequest, Holding, Operations
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.node.operations.prepared.building import Python
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.prepared.commits import BUILT, SET_FILE, config_slug, ref_parts, set_of, set_repo
from hfpeer.prepared.info import SetInfo, parse_info
from hfpeer.prepared.layout import INFO
from hfpeer.prepared.levels import Level
from hfpeer.prepared.manifest import SetManifest
from hfpeer.transfer.events import Finished, OnEvent

T = TypeVar("T")
Ask: TypeAlias = "Callable[[Callable[[Operations], Coroutine[Any, Any, T]]], T]"
"""Runs work on the daemon, or on a node in this process, and returns its result."""
AGREEING = 2
"""Nodes that say that they built the same bytes, before a set counts as agreed."""


@dataclass(frozen=True)
class Workplace(SetPlaces):
    """The caches, the user's environment, and the ways to ask the node and to tell progress."""

    environ: Mapping[str, str]
    ask: Ask[Any]
    on_event: OnEvent

    def add(self, request: AddRequest) -> Finished:
        """Adds files. Raises the errors of an add."""
        finished: Finished = self.ask(lambda node: node.add(request, self.on_event))
        return finished


@dataclass(frozen=True)
class OfferedSet:
    """A set that peers share: its commit, the peers that have it, and those of them that say that they built it."""

    commit: Commit
    config_slug: str
    peers: tuple[str, ...]
    builders: tuple[str, ...]

    @property
    def level(self) -> Level:
        """What the word of these peers is worth, if the user trusts it."""
        return Level.AGREED if len(self.builders) >= AGREEING else Level.ATTESTED

    @property
    def named(self) -> str:
        return ", ".join(self.peers[:3]) + (f" and {len(self.peers) - 3} more" if len(self.peers) > 3 else "")


@dataclass(frozen=True)
class KnownSet:
    """An offered set whose manifest has come."""

    offer: OfferedSet
    manifest: SetManifest
    info: SetInfo

    def unreadable_by(self, python: Python | None) -> str:
        """Why the `datasets` of this Python cannot read it, as the end of a sentence; empty if it can."""
        if python is None or self.info.needs <= python.version:
            return ""
        return f"it {self.info.reader}, and {python.program} has {python.datasets}"


def offers(place: Workplace, repo: RepoId, commit: Commit, config: str, *, is_script: bool) -> list[OfferedSet]:
    """The sets of a commit that peers share, those of most builders and peers first. Without a config those of every
    one. The commit of a set of a script is not known, so all sets of such a repo count."""
    found: list[Holding] = place.ask(lambda node: node.search(set_repo(repo)))
    peers: dict[tuple[str, str], dict[str, bool]] = {}
    for holding in found:
        for parts in filter(None, map(ref_parts, holding.refs)):
            word, made_of, slug = parts
            is_wanted = is_script or made_of == commit[: len(made_of)]
            if is_wanted and holding.is_complete and (not config or slug == config_slug(config)):
                of_set = peers.setdefault((holding.commit, slug), {})
                of_set[holding.peer] = of_set.get(holding.peer, False) or word == BUILT
    made = []
    for (set_commit, slug), at in peers.items():
        builders = tuple(sorted(peer for peer, built in at.items() if built))
        made.append(OfferedSet(Commit(set_commit), slug, tuple(sorted(at)), builders))
    return sorted(made, key=lambda one: (-len(one.builders), -len(one.peers), one.commit))


def look_at(place: Workplace, repo: RepoId, offer: OfferedSet) -> KnownSet:
    """Brings the manifest and the info of an offered set, which are small. Raises the errors of an add, BadArchive,
    CorruptData."""
    finished = _add(place, repo, offer, (SET_FILE, FilePath(INFO)))
    listed = place.manifest(set_repo(repo), offer.commit)
    assert listed is not None
    manifest = set_of(listed, (Path(finished.snapshot) / SET_FILE).read_bytes())
    return KnownSet(offer, manifest, parse_info((Path(finished.snapshot) / INFO).read_bytes()))


def fetch(place: Workplace, repo: RepoId, offer: OfferedSet) -> None:
    """Brings all of an offered set into the Hub cache. Raises the errors of an add."""
    _add(place, repo, offer, ())


def _add(place: Workplace, repo: RepoId, offer: OfferedSet, files: Sequence[FilePath]) -> Finished:
    return place.add(AddRequest(set_repo(repo), Revision(offer.commit), files=tuple(files)))
