"""The upstreams in order, as one: mirrors first, then the origin.

The first upstream that has it answers. Only the origin can say that something does not exist, or refuse it; while the
origin is silent, a mirror without it proves nothing. If no origin is among the upstreams, the mirrors decide.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hfpeer.errors import (
    AccessDenied,
    CorruptData,
    HfpeerError,
    HubUnreachable,
    NotFound,
    RateLimited,
)
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId, Revision, Visibility
from hfpeer.upstream.reach import first_success
from hfpeer.upstream.responses.rate_limit import OnRest, Rest, hub_key
from hfpeer.upstream.responses.refusals import LATER
from hfpeer.upstream.upstream import ApiResponse, Upstream

log = logging.getLogger(__name__)
Result = TypeVar("Result")

NO_HUB_HINT = "`hfpeer conf set upstreams` names some."
OFFLINE_HINT = "The setting offline keeps this node from all hubs. `hfpeer conf set offline false` ends that."
NETWORK_HINT = "Try again when the network is back; what has arrived is kept."


@dataclass(frozen=True)
class VisibilityAnswer:
    """Who may see `commit` according to the hub at a URL; "" is the whole repo."""

    hub: str
    is_origin: bool
    visibility: Visibility
    commit: str


class Upstreams:
    """Several upstreams in the order in which they are asked; there may be none."""

    def __init__(
        self, upstreams: Sequence[Upstream], *, is_last_resort: bool = False, none_hint: str = NO_HUB_HINT
    ) -> None:
        """`none_hint` says what to do if there are none and one is needed."""
        self.upstreams = tuple(upstreams)
        self._is_last_resort = is_last_resort
        self._none_hint = none_hint

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self.upstreams)

    def with_token(self, token: str | None) -> Upstreams:
        """The same hubs with another user's token, over the same connections."""
        return self._with([upstream.with_token(token) for upstream in self.upstreams], self._is_last_resort)

    def as_last_resort(self) -> Upstreams:
        """The same hubs, asked even if they were silent a moment ago, and for as long as it takes."""
        return self._with(self.upstreams, is_last_resort=True)

    def resting(self, seconds: float) -> Upstreams | None:
        """The same hubs, for requests that wait for those that limit requests now, each up to `seconds`. None if there
        are none.

        A hub that rests shorter is asked sooner, and the others before.
        """
        rests = {upstream: upstream.rate_limit.longest for upstream in self.upstreams}
        if not any(rests.values()):
            return None
        in_order = sorted(self.upstreams, key=lambda one: rest.seconds if (rest := rests[one]) else 0.0)
        waiting = [upstream.resting(seconds) if rests[upstream] else upstream for upstream in in_order]
        return self._with(waiting, self._is_last_resort)

    @contextmanager
    def telling_of_rests(self, on_rest: OnRest) -> Iterator[None]:
        """While the block runs, `on_rest` is called for each rest of a hub; see `RateLimit.telling`."""
        with ExitStack() as stack:
            for upstream in self.upstreams:
                stack.enter_context(upstream.rate_limit.telling(on_rest))
            yield

    @property
    def rests(self) -> tuple[Rest, ...]:
        """The rests of the hubs that limit requests now."""
        return tuple(rest for upstream in self.upstreams if (rest := upstream.rate_limit.longest) is not None)

    @property
    def limits(self) -> dict[str, int]:
        """For peers: the hubs that limit requests now, by `hub_key`, and for how many seconds more."""
        limits = ((upstream, upstream.rate_limit.longest) for upstream in self.upstreams)
        return {hub_key(upstream.endpoint): math.ceil(rest.seconds) for upstream, rest in limits if rest is not None}

    def hear_limits(self, limits: Mapping[str, int]) -> None:
        """Takes the limits that a peer tells; see `RateLimit.heard`."""
        for upstream in self.upstreams if limits else ():
            if seconds := limits.get(hub_key(upstream.endpoint)):
                upstream.rate_limit.heard(seconds)

    @property
    def silent(self) -> tuple[Upstream, ...]:
        """The hubs that did not answer a moment ago; see `reach`."""
        return tuple(upstream for upstream in self.upstreams if upstream.reach.silent_for_seconds)

    @property
    def giving(self) -> tuple[Upstream, ...]:
        """The hubs that are asked for bytes: all that are not silent, or all."""
        silent = self.silent
        return tuple(upstream for upstream in self.upstreams if upstream not in silent) or self.upstreams

    @property
    def origins(self) -> Upstreams:
        """The upstreams that decide: all but the mirrors."""
        return self._with([upstream for upstream in self.upstreams if upstream.kind == "origin"])

    async def resolve(self, repo: RepoId, revision: Revision) -> tuple[Commit, str]:
        """The commit of a revision now, and the name of the upstream that told it.

        Raises the errors of Upstream.resolve, with the answer of each upstream in the message.
        """
        return await self._first_success(lambda upstream: upstream.resolve(repo, revision))

    async def manifest(self, repo: RepoId, commit: Commit) -> tuple[Manifest, str]:
        """The manifest of a commit, proved if possible, and the name of its upstream.

        Raises the errors of Upstream.manifest, with the answer of each upstream in the message.
        """
        attested: tuple[Manifest, str] | None = None

        async def proved(upstream: Upstream) -> Manifest:
            nonlocal attested
            manifest = await upstream.manifest(repo, commit)
            if manifest.is_attested:
                attested = attested or (manifest, upstream.name)
                if (rest := upstream.rest_of_proofs(repo)) is not None:
                    raise rest.error
                raise HubUnreachable(f"{upstream.name} gives no proof of it.")
            return manifest

        try:
            return await self._first_success(proved)
        except HfpeerError:
            if attested is None:
                raise
            return attested

    @property
    def endpoints(self) -> frozenset[str]:
        """The URLs of all upstreams."""
        return frozenset(upstream.endpoint for upstream in self.upstreams)

    @property
    def mirrors(self) -> tuple[Upstream, ...]:
        return tuple(upstream for upstream in self.upstreams if upstream.kind == "mirror")

    def is_origin(self, name: str) -> bool:
        """Whether the upstream of this name is an origin, and no mirror has the same name."""
        return {upstream.kind for upstream in self.upstreams if upstream.name == name} == {"origin"}

    def gives_openly(self, name: str) -> bool:
        """Whether the upstream of this name is a mirror that gets no token, so that it gives everything to anonymous
        callers too."""
        return {one.kind == "mirror" and not one.may_send_token for one in self.upstreams if one.name == name} == {True}

    @property
    def may_send_token(self) -> bool:
        """Whether a request to one of them can carry a token."""
        return any(upstream.may_send_token for upstream in self.upstreams)

    async def visibility(
        self, repo: RepoId, commit: Commit | None, *, asks_mirrors: bool = False
    ) -> list[VisibilityAnswer]:
        """The visibility of a commit, or of the repo's head, according to every origin, in response to anonymous
        requests.

        With `asks_mirrors`, mirrors are asked if all origins are silent. Raises HubUnreachable if none answers.
        """

        async def ask(upstream: Upstream) -> VisibilityAnswer | HfpeerError:
            outcome = await first_success(
                [upstream], lambda hub: hub.visibility(repo, commit), is_last_resort=self._is_last_resort
            )
            if isinstance(outcome, list):
                return outcome[0][1]
            visibility, place = outcome[0]
            return VisibilityAnswer(upstream.endpoint, upstream.kind == "origin", visibility, place)

        answers = list(await asyncio.gather(*map(ask, self.origins)))
        if asks_mirrors and not any(isinstance(answer, VisibilityAnswer) for answer in answers):
            answers += await asyncio.gather(*map(ask, self.mirrors))
        said = [answer for answer in answers if isinstance(answer, VisibilityAnswer)]
        if not said:
            reasons = [answer.message for answer in answers if isinstance(answer, HfpeerError)]
            raise HubUnreachable(
                " ".join([f"No origin tells who may see {repo}.", *reasons]),
                hint=NETWORK_HINT if self.upstreams else self._none_hint,
            )
        return said

    async def get_api(self, repo: RepoId, subpath: str, revision: str | None = None) -> tuple[ApiResponse, str]:
        """The response to GET `/api/{type}s/{id}{subpath}`, and the name of its upstream.

        Raises the errors of Upstream.get_api, with the answer of each upstream in the message.
        """
        return await self._first_success(lambda upstream: upstream.get_api(repo, subpath, revision))

    async def auth_check(self, repo: RepoId, commit: Commit | None = None) -> None:
        """Asks the upstreams that may see the token whether it may read the repo's files, at a commit that they must
        have.

        Raises the errors of Upstream.auth_check; HubUnreachable also if no upstream may see the token.
        """
        trusted = self._with([upstream for upstream in self.upstreams if upstream.sends_token])
        await trusted._first_success(lambda upstream: upstream.auth_check(repo, commit))

    async def aclose(self) -> None:
        for upstream in self.upstreams:
            await upstream.aclose()

    async def _first_success(self, ask: Callable[[Upstream], Awaitable[Result]]) -> tuple[Result, str]:
        """The first result without one of these errors, and the name of its upstream; else raises one error that sums
        them up."""
        outcome = await first_success(self.upstreams, ask, is_last_resort=self._is_last_resort)
        if isinstance(outcome, tuple):
            result, upstream = outcome
            return result, upstream.name
        for _, error in outcome:
            log.debug("%s", error.message)
        if not outcome:
            raise HubUnreachable("No hub is set.", hint=self._none_hint, is_without_hub=True)
        raise _summary(outcome)

    def _with(self, upstreams: Sequence[Upstream], is_last_resort: bool = False) -> Upstreams:
        return Upstreams(upstreams, is_last_resort=is_last_resort, none_hint=self._none_hint)


def _summary(errors: Sequence[tuple[Upstream, HfpeerError]]) -> HfpeerError:
    """One error for all. Among upstreams that decide, a refusal outweighs absence, and absence outweighs silence; a
    limit that ends outweighs other silence."""
    everyone = [error for _, error in errors]
    deciding = [error for upstream, error in errors if upstream.kind == "origin"] or everyone
    for kind, voices in ((CorruptData, everyone), (AccessDenied, deciding), (NotFound, deciding)):
        said = [error for error in voices if isinstance(error, kind)]
        if said:
            return _joined(said[0], errors)
    said_no = {"said_no": True} if any(isinstance(error, (AccessDenied, NotFound)) for error in everyone) else {}
    limits = [error for error in everyone if isinstance(error, RateLimited)]
    if limits:
        first = min(limits, key=lambda error: float(error.facts["retry_after_seconds"]))
        return _joined(first, errors, **said_no)
    # What can be mended on this machine is worth more than the advice to wait.
    hint = next((error.hint for error in everyone if error.hint not in (None, LATER)), NETWORK_HINT)
    message = "No upstream can be reached."
    if said_no:
        message = "The origin cannot be reached; a repo or revision that a mirror lacks may still exist."
    return _joined(HubUnreachable(message, hint=hint), errors, **said_no)


def _joined(error: HfpeerError, errors: Sequence[tuple[Upstream, HfpeerError]], **facts: Any) -> HfpeerError:
    """The error with the messages of all others, and facts, added to its own."""
    words = [other.message for _, other in errors if other is not error]
    message = " ".join([error.message, *words])
    facts = {**error.facts, **facts, "answers": {upstream.name: other.message for upstream, other in errors}}
    return type(error)(message, hint=error.hint, **facts)
