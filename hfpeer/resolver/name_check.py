"""Checks that a folder may be published under the name of a repo: no other publisher may have the name."""

from __future__ import annotations

import asyncio

from hfpeer.cache.store import Store
from hfpeer.errors import HfpeerError, NameTaken, RepoNotFound, Unreachable
from hfpeer.names import MAIN, RepoId
from hfpeer.resolver.peer_queries import PeerQueries, name_of
from hfpeer.upstream.upstreams import Upstreams

UPSTREAM_ANSWER_SECONDS = 15.0
"""Seconds in which the upstreams have to say whether they have a repo of the name."""


async def check_name(store: Store, peers: PeerQueries, upstreams: Upstreams, repo: RepoId) -> tuple[str, ...]:
    """Raises NameTaken if the cache, a peer or an upstream has the repo and this node did not publish it.

    Returns sentences on what could not be checked.
    """
    for cached in await asyncio.to_thread(store.revisions.of, repo):
        if not cached.is_published_here:
            origin = f"{cached.published_by} published" if cached.published_by else "was not published here"
            raise _taken(repo, f"the cache has it at {cached.commit[:12]}, which {origin}")
    if await asyncio.to_thread(store.shared.is_published, repo):
        return ()
    for peer, revision in peers.revisions_of(repo):
        if not revision.is_published:
            raise _taken(repo, f"{name_of(peer)} has it at {revision.commit.short}, which no node published")
    try:
        _, name = await asyncio.wait_for(upstreams.resolve(repo, MAIN), UPSTREAM_ANSWER_SECONDS)
    except RepoNotFound:
        return ()
    except (Unreachable, asyncio.TimeoutError) as error:
        reason = error.message if isinstance(error, Unreachable) else "No hub answers in time."
        return (f"Whether a hub has a {repo.type.value} of this name could not be asked: {reason}",)
    except HfpeerError as error:
        raise _taken(repo, error.message.rstrip(".")) from error
    raise _taken(repo, f"{name} has a {repo.type.value} of this name")


def _taken(repo: RepoId, reason: str) -> NameTaken:
    return NameTaken(
        f"{repo} is not free to publish under: {reason}.",
        hint="Publish under another name, or use --force to take this one.",
        repo=str(repo),
    )
