"""What the API says of a repo: info, listings, entries by path, refs, history, access. Never a file's content."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from hfpeer.endpoint import answers
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.facts import Document
from hfpeer.endpoint.once import Recent
from hfpeer.endpoint.seen import Seen
from hfpeer.errors import EntryNotFound, InvalidName, NotFound, Unreachable
from hfpeer.names import Commit, RepoId
from hfpeer_daemon.hub.addresses import Address, decoded
from hfpeer_daemon.hub.answering import age_headers, send_json
from hfpeer_daemon.hub.asked import Asked, form_fields
from hfpeer_daemon.responses import json_bytes

MAX_PAGE_ENTRIES = 1000
"""The length of a page where the caller asks for pages; without `limit` a listing is whole."""
RENDERED_BYTES = 64 * 1024 * 1024
"""Rendered listings that are kept, because the same one is asked for again and again."""
_EXPAND = ("expand", "expand[]")
_NO_INFO_QUERY = frozenset({"blobs", "securityStatus", *_EXPAND})


class Listings:
    """Answers API requests about repos. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._rendered: Recent[tuple[RepoId, Commit, str, bool], bytes] = Recent(RENDERED_BYTES, len)

    async def info(self, asked: Asked, address: Address) -> None:
        """`/api/{type}s/{id}` and `/revision/{rev}`."""
        seen = await self._look(asked, address)
        fields = asked.values(*_EXPAND)
        document = await self._endpoint.facts.info(seen, with_blobs=asked.flag("blobs"), fields=fields)
        await send_json(asked, await asyncio.to_thread(json_bytes, document), age_headers(seen))

    async def tree(self, asked: Asked, address: Address) -> None:
        """`/tree/{rev}[/{path}]`: one folder or all below it."""
        seen = await self._look(asked, address)
        _, rest = address.revision()
        folder = decoded("/".join(rest)).strip("/")
        if asked.flag("expand") and await self._expanded_tree(asked, seen, rest):
            return
        is_recursive, limit = asked.flag("recursive"), asked.values("limit", "cursor")
        if not limit:
            body = await self._render(seen, folder, is_recursive)
            await send_json(asked, body, age_headers(seen))
            return
        entries = self._entries(seen, folder, is_recursive)
        page, headers = _page(asked, entries)
        await send_json(asked, json_bytes(page), {**headers, **age_headers(seen)})

    async def paths_info(self, asked: Asked, address: Address) -> None:
        """`/paths-info/{rev}`: the entries of the named paths, with their last commits if `expand` asks for them."""
        paths, is_expanded = _wanted_paths(asked, await asked.body())
        seen = await self._look(asked, address)
        entries = seen.listing.paths(paths)
        if is_expanded:
            entries = [await self._with_history(seen, entry) for entry in entries[:MAX_PAGE_ENTRIES]]
        await send_json(asked, await asyncio.to_thread(json_bytes, entries), age_headers(seen))

    async def refs(self, asked: Asked, address: Address) -> None:
        """`/refs`: branches, tags, conversions, and pull requests if asked."""
        refs = await self._endpoint.all_refs(asked.caller, address.repo)
        hidden = () if asked.flag("include_prs") else ("pullRequests",)
        shown = {kind: found for kind, found in refs.document.items() if kind not in hidden}
        await send_json(asked, json_bytes(shown), {"Age": f"{refs.age_seconds:.0f}"})

    async def commits(self, asked: Asked, address: Address) -> None:
        """`/commits/{rev}`: a page of the history; of a commit that no hub can be asked about, the commit itself."""
        seen = await self._look(asked, address)
        query = urlencode([(name, value) for name, value in asked.query if name in ("p", "limit", "expand[]")])
        try:
            document = await self._endpoint.facts.told(seen, f"/commits/{seen.commit}" + (f"?{query}" if query else ""))
        except (Unreachable, NotFound):
            known = answers.history(seen.manifest)
            if not known:
                raise
            document = Document(known, total=str(len(known)))
        headers = {} if document.total is None else {"X-Total-Count": document.total}
        headers |= _next_page(asked, document)
        await send_json(asked, json_bytes(document.content), {**headers, **age_headers(seen)})

    async def auth_check(self, asked: Asked, address: Address) -> None:
        """`/auth-check`: whether the caller may have the files."""
        await self._endpoint.admit(asked.caller, address.repo, wants_files=True)
        await send_json(asked, b"{}")

    async def _look(self, asked: Asked, address: Address) -> Seen:
        revision, _ = address.revision()
        return await self._endpoint.look(asked.caller, address.repo, revision, wants_files=False)

    def _entries(self, seen: Seen, folder: str, is_recursive: bool) -> list[answers.Json]:
        entries = seen.listing.tree(folder, is_recursive=is_recursive)
        if entries is None:
            raise EntryNotFound(f"There is no folder {folder!r}.", commit=str(seen.commit))
        return entries

    async def _render(self, seen: Seen, folder: str, is_recursive: bool) -> bytes:
        key = (seen.repo, seen.commit, folder, is_recursive)
        body = self._rendered.get(key)
        if body is None:
            body = await asyncio.to_thread(lambda: json_bytes(self._entries(seen, folder, is_recursive)))
            self._rendered.put(key, body)
        return body

    async def _expanded_tree(self, asked: Asked, seen: Seen, rest: Sequence[str]) -> bool:
        """A page with each entry's last commit, which only a hub knows; False when none can be asked."""
        query = [(name, value) for name, value in asked.query if name in ("recursive", "limit", "cursor")]
        path = f"/tree/{seen.commit}" + (f"/{'/'.join(rest)}" if rest else "")
        try:
            document = await self._endpoint.facts.told(seen, f"{path}?{urlencode([*query, ('expand', 'true')])}")
        except Unreachable:
            return False
        await send_json(asked, json_bytes(document.content), {**_next_page(asked, document), **age_headers(seen)})
        return True

    async def _with_history(self, seen: Seen, entry: answers.Json) -> answers.Json:
        """The entry with its last commit, found on a hub's listing of its folder; as it is when none can be asked."""
        folder = str(entry["path"]).rpartition("/")[0]
        query = "?recursive=false&expand=true"
        path = f"/tree/{seen.commit}" + (f"/{urlencode({'': folder})[1:].replace('+', '%20')}" if folder else "")
        try:
            while True:
                document = await self._endpoint.facts.told(seen, path + query)
                found = [other for other in document.content if other.get("path") == entry["path"]]
                if found or document.following is None:
                    return {**entry, **(found[0] if found else {})}
                query = f"?{document.following}"
        except (Unreachable, NotFound):
            return entry


def _page(asked: Asked, entries: Sequence[Any]) -> tuple[Sequence[Any], dict[str, str]]:
    limit = (asked.values("limit") or [""])[-1][:9]
    is_number = limit.isascii() and limit.isdecimal()
    length = min(max(1, int(limit)), MAX_PAGE_ENTRIES) if is_number else MAX_PAGE_ENTRIES
    start = _offset((asked.values("cursor") or [""])[-1])
    stop = start + length
    if stop >= len(entries):
        return entries[start:], {}
    cursor = base64.urlsafe_b64encode(json.dumps({"offset": stop}).encode()).decode()
    query = [(name, value) for name, value in asked.query if name not in ("limit", "cursor")]
    following = urlencode([*query, ("limit", str(length)), ("cursor", cursor)])
    return entries[start:stop], {"Link": f'<{asked.own_url}{asked.path}?{following}>; rel="next"'}


def _offset(cursor: str) -> int:
    """Where a cursor of ours points. Raises InvalidName for one that is not."""
    if not cursor:
        return 0
    try:
        offset = json.loads(base64.urlsafe_b64decode(cursor))["offset"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidName("This cursor is not one of this endpoint.") from error
    if type(offset) is not int or offset < 0:
        raise InvalidName("This cursor is not one of this endpoint.")
    return offset


def _next_page(asked: Asked, document: Document) -> dict[str, str]:
    """The hub's next page as one of ours."""
    if document.following is None:
        return {}
    return {"Link": f'<{asked.own_url}{asked.path}?{document.following}>; rel="next"'}


def _wanted_paths(asked: Asked, body: bytes) -> tuple[Iterable[str], bool]:
    if "json" not in (asked.header("content-type") or ""):
        fields = form_fields(body)
        is_expanded = any(name == "expand" and value.lower() == "true" for name, value in fields)
        return [value for name, value in fields if name == "paths"], is_expanded
    try:
        document = json.loads(body)
        paths = document.get("paths", [])
        return [str(path) for path in ([paths] if isinstance(paths, str) else paths)], bool(document.get("expand"))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InvalidName("The body is not what paths-info takes.") from error
