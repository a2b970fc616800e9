"""Plans of conversions made by hand, over files in a folder, so that no test has to ask `datasets` for them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfpeer.cache.partial.hashing import hash_file
from hfpeer.conversion.features import Feature
from hfpeer.conversion.output.output import OutputFolder
from hfpeer.conversion.part.part import convert_part
from hfpeer.conversion.plan import ConversionPlan, Part, SourceFile
from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.conversion.results import ConversionReport
from hfpeer.names import Commit, RepoId

REPO = RepoId.parse("acme/rows", "dataset")
COMMIT = Commit("c" * 40)
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"

needs_libraries = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pyarrow", "orjson")),
    reason="needs the extra `datasets` (pyarrow, orjson)",
)


def source_file(snapshot: Path, path: str) -> SourceFile:
    place = snapshot / path
    size_bytes = place.stat().st_size
    return SourceFile(path, f"sha256:{hash_file(place, 'sha256', size_bytes)}", size_bytes)


def plan_of(
    snapshot: Path,
    paths: Sequence[str | Sequence[str]],
    builder: str,
    *,
    features: Feature | None = None,
    reading: Mapping[str, Any] | None = None,
    selected: Mapping[str, Any] | None = None,
    **options: Any,
) -> ConversionPlan:
    """A plan with a part for each path, or for each list of paths, of the split train."""
    groups = [[path] if isinstance(path, str) else path for path in paths]
    parts = tuple(
        Part(
            number,
            "train",
            number,
            len(groups),
            "train",
            tuple(source_file(snapshot, path) for path in group),
            **dict(selected or {}),
        )
        for number, group in enumerate(groups)
    )
    chosen = ConversionOptions(**{"name": "rows", **options})
    return ConversionPlan(REPO, COMMIT, "default", builder, chosen, parts, reading=reading, features=features)


def convert_here(plan: ConversionPlan, snapshot: Path, folder: Path, roots: Sequence[str] = ()) -> ConversionReport:
    """Makes all parts of a plan, one after the other, and ends the conversion."""
    output = OutputFolder(folder, plan)
    reports = [convert_part(plan, part, snapshot, output, roots) for part in plan.parts]
    output.finish()
    missed = [one for one in reports if one.missing and plan.options.missing == "fail"]
    return output.report(0, tuple(missed))


def rows_in(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of lines, by a strict parser."""
    return [json.loads(line, parse_constant=_refuse) for line in file.read_bytes().splitlines()]


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def write_parquet(path: Path, table: Any, **options: Any) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def drawn(plan: ConversionPlan, rank: str) -> ConversionPlan:
    """The plan with a draw in every part."""
    return replace(plan, parts=tuple(replace(part, highest_rank=rank) for part in plan.parts))
