"""Lines of JSON, and tables of texts."""

from __future__ import annotations

import re
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
    first row of a part decides its columns. Null is an empty text; lists and objects are JSON. The `csv` of Python is
    not used: whether it quotes a carriage return depends on its version."""

    def __init__(self, file: HashedFile, replaced: Counter[str], names: Sequence[str] = ()) -> None:
        self._file = file
        self._json = JsonText(replaced)
        self._names: Sequence[str] = ()
        self._chosen = names

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        if rows and not self._names:
            self.write_heading(self._chosen or list(rows[0]))
        known = set(self._names)
        if not all(row.keys() <= known for row in rows):
            raise ConversionFailed(
                "The rows have different columns, so they make no one table.",
                hint="Choose columns that all rows have with --columns.",
            )
        self._file.write("".join([self._line([row.get(name) for name in self._names]) for row in rows]).encode())

    def write_heading(self, names: Sequence[str]) -> None:
        """The names of the columns."""
        self._names = names
        self._file.write(self._line(names).encode())

    def end(self) -> None:
        """A part without rows has the names of its columns too."""
        if self._chosen and not self._names:
            self.write_heading(self._chosen)

    def _line(self, values: Sequence[Any]) -> str:
        line = "\t".join([self._text(value) for value in values])
        return f"{line or quoted('')}\n"  # readers leave out an empty line

    def _text(self, value: Any) -> str:
        if value is None:
            return ""
        text = self._json.text(value) if isinstance(value, (list, dict)) else str(value)
        return quoted(text) if _SPECIAL.search(text) else text


_SPECIAL = re.compile(r'[\t\r\n"]')


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
