"""JSON: an object a line, one array of objects, or objects one after the other. Compressed files too."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hfpeer.conversion.rows.json_text import JsonText
from hfpeer.conversion.selection import Selection
from hfpeer.conversion.sources.batches import ROWS, TARGET_BYTES, Batch, LocalFile
from hfpeer.errors import ConversionFailed

BLOCK_BYTES = 1024 * 1024
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
MAX_FIELD_BYTES = 256 * 1024 * 1024
"""Bytes of the largest file of which one field is taken: it has to be parsed as a whole."""


class JsonSource:
    """Files of JSON. With `field`, the rows are a list below that key of one object."""

    def __init__(self, reading: Mapping[str, Any], replaced: Counter[str]) -> None:
        self._field = str(reading.get("field") or "")
        self._json = JsonText(replaced)

    def count(self, files: Sequence[LocalFile]) -> int:
        with opened(files[0].place) as lines:
            if self._is_lines(lines):
                return sum(1 for line in lines if line.strip())
        return sum(1 for _ in self._values(files[0]))

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
        with opened(file.place) as lines:
            if self._is_lines(lines):
                yield from self._lines(lines, file, selection)
                return
        yield from self._values(file)

    def _lines(self, lines: IO[bytes], file: LocalFile, selection: Selection) -> Iterator[tuple[Any, int]]:
        row = 0
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
        if self._field:
            return False
        assert isinstance(lines, io.BufferedReader)
        head = lines.peek(BLOCK_BYTES).lstrip()
        if head[:1] != b"{":
            return not head
        line = head.partition(b"\n")[0].rstrip()
        return line.endswith(b"}") or b"\n" not in head

    def _values(self, file: LocalFile) -> Iterator[tuple[Any, int]]:
        if self._field:
            yield from self._of_field(file)
            return
        with opened(file.place) as raw:
            text = io.TextIOWrapper(raw, "utf-8-sig")
            try:
                yield from values_of(text, file, self._json)
            finally:
                text.detach()  # else it would close the file a second time

    def _of_field(self, file: LocalFile) -> Iterator[tuple[Any, int]]:
        if file.place.stat().st_size > MAX_FIELD_BYTES:
            raise ConversionFailed(
                f"{file.path} is one object of more than {MAX_FIELD_BYTES:,} bytes, of which one field is taken.",
                hint="Convert it with the `datasets` library.",
            )
        try:
            with opened(file.place) as raw:
                rows = self._json.parse(raw.read())[self._field]
        except (ValueError, KeyError, TypeError) as error:
            raise ConversionFailed(f"{file.path} has no rows in a field {self._field!r}: {error!r}") from error
        if isinstance(rows, dict):  # by column
            rows = [dict(zip(rows, values, strict=False)) for values in zip(*rows.values(), strict=False)]
        yield from ((row, 0) for row in rows)


def values_of(text: IO[str], file: LocalFile, parser: JsonText) -> Iterator[tuple[Any, int]]:
    """The values of an array, or of a text with one after the other, without reading all of it."""
    decoder = json.JSONDecoder(parse_constant=parser.constant)
    rest, is_first, is_end, block = "", True, False, BLOCK_BYTES
    while True:
        rest = rest.lstrip(" \t\r\n,")
        if is_first and rest.startswith("["):
            rest = rest[1:].lstrip()
        is_first = is_first and not rest
        if rest.startswith("]") or (is_end and not rest):
            return
        try:
            value, end = decoder.raw_decode(rest) if rest else (None, 0)
            # A number at the end of what was read may go on.
            if end and (end < len(rest) or is_end):
                yield parser.usable(value), end
                rest, block = rest[end:], BLOCK_BYTES
                continue
        except ValueError as error:
            if is_end:
                raise ConversionFailed(f"{file.path} is no JSON: {error}", path=file.path) from error
        more = text.read(block)
        block *= 2  # a value that is larger than what was read is parsed again
        is_end = not more
        rest += more


@contextmanager
def opened(place: Path) -> Iterator[Any]:
    """The bytes of a file, unpacked if its name says so."""
    # The name of a snapshot: what it leads to is named by its hash.
    compression = COMPRESSIONS.get(place.suffix.lower())
    if compression is None:
        with io.BufferedReader(io.FileIO(place), BLOCK_BYTES) as file:
            yield file
        return
    import pyarrow as pa

    with (
        pa.OSFile(str(place)) as packed,
        pa.CompressedInputStream(packed, compression) as raw,
        io.BufferedReader(raw, BLOCK_BYTES) as file,
    ):
        yield file
