"""From a revision to a commit.

The upstreams are asked first, because only they know what a branch or tag means now. If they do not say, the rule of
`precedence` decides between the answers of the cache and of peers, and the result says whose answer it is. A full
commit id needs no answer.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeVar

from hfpeer.cache.records import CachedRevision
from hfpeer.cache.store import Store
from hfpeer.errors import (
    AccessDenied,
    ContestedName,
    HfpeerError,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    Unreachable,
)
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.peers.table.table import Peer
from hfpeer.resolver.copies import Copies
from hfpeer.resolver.peer_queries import MAX_PEERS_ASKED, PeerQueries, PeerTrust, name_of
from hfpeer.transfer.events import Resolved
from hfpeer.trust.precedence import Contest, UpstreamAnswer, Voice, Word, age_seconds, decide, named
from hfpeer.upstream.upstreams import Upstreams

T = TypeVar("T")

_SHORT_COMMIT = re.compile(r"[0-9a-fA-F]{7,40}")
"""The first digits of a commit id, as git takes them."""


@dataclass(frozen=True)
class Resolution:
    """The commit of a revision, whose answer it is, and what the upstreams answered.

    `age_seconds` is the age of an upstream's answer that was given before; None if the answer is new, or its age is
    unknown. `upstream_refusal` is a sentence on why the upstreams did not decide.
    """

    commit: Commit
    answered_by: str
    voice: Voice
    upstreams: UpstreamAnswer = UpstreamAnswer.ANSWERED
    age_seconds: float | None = None
    upstream_refusal: str = ""

    @classmethod
    def again(cls, told: Resolved) -> Resolution:
        """The resolution that an earlier run of an add told."""
        return cls(
            Commit.parse(told.commit),
            told.answered_by,
            Voice(told.voice),
            UpstreamAnswer(told.hubs),
            told.age_seconds,
            told.hubs_said,
        )

    def told(self, repo: RepoId, revision: Revision) -> Resolved:
        """The event that tells it; `again` is its inverse."""
        return Resolved(
            repo.full_name,
            revision,
            self.commit,
            self.answered_by,
            self.age_seconds,
            self.voice.value,
            self.upstreams.value,
            self.upstream_refusal,
        )

    @property
    def is_current(self) -> bool:
        """Whether no newer answer could be had: an upstream has answered now, or does not have to."""
        return self.voice in (Voice.PIN, Voice.PUBLISHED_HERE) or self.upstreams in (
            UpstreamAnswer.ANSWERED,
            UpstreamAnswer.NO_REPO,
        )

    @property
    def is_of_upstream(self) -> bool:
        """Whether it is an upstream's answer, of now or before. Peers are told no other."""
        return self.voice in (Voice.HUB, Voice.MEMORY)

    @property
    def is_of_peers(self) -> bool:
        """Whether it is the answer of peers alone."""
        return self.voice in (Voice.PUBLISHED, Voice.PEER)


class CommitResolver:
    """Resolves revisions for one node. Belongs to its event loop.

    Upstreams are handed in with each call, because a request may bring a token of its own.
    """

    def __init__(self, store: Store, peers: PeerQueries) -> None:
        self._store = store
        self._peers = peers
        self._copies = Copies(store, peers)

    async def resolve(self, repo: RepoId, revision: Revision, upstreams: Upstreams, *, trust: PeerTrust) -> Resolution:
        """The commit that a revision means now. Raises the errors of `Upstreams.resolve` and `without_upstreams`."""
        if revision.is_commit:
            return _pinned(revision)
        try:
            commit, name = await upstreams.resolve(repo, revision)
        except (Unreachable, NotFound, AccessDenied) as error:
            try:
                return await self.without_upstreams(repo, revision, error, trust=trust)
            except Unreachable:
                if not upstreams.silent:
                    raise
            commit, name = await upstreams.as_last_resort().resolve(repo, revision)
        await asyncio.to_thread(self._store.refs.write, repo, revision, commit, name)
        return Resolution(commit, name, Voice.HUB)

    async def resolve_cached(self, repo: RepoId, revision: Revision) -> Resolution:
        """The commit that a revision means by what this node knows. Raises RevisionNotFound, and ContestedName for an
        ambiguous commit id."""
        if revision.is_commit:
            return _pinned(revision)
        resolution = await self._decide(repo, revision, UpstreamAnswer.NOT_ASKED, PeerTrust.NOTHING)
        if resolution is None:
            raise RevisionNotFound(
                f"The cache does not know {revision!r} of {repo}.",
                hint=f"`hfpeer {repo.type.value} ls -r {repo.full_name}` lists what it has.",
                repo=str(repo),
                revision=str(revision),
            )
        return resolution

    async def without_upstreams(
        self,
        repo: RepoId,
        revision: Revision,
        refusal: HfpeerError,
        *,
        trust: PeerTrust,
        names_unshared: bool = True,
    ) -> Resolution:
        """The commit of a revision by the rule of `precedence`. `refusal` is the error of the upstreams.

        Raises ContestedName, or the refusal with the copies of the repo in its message. For a caller that is not the
        owner of the node it must not name copies that are not shared.
        """
        resolution = await self._decide(repo, revision, _answer_of(refusal), trust)
        if resolution is None:
            raise await self._copies.named_in(
                refusal, repo, asks_peers=trust.asks_peers, names_unshared=names_unshared
            ) from refusal
        return replace(resolution, upstream_refusal=refusal.message if refusal.facts.get("said_no") else "")

    async def _decide(
        self, repo: RepoId, revision: Revision, upstreams: UpstreamAnswer, trust: PeerTrust
    ) -> Resolution | None:
        """The answer that counts, of the cache or, if those can count, of peers. Raises ContestedName."""
        published = frozenset(at_peer.commit for _, at_peer in self._peers.revisions_of(repo) if at_peer.is_published)
        words, is_known_here = await asyncio.to_thread(self._words_of_cache, repo, revision, upstreams, published)
        verdict = decide(words, upstreams)
        if trust.asks_peers and (verdict is None or (isinstance(verdict, Word) and verdict.voice is Voice.TOLD)):
            remembered = [word for word in words if word.voice is Voice.TOLD]
            words = [*await self._words_of_peers(repo, revision, upstreams), *remembered]
            verdict = decide(words, upstreams, is_known_here=is_known_here, trusts_peers=trust is PeerTrust.WORD)
        if isinstance(verdict, Contest):
            raise _contested(repo, revision, verdict)
        if verdict is None:
            return None
        return Resolution(verdict.commit, verdict.by, verdict.voice, upstreams, verdict.age_seconds)

    # The cache

    def _words_of_cache(
        self, repo: RepoId, revision: Revision, upstreams: UpstreamAnswer, published_at_peers: Collection[Commit]
    ) -> tuple[list[Word], bool]:
        """The answers of this node for a revision, and whether an upstream has ever named the repo to it.

        `published_at_peers` are the commits that peers say were published on the LAN.
        """
        now, words = time.time(), list[Word]()
        of_upstream = _first_known(revision, lambda name: self._store.refs.read(repo, name))
        published = _first_known(revision, lambda name: self._store.refs.read_published(repo, name))
        of_peers = _first_known(revision, lambda name: self._store.refs.read_told(repo, name))
        if of_upstream is not None:
            words.append(Word(of_upstream[0], Voice.MEMORY, of_upstream[2], age_seconds(of_upstream[1], now)))
        if published is not None:
            words.append(Word(published[0], Voice.PUBLISHED_HERE, published[2]))
        if of_peers is not None:
            words.append(Word(of_peers, Voice.TOLD, "peers"))
        revisions = self._store.revisions.of(repo)
        if not words and _SHORT_COMMIT.fullmatch(revision):
            for cached in revisions:
                if cached.commit.startswith(revision.lower()):
                    is_own = cached.is_published_here and upstreams is UpstreamAnswer.NO_REPO
                    voice = Voice.PUBLISHED_HERE if is_own else Voice.CACHE
                    words.append(Word(Commit(cached.commit), voice, "the cache"))
        is_known = of_upstream is not None or any(
            self._may_be_of_upstream(repo, cached, published_at_peers) for cached in revisions
        )
        return words, is_known

    def _may_be_of_upstream(self, repo: RepoId, cached: CachedRevision, published_at_peers: Collection[Commit]) -> bool:
        """Whether an upstream may have named a cached commit.

        An add marks a commit that a peer published only when it ends. Until then a commit counts as published by a peer
        if all files of it that came were given openly, and no upstream has named it.
        """
        if cached.published_by:
            return False
        commit = Commit(cached.commit)
        if cached.refs or commit not in published_at_peers or self._store.shared.verdict(repo, commit).is_public:
            return True
        return not self._store.shared.is_all_given(repo, commit)

    # Peers

    async def _words_of_peers(self, repo: RepoId, revision: Revision, upstreams: UpstreamAnswer) -> list[Word]:
        """The answers of peers for a revision. Peers whose catalog has the repo are asked first; if only a publication
        counts, no others are asked.

        The first digits of a commit id never mean another commit, whatever a peer answers. If no peer answers for them,
        the commits in the peers' catalogs count.
        """
        at_peers = self._peers.revisions_of(repo)
        only_published = upstreams is UpstreamAnswer.NO_REPO
        holders = [peer for peer, at_peer in at_peers if at_peer.is_published or not only_published]
        others = [] if only_published else self._peers.candidates()
        peers = list({peer.key: peer for peer in (*holders, *others)}.values())[:MAX_PEERS_ASKED]
        answers = await asyncio.gather(*(self._words_of_peer(peer, repo, revision) for peer in peers))
        words = [word for answer in answers for word in answer]
        if not _SHORT_COMMIT.fullmatch(revision):
            return words
        if words := [word for word in words if word.commit.startswith(revision.lower())]:
            return words
        return [
            Word(at_peer.commit, Voice.PUBLISHED if at_peer.is_published else Voice.PEER, name_of(peer))
            for peer, at_peer in at_peers
            if at_peer.commit.startswith(revision.lower())
        ]

    async def _words_of_peer(self, peer: Peer, repo: RepoId, revision: Revision) -> list[Word]:
        """The commit that an upstream named to one peer, and the one that the peer published itself."""
        ref = await self._peers.ref(peer, repo, revision)
        if ref is None:
            return []
        age, words = age_seconds(ref.resolved_at, time.time()), []
        if ref.commit != ref.published_commit:
            words.append(Word(ref.commit, Voice.PEER, name_of(peer), age))
        if ref.published_commit is not None:
            words.append(Word(ref.published_commit, Voice.PUBLISHED, name_of(peer), age))
        return words


def _pinned(revision: Revision) -> Resolution:
    return Resolution(Commit(revision), "the commit id itself", Voice.PIN)


def _first_known(revision: Revision, read: Callable[[Revision], T | None]) -> T | None:
    """The first record that `read` gives for a revision or another spelling of it: the same branch or tag with or
    without its `refs/` folder."""
    spellings = [revision]
    if not revision.startswith("refs/"):
        spellings += [Revision(f"refs/heads/{revision}"), Revision(f"refs/tags/{revision}")]
    for folder in ("refs/heads/", "refs/tags/"):
        if revision.startswith(folder):
            spellings.append(Revision(revision.removeprefix(folder)))
    return next((record for record in map(read, spellings) if record is not None), None)


def _answer_of(refusal: HfpeerError) -> UpstreamAnswer:
    if isinstance(refusal, Unreachable):
        return UpstreamAnswer.SILENT
    return UpstreamAnswer.NO_REPO if isinstance(refusal, RepoNotFound) else UpstreamAnswer.REFUSED


def _contested(repo: RepoId, revision: Revision, contest: Contest) -> ContestedName:
    """The error that names each side of a contest and says how to choose."""
    sides = [f"{named(word.by for word in words)}: {commit}" for commit, words in contest.sides.items()]
    published = {word.by for words in contest.sides.values() for word in words if word.voice is Voice.PUBLISHED}
    note = f" ({named(sorted(published))} published it.)" if published else ""
    is_of_peers = all(word.voice is not Voice.CACHE for words in contest.sides.values() for word in words)
    vote = ", or take what most peers say with --trust-peers" if is_of_peers else ""
    return ContestedName(
        f"It is not sure what {revision} of {repo} means, and no hub decides it. {'; '.join(sides)}.{note}",
        hint=f"Choose a commit: `hfpeer {repo.type.value} add -r {repo.full_name} -v COMMIT`{vote}.",
        repo=str(repo),
        revision=str(revision),
        sides={commit: [word.by for word in words] for commit, words in contest.sides.items()},
    )
