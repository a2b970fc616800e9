"""Lists the files of a commit by the routes that a hub has.

The tree API has all facts in few requests. A hub that lacks it may still name the files of a revision (`siblings`, with
`blobs=true` also their digests); what is missing then comes from paths-info, else from the headers of each file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from hfpeer.budgets import MAX_FILES_ASKED_FOR, MAX_MISSING_PATHS
from hfpeer.errors import AccessDenied, HfpeerError, HubUnreachable, RepoNotFound
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.upstream.access import Access
from hfpeer.upstream.api import Api, ApiRequest
from hfpeer.upstream.listing import listing
from hfpeer.upstream.range_client import file_url
from hfpeer.upstream.responses.refusals import not_a_hub, outage

Said = TypeVar("Said")
Found = TypeVar("Found")

PATHS_PER_REQUEST = 500
MAX_CONCURRENT_REQUESTS = 8
NO_SUCH_ROUTE = frozenset({400, 404, 405, 410, 501})
"""Statuses of a server that does not know the route. None of them names a missing repo, revision or file."""


class FileLister:
    """Lists the files of a commit of `repo` at the hub `name`, with the token of `access`."""

    def __init__(self, name: str, api: Api, access: Access, repo: RepoId, commit: Commit) -> None:
        self._name = name
        self._api = api
        self._access = access
        self._repo = repo
        self._commit = commit

    async def list_files(self) -> dict[str, listing.TreeEntry]:
        """The files by path, by the tree API, else by the siblings of the revision. Raises the errors of `refusals`."""
        try:
            return await self._tree()
        except (RepoNotFound, AccessDenied, HubUnreachable) as error:
            if not ("status" in error.facts or _is_no_hub(error)):
                raise  # it is silent, or limits requests
            refused: HfpeerError = error
        try:
            siblings = await self._siblings("?blobs=true")
        except HfpeerError:
            raise refused from None
        listed = self._read(listing.read_siblings, siblings)
        return await self._with_headers(listed, [name for name in _names(siblings) if name not in listed])

    async def list_names(self) -> list[str]:
        """The paths that the hub names as siblings of the revision; none if it has no such route."""
        try:
            return _names(await self._siblings())
        except HfpeerError:
            return []

    async def completed(
        self, listed: Mapping[str, listing.TreeEntry], paths: Iterable[str]
    ) -> dict[str, listing.TreeEntry]:
        """The listing with those of `paths` that it lacks. Files that the hub does not know stay missing."""
        missing = [path for path in paths if path not in listed]
        if not missing or len(missing) > MAX_MISSING_PATHS:
            return dict(listed)
        try:
            return {**listed, **await self._paths_info(missing)}
        except HubUnreachable as error:
            if error.facts.get("status") not in NO_SUCH_ROUTE and not _is_no_hub(error):
                raise
        return await self._with_headers(listed, missing)

    async def _tree(self) -> dict[str, listing.TreeEntry]:
        url = self._access.url(f"/api/{self._repo.api_path}/tree/{self._commit}?recursive=true&expand=false")
        request = ApiRequest(url, self._repo, self._commit)
        return self._read(listing.read_listing, await self._api.get_pages(request, self._access))

    async def _siblings(self, query: str = "") -> list[Any]:
        url = self._access.url(f"/api/{self._repo.api_path}/revision/{self._commit}{query}")
        request = ApiRequest(url, self._repo, self._commit)
        info, _ = await self._api.get_document(request, self._access, keeps_siblings=True)
        if not isinstance(info, dict) or info.get("sha") != self._commit or not isinstance(info.get("siblings"), list):
            not_a_hub(self._name, f"it does not list the files of {self._commit}")
        siblings: list[Any] = info["siblings"]
        return siblings

    async def _paths_info(self, paths: list[str]) -> dict[str, listing.TreeEntry]:
        url = self._access.url(f"/api/{self._repo.api_path}/paths-info/{self._commit}")
        found: dict[str, listing.TreeEntry] = {}
        for first in range(0, len(paths), PATHS_PER_REQUEST):
            some = paths[first : first + PATHS_PER_REQUEST]
            form = "&".join([*(f"paths={quote(path, safe='')}" for path in some), "expand=false"])
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            request = ApiRequest(url, self._repo, self._commit, headers, body=form.encode())
            entries = await self._api.get_json(request, self._access)
            found.update(self._read(listing.read_listing, entries if isinstance(entries, list) else []))
        return found

    async def _with_headers(
        self, listed: Mapping[str, listing.TreeEntry], missing: list[str]
    ) -> dict[str, listing.TreeEntry]:
        """The listing with files of which only the headers of their responses tell size and digest."""
        if len(missing) > MAX_FILES_ASKED_FOR:
            reason = f"has no list of the digests of {self._repo}, which has {len(missing):,} files"
            raise outage(self._name, reason, hint="Take it from a peer, or name another hub in `upstreams`.")
        at_once = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

        async def ask(path: str) -> listing.TreeEntry:
            url = file_url(self._access, self._repo, self._commit, FilePath(path))
            request = ApiRequest(url, self._repo, self._commit, {"Accept-Encoding": "identity"}, is_head=True)
            async with at_once:
                response = await self._api.get(request, self._access)
            return self._read(partial(listing.read_headers, path), response.headers)

        entries = await asyncio.gather(*map(ask, missing))
        return {**listed, **{entry.path: entry for entry in entries}}

    def _read(self, reader: Callable[[Said], Found], said: Said) -> Found:
        try:
            return reader(said)
        except ValueError as error:
            not_a_hub(self._name, str(error), error)


def _is_no_hub(error: HfpeerError) -> bool:
    """Whether something answered in place of a hub's route."""
    return bool(error.facts.get("is_no_hub"))


def _names(siblings: list[Any]) -> list[str]:
    found = (one.get("rfilename") if isinstance(one, dict) else None for one in siblings)
    return [name for name in found if isinstance(name, str)]
