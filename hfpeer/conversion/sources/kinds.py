"""The source for each kind of files, by the builder of `datasets` that a repo asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hfpeer.conversion.plan import ConversionPlan
from hfpeer.conversion.sources.batches import Source
from hfpeer.conversion.sources.csv_text import CsvSource, TextSource
from hfpeer.conversion.sources.folder import COLUMNS, FolderSource, ListedSource
from hfpeer.conversion.sources.json_lines import JsonSource
from hfpeer.conversion.sources.parquet import ArrowSource, ParquetSource
from hfpeer.conversion.sources.tar import TarSource
from hfpeer.conversion.sources.through_datasets import BUILDERS, DatasetsSource

OWN_READERS = frozenset({"parquet", "arrow", "json", "csv", "text", "webdataset", *COLUMNS})
"""The builders whose files are read here."""
_LISTS = {"csv": "csv", "jsonl": "json", "parquet": "parquet"}


def is_read_here(builder: str, reading: Mapping[str, Any]) -> bool:
    """Whether the readers here read the files of a config, without `datasets`."""
    is_lines = reading.get("sample_by", "line") == "line" and not reading.get("keep_linebreaks")
    return builder in OWN_READERS and reading.get("filters") is None and (builder != "text" or is_lines)


def can_read(builder: str, reading: Mapping[str, Any]) -> bool:
    """Whether the files of a config can be converted."""
    return is_read_here(builder, reading) or builder in BUILDERS


def source_of(plan: ConversionPlan, replaced: Counter[str], columns: tuple[str, ...] = ()) -> Source:
    """What reads the files of a plan. `columns` are those to read, where a reader can leave others out."""
    reading = plan.reading or {}
    if not is_read_here(plan.builder, reading):
        return DatasetsSource(plan.builder, reading)
    if plan.builder in COLUMNS and reading.get("lists"):
        return ListedSource(plan.builder, _of_builder(_LISTS[reading["lists"]], {}, replaced, ()), replaced)
    return _of_builder(plan.builder, reading, replaced, columns)


def _of_builder(builder: str, reading: Mapping[str, Any], replaced: Counter[str], columns: tuple[str, ...]) -> Source:
    if builder == "parquet":
        return ParquetSource(columns)
    if builder == "arrow":
        return ArrowSource()
    if builder == "csv":
        return CsvSource(reading)
    if builder == "text":
        return TextSource(reading)
    if builder == "webdataset":
        return TarSource(replaced)
    if builder in COLUMNS:
        return FolderSource(builder, reading)
    return JsonSource(reading, replaced)
