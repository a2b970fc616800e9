"""Joins the files of the parts of a split to one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfpeer.conversion.writers.hashed import HashedFile
from hfpeer.errors import ConversionFailed
from hfpeer.system.cancellation import check_stop

BLOCK_BYTES = 1024 * 1024


def joined(format: str, parts: Sequence[Path], target: Path) -> tuple[int, str]:
    """Writes the parts, in order, as one file. Returns its size and SHA-256. Raises ConversionFailed for parts whose
    columns do not go together."""
    with HashedFile(target) as file:
        if format == "parquet":
            _join_parquet(parts, file)
        else:
            _join_lines(parts, file, has_heading=format == "tsv")
    return file.size_bytes, file.sha256


def _join_lines(parts: Sequence[Path], file: HashedFile, *, has_heading: bool) -> None:
    """A part without rows has a heading for the case that no part has rows; it decides nothing else."""
    heading: bytes | None = None
    without_rows = b""
    for part in parts:
        with part.open("rb") as source:
            if has_heading:
                first = source.readline()
                if source.tell() == part.stat().st_size:
                    without_rows = without_rows or first
                elif first and heading is None:
                    heading = first
                    file.write(first)
                elif first and first != heading:
                    raise ConversionFailed(
                        "The parts of a split have different columns, so they make no one table.",
                        hint="Choose columns that all rows have with --columns.",
                    )
            while block := source.read(BLOCK_BYTES):
                check_stop()
                file.write(block)
    if heading is None:
        file.write(without_rows)


def with_one_schema(parts: Sequence[Path], folder: Path) -> dict[Path, tuple[Path, int, str]]:
    """Writes those Parquet files anew, into `folder`, whose schema is not the one that all rows have together. By part:
    the new file, its size and its SHA-256. Raises ConversionFailed for types that do not go together."""
    import pyarrow.parquet as pq

    schema = _one_schema(parts)
    made = {}
    for number, part in enumerate(parts):
        if not pq.read_schema(part).equals(schema, check_metadata=False):
            fresh = folder / f"{number:06}.one-schema.partial"
            with HashedFile(fresh) as file:
                _write_parquet([part], file, schema)
            made[part] = (fresh, file.size_bytes, file.sha256)
    return made


def _join_parquet(parts: Sequence[Path], file: HashedFile) -> None:
    _write_parquet(parts, file, _one_schema(parts))


def _one_schema(parts: Sequence[Path]) -> Any:
    """The schema that the rows of all parts have together; without rows that of the first part with columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(part) for part in parts]
    with_rows = [schema for part, schema in zip(parts, schemas, strict=True) if pq.read_metadata(part).num_rows]
    with_columns = with_rows or [schema for schema in schemas if schema.names][:1] or schemas[:1]
    try:
        return pa.unify_schemas(with_columns, promote_options="permissive")
    except pa.ArrowException as error:
        raise ConversionFailed(
            f"The files of a split have columns of different types: {error}", hint="Choose columns with --columns."
        ) from error


def _write_parquet(parts: Sequence[Path], file: HashedFile, schema: Any) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="snappy") as writer:
        for part in parts:
            with pq.ParquetFile(part, pre_buffer=False) as source:
                for index in range(source.num_row_groups):
                    check_stop()
                    writer.write_table(_with_schema(source.read_row_group(index), schema))


def _with_schema(table: Any, schema: Any) -> Any:
    import pyarrow as pa

    columns = [
        _cast(table.column(field.name), field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _cast(column: Any, type_: Any) -> Any:
    import pyarrow as pa

    try:
        return column.cast(type_)
    except pa.ArrowException:  # older versions give no struct a new field
        return pa.chunked_array([pa.array(column.to_pylist(), type_)], type_)
