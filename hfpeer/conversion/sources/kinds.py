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

OWN_READERS = frozenset({"parquet", "arrow", "json", "csv", "text", "webdataset", *COLUMNS})
"""The builders whose files are read here."""
_LISTS = {"csv": "csv", "jsonl": "json", "parquet": "parquet"}


def why_not_read(builder: str, reading: Mapping[str, Any]) -> str:
    """Why the files of a config are not read here, as the end of a sentence; empty if they are."""
    if builder not in OWN_READERS:
        return f"are of the kind {builder!r}"
    if reading.get("filters") is not None:
        return "are filtered by the config"
    if builder == "text" and (reading.get("sample_by", "line") != "line" or reading.get("keep_linebreaks")):
        return "are not read line by line"
    return ""


def source_of(plan: ConversionPlan, replaced: Counter[str], columns: tuple[str, ...] = ()) -> Source:
    """What reads the files of a plan. `columns` are those to read, where a reader can leave others out."""
    reading = plan.reading or {}
    if plan.builder in COLUMNS and reading.get("lists"):
        return ListedSource(plan.builder, _of_builder(_LISTS[reading["lists"]], {}, replaced, ()))
    return _of_builder(plan.builder, reading, replaced, columns)


def _of_builder(builder: str, reading: Mapping[str, Any], replaced: Counter[str], columns: tuple[str, ...]) -> Source:
    if builder == "parquet":
        return ParquetSource(columns)
    if builder == "arrow":
        return ArrowSource()
    if builder == "csv":
        return CsvSource(reading)
    if builder == "text":
        return TextSource()
    if builder == "webdataset":
        return TarSource(replaced)
    if builder in COLUMNS:
        return FolderSource(builder, reading)
    return JsonSource(reading, replaced)
