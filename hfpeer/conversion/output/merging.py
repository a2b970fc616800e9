"""Merges splits of several conversions into one file of lines, whose pictures stay where they are."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfpeer.cache.disk.os_errors import translated
from hfpeer.conversion.output.output import ELSEWHERE
from hfpeer.conversion.request.recipe import Merge
from hfpeer.conversion.results import ConversionReport, ConvertedFile
from hfpeer.conversion.rows.json_text import JsonText
from hfpeer.conversion.writers.hashed import HashedFile
from hfpeer.errors import EntryNotFound
from hfpeer.system.cancellation import check_stop

_PICTURE = re.compile(r"images/[0-9a-f]{2}/[0-9a-f]{64}\.\w{1,8}")
_MAY_HAVE_PICTURES = b'"images/'


def merge(one: Merge, output: Path, reports: Mapping[str, ConversionReport]) -> ConvertedFile:
    """Writes a merged file below `output`. The paths of pictures lead from its folder to those of the datasets. Raises
    EntryNotFound for a split that was not converted."""
    target = output / f"{one.name}.jsonl"
    with translated("merge files", target, elsewhere=ELSEWHERE):
        return _merged(one, target, reports)


def _merged(one: Merge, target: Path, reports: Mapping[str, ConversionReport]) -> ConvertedFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.partial")
    rows, json_text = 0, JsonText(Counter())
    with HashedFile(fresh) as file:
        for dataset, split in one.parts:
            report = reports[dataset]
            folder = Path(report.folder)
            files = [found for found in report.files if found.split == split]
            if not files:
                known = dict.fromkeys(found.split for found in report.files if found.split)
                raise EntryNotFound(
                    f"{dataset} has no converted split {split!r}, which {one.name} is to be merged of.",
                    hint=f"Its splits are: {', '.join(known)}.",
                )
            way = os.path.relpath(folder, target.parent).replace(os.sep, "/")
            for found in files:
                rows += _copy(folder / found.path, file, json_text, way)
    fresh.replace(target)
    return ConvertedFile(f"{one.name}.jsonl", "", rows, file.size_bytes, file.sha256)


def _copy(source: Path, file: HashedFile, json_text: JsonText, way: str) -> int:
    rows = 0
    with source.open("rb") as lines:
        for line in lines:
            if rows % 1000 == 0:
                check_stop()
            rows += 1
            moves = way != "." and _MAY_HAVE_PICTURES in line
            file.write(json_text.line(_moved(json_text.parse(line), way)) if moves else line)
    return rows


def _moved(value: Any, way: str) -> Any:
    if isinstance(value, str):
        return f"{way}/{value}" if _PICTURE.fullmatch(value) else value
    if isinstance(value, dict):
        return {key: _moved(inner, way) for key, inner in value.items()}
    return [_moved(inner, way) for inner in value] if isinstance(value, list) else value
