"""Commits at ModelScope: all changes of a push in as few as fit, each made once.

A commit whose answer is lost may have been made. So the listing is asked before a commit is sent again, and changes
that are there by now are not sent. The site limits the rate of commits: there is a pause between two. A commit that is
too large for the site, or for a proxy in between, is made in halves.
Source: modelscope_hub `create_commit`, and reports of its users on the limits.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hfpeer.errors import BrokenCache, PushRefused
from hfpeer.modelscope.answers import Transient
from hfpeer.modelscope.api import MAX_TRIES, SiteApi, SiteRequest, Waits
from hfpeer.modelscope.listing import list_files
from hfpeer.modelscope.names import SiteRepo
from hfpeer.modelscope.plan import Change, batches

TOO_LARGE = (413, 422)
"""Statuses of a commit with too many bytes or too many changes."""
PAUSE_SECONDS = 3.0
"""Seconds between two commits of one push."""


class Committer:
    """Makes the commits of one push. `source` gives the file with the bytes of a plain file."""

    def __init__(self, api: SiteApi, repo: SiteRepo, branch: str, source: Callable[[str], Path]) -> None:
        self._api = api
        self._repo = repo
        self._branch = branch
        self._source = source
        self._last_at: float | None = None
        self._updated: frozenset[str] | None = None
        """Paths that are updated and not created, where the site tells the two apart."""

    async def commit(self, changes: Sequence[Change], message: str) -> list[str]:
        """Makes all changes; the ids of the commits, "" for one whose id the site did not tell.

        Raises PushRefused, AccessDenied, HubUnreachable; commits that were made before stay.
        """
        groups = list(batches(changes))
        made = []
        for number, group in enumerate(groups, 1):
            text = message if len(groups) == 1 else f"{message} ({number}/{len(groups)})"
            made += await self._commit_parts(group, text)
        return made

    async def _commit_parts(self, changes: Sequence[Change], message: str) -> list[str]:
        """One commit, or two of half its size each if it is too large."""
        try:
            return [await self._commit_one(changes, message)]
        except PushRefused as error:
            if error.facts.get("status") not in TOO_LARGE:
                raise
            if len(changes) == 1:
                raise PushRefused(f"{changes[0].path}: {error.message}", hint=error.hint, **error.facts) from error
        half = len(changes) // 2
        return [
            *await self._commit_parts(changes[:half], message),
            *await self._commit_parts(changes[half:], message),
        ]

    async def _commit_one(self, changes: Sequence[Change], message: str) -> str:
        waits = Waits(self._api, MAX_TRIES)
        left = list(changes)
        while left:
            await self._pause()
            try:
                return await self._send(left, message)
            except Transient as fault:
                await waits.after(fault)
                left = await self._not_there(left)
            except PushRefused as error:
                # A weak report of users; else every change of a file is "create".
                if self._updated is not None or "already exist" not in error.message.lower():
                    raise
                self._updated = frozenset(await list_files(self._api, self._repo, self._branch))
        return ""

    async def _pause(self) -> None:
        if self._last_at is not None:
            seconds = PAUSE_SECONDS * self._api.timeouts.pause_seconds
            await asyncio.sleep(max(0.0, self._last_at + seconds - time.monotonic()))
        self._last_at = time.monotonic()

    async def _send(self, changes: Sequence[Change], message: str) -> str:
        document = await asyncio.to_thread(self._document, changes, message)
        path = f"/api/v1/repos/{self._repo.api_path}/commit/{self._branch}"
        request = SiteRequest("POST", path, document=document, repo=str(self._repo), aim="write")
        data = await self._api.ask_once(request)
        commit = data.get("oid") if isinstance(data, dict) else None
        return commit if isinstance(commit, str) else ""

    async def _not_there(self, changes: Sequence[Change]) -> list[Change]:
        """The changes that the repo does not have yet."""
        there = await list_files(self._api, self._repo, self._branch)

        def is_made(change: Change) -> bool:
            listed = there.get(change.path)
            if change.file is None or listed is None:
                return change.file is None and listed is None
            return (listed.sha256, listed.size_bytes) == (change.file.sha256, change.file.size_bytes)

        return [change for change in changes if not is_made(change)]

    def _document(self, changes: Sequence[Change], message: str) -> dict[str, Any]:
        return {"commit_message": message, "actions": [self._action(change) for change in changes]}

    def _action(self, change: Change) -> dict[str, Any]:
        file = change.file
        action = {"action": "create", "path": change.path, "type": "normal", "size": 0, "sha256": "", "content": ""}
        if file is None:
            return {**action, "action": "delete", "encoding": ""}
        if change.path in (self._updated or ()):
            action["action"] = "update"
        if not file.is_plain_there:
            return {**action, "type": "lfs", "size": file.size_bytes, "sha256": file.sha256, "encoding": ""}
        content = base64.b64encode(self._read(change.path)).decode()
        return {**action, "size": file.size_bytes, "content": content, "encoding": "base64"}

    def _read(self, path: str) -> bytes:
        try:
            return self._source(path).read_bytes()
        except OSError as error:
            raise BrokenCache(
                f"{path} cannot be read from the cache: {error.strerror or error}.",
                hint="Run the same command again: it brings into the cache what is missing.",
                path=path,
            ) from error
