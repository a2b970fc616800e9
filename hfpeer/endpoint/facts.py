"""What is said of a commit that no manifest knows: info, histories, expanded listings, asked of a hub once and kept.

A commit does not change, so what a hub has told of it is given from here ever after. Must never ask a hub as anybody
but the caller, nor show anything of Xet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hfpeer.endpoint import answers
from hfpeer.endpoint.acting import ActingHubs
from hfpeer.endpoint.answers import Json
from hfpeer.endpoint.kept import KeptAnswers
from hfpeer.endpoint.once import Once
from hfpeer.endpoint.seen import Seen
from hfpeer.errors import NotFound, Unreachable
from hfpeer.names import Commit, RepoId


@dataclass(frozen=True)
class Document:
    """An answer of a hub, now ours. `following` is the query of the next page, `total` how many there are in all."""

    content: Any
    following: str | None = None
    total: str | None = None


class Facts:
    """Belongs to one event loop, but for `keep`."""

    def __init__(self, kept: KeptAnswers, hubs: ActingHubs, once: Once) -> None:
        self._kept = kept
        self._hubs = hubs
        self._once = once

    async def info(self, seen: Seen, *, with_blobs: bool, fields: Iterable[str] = ()) -> Json:
        """What the API says of the repo at this commit; with `fields` only those."""
        fields = list(fields)
        facts = await self._facts(seen)
        unknown = {*fields} - {*facts, "siblings", "sha"}
        if unknown:
            facts = {**facts, **await self._rare(seen, unknown)}
        document = await asyncio.to_thread(answers.info, seen.manifest, facts, with_blobs=with_blobs)
        return answers.expanded(document, fields) if fields else document

    async def told(self, seen: Seen, rest: str) -> Document:
        """What a hub says of the repo at this commit under `/api/{type}s/{id}{rest}`, asked once for ever.

        Raises the errors of `Hubs.answer`.
        """
        kept = await asyncio.to_thread(self._kept.load, seen.repo, seen.commit, rest)
        if kept is not None:
            return Document(**kept)
        hubs = self._hubs.of(seen.caller)
        told, _ = await self._once.ask(
            (seen.repo, rest, seen.caller.fingerprint), lambda: hubs.answer(seen.repo, rest, seen.commit)
        )
        document = _document(answers.without_xet(told.document), told.headers)
        await asyncio.to_thread(self._kept.save, seen.repo, seen.commit, rest, vars(document))
        return document

    def keep(self, repo: RepoId, commit: Commit, document: Json) -> Json:
        """Adds what a hub's info says to what is known of the commit; all of it. Blocking."""
        known = self._kept.load(repo, commit, "info")
        facts = {**(known if isinstance(known, dict) else {}), **answers.facts_of(document)}
        self._kept.save(repo, commit, "info", facts)
        return facts

    async def _facts(self, seen: Seen) -> Mapping[str, Any]:
        kept = await asyncio.to_thread(self._kept.load, seen.repo, seen.commit, "info")
        return kept if isinstance(kept, dict) else await self._ask(seen, ())

    async def _rare(self, seen: Seen, fields: set[str]) -> Json:
        """Fields that not every repo has, asked of a hub once: one that it leaves out is not asked for again."""
        asked = set(await asyncio.to_thread(self._kept.load, seen.repo, seen.commit, "fields") or ())
        if fields <= asked:
            return {}
        told = await self._ask(seen, sorted(fields))
        if told:
            await asyncio.to_thread(self._kept.save, seen.repo, seen.commit, "fields", sorted(fields | asked))
        return told

    async def _ask(self, seen: Seen, fields: Iterable[str]) -> Json:
        """Asks a hub; nothing when none can be asked or knows the commit."""
        query = "&".join(f"expand={quote(name, safe='')}" for name in fields)
        rest = f"/revision/{seen.commit}" + (f"?{query}" if query else "")
        try:
            told, _ = await self._hubs.of(seen.caller).answer(seen.repo, rest, seen.commit)
        except (Unreachable, NotFound):
            return {}
        if not isinstance(told.document, dict):
            return {}
        return await asyncio.to_thread(self.keep, seen.repo, seen.commit, told.document)


def _document(content: Any, headers: Mapping[str, str]) -> Document:
    link = headers.get("link", "")
    address = link.partition("<")[2].partition(">")[0] if 'rel="next"' in link else ""
    return Document(content, address.partition("?")[2] or None, headers.get("x-total-count"))
