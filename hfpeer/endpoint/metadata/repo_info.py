"""Metadata of a commit that a manifest does not have: info, history, expanded listings. Asked of an upstream once.

A commit does not change, so a response is given from the answer cache as long as the upstream that gave it is one of
the node's. The origin outweighs mirrors: if only a mirror has answered, the origin is asked again from time to time.
Upstreams must be asked with the caller's token only, and nothing of Xet may be shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hfpeer.endpoint.access.caller_upstreams import CallerUpstreams
from hfpeer.endpoint.access.grants import Grant
from hfpeer.endpoint.metadata import hub_json
from hfpeer.endpoint.metadata.answer_cache import AnswerCache
from hfpeer.endpoint.metadata.hub_json import Json
from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.errors import NotFound, Unreachable
from hfpeer.names import Commit, RepoId
from hfpeer.net.lru_cache import LruCache
from hfpeer.net.singleflight import SingleFlight
from hfpeer.upstream.upstream import HubId
from hfpeer.upstream.upstreams import Upstreams

ORIGIN_AGAIN_SECONDS = 300.0
"""Seconds between requests to the origin about a commit of which only a mirror has answered."""
MAX_ASKED_AGAIN = 10_000
"""Number of commits for which the time of that request is remembered."""


@dataclass(frozen=True)
class Document:
    """A document of an upstream. `following` is the query of the next page, `total` the number of all entries."""

    content: Any
    following: str | None = None
    total: str | None = None


class RepoInfo:
    """Belongs to one event loop, except `save`."""

    def __init__(self, answers: AnswerCache, upstreams: CallerUpstreams) -> None:
        self._answers = answers
        self._upstreams = upstreams
        self._asking: SingleFlight[tuple[RepoId, str, str], Document] = SingleFlight()
        self._asking_origin: SingleFlight[tuple[RepoId, Commit], object] = SingleFlight()
        self._asked_again_at: LruCache[tuple[RepoId, Commit], float] = LruCache(MAX_ASKED_AGAIN)

    async def stop(self) -> None:
        """Ends the requests under way."""
        await self._asking.stop()
        await self._asking_origin.stop()

    async def info(self, admitted: AdmittedRevision, *, with_blobs: bool, fields: Iterable[str] = ()) -> Json:
        """The repo's info at this commit, in the Hub's JSON; with `fields` only those."""
        fields = list(fields)
        facts = await self._facts(admitted)
        unknown = {*fields} - {*facts, "siblings", "sha"}
        if unknown:
            rare = await self._rare(admitted, unknown)
            facts = {**facts, **{name: rare[name] for name in unknown & rare.keys()}}
        document = await asyncio.to_thread(hub_json.info, admitted.manifest, facts, with_blobs=with_blobs)
        return hub_json.expanded(document, fields) if fields else document

    async def document(self, admitted: AdmittedRevision, rest: str) -> Document:
        """The document of an upstream at `/api/{type}s/{id}{rest}` for this commit, asked for once.

        Raises the errors of `Upstreams.answer`.
        """
        cached, hub = await asyncio.to_thread(self._load, admitted, rest)
        if hub is not None:
            self._ask_the_origin(admitted, hub, lambda upstreams: self._ask_document(admitted, rest, upstreams))
            return Document(**cached)
        key = (admitted.repo, rest, admitted.caller.fingerprint)
        return await self._asking.run(
            key, lambda: self._ask_document(admitted, rest, self._upstreams.of(admitted.caller))
        )

    def save(self, repo: RepoId, commit: Commit, document: Json, hub: HubId) -> Json:
        """Adds an upstream's info of a commit to its earlier infos; returns all. Blocking."""
        known = self._answers.load(repo, commit, "info", hub)
        facts = {**(known if isinstance(known, dict) else {}), **hub_json.facts_of(document)}
        self._answers.save(repo, commit, "info", hub, facts)
        return facts

    def _load(self, admitted: AdmittedRevision, query: str) -> tuple[Any, HubId | None]:
        """The cached answer and its upstream, the origin before mirrors; (None, None) if there is none."""
        for hub in self._sources_for(admitted):
            cached = self._answers.load(admitted.repo, admitted.commit, query, hub)
            if isinstance(cached, dict):
                return cached, hub
        return None, None

    def _sources_for(self, admitted: AdmittedRevision) -> list[HubId]:
        """The upstreams whose cached answers this caller may see. An origin may have answered another token."""
        return self._upstreams.by_weight if admitted.grant is Grant.ALL else self._upstreams.without_tokens

    async def _facts(self, admitted: AdmittedRevision) -> Mapping[str, Any]:
        cached, hub = await asyncio.to_thread(self._load, admitted, "info")
        if hub is None:
            return await self._ask(admitted, (), self._upstreams.of(admitted.caller))
        self._ask_the_origin(admitted, hub, lambda upstreams: self._ask(admitted, (), upstreams))
        return dict(cached)

    async def _rare(self, admitted: AdmittedRevision, fields: set[str]) -> Json:
        """Fields that not every repo has. A field that the upstream leaves out is not asked for again."""
        cached, hub = await asyncio.to_thread(self._load_rare, admitted, fields)
        if hub is None:
            return await self._ask(admitted, sorted(fields), self._upstreams.of(admitted.caller))
        self._ask_the_origin(admitted, hub, lambda upstreams: self._ask(admitted, sorted(fields), upstreams))
        return cached

    def _load_rare(self, admitted: AdmittedRevision, fields: set[str]) -> tuple[Json, HubId | None]:
        for hub in self._sources_for(admitted):
            known = self._answers.load(admitted.repo, admitted.commit, "fields", hub)
            if isinstance(known, list) and fields.issubset(known):
                return self._answers.load(admitted.repo, admitted.commit, "info", hub) or {}, hub
        return {}, None

    def _ask_the_origin(
        self, admitted: AdmittedRevision, hub: HubId, ask: Callable[[Upstreams], Awaitable[object]]
    ) -> None:
        """Starts a request to the origin if `hub` is a mirror and the origin was not asked recently."""
        origins, key, now = (
            self._upstreams.of(admitted.caller).origins,
            (admitted.repo, admitted.commit),
            time.monotonic(),
        )
        asked_at = self._asked_again_at.get(key)
        is_due = asked_at is None or now - asked_at >= ORIGIN_AGAIN_SECONDS
        if hub.kind == "mirror" and origins.upstreams and is_due:
            self._asked_again_at.put(key, now)
            self._asking_origin.begin(key, lambda: ask(origins))

    async def _ask_document(self, admitted: AdmittedRevision, rest: str, upstreams: Upstreams) -> Document:
        response, _ = await upstreams.get_api(admitted.repo, rest, admitted.commit)
        document = _document(hub_json.without_xet(response.document), response.headers)
        await asyncio.to_thread(
            self._answers.save, admitted.repo, admitted.commit, rest, response.said_by, vars(document)
        )
        return document

    async def _ask(self, admitted: AdmittedRevision, fields: Iterable[str], upstreams: Upstreams) -> Json:
        """The info of an upstream; empty if none can be asked or none knows the commit."""
        query = "&".join(f"expand={quote(name, safe='')}" for name in fields)
        rest = f"/revision/{admitted.commit}" + (f"?{query}" if query else "")
        try:
            response, _ = await upstreams.get_api(admitted.repo, rest, admitted.commit)
        except (Unreachable, NotFound):
            return {}
        if not isinstance(response.document, dict):
            return {}
        return await asyncio.to_thread(
            self._save_asked, admitted, response.document, frozenset(fields), response.said_by
        )

    def _save_asked(self, admitted: AdmittedRevision, document: Json, fields: frozenset[str], hub: HubId) -> Json:
        """Saves an info, and that these fields need not be asked of that upstream again."""
        facts = self.save(admitted.repo, admitted.commit, document, hub)
        if fields:
            known = self._answers.load(admitted.repo, admitted.commit, "fields", hub)
            fields |= frozenset(known if isinstance(known, list) else ())
            self._answers.save(admitted.repo, admitted.commit, "fields", hub, sorted(fields))
        return facts


def _document(content: Any, headers: Mapping[str, str]) -> Document:
    link = headers.get("link", "")
    address = link.partition("<")[2].partition(">")[0] if 'rel="next"' in link else ""
    return Document(content, address.partition("?")[2] or None, headers.get("x-total-count"))
