"""Pushes the repos of a list, a few at a time. A failure of one does not undo the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hfpeer.errors import HfpeerError, RevisionNotFound
from hfpeer.modelscope.listing import list_files
from hfpeer.modelscope.repos import find_visibility
from hfpeer.node.operations.modelscope.progress import MergedProgress
from hfpeer.node.operations.modelscope.pushing import PushParts, add_request, push
from hfpeer.node.operations.modelscope.requests import PushLimits, PushRequest
from hfpeer.node.operations.modelscope.results import PushOutcome
from hfpeer.node.operations.modelscope.sources import CommitSource
from hfpeer.transfer.events import OnEvent


async def push_list(
    parts: PushParts, requests: Sequence[PushRequest], limits: PushLimits, on_event: OnEvent
) -> list[PushOutcome]:
    """Pushes every repo of the list and returns the outcomes in its order. Errors of a repo are outcomes, too.

    After a failure no further push begins, unless `limits.keeps_going`; those under way end by themselves.
    """
    return await _List(parts, limits, on_event).run(requests)


class _List:
    def __init__(self, parts: PushParts, limits: PushLimits, on_event: OnEvent) -> None:
        self._parts = parts
        self._limits = limits
        self._progress = MergedProgress(on_event)
        self._at_once = asyncio.Semaphore(limits.jobs)
        self._has_failed = False

    async def run(self, requests: Sequence[PushRequest]) -> list[PushOutcome]:
        tasks = [asyncio.create_task(self._push(request)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _push(self, request: PushRequest) -> PushOutcome:
        repo, target = str(request.repo), str(request.target)
        async with self._at_once:
            if self._has_failed and not self._limits.keeps_going:
                return PushOutcome(repo, target, "not begun", reason="a push before it failed")
            try:
                return await self._push_one(request)
            except HfpeerError as error:
                self._has_failed = True
                return PushOutcome.failed(repo, target, error)
            finally:
                self._progress.end(repo)

    async def _push_one(self, request: PushRequest) -> PushOutcome:
        repo, target = str(request.repo), str(request.target)
        if self._limits.skips_existing and await self._has_files(request):
            return PushOutcome(repo, target, "skipped", reason=f"it is at {self._parts.api.site} already")
        on_event = self._progress.of(repo)
        source = await CommitSource.open(self._parts.node, add_request(request), on_event)
        reason = self._size_reason(source.size_bytes)
        if reason:
            return PushOutcome(repo, target, "skipped", reason=reason)
        report = await push(self._parts, request, on_event, source)
        return PushOutcome(repo, target, report.state, report)

    async def _has_files(self, request: PushRequest) -> bool:
        if await find_visibility(self._parts.api, request.target) is None:
            return False
        try:
            return bool(await list_files(self._parts.api, request.target, request.branch))
        except RevisionNotFound:
            return False

    def _size_reason(self, size_bytes: int) -> str:
        """Why a repo of this size is not pushed; "" if it is."""
        if self._limits.min_bytes is not None and size_bytes < self._limits.min_bytes:
            return f"{size_bytes:,} bytes are less than --min-size"
        if self._limits.max_bytes is not None and size_bytes > self._limits.max_bytes:
            return f"{size_bytes:,} bytes are more than --max-size"
        return ""
