"""The upstreams in their order, as one: mirrors first, then the origin.

What exists is decided by those that answer: something is not found only if every one of them that answered says so,
and nobody is unreachable as long as one answers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from hfpeer.errors import AccessDenied, CorruptData, HfpeerError, HubUnreachable, NotFound, RepoNotFound, Unreachable
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId, Revision, Visibility
from hfpeer.upstream.hub import Told, Upstream

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Hubs:
    """Several upstreams in the order in which they are asked; there may be none."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self.upstreams)

    def acting_for(self, token: str | None) -> Hubs:
        """The same hubs with another user's token, over the same connections."""
        return Hubs([upstream.acting_for(token) for upstream in self.upstreams])

    async def resolve(self, repo: RepoId, revision: Revision) -> tuple[Commit, str]:
        """The commit a revision is now, and the name of the upstream that says so.

        Raises the errors of Upstream.resolve; their messages name who said what.
        """
        return await self._first(lambda upstream: upstream.resolve(repo, revision))

    async def manifest(self, repo: RepoId, commit: Commit) -> tuple[Manifest, str]:
        """The listing of a commit, and the name of the upstream it is from. Proved ones are preferred.

        Raises the errors of Upstream.manifest; their messages name who said what.
        """
        attested: tuple[Manifest, str] | None = None

        async def proved(upstream: Upstream) -> Manifest:
            nonlocal attested
            manifest = await upstream.manifest(repo, commit)
            if manifest.is_attested:
                attested = attested or (manifest, upstream.name)
                raise HubUnreachable(f"{upstream.name} gives no proof of it.")
            return manifest

        try:
            return await self._first(proved)
        except HfpeerError:
            if attested is None:
                raise
            return attested

    async def visibility(self, repo: RepoId) -> tuple[Visibility, str]:
        """Who may see a repo, and the name of the upstream that says so. Raises HubUnreachable.

        A hub does not tell private from missing, so PRIVATE stands only if nobody who answered knows better.
        """
        hidden: tuple[Visibility, str] | None = None

        async def known(upstream: Upstream) -> Visibility:
            nonlocal hidden
            visibility = await upstream.visibility(repo)
            if visibility is Visibility.PRIVATE:
                hidden = hidden or (visibility, upstream.name)
                raise RepoNotFound(f"{upstream.name} shows no {repo} to the public.")
            return visibility

        try:
            return await self._first(known)
        except HfpeerError:
            if hidden is None:
                raise
            return hidden

    async def answer(self, repo: RepoId, rest: str, revision: str | None = None) -> tuple[Told, str]:
        """What `/api/{type}s/{id}{rest}` says, a GET, and the name of the upstream that says so.

        Raises the errors of Upstream.answer; their messages name who said what.
        """
        return await self._first(lambda upstream: upstream.answer(repo, rest, revision))

    async def check_access(self, repo: RepoId) -> None:
        """Asks those that may see the token whether it may have the repo's files.

        Raises the errors of Upstream.check_access; HubUnreachable also when no upstream may see it.
        """
        trusted = Hubs([upstream for upstream in self.upstreams if upstream.sends_token])
        await trusted._first(lambda upstream: upstream.check_access(repo))

    async def aclose(self) -> None:
        for upstream in self.upstreams:
            await upstream.aclose()

    async def _first(self, ask: Callable[[Upstream], Awaitable[Answer]]) -> tuple[Answer, str]:
        """The first answer that is none of these errors, and whose it is; else the one error that sums them up."""
        errors: dict[str, HfpeerError] = {}
        for upstream in self.upstreams:
            try:
                return await ask(upstream), upstream.name
            except (NotFound, AccessDenied, Unreachable, CorruptData) as error:
                log.debug("%s: %s", upstream.name, error.message)
                errors[upstream.name] = error
        raise _summary(errors)


def _summary(errors: dict[str, HfpeerError]) -> HfpeerError:
    """What all that was said amounts to: a refusal of access outweighs absence, absence outweighs silence."""
    if not errors:
        return HubUnreachable("There is no upstream to ask.", hint="`hfpeer conf set upstreams` names some.")
    for kind in (CorruptData, AccessDenied, NotFound):
        said = [error for error in errors.values() if isinstance(error, kind)]
        if said:
            return _joined(said[0], errors)
    hint = "Try again when the network is back; what has arrived is kept."
    return _joined(HubUnreachable("No upstream can be reached.", hint=hint), errors)


def _joined(error: HfpeerError, errors: dict[str, HfpeerError]) -> HfpeerError:
    """The error with everybody's word in its message, if there is more than its own."""
    words = [other.message for other in errors.values() if other is not error]
    message = " ".join([error.message, *words])
    facts = {**error.facts, "answers": {name: other.message for name, other in errors.items()}}
    return type(error)(message, hint=error.hint, **facts)
