"""Makes all that a recipe says: converts its datasets, one after the other, and merges their splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfpeer.control.operations import Operations
from hfpeer.conversion.output.merging import merge
from hfpeer.conversion.request.recipe import Recipe
from hfpeer.conversion.results import ConversionReport, RecipeReport
from hfpeer.errors import InvalidName
from hfpeer.node.operations.conversion.converting import convert
from hfpeer.node.operations.conversion.requests import ConversionRequest
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import OnEvent

Convert = Callable[[Operations, SetPlaces, ConversionRequest, OnEvent], Coroutine[Any, Any, ConversionReport]]
"""Converts one dataset: `convert`, or the same on a cluster."""


async def convert_recipe(
    node: Operations,
    places: SetPlaces,
    recipe: Recipe,
    output: Path,
    like: ConversionRequest,
    on_event: OnEvent,
    convert: Convert = convert,
) -> RecipeReport:
    """Converts the datasets of a recipe into folders of their names below `output`. What an earlier run made is kept.

    `like` says how: jobs, share of the parts, access. Files are merged when all parts of all datasets are made. Raises
    what `convert` raises.
    """
    await in_thread(_refuse_foreign_files, recipe, output)
    reports: dict[str, ConversionReport] = {}
    for dataset in recipe.datasets:
        request = replace(
            like,
            repo=dataset.repo,
            revision=dataset.revision,
            options=dataset.options,
            image_roots=(*dataset.image_roots, *like.image_roots),
            folder=output / dataset.name,
        )
        reports[dataset.name] = await convert(node, places, request, on_event)
    merged = []
    if all(report.is_complete for report in reports.values()):
        merged = [await in_thread(merge, one, output, reports) for one in recipe.merges]
    return RecipeReport(str(output), reports, tuple(merged))


def _refuse_foreign_files(recipe: Recipe, output: Path) -> None:
    """Raises InvalidName if a file of the user has the name of a merged one, and no conversion was begun there."""
    if any((output / one.name).exists() for one in recipe.datasets):
        return
    foreign = next((one for one in recipe.merges if os.path.lexists(output / f"{one.name}.jsonl")), None)
    if foreign is not None:
        raise InvalidName(
            f"{output / f'{foreign.name}.jsonl'} is there already, and no conversion made it.",
            hint="Give another -o, or move the file away.",
        )
