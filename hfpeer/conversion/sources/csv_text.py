"""CSV by pandas, as `datasets` reads it, and lines of text.

pandas guesses types from what it has read; here a first pass finds for each column the type of all its values, so that
a column does not change its type in the middle of a file. Source: datasets `packaged_modules/csv`, `text`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfpeer.conversion.sources.batches import ROWS, Batch, LocalFile
from hfpeer.conversion.sources.opening import contents, failing, known_encoding
from hfpeer.conversion.sources.selection import Selection
from hfpeer.errors import ConversionFailed

CHUNK_ROWS = 10_000
"""Rows that pandas reads at a time."""
NEGATIVE = "negative"
"""Beside the type of a column: it has integers below 0, which no type has together with those above 2^63."""
_KINDS = {"i": "Int64", "u": "UInt64", "f": "float64", "b": "boolean"}


class CsvSource:
    """Tables of text. `reading` are the options of pandas that the config sets."""

    def __init__(self, reading: Mapping[str, Any]) -> None:
        self._reading = {key: value for key, value in reading.items() if value is not None}

    def count(self, files: Sequence[LocalFile]) -> int:
        return sum(len(part) for part in self._parts(files[0], {"dtype": "str"}))

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        import pyarrow as pa

        file, row = files[0], 0
        types = self._types(file)
        for part in self._parts(file, {"dtype": types}):
            if part.empty:  # it tells the columns
                table = pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata()
                yield Batch(file.path, row, 0, pa.RecordBatch.from_pylist([], schema=table.schema))
            for start in range(0, len(part), ROWS):
                rows = part.iloc[start : start + ROWS]
                if selection.wants_any(row, row + len(rows)):
                    table = pa.Table.from_pandas(rows).replace_schema_metadata()
                    yield Batch(file.path, row, len(rows), table.combine_chunks().to_batches()[0])
                row += len(rows)
            if selection.ends_before(row):
                return

    def _types(self, file: LocalFile) -> dict[Any, str]:
        """The type of each column: that of all its values."""
        kinds: dict[Any, set[str]] = {}
        for part in self._parts(file, {"dtype_backend": "numpy_nullable"}):
            for name, column in part.items():
                known = kinds.setdefault(name, set())
                if column.notna().any():
                    known.add(_KINDS.get(column.dtype.kind, "string"))
                    known.update([NEGATIVE] if column.dtype.kind == "i" and column.min() < 0 else [])
        return {name: _one_of(known) for name, known in kinds.items()}

    def _parts(self, file: LocalFile, options: Mapping[str, Any]) -> Iterator[Any]:
        import pandas as pd

        known_encoding(file, self._reading)
        with failing(file):
            for raw in contents(file):
                try:
                    with pd.read_csv(raw, chunksize=CHUNK_ROWS, **self._reading, **options) as parts:
                        for part in parts:
                            self._check_columns(file, part)
                            yield part
                except pd.errors.EmptyDataError:
                    continue
                except ValueError as error:
                    raise ConversionFailed(
                        f"{file.path} cannot be read as a table: {str(error)[:300]}", path=file.path
                    ) from error

    def _check_columns(self, file: LocalFile, part: Any) -> None:
        """Raises ConversionFailed for rows with more values than the heading has names: pandas makes the first ones
        names of rows, and moves the others into columns that are not theirs."""
        import pandas as pd

        if "index_col" not in self._reading and not isinstance(part.index, pd.RangeIndex):
            raise ConversionFailed(
                f"{file.path} has rows with more values than its heading has names, so no value has a sure column.",
                hint="Mend the file in a copy of the repo, or name all columns in the card: `names`, with `header: 0`.",
                path=file.path,
            )


def _one_of(kinds: set[str]) -> str:
    known = kinds - {NEGATIVE}
    if known == {"Int64", "UInt64"} and NEGATIVE not in kinds:
        return "UInt64"
    if len(known) == 1:
        return next(iter(known))
    return "float64" if "float64" in known and known <= {"Int64", "UInt64", "float64"} else "string"


class TextSource:
    """Lines of text, each a row; a line ends as in any system. `reading` may say an encoding."""

    def __init__(self, reading: Mapping[str, Any]) -> None:
        self._reading = reading

    def count(self, files: Sequence[LocalFile]) -> int:
        return sum(1 for _ in self._lines(files[0]))

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        file = files[0]
        rows: list[dict[str, Any]] = []
        first = 0
        for row, line in enumerate(self._lines(file)):
            if selection.ends_before(row):
                break
            if not selection.wants_any(row, row + 1):
                continue
            first = first if rows else row
            rows.append({"text": line})
            if len(rows) >= ROWS:
                yield Batch(file.path, first, len(rows), rows=rows, is_plain=True)
                rows = []
        if rows:
            yield Batch(file.path, first, len(rows), rows=rows, is_plain=True, done=1.0)

    def _lines(self, file: LocalFile) -> Iterator[str]:
        with failing(file):
            for raw in contents(file, self._reading):
                text = io.TextIOWrapper(raw, "utf-8")
                try:
                    for line in text:
                        yield line.rstrip("\n")
                finally:
                    text.detach()  # else it would close the file a second time
