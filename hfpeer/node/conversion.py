"""`convert_dataset`, `plan_conversion` and `convert_part`: conversions of datasets as Python functions.

The daemon brings the files if it answers, else a node in this process; the conversion itself runs in this process. The
errors are hfpeer's own (`hfpeer.errors`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfpeer.conversion.output.output import OutputFolder
from hfpeer.conversion.part.part import convert_part as convert_part_here
from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.conversion.results import ConversionReport, PartReport
from hfpeer.errors import EntryNotFound, InvalidName
from hfpeer.names import MAIN, RepoId, Revision
from hfpeer.node.calls import is_offline, run, settings_of, token_of
from hfpeer.node.operations.conversion.converting import bring_part, convert
from hfpeer.node.operations.conversion.planning import Planned, commit_here
from hfpeer.node.operations.conversion.planning import plan_conversion as plan_here
from hfpeer.node.operations.conversion.progress import ConversionProgress
from hfpeer.node.operations.conversion.requests import Access, ConversionRequest, PlannedConversion
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.node.session import open_session
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import Event, OnEvent


def convert_dataset(
    repo_id: str,
    output: str | Path,
    *,
    revision: str | None = None,
    config: str = "",
    splits: Sequence[str] = (),
    to: str = "",
    shape: str = "rows",
    single: bool = False,
    max_samples: int | None = None,
    seed: int | None = None,
    images: str = "",
    image_roots: Sequence[str | Path] = (),
    image_columns: Sequence[str] = (),
    missing: str = "fail",
    labels: str = "names",
    columns: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    name: str = "",
    jobs: int = 1,
    part: tuple[int, int] | None = None,
    restart: bool = False,
    local_files_only: bool = False,
    token: bool | str | None = None,
    python: str | None = None,
    on_event: OnEvent = lambda event: None,
) -> ConversionReport:
    """Converts a dataset into the folder `output`, and returns what it made. What an earlier call made is kept.

    The arguments are the options of `hfpeer dataset convert`; `rename` is from old to new names of columns, and `part`
    is (K, N). Raises EntryNotFound if pictures are missing and `missing` is "fail", and the errors of `hfpeer.errors`.
    """
    if jobs < 1:
        raise InvalidName(f"jobs is {jobs}, and a conversion needs a process.", hint="Leave jobs out, or give 2.")
    request = _request(
        repo_id,
        output,
        ConversionOptions(
            name or RepoId.parse(repo_id, "dataset").name,
            config,
            _names(splits),
            to or ("tsv" if shape == "vlmeval" else "jsonl"),
            shape,
            single,
            max_samples,
            seed,
            images,
            _names(image_columns),
            missing,
            labels,
            _names(columns),
            tuple((rename or {}).items()),
        ),
        revision,
        image_roots,
        local_files_only,
        token,
    )
    request = replace(request, jobs=jobs, share=part, restarts=restart, python=python)
    report = run(_convert(request, on_event))
    if report.missing and missing == "fail":
        raise missing_pictures(report)
    return report


def plan_conversion(
    repo_id: str,
    output: str | Path,
    *,
    revision: str | None = None,
    image_roots: Sequence[str | Path] = (),
    local_files_only: bool = False,
    token: bool | str | None = None,
    python: str | None = None,
    **options: Any,
) -> PlannedConversion:
    """Plans a conversion: `plan.parts` is the number of its parts, each of which `convert_part` makes, anywhere.

    `options` are those of `convert_dataset` that decide what is made. Raises the errors of `hfpeer.errors`.
    """
    chosen = _options(repo_id, options)
    request = _request(repo_id, output, chosen, revision, image_roots, local_files_only, token)
    planned = run(_plan(replace(request, python=python)))
    roots = tuple(map(str, image_roots))
    return PlannedConversion(planned.plan, str(request.folder), roots, local_files_only or is_offline(os.environ))


def convert_part(plan: PlannedConversion, number: int, *, token: bool | str | None = None) -> PartReport:
    """Makes one part of a plan, unless it is made; the last one finishes the conversion. The files come by the node of
    this machine. Raises EntryNotFound if pictures are missing and `missing` is "fail", and the errors of
    `hfpeer.errors`."""
    report = make_part(plan, number, token=token)
    if report.missing and plan.plan.options.missing == "fail":
        raise EntryNotFound(
            f"{report.missing:,} pictures that rows name were not found, the first: {report.misses[0].name}.",
            hint="Name the folders that have them as image_roots.",
        )
    return report


def make_part(plan: PlannedConversion, number: int, *, token: bool | str | None = None) -> PartReport:
    """Does what `convert_part` does. A part that is not written because pictures are missing is told by its report."""
    if not 0 <= number < plan.parts:
        raise InvalidName(f"There is no part {number}.", hint=f"The plan has parts 0 to {plan.parts - 1}.")
    return run(_convert_part(plan, number, token_of(token)))


def missing_pictures(report: ConversionReport) -> EntryNotFound:
    """The error for pictures that were found nowhere."""
    first = report.misses[0]
    return EntryNotFound(
        f"{report.missing:,} pictures that rows name were not found, the first in row {first.row:,} of {first.source}: "
        f"{first.name}. What names them was not written.",
        hint="Name the folders or zips that have them with --image-root, or say --missing keep or --missing drop.",
        missing=report.missing,
    )


def _options(repo_id: str, options: dict[str, Any]) -> ConversionOptions:
    """The options of a plan, by the names that `convert_dataset` has for them."""
    renamed = tuple((options.pop("rename", None) or {}).items())
    shape = options.get("shape", "rows")
    options = {"is_single" if key == "single" else key: value for key, value in options.items()}
    listed = ("splits", "columns", "image_columns")
    options = {key: _names(value) if key in listed else value for key, value in options.items()}
    options["to"] = options.get("to") or ("tsv" if shape == "vlmeval" else "jsonl")
    options["name"] = options.get("name") or RepoId.parse(repo_id, "dataset").name
    try:
        return ConversionOptions(renamed=renamed, **options)
    except TypeError as error:
        raise InvalidName(f"This is no option of a conversion: {error}.", hint="See `convert_dataset`.") from error


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Names in a sequence; a single name is one of them, and not its letters."""
    return (value,) if isinstance(value, str) else tuple(value)


def _request(
    repo_id: str,
    output: str | Path,
    options: ConversionOptions,
    revision: str | None,
    image_roots: Sequence[str | Path],
    local_files_only: bool,
    token: bool | str | None,
) -> ConversionRequest:
    return ConversionRequest(
        RepoId.parse(repo_id, "dataset"),
        Path(output).expanduser().resolve(),
        options,
        Revision.parse(revision) if revision else MAIN,
        tuple(map(str, image_roots)),
        Access(local_files_only or is_offline(os.environ), token=token_of(token)),
    )


async def _convert(request: ConversionRequest, on_event: OnEvent) -> ConversionReport:
    settings = settings_of(None, None)
    async with open_session(settings) as node:
        return await convert(node, SetPlaces(settings), request, on_event)


async def _plan(request: ConversionRequest) -> Planned:
    settings = settings_of(None, None)
    async with open_session(settings) as node:
        return await plan_here(node, SetPlaces(settings), request, ConversionProgress(_ignored))


async def _convert_part(planned: PlannedConversion, number: int, token: str | None) -> PartReport:
    settings, plan = settings_of(None, None), planned.plan
    part = plan.parts[number]
    access = Access(planned.is_local_only, planned.uses_peers, planned.trusts_peers, token)
    roots = planned.image_roots
    request = ConversionRequest(plan.repo, Path(planned.folder), plan.options, Revision(plan.commit), roots, access)
    output = await in_thread(OutputFolder, request.folder, plan)
    async with open_session(settings) as node:
        manifest, snapshot = await commit_here(node, SetPlaces(settings), request, ConversionProgress(_ignored))
        here = Planned(plan, manifest, snapshot)
        await bring_part(node, request, here, part, ConversionProgress(_ignored))
    report = await in_thread(convert_part_here, plan, part, here.snapshot, output, roots)
    if not report.missing or plan.options.missing != "fail":
        await in_thread(output.finish)
    return report


def _ignored(event: Event) -> None:
    """Takes an event of work that is not watched."""
