"""JSON: an object a line, one array of objects, or objects one after the other. Compressed files too."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from hfpeer.conversion.rows.json_text import TOO_DEEP, JsonText
from hfpeer.conversion.sources.batches import ROWS, TARGET_BYTES, Batch, LocalFile
from hfpeer.conversion.sources.opening import BLOCK_BYTES, contents, failing
from hfpeer.conversion.sources.selection import Selection
from hfpeer.errors import ConversionFailed

MAX_FIELD_BYTES = 256 * 1024 * 1024
"""Bytes of the largest file of which one field is taken: it has to be parsed as a whole."""
_BETWEEN = re.compile(r"[\s,]*")


class JsonSource:
    """Files of JSON. `reading` may say a `field`: then the rows are a list below that key of one object; and an
    encoding."""

    def __init__(self, reading: Mapping[str, Any], replaced: Counter[str]) -> None:
        self._reading = reading
        self._field = str(reading.get("field") or "")
        self._json = JsonText(replaced)

    def count(self, files: Sequence[LocalFile]) -> int:
        return sum(1 for _ in self._selected(files[0], Selection(0, 0)))

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        file, size_bytes = files[0], max(1, files[0].place.stat().st_size)
        rows: list[dict[str, Any]] = []
        first = taken_bytes = read_bytes = 0
        for row, (value, value_bytes) in enumerate(self._selected(file, selection)):
            if selection.ends_before(row):
                break
            read_bytes += value_bytes
            if value is None:
                continue
            if not isinstance(value, dict):
                raise ConversionFailed(f"{file.path}: row {row:,} is no object.", path=file.path)
            first = first if rows else row
            rows.append(value)
            taken_bytes += value_bytes
            if len(rows) >= ROWS or taken_bytes > TARGET_BYTES:
                yield Batch(
                    file.path, first, len(rows), rows=rows, done=min(1.0, read_bytes / size_bytes), is_plain=True
                )
                rows, taken_bytes = [], 0
        if rows:
            yield Batch(file.path, first, len(rows), rows=rows, done=1.0, is_plain=True)

    def _selected(self, file: LocalFile, selection: Selection) -> Iterator[tuple[Any, int]]:
        """The values of a file, and the bytes of each; None for a line that is not selected, which is not parsed."""
        row = 0
        with failing(file):
            for content in contents(file, self._reading):
                for value in self._values(content, file, selection, row):
                    yield value
                    row += 1

    def _values(self, content: IO[bytes], file: LocalFile, selection: Selection, row: int) -> Iterator[tuple[Any, int]]:
        if self._field:
            yield from self._of_field(content, file)
        elif self._is_lines(content):
            yield from self._lines(content, file, selection, row)
        else:
            text = io.TextIOWrapper(content, "utf-8-sig")
            try:
                yield from values_of(text, file, self._json)
            finally:
                text.detach()  # else it would close the file a second time

    def _lines(self, lines: IO[bytes], file: LocalFile, selection: Selection, row: int) -> Iterator[tuple[Any, int]]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            value = None
            if selection.wants_any(row, row + 1):
                try:
                    value = self._json.parse(line)
                except ValueError as error:
                    raise ConversionFailed(
                        f"{file.path}, line {number:,} is no JSON: {error}", path=file.path, line=number
                    ) from error
                value = value if value is not None else "null"
            yield value, len(line)
            row += 1

    def _is_lines(self, lines: IO[bytes]) -> bool:
        """Whether a file has an object a line. Leaves it at its start."""
        assert isinstance(lines, io.BufferedReader)
        head = lines.peek(BLOCK_BYTES).lstrip()
        if head[:1] != b"{":
            return not head
        line = head.partition(b"\n")[0].rstrip()
        return line.endswith(b"}") or b"\n" not in head

    def _of_field(self, content: IO[bytes], file: LocalFile) -> Iterator[tuple[Any, int]]:
        text = content.read(MAX_FIELD_BYTES + 1)
        if len(text) > MAX_FIELD_BYTES:
            raise ConversionFailed(
                f"{file.path} is one object of more than {MAX_FIELD_BYTES:,} bytes, of which one field is taken.",
                hint="Convert it with the `datasets` library.",
            )
        try:
            rows = self._json.parse(text)[self._field]
        except (ValueError, KeyError, TypeError) as error:
            raise ConversionFailed(f"{file.path} has no rows in a field {self._field!r}: {error!r}") from error
        if isinstance(rows, dict):  # by column
            rows = [dict(zip(rows, values, strict=False)) for values in zip(*rows.values(), strict=False)]
        yield from ((_row_of(row), 0) for row in rows)


def _row_of(value: Any) -> Any:
    """A value of an array as a row. Source: datasets `packaged_modules/json`: others than objects are a column text."""
    return value if isinstance(value, dict) else {"text": value}


def values_of(text: IO[str], file: LocalFile, parser: JsonText) -> Iterator[tuple[Any, int]]:
    """The values of an array as rows, or those of a text with one after the other, without reading all of it."""
    decoder = json.JSONDecoder(parse_constant=parser.constant)
    rest, block, is_end = text.read(BLOCK_BYTES).lstrip(), BLOCK_BYTES, False
    is_array = rest.startswith("[")
    at = int(is_array)
    while True:
        at += len(_BETWEEN.match(rest, at)[0])  # type: ignore[index] # it matches everywhere
        if is_array and rest.startswith("]", at):
            if rest[at + 1 :].strip() or text.read(BLOCK_BYTES).strip():
                raise ConversionFailed(f"{file.path} is no JSON: more follows after its array.", path=file.path)
            return
        if is_end and at == len(rest):
            if is_array:
                raise ConversionFailed(f"{file.path} is no JSON: its array does not end.", path=file.path)
            return
        try:
            value, end = decoder.raw_decode(rest, at) if at < len(rest) else (None, 0)
            # A number at the end of what was read may go on.
            if end and (end < len(rest) or is_end):
                value = parser.usable(value)
                yield _row_of(value) if is_array else value, end - at
                at, block = end, BLOCK_BYTES
                continue
        except RecursionError as error:
            raise ConversionFailed(f"{file.path} cannot be read: {TOO_DEEP}.", path=file.path) from error
        except ValueError as error:
            if is_end:
                raise ConversionFailed(f"{file.path} is no JSON: {error}", path=file.path) from error
        more = text.read(block)
        block *= 2  # a value that is larger than what was read is parsed again
        is_end = not more
        rest, at = rest[at:] + more, 0
