"""Lines of JSON, and tables of texts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hfpeer.conversion.rows.json_text import JsonText
from hfpeer.conversion.writers.hashed import HashedFile
from hfpeer.errors import ConversionFailed


class JsonLinesWriter:
    """An object a line, UTF-8."""

    def __init__(self, file: HashedFile, replaced: Counter[str]) -> None:
        self._file = file
        self._json = JsonText(replaced)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        line = self._json.line
        self._file.write(b"".join([line(row) for row in rows]))

    def write_lines(self, lines: memoryview) -> None:
        """Adds rows that are lines already."""
        self._file.write(lines)

    def end(self) -> None:
        """Nothing is left to write."""


class TableWriter:
    """Texts between tabs, quoted as pandas reads them, below a line with the names of the columns. Without `names` the
    first row of a part decides its columns. Null is an empty text; lists and objects are JSON."""

    def __init__(self, file: HashedFile, replaced: Counter[str], names: Sequence[str] = ()) -> None:
        self._file = file
        self._json = JsonText(replaced)
        self._names: Sequence[str] = ()
        self._chosen = names

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        made = io.StringIO(newline="")
        writer = csv.writer(made, delimiter="\t", lineterminator="\n")
        for row in rows:
            if not self._names:
                self.write_heading(self._chosen or list(row))
            if not row.keys() <= set(self._names):
                raise ConversionFailed(
                    "The rows have different columns, so they make no one table.",
                    hint="Choose columns that all rows have with --columns.",
                )
            writer.writerow([self._text(row.get(name)) for name in self._names])
        self._file.write(made.getvalue().encode())

    def write_heading(self, names: Sequence[str]) -> None:
        """The names of the columns."""
        self._names = names
        made = io.StringIO(newline="")
        csv.writer(made, delimiter="\t", lineterminator="\n").writerow(names)
        self._file.write(made.getvalue().encode())

    def end(self) -> None:
        """A part without rows has the names of its columns too."""
        if self._chosen and not self._names:
            self.write_heading(self._chosen)

    def _text(self, value: Any) -> Any:
        return self._json.text(value) if isinstance(value, (list, dict)) else value
