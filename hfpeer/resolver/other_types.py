"""Finds out whether a repo that is not there is one of another type: a dataset that was asked for as a model."""

from __future__ import annotations

import asyncio

from hfpeer.cache.store import Store
from hfpeer.errors import AccessDenied, HfpeerError, RepoNotFound, RevisionNotFound
from hfpeer.names import MAIN, RepoId, RepoType
from hfpeer.resolver.peer_queries import PeerQueries
from hfpeer.upstream.upstreams import Upstreams

ANSWER_SECONDS = 5.0
"""Seconds in which the upstreams have to say whether they have a repo of another type."""


async def of_other_type(store: Store, peers: PeerQueries, upstreams: Upstreams, repo: RepoId) -> RepoId | None:
    """The repo of the same name and another type that the cache, a peer or an upstream has; None if none is known."""
    others = [RepoId(kind, repo.namespace, repo.name) for kind in RepoType if kind is not repo.type]
    for other in others:
        cached = await asyncio.to_thread(store.revisions.of, other)
        if cached or peers.revisions_of(other):
            return other
    try:
        known = await asyncio.wait_for(asyncio.gather(*(_is_at(upstreams, other) for other in others)), ANSWER_SECONDS)
    except asyncio.TimeoutError:
        return None
    return next((other for other, is_known in zip(others, known, strict=True) if is_known), None)


async def _is_at(upstreams: Upstreams, repo: RepoId) -> bool:
    try:
        await upstreams.resolve(repo, MAIN)
    except RevisionNotFound:
        return True
    except AccessDenied as error:
        return error.code == "gated_repo"
    except HfpeerError:
        return False
    return True


def error_of(repo: RepoId, other: RepoId) -> RepoNotFound:
    """The error for a repo that is there under another type."""
    return RepoNotFound(
        f"{repo.full_name} is no {repo.type.value}: it is a {other.type.value}.",
        hint=f"`hfpeer {other.type.value} add {other.full_name}`",
        repo=repo.api_path,
        is_of_type=other.type.value,
    )
