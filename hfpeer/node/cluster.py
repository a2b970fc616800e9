"""Makes the parts of a conversion on a Dask cluster: a part is a task, and a worker asks the node of its machine.

So each source file crosses the WAN once, and comes only to the machines that convert it. All workers write into one
shared folder, which also remembers what is done: a worker that dies costs its part, and a later run goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hfpeer.control.operations import Operations
from hfpeer.conversion.extra import has
from hfpeer.conversion.plan import Part
from hfpeer.conversion.results import ConversionReport, PartReport, with_totals
from hfpeer.errors import ConversionFailed, HfpeerError, MissingExtra, Unreachable
from hfpeer.node.conversion import make_part
from hfpeer.node.operations.conversion.converting import opened_output
from hfpeer.node.operations.conversion.planning import plan_conversion
from hfpeer.node.operations.conversion.progress import ConversionProgress
from hfpeer.node.operations.conversion.requests import ConversionRequest, PlannedConversion
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.system.cancellation import check_stop, in_thread
from hfpeer.transfer.events import OnEvent, WaitBegan

CONNECT_SECONDS = 15.0
"""Seconds without an answer of the scheduler before it counts as unreachable."""
WAIT_SECONDS = 0.5
"""Seconds between two looks whether the work is to stop."""


async def convert_on_cluster(
    scheduler: str, node: Operations, places: SetPlaces, request: ConversionRequest, on_event: OnEvent
) -> ConversionReport:
    """Converts a dataset on the workers of a scheduler, `tcp://HOST:8786`. What an earlier run made is kept.

    Raises MissingExtra, Unreachable if the scheduler does not answer, what `convert_part` raises on a worker, and
    ConversionFailed for workers that end, or that write elsewhere.
    """
    _need_dask()
    began = time.monotonic()
    progress = ConversionProgress(on_event)
    planned = await plan_conversion(node, places, request, progress)
    output = await in_thread(opened_output, planned, request)
    parts = planned.plan.parts
    if output.finished() is not None:
        return output.report(len(parts))
    missing = [part for part in parts if await in_thread(output.done, part) is None]
    progress.begin(missing)
    access = request.access
    job = PlannedConversion(
        planned.plan,
        str(request.folder),
        request.image_roots,
        access.is_local_only,
        access.uses_peers,
        access.trusts_peers,
    )
    missed = await in_thread(_make, scheduler, job, missing, progress, on_event)
    if not missed and not await in_thread(output.finish):
        absent = output.missing_parts()
        raise ConversionFailed(
            f"The workers made all parts, but {len(absent):,} of them are not in {request.folder} here.",
            hint="Name a folder with -o that is the same one on all machines of the cluster.",
        )
    report = await in_thread(output.report, len(parts) - len(missing), missed)
    return with_totals(report, progress.fetched_bytes, time.monotonic() - began)


def _make(
    scheduler: str, job: PlannedConversion, parts: Sequence[Part], progress: ConversionProgress, on_event: OnEvent
) -> tuple[PartReport, ...]:
    """Makes parts on the workers. Gives the reports of those that are not written, because pictures are missing.
    Blocking."""
    from distributed import wait

    missed = []
    with _client(scheduler) as client:
        if not client.scheduler_info()["workers"]:
            on_event(WaitBegan(f"The Dask scheduler {scheduler} has no workers yet: waiting for one."))
        tasks = {client.submit(make_part, job, part.number, pure=False): part for part in parts}
        pending = list(tasks)
        try:
            while pending:
                check_stop()
                try:
                    done, left = wait(pending, timeout=WAIT_SECONDS, return_when="FIRST_COMPLETED")
                except asyncio.TimeoutError:
                    continue
                pending = list(left)
                for task in done:
                    report = _result(task, tasks[task])
                    progress.part_done(tasks[task], report.rows)
                    if report.missing and job.plan.options.missing == "fail":
                        missed.append(report)
        finally:
            client.cancel(pending)
    return tuple(missed)


def _result(task: Any, part: Part) -> PartReport:
    """What a worker made of a part. Raises the error of hfpeer that it had, and ConversionFailed for any other."""
    try:
        report: PartReport = task.result()
    except HfpeerError:
        raise
    except Exception as error:
        raise ConversionFailed(
            f"No worker of the Dask cluster made part {part.number} ({part.files[0].path}): {str(error)[:500]}",
            hint="Each worker needs this version of hfpeer, with the extras dask and datasets. What is done is kept.",
        ) from error
    return report


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        raise Unreachable(
            f"The Dask scheduler {scheduler} does not answer: {str(error)[:200]}.",
            hint="Write its address as tcp://HOST:8786.",
        ) from error
    with client:
        yield client


def _need_dask() -> None:
    if not has("distributed"):
        import sys

        raise MissingExtra(
            "A cluster of Dask needs the library `distributed`, here and on each worker.",
            hint=f"{sys.executable} -m pip install 'hfpeer[dask,datasets]'",
        )
