"""The source for each kind of files, by the builder of `datasets` that a repo asks for."""

from __future__ import annotations

from collections import Counter

from hfpeer.conversion.plan import ConversionPlan
from hfpeer.conversion.sources.batches import Source
from hfpeer.conversion.sources.json_lines import JsonSource
from hfpeer.conversion.sources.parquet import ArrowSource, ParquetSource

OWN_READERS = frozenset({"parquet", "arrow", "json"})
"""The builders whose files are read here."""


def source_of(plan: ConversionPlan, replaced: Counter[str], columns: tuple[str, ...] = ()) -> Source:
    """What reads the files of a plan. `columns` are those to read, where a reader can leave others out."""
    reading = plan.reading or {}
    if plan.builder == "parquet":
        return ParquetSource(columns)
    if plan.builder == "arrow":
        return ArrowSource()
    return JsonSource(reading, replaced)
