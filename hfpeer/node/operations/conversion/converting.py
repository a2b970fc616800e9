"""Converts a dataset: adds the files of one part after the other, and converts what has come while the next come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from hfpeer.control.operations import Operations
from hfpeer.conversion.media.roots import files_of_root
from hfpeer.conversion.output.output import RECORD, WORK, OutputFolder
from hfpeer.conversion.part.part import convert_part, named_files
from hfpeer.conversion.plan import Part, SourceFile
from hfpeer.conversion.results import ConversionReport, PartReport, with_totals
from hfpeer.node.operations.conversion.planning import Planned, add_files, plan_conversion
from hfpeer.node.operations.conversion.progress import ConversionProgress
from hfpeer.node.operations.conversion.requests import ConversionRequest
from hfpeer.node.operations.conversion.workers import WorkerProcess
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import OnEvent

AHEAD = 2
"""At most this many parts, beyond those under way, have their files and wait."""


async def convert(
    node: Operations, places: SetPlaces, request: ConversionRequest, on_event: OnEvent
) -> ConversionReport:
    """Converts a dataset, or the parts of it that the request is for. What an earlier run made is kept.

    Pictures that are missing are in the report; with `missing` fail, the parts that name them are not made. Raises what
    `plan_conversion` and `convert_part` raise.
    """
    began = time.monotonic()
    progress = ConversionProgress(on_event)
    planned = await plan_conversion(node, places, request, progress)
    output = await in_thread(opened_output, planned, request)
    report = await _Run(node, request, planned, output, progress).run()
    return with_totals(report, progress.fetched_bytes, time.monotonic() - began)


def opened_output(planned: Planned, request: ConversionRequest) -> OutputFolder:
    """The folder of a conversion. One that was finished, and in which a file has changed since, is begun anew. Raises
    InvalidName if another conversion is in it."""
    output = OutputFolder(request.folder, planned.plan, restarts=request.restarts)
    if output.finished() is not None and output.is_damaged():
        (request.folder / WORK).mkdir(exist_ok=True)  # what is there was made by this conversion
        (request.folder / RECORD).unlink()
        output = OutputFolder(request.folder, planned.plan)
    return output


class _Run:
    """One run."""

    def __init__(
        self,
        node: Operations,
        request: ConversionRequest,
        planned: Planned,
        output: OutputFolder,
        progress: ConversionProgress,
    ) -> None:
        self._node = node
        self._request = request
        self._planned = planned
        self._output = output
        self._progress = progress
        self._missed: list[PartReport] = []
        self._ready: asyncio.Queue[Part | None] = asyncio.Queue(request.jobs + AHEAD)

    async def run(self) -> ConversionReport:
        plan = self._planned.plan
        parts = plan.parts if self._request.share is None else plan.share(*self._request.share)
        if self._output.finished() is not None:
            return self._output.report(len(parts))
        missing = [part for part in parts if await in_thread(self._output.done, part) is None]
        self._progress.begin(missing)
        jobs = min(self._request.jobs, len(missing))
        await _all_or_none([self._fetch(missing, jobs), *(self._convert() for _ in range(jobs))])
        if not self._missed:
            await in_thread(self._output.finish)
        return await in_thread(self._output.report, len(parts) - len(missing), tuple(self._missed))

    async def _fetch(self, parts: Sequence[Part], jobs: int) -> None:
        """Adds the files of one part after the other."""
        for part in parts:
            await bring_part(self._node, self._request, self._planned, part, self._progress)
            await self._ready.put(part)
        for _ in range(jobs):
            await self._ready.put(None)

    async def _convert(self) -> None:
        """Makes parts whose files have come, until there are no more."""
        plan, snapshot, roots = self._planned.plan, self._planned.snapshot, self._request.image_roots
        worker: WorkerProcess | None = None
        try:
            while (part := await self._ready.get()) is not None:
                if self._request.jobs == 1:
                    report = await in_thread(
                        convert_part, plan, part, snapshot, self._output, roots, self._on_rows(part)
                    )
                else:
                    worker = worker or await WorkerProcess.started(snapshot, self._output.folder, roots)
                    report = await worker.convert(part, self._on_rows(part))
                if report.missing and plan.options.missing == "fail":
                    self._missed.append(report)
                self._progress.part_done(part, report.rows)
        finally:
            if worker is not None:
                await worker.stop()

    def _on_rows(self, part: Part) -> Any:
        return lambda rows, done: self._progress.reached(part, rows, done)


async def bring_part(
    node: Operations,
    request: ConversionRequest,
    planned: Planned,
    part: Part,
    progress: ConversionProgress,
) -> None:
    """Adds the files that a part needs: its own, and pictures that its rows name."""
    plan, manifest, snapshot = planned.plan, planned.manifest, planned.snapshot
    missing = [file for file in part.files if not (snapshot / file.path).is_file()]
    if missing:
        await add_files(node, request, plan, missing, progress)
    named = await in_thread(named_files, plan, part, snapshot, manifest.by_path)
    named.update(filter(None, (files_of_root(root, manifest.by_path) for root in request.image_roots)))
    absent = sorted(name for name in named if not (snapshot / name).is_file())
    if absent:
        listed = [manifest.by_path[name] for name in absent]  # type: ignore[index] # a FilePath is a str
        files = [SourceFile(file.path, str(file.digest), file.size_bytes) for file in listed]
        await add_files(node, request, plan, files, progress)


async def _all_or_none(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines together; the first failure ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task
