"""The API of repos: info, listings, entries by path, refs, history, access. Never the content of files."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.metadata import hub_json
from hfpeer.endpoint.metadata.repo_info import Document
from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.errors import EntryNotFound, InvalidName, NotFound, Unreachable
from hfpeer.names import Commit, RepoId
from hfpeer.net.lru_cache import LruCache
from hfpeer_daemon.endpoint.requests.request import HubRequest, form_fields, read_json
from hfpeer_daemon.endpoint.requests.urls import HubUrl, decoded
from hfpeer_daemon.endpoint.responses.answers import age_header, age_headers, send_json
from hfpeer_daemon.http.responses import json_bytes

MAX_PAGE_ENTRIES = 1000
"""Most entries of a page, if the caller asks for pages. Without `limit` a listing is complete."""
RENDERED_BYTES = 64 * 1024 * 1024
"""Most bytes of rendered listings in memory; clients ask for the same listing again and again."""
_EXPAND = ("expand", "expand[]")
_NO_INFO_QUERY = frozenset({"blobs", "securityStatus", *_EXPAND})


class RepoInfoApp:
    """Answers API requests about repos. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._rendered: LruCache[tuple[RepoId, Commit, str, bool, str | None], bytes] = LruCache(RENDERED_BYTES, len)

    async def info(self, request: HubRequest, url: HubUrl) -> None:
        """`/api/{type}s/{id}` and `/revision/{rev}`."""
        admitted = await self._look(request, url)
        fields = request.values(*_EXPAND)
        document = await self._endpoint.repo_info.info(admitted, with_blobs=request.flag("blobs"), fields=fields)
        await send_json(request, await asyncio.to_thread(json_bytes, document), age_headers(admitted))

    async def tree(self, request: HubRequest, url: HubUrl) -> None:
        """`/tree/{rev}[/{path}]`: the entries of a folder, or all below it."""
        admitted = await self._look(request, url)
        _, rest = url.revision()
        folder = decoded("/".join(rest)).strip("/")
        is_expanded = request.flag("expand")
        if is_expanded and await self._expanded_tree(request, admitted, rest):
            return
        is_recursive, limit = request.flag("recursive"), request.values("limit", "cursor")
        if not limit and not is_expanded:
            body = await self._render(admitted, folder, is_recursive)
            await send_json(request, body, age_headers(admitted))
            return
        entries = self._entries(admitted, folder, is_recursive)
        page, headers = _page(request, entries) if limit else (entries, {})
        known = hub_json.last_commit(admitted.manifest) if is_expanded else {}
        page = [{**entry, **known} for entry in page]
        await send_json(request, json_bytes(page), {**headers, **age_headers(admitted)})

    async def paths_info(self, request: HubRequest, url: HubUrl) -> None:
        """`/paths-info/{rev}`: the entries at the named paths; with `expand` also their last commits."""
        paths, is_expanded = _wanted_paths(request, await request.body())
        admitted = await self._look(request, url)
        entries = admitted.listing.paths(paths)
        if is_expanded:
            entries = [await self._with_history(admitted, entry) for entry in entries[:MAX_PAGE_ENTRIES]]
        await send_json(request, await asyncio.to_thread(json_bytes, entries), age_headers(admitted))

    async def refs(self, request: HubRequest, url: HubUrl) -> None:
        """`/refs`: branches, tags, conversions, and with `include_prs` pull requests."""
        refs = await self._endpoint.all_refs(request.caller, url.repo)
        hidden = () if request.flag("include_prs") else ("pullRequests",)
        shown = {kind: found for kind, found in refs.document.items() if kind not in hidden}
        await send_json(request, json_bytes(shown), {"Age": age_header(refs.age_seconds)})

    async def commits(self, request: HubRequest, url: HubUrl) -> None:
        """`/commits/{rev}`: a page of the history; if no hub can be asked, the commit alone."""
        admitted = await self._look(request, url)
        query = urlencode([(name, value) for name, value in request.query if name in ("p", "limit", "expand[]")])
        try:
            document = await self._endpoint.repo_info.document(
                admitted, f"/commits/{admitted.commit}" + (f"?{query}" if query else "")
            )
        except (Unreachable, NotFound):
            known = hub_json.history(admitted.manifest)
            if not known:
                raise
            document = Document(known, total=str(len(known)))
        headers = {} if document.total is None else {"X-Total-Count": document.total}
        headers |= _next_page(request, document)
        await send_json(request, json_bytes(document.content), {**headers, **age_headers(admitted)})

    async def auth_check(self, request: HubRequest, url: HubUrl) -> None:
        """`/auth-check`: whether the caller may have the files."""
        await self._endpoint.admit(request.caller, url.repo, wants_files=True)
        await send_json(request, b"{}")

    async def _look(self, request: HubRequest, url: HubUrl) -> AdmittedRevision:
        revision, _ = url.revision()
        return await self._endpoint.admit_revision(request.caller, url.repo, revision, wants_files=False)

    def _entries(self, admitted: AdmittedRevision, folder: str, is_recursive: bool) -> list[hub_json.Json]:
        entries = admitted.listing.tree(folder, is_recursive=is_recursive)
        if entries is None:
            raise EntryNotFound(f"There is no folder {folder!r}.", commit=str(admitted.commit))
        return entries

    async def _render(self, admitted: AdmittedRevision, folder: str, is_recursive: bool) -> bytes:
        # A caller that may not see the listing here gets one from peers or hubs, which is rendered by caller.
        fingerprint = None if admitted.grant.has_metadata else admitted.caller.fingerprint
        key = (admitted.repo, admitted.commit, folder, is_recursive, fingerprint)
        body = self._rendered.get(key)
        if body is None:
            body = await asyncio.to_thread(lambda: json_bytes(self._entries(admitted, folder, is_recursive)))
            self._rendered.put(key, body)
        return body

    async def _expanded_tree(self, request: HubRequest, admitted: AdmittedRevision, rest: Sequence[str]) -> bool:
        """Sends a page with the last commit of each entry, as a hub lists it. False if no hub tells."""
        query = [(name, value) for name, value in request.query if name in ("recursive", "limit", "cursor")]
        path = f"/tree/{admitted.commit}" + (f"/{'/'.join(rest)}" if rest else "")
        try:
            query.append(("expand", "true"))
            document = await self._endpoint.repo_info.document(admitted, f"{path}?{urlencode(query)}")
        except (Unreachable, NotFound):
            return False
        await send_json(
            request, json_bytes(document.content), {**_next_page(request, document), **age_headers(admitted)}
        )
        return True

    async def _with_history(self, admitted: AdmittedRevision, entry: hub_json.Json) -> hub_json.Json:
        """The entry with its last commit, from a hub's listing of its folder; as far as it is known here if no hub
        tells."""
        folder = str(entry["path"]).rpartition("/")[0]
        query = "?recursive=false&expand=true"
        path = f"/tree/{admitted.commit}" + (f"/{urlencode({'': folder})[1:].replace('+', '%20')}" if folder else "")
        try:
            while True:
                document = await self._endpoint.repo_info.document(admitted, path + query)
                found = [other for other in document.content if other.get("path") == entry["path"]]
                if found or document.following is None:
                    return {**entry, **(found[0] if found else {})}
                query = f"?{document.following}"
        except (Unreachable, NotFound):
            return {**entry, **hub_json.last_commit(admitted.manifest)}


def _page(request: HubRequest, entries: Sequence[Any]) -> tuple[Sequence[Any], dict[str, str]]:
    limit = (request.values("limit") or [""])[-1][:9]
    is_number = limit.isascii() and limit.isdecimal()
    length = min(max(1, int(limit)), MAX_PAGE_ENTRIES) if is_number else MAX_PAGE_ENTRIES
    start = _offset((request.values("cursor") or [""])[-1])
    stop = start + length
    if stop >= len(entries):
        return entries[start:], {}
    cursor = base64.urlsafe_b64encode(json.dumps({"offset": stop}).encode()).decode()
    query = [(name, value) for name, value in request.query if name not in ("limit", "cursor")]
    following = urlencode([*query, ("limit", str(length)), ("cursor", cursor)])
    return entries[start:stop], {"Link": f'<{request.own_url}{request.path}?{following}>; rel="next"'}


def _offset(cursor: str) -> int:
    """The offset in a cursor of this endpoint. Raises InvalidName for any other cursor."""
    if not cursor:
        return 0
    try:
        offset = json.loads(base64.urlsafe_b64decode(cursor))["offset"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidName("This cursor is not one of this endpoint.") from error
    if type(offset) is not int or offset < 0:
        raise InvalidName("This cursor is not one of this endpoint.")
    return offset


def _next_page(request: HubRequest, document: Document) -> dict[str, str]:
    """The link to the hub's next page, through this endpoint."""
    if document.following is None:
        return {}
    return {"Link": f'<{request.own_url}{request.path}?{document.following}>; rel="next"'}


def _wanted_paths(request: HubRequest, body: bytes) -> tuple[Iterable[str], bool]:
    if "json" not in (request.header("content-type") or ""):
        fields = form_fields(body)
        is_expanded = any(name == "expand" and value.lower() == "true" for name, value in fields)
        return [value for name, value in fields if name == "paths"], is_expanded
    try:
        document = read_json(body)
        paths = document.get("paths", [])
        return [str(path) for path in ([paths] if isinstance(paths, str) else paths)], bool(document.get("expand"))
    except (AttributeError, TypeError) as error:
        raise InvalidName("The body of this paths-info request is malformed.") from error
