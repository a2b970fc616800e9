"""Copies of a repo, named in an error where the upstreams do not say what a revision is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from hfpeer.cache.records import CachedRevision
from hfpeer.cache.store import Store
from hfpeer.errors import HfpeerError
from hfpeer.language.amounts import counted
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.resolver.peer_queries import PeerQueries, name_of
from hfpeer.trust.precedence import age_seconds

MAX_COPIES_NAMED = 3
"""At most this many copies in the cache, and as many at peers, are named in one error."""


@dataclass(frozen=True)
class _Copy:
    """A copy in the cache or at a peer, in a sentence; `can_add`: an add gets all of it without an upstream."""

    commit: Commit
    sentence: str
    can_add: bool


class Copies:
    """Knows the copies of repos in the cache and in the catalogs of peers."""

    def __init__(self, store: Store, peers: PeerQueries) -> None:
        self._store = store
        self._peers = peers

    async def named_in(
        self, error: HfpeerError, repo: RepoId, *, asks_peers: bool, names_unshared: bool
    ) -> HfpeerError:
        """The error with the copies in its message, and in its hint a command that adds one.

        `names_unshared`: also copies that are not shared, for the owner of the node.
        """
        copies = await asyncio.to_thread(self._in_cache, repo, names_unshared)
        copies += self._at_peers(repo) if asks_peers else []
        if not copies:
            return _at_nobody(repo, error) if error.facts.get("is_without_hub") else error
        commands = [
            f"`hfpeer {repo.type.value} add -r {repo.full_name} -v {copy.commit}` takes it without a hub."
            for copy in copies
            if copy.can_add
        ]
        hint = " ".join(filter(None, (*commands[:1], error.hint)))
        facts = {**error.facts, "copies": [str(copy.commit) for copy in copies]}
        message = " ".join([error.message, *(copy.sentence for copy in copies)])
        return type(error)(message, hint=hint or None, **facts)

    def _at_peers(self, repo: RepoId) -> list[_Copy]:
        copies = []
        for peer, revision in self._peers.revisions_of(repo)[:MAX_COPIES_NAMED]:
            published = ", published by it or by a node it knows" if revision.is_published else ""
            amount = "all of it" if revision.is_complete else "a part"
            sentence = f"{name_of(peer)} has {amount} of {repo} at {revision.commit.short}{published}."
            copies.append(_Copy(revision.commit, sentence, revision.is_complete))
        return copies

    def _in_cache(self, repo: RepoId, names_unshared: bool) -> list[_Copy]:
        """The copies in the cache. An add needs a manifest: for a copy without one, the sentence says in which folder
        its files are."""
        copies = []
        revisions = [cached for cached in self._store.revisions.of(repo) if names_unshared or cached.is_shared]
        for cached in revisions[:MAX_COPIES_NAMED]:
            commit = Commit(cached.commit)
            has_manifest = self._store.manifests.load(repo, commit) is not None
            folder = "" if has_manifest else f", in {cached.snapshot}"
            sentence = f"Here is {_described(repo, cached)}{self._named_by(repo, cached)}{folder}."
            copies.append(_Copy(commit, sentence, has_manifest and cached.is_complete is True))
        return copies

    def _named_by(self, repo: RepoId, cached: CachedRevision) -> str:
        """Which upstream named the commit by a branch or tag, and how long ago."""
        for name in cached.refs:
            ref = self._store.refs.read(repo, Revision(name))
            if ref is not None and ref[0] == cached.commit:
                age = age_seconds(ref[1], time.time())
                return f", {name} of it as {ref[2]} said {'once' if age is None else f'{_in_one_unit(age)} ago'}"
        return ""


def _at_nobody(repo: RepoId, error: HfpeerError) -> HfpeerError:
    return type(error)(f"No peer has {repo}, and no hub is set.", hint=error.hint, **error.facts)


def _described(repo: RepoId, cached: CachedRevision) -> str:
    state = {True: "complete", False: "not complete", None: "of unknown completeness"}[cached.is_complete]
    published = f", published by {cached.published_by}" if cached.published_by else ""
    return f"{repo} at {cached.commit[:12]} ({counted(cached.files, 'file')}, {state}{published})"


def _in_one_unit(seconds: float) -> str:
    """A time for people: days, hours, minutes or seconds."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
