"""The files of a repo at ModelScope, with the sha256 of each: complete, or an error.

A listing of a model is cut without a word at LISTING_CAP entries. It is then asked for folder by folder. A folder with
that many direct entries cannot be listed at all. Datasets are listed in pages.
Source: modelscope_hub `_legacy_api` and reports of its users.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from hfpeer.budgets import MAX_MANIFEST_FILES, MAX_SITE_LISTINGS
from hfpeer.errors import HfpeerError, PushRefused
from hfpeer.modelscope.answers import is_branch_missing, malformed
from hfpeer.modelscope.api import SiteApi, SiteRequest
from hfpeer.modelscope.files import SiteFile, SiteFolder, read_entries
from hfpeer.modelscope.names import DEFAULT_BRANCH, SiteRepo
from hfpeer.names import RepoType

LISTING_CAP = 3000
"""Entries after which the site cuts a listing."""
PAGE_ENTRIES = 200
"""Entries asked for in one page of a dataset."""
LISTINGS_AT_ONCE = 4


async def list_files(api: SiteApi, repo: SiteRepo, revision: str = DEFAULT_BRANCH) -> dict[str, SiteFile]:
    """The files at a branch, a tag or a commit of ModelScope, by path; none at master in a repo without a commit.

    Raises RepoNotFound, RevisionNotFound, AccessDenied, HubUnreachable, and PushRefused for a repo that the site cannot
    list.
    """
    walk = _Walk(api, repo, revision)
    try:
        return await (walk.pages() if repo.type is RepoType.DATASET else walk.folders())
    except HfpeerError as error:
        if revision == DEFAULT_BRANCH and is_branch_missing(error):
            return {}
        raise


async def head_commit(api: SiteApi, repo: SiteRepo, branch: str = DEFAULT_BRANCH) -> str | None:
    """The commit of a branch now, in ModelScope's own ids; None if the site does not tell it.

    Source: modelscope `get_model_commits`. The names of its parameters are exact.
    """
    params = {"Ref": branch, "PageNumber": "1", "PageSize": "1"}
    data = await api.ask(SiteRequest("GET", f"/api/v1/{repo.api_path}/commits", params, repo=str(repo)))
    commits = data.get("Commit") if isinstance(data, dict) else None
    first = commits[0] if isinstance(commits, list) and commits else None
    commit = first.get("Id") if isinstance(first, dict) else None
    return commit if isinstance(commit, str) and re.fullmatch("[0-9a-f]{40}", commit) else None


class _Walk:
    """One listing, and the requests that it needs."""

    def __init__(self, api: SiteApi, repo: SiteRepo, revision: str) -> None:
        self._api = api
        self._repo = repo
        self._revision = revision
        self._requests = 0
        self._at_once = asyncio.Semaphore(LISTINGS_AT_ONCE)
        self._files: dict[str, SiteFile] = {}

    async def folders(self) -> dict[str, SiteFile]:
        """The files of a model: at once, or folder by folder where a listing is cut."""
        waiting = [""]
        while waiting:
            listings = await asyncio.gather(*(self._entries(root, is_recursive=True) for root in waiting))
            cut = []
            for root, entries in zip(waiting, listings, strict=True):
                if len(entries) < LISTING_CAP:
                    self._take(entries)
                else:
                    cut.append(root)
            shallow = await asyncio.gather(*(self._entries(root, is_recursive=False) for root in cut))
            waiting = []
            for root, entries in zip(cut, shallow, strict=True):
                if len(entries) >= LISTING_CAP:
                    raise self._not_listable(root)
                self._take(entries)
                waiting += [entry.path for entry in entries if isinstance(entry, SiteFolder) and entry.path != root]
        return self._files

    async def pages(self) -> dict[str, SiteFile]:
        """The files of a dataset, page by page."""
        last: list[SiteFile | SiteFolder] = []
        number = 1
        while True:
            params = {"Recursive": "True", "PageNumber": str(number), "PageSize": str(PAGE_ENTRIES)}
            entries = await self._request("tree", params)
            if entries and entries == last:
                raise malformed(self._api.site, "a page of a listing repeats")
            self._take(entries)
            if len(entries) < PAGE_ENTRIES:
                return self._files
            last, number = entries, number + 1

    async def _entries(self, root: str, *, is_recursive: bool) -> list[SiteFile | SiteFolder]:
        async with self._at_once:
            params = {"Recursive": str(is_recursive), **({"Root": root} if root else {})}
            return await self._request("files", params)

    async def _request(self, route: str, params: Mapping[str, str]) -> list[SiteFile | SiteFolder]:
        self._requests += 1
        if self._requests > MAX_SITE_LISTINGS:
            raise malformed(self._api.site, f"a listing takes more than {MAX_SITE_LISTINGS} requests")
        data = await self._api.ask(
            SiteRequest(
                "GET",
                f"/api/v1/{self._repo.api_path}/repo/{route}",
                {"Revision": self._revision, **params},
                repo=str(self._repo),
                was_allowed=self._requests > 1,
            )
        )
        try:
            return read_entries(data)
        except ValueError as error:
            raise malformed(self._api.site, str(error)) from error

    def _take(self, entries: list[SiteFile | SiteFolder]) -> None:
        for entry in entries:
            if isinstance(entry, SiteFile) and self._files.setdefault(entry.path, entry) != entry:
                raise malformed(self._api.site, f"it lists {entry.path[:200]!r} twice")
        if len(self._files) > MAX_MANIFEST_FILES:
            raise malformed(self._api.site, f"it lists more than {MAX_MANIFEST_FILES} files")

    def _not_listable(self, root: str) -> PushRefused:
        return PushRefused(
            f"{self._api.site} cannot list {self._repo}: {f'the folder {root!r}' if root else 'its top folder'} has "
            f"{LISTING_CAP:,} entries or more, and the site shows no more of a folder.",
            hint="What cannot be listed cannot be compared or verified. Spread the files over more folders.",
            repo=str(self._repo),
        )
