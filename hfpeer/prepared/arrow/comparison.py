"""Compares the rows of a set with the files of the commit that it was made of, without running anybody's code.

Both are read side by side in small parts. Values are compared, not encodings: the same rows have other bytes in Parquet
and in Arrow, and in batches of other sizes. Where the builder of `datasets` changes values in a way that is not known
here, the comparison says so and decides nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpeer.prepared.arrow.shards import batches, opened
from hfpeer.prepared.hashing import OnBytes
from hfpeer.system.cancellation import check_stop

if TYPE_CHECKING:
    import pyarrow as pa

COMPARABLE = frozenset({"parquet", "json", "csv", "text", "arrow"})
"""The builders whose files can be read here."""
ROWS = 1000
"""At most this many rows are compared at a time."""
BLOCK_BYTES = 8 * 1024 * 1024
"""Bytes of a file of lines that are parsed at a time."""
BUFFER_BYTES = 1024 * 1024
"""Bytes read ahead of a Parquet file. Without this bound a whole row group would be in memory."""
CSV_ROWS = 10_000
"""Rows that `datasets` reads from CSV at a time; pandas guesses types for each such part. Source: datasets
`packaged_modules/csv`."""
PACKED = (
    *(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"),
    *(b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf"),
)
"""How packed files begin: gzip, bzip2, xz, zstd, lz4, zip, rar, 7z. `datasets` unpacks them. Source: datasets
`utils/extract`."""
MAX_JSON_BYTES = 256 * 1024 * 1024
"""Bytes of the largest JSON file that is one array: it has to be parsed as a whole."""


@dataclass(frozen=True)
class Difference:
    """The first row of a split that differs, from 0, and how."""

    split: str
    row: int
    column: str
    reason: str

    def __str__(self) -> str:
        where = f", column {self.column}" if self.column else ""
        return f"split {self.split}, row {self.row:,}{where}: {self.reason}"


class NotComparable(Exception):
    """The files cannot be compared with the set here; the text says why."""


@dataclass(frozen=True)
class SplitSources:
    """A split: its shards, and the files of the snapshot that it is made of, in order. `reading` are the options of the
    builder that change how files are read, such as the separator of CSV."""

    name: str
    shards: tuple[Path, ...]
    files: tuple[Path, ...]
    builder: str
    reading: Mapping[str, Any]


def compare_split(split: SplitSources, on_bytes: OnBytes = lambda count: None) -> Difference | None:
    """The first difference between a split and its files; None if they are equal.

    Raises NotComparable, CorruptData for a shard that cannot be read, and OSError.
    """
    import pyarrow as pa

    if split.builder not in COMPARABLE:
        raise NotComparable(f"files of the builder {split.builder!r} cannot be read back here")
    with opened(split.shards[0]) as reader:
        schema = reader.schema
    labels = _labels(schema)
    ours = _cut(_arrow_tables(split.shards))
    theirs = _cut(_source_tables(split, schema, labels, on_bytes))
    try:
        return _compare(split.name, ours, theirs)
    except (pa.ArrowException, UnicodeDecodeError, ValueError) as error:
        raise NotComparable(f"its files cannot be read as its columns: {str(error)[:200]}") from error


def compare_sets(split: str, ours: Sequence[Path], theirs: Sequence[Path]) -> Difference | None:
    """The first difference between the shards of one split in two sets, by value. Raises CorruptData."""
    return _compare(split, _cut(_arrow_tables(ours)), _cut(_arrow_tables(theirs)))


def _compare(split: str, ours: Iterator[pa.Table], theirs: Iterator[pa.Table]) -> Difference | None:
    """Compares two streams of rows, cut to equal parts."""
    row = 0
    left, right = next(ours, None), next(theirs, None)
    while left is not None and right is not None:
        check_stop()
        count = min(left.num_rows, right.num_rows)
        mine, other = left.slice(0, count), right.slice(0, count)
        if not _are_equal(mine, other):
            return _first_difference(split, row, mine, other)
        row += count
        left = left.slice(count) if count < left.num_rows else next(ours, None)
        right = right.slice(count) if count < right.num_rows else next(theirs, None)
    if left is None and right is None:
        return None
    more = "the set has more rows than it should" if right is None else "the set ends too early"
    return Difference(split, row, "", more)


def _are_equal(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether all values are equal. Arrow says that NaN is not equal to NaN; such parts are compared as texts."""
    return ours.equals(theirs) or (_has_floats(ours.schema) and str(ours.to_pylist()) == str(theirs.to_pylist()))


def _has_floats(schema: pa.Schema) -> bool:
    return "float" in str(schema.types) or "double" in str(schema.types)


def _cut(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables in parts of at most ROWS rows, without empty ones."""
    for table in tables:
        for start in range(0, table.num_rows, ROWS):
            yield table.slice(start, ROWS)


def _arrow_tables(shards: Iterable[Path]) -> Iterator[pa.Table]:
    import pyarrow as pa

    for shard in shards:
        for batch in batches(shard):
            yield pa.Table.from_batches([batch])


def _first_difference(split: str, start: int, ours: pa.Table, theirs: pa.Table) -> Difference:
    """Finds the first row and column that differ."""
    for row in range(ours.num_rows):
        one, other = ours.slice(row, 1), theirs.slice(row, 1)
        if not _are_equal(one, other):
            names = [name for name in one.column_names if not _are_equal(one.select([name]), other.select([name]))]
            shown = [str(table.column(names[0])[0].as_py())[:80] for table in (one, other)] if names else ["", ""]
            return Difference(
                split, start + row, ", ".join(names), f"the set has {shown[0]!r}, the commit has {shown[1]!r}"
            )
    return Difference(split, start, "", "the values differ")


# The files of the commit as tables with the columns of the set


def _source_tables(
    split: SplitSources, schema: pa.Schema, labels: Mapping[str, Sequence[str]], on_bytes: OnBytes
) -> Iterator[pa.Table]:
    readers = {"parquet": _parquet, "json": _json, "csv": _csv, "text": _text, "arrow": _arrow}
    for path in split.files:
        if not path.is_file():
            raise NotComparable(f"{path} is not here")
        if split.builder in ("json", "text") and _is_packed(path):
            raise NotComparable(f"{path.name} is packed, and is not unpacked here")
        for table in readers[split.builder](path, schema, labels, split.reading):
            yield _as_columns(table, schema, labels)
        on_bytes(path.stat().st_size)


def _parquet(path: Path, schema: pa.Schema, labels: object, reading: Mapping[str, Any]) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if reading.get("filters") is not None:
        raise NotComparable("its config filters rows")
    with path.open("rb") as source, pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
        names = [name for name in file.schema_arrow.names if name in schema.names]
        for batch in file.iter_batches(batch_size=ROWS, columns=names):
            yield pa.Table.from_batches([batch])


def _arrow(path: Path, schema: pa.Schema, labels: object, reading: object) -> Iterator[pa.Table]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
            for batch in stream:
                yield pa.Table.from_batches([batch])
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            for index in range(file.num_record_batches):
                yield pa.Table.from_batches([file.get_batch(index)])


def _json(
    path: Path, schema: pa.Schema, labels: Mapping[str, Sequence[str]], reading: Mapping[str, Any]
) -> Iterator[pa.Table]:
    """Lines of JSON, parsed in blocks as the columns of the set; a file that is one array is parsed as a whole."""
    import pyarrow.json as pj

    if reading.get("field"):
        raise NotComparable("its config takes one field of each file")
    if _is_array(path):
        yield from _json_array(path, schema, labels)
        return
    others = "infer" if labels else "ignore"  # a label may be a name or a number there
    options = pj.ParseOptions(explicit_schema=_raw(schema, labels), unexpected_field_behavior=others)
    for block in _line_blocks(path):
        read = pj.ReadOptions(block_size=max(len(block) + 1, 1024))
        yield pj.read_json(io.BytesIO(block), read_options=read, parse_options=options)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith(PACKED)


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip()[:1] == b"["


def _json_array(path: Path, schema: pa.Schema, labels: Mapping[str, Sequence[str]]) -> Iterator[pa.Table]:

    if path.stat().st_size > MAX_JSON_BYTES:
        raise NotComparable(f"{path.name} is one array of more than {MAX_JSON_BYTES:,} bytes")
    rows = json.loads(path.read_bytes())
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NotComparable(f"{path.name} is no list of objects")
    for start in range(0, len(rows), ROWS):
        yield _of_rows(rows[start : start + ROWS], schema, labels)


def _of_rows(rows: list[dict[str, Any]], schema: pa.Schema, labels: Mapping[str, Sequence[str]]) -> pa.Table:
    import pyarrow as pa

    table = pa.Table.from_pylist(rows, schema=_raw(schema, labels))
    for name in labels:
        table = table.append_column(name, pa.array([row.get(name) for row in rows]))
    return table


def _csv(path: Path, schema: pa.Schema, labels: object, reading: Mapping[str, Any]) -> Iterator[pa.Table]:
    """Read by pandas in the same parts as `datasets` does, because pandas guesses types part by part."""
    import pandas as pd
    import pyarrow as pa

    # A text column is read as texts: a guess would take the zeros off "001".
    texts = {field.name: "object" for field in schema if pa.types.is_string(field.type)}
    options = {"dtype": texts, **{key: value for key, value in reading.items() if value is not None}}
    with pd.read_csv(path, iterator=True, chunksize=CSV_ROWS, **options) as parts:
        for part in parts:
            if "index_col" not in options and not isinstance(part.index, pd.RangeIndex):
                raise NotComparable(f"{path.name} has rows with more values than its heading has names")
            yield pa.Table.from_pandas(part, preserve_index=False)


def _text(path: Path, schema: pa.Schema, labels: object, reading: Mapping[str, Any]) -> Iterator[pa.Table]:
    import pyarrow as pa

    if reading.get("sample_by", "line") != "line" or reading.get("keep_linebreaks"):
        raise NotComparable("its config does not read lines")
    name, errors = schema.names[0], reading.get("encoding_errors")
    with path.open(encoding=reading.get("encoding") or "utf-8", errors=errors) as text:
        # A line ends only where `datasets` ends it: str.splitlines would split at U+2028 and others too.
        while lines := [line.rstrip("\n") for line in islice(text, ROWS)]:
            check_stop()
            yield pa.table({name: pa.array(lines, pa.string())})


def _line_blocks(path: Path) -> Iterator[bytes]:
    """The file in blocks of whole lines. A line is as long as it is."""
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(BLOCK_BYTES):
            check_stop()
            end = chunk.rfind(b"\n") + 1
            if not end:
                rest += chunk
                continue
            block, rest = rest + chunk[:end], chunk[end:]
            if block.strip():
                yield block
    if rest.strip():
        yield rest


def _raw(schema: pa.Schema, labels: Mapping[str, Sequence[str]]) -> pa.Schema:
    """The columns as they are in JSON: names of labels are texts there, or numbers."""
    import pyarrow as pa

    return pa.schema([field for field in schema if field.name not in labels])


def _as_columns(table: pa.Table, schema: pa.Schema, labels: Mapping[str, Sequence[str]]) -> pa.Table:
    """A table of a source file with the columns and types of the set; a column that it lacks is null."""
    import pyarrow as pa

    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)], type=field.type))
            continue
        column = table.column(field.name)
        if field.name in labels and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = _label_numbers(column, labels[field.name])
        columns.append(column.cast(field.type) if column.type != field.type else column)
    return pa.table(columns, schema=schema)


def _label_numbers(column: pa.ChunkedArray, names: Sequence[str]) -> pa.ChunkedArray:
    """The numbers of labels that a file gives by name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pc.index_in(column, value_set=pa.array(names, column.type)).cast(pa.int64())
    if pc.any(pc.and_(pc.is_null(numbers), pc.is_valid(column))).as_py():
        raise NotComparable("a label has a name that the features do not list")
    return numbers


def _labels(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """By column: the names of its labels, from the features in the metadata of the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
