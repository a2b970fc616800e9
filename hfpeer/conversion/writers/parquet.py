"""Parquet, in row groups of a bounded size. Rows that are no Arrow get their types from all rows of the part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpeer.conversion.rows.json_text import JsonText
from hfpeer.conversion.writers.hashed import HashedFile
from hfpeer.conversion.writers.types import TypeOfRows, as_types

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 32 * 1024 * 1024
"""Bytes of rows that make a row group, about."""
GROUP_ROWS = 100_000
ROWS = 1000
"""Rows that are made Arrow at a time."""


class ParquetWriter:
    """Writes batches of Arrow. Columns with pictures are marked for `datasets`."""

    def __init__(self, file: HashedFile) -> None:
        self._file = file
        self._writer: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = self._waiting_rows = 0

    def write(self, batch: pa.RecordBatch, media: Mapping[str, str]) -> None:
        """Adds rows. `media` are the columns with media, and what `datasets` calls these."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            schema = batch.schema.with_metadata(media_metadata(batch.schema, media))
            self._writer = pq.ParquetWriter(self._file, schema, compression="snappy")
        if batch.schema != self._writer.schema:
            batch = pa.table(batch).cast(self._writer.schema).combine_chunks().to_batches()[0]
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        self._waiting_rows += batch.num_rows
        if self._waiting_bytes >= GROUP_BYTES or self._waiting_rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting_rows:
            table = pa.Table.from_batches([batch.replace_schema_metadata() for batch in self._waiting])
            self._writer.write_table(table.replace_schema_metadata(self._writer.schema.metadata))
        self._waiting, self._waiting_bytes, self._waiting_rows = [], 0, 0

    def end(self, schema: pa.Schema | None = None) -> None:
        """Writes what is left, and a file without rows if there were none."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, schema or pa.schema([]), compression="snappy")
        self._flush()
        self._writer.close()


class RowParquetWriter:
    """Writes rows that are no Arrow: first as lines into a file of the part, then, when all types are known, as
    Parquet."""

    def __init__(self, file: HashedFile, spool: Path, replaced: Counter[str]) -> None:
        self._writer = ParquetWriter(file)
        self._spool = HashedFile(spool)
        self._json = JsonText(replaced)
        self._types = TypeOfRows()

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            self._types.add(row)
        self._spool.write(b"".join([self._json.line(row) for row in rows]))

    def end(self, media: Mapping[str, str]) -> None:
        """Makes the Parquet file. Columns of several types are text. `media` are the columns with media in them."""
        import pyarrow as pa

        self._spool.close()
        schema = with_media(self._types.schema(), media)
        waiting: list[dict[str, Any]] = []
        with self._spool.path.open("rb") as lines:
            for line in lines:
                waiting.append(as_types(self._json.parse(line), schema, self._json))
                if len(waiting) >= ROWS:
                    self._writer.write(pa.RecordBatch.from_pylist(waiting, schema=schema), media)
                    waiting = []
        if waiting:
            self._writer.write(pa.RecordBatch.from_pylist(waiting, schema=schema), media)
        self._writer.end(schema)
        self._spool.path.unlink()


def with_media(schema: pa.Schema, media: Iterable[str]) -> pa.Schema:
    """The schema with bytes in columns of pictures, which have been lines of base64."""
    import pyarrow as pa

    for name in media:
        index = schema.get_field_index(name)
        type_ = schema.field(index).type if index >= 0 else None
        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        if type_ is not None and pa.types.is_struct(type_):
            schema = schema.set(index, pa.field(name, picture))
        elif type_ is not None and pa.types.is_list(type_) and pa.types.is_struct(type_.value_type):
            schema = schema.set(index, pa.field(name, pa.list_(picture)))
    return schema


def media_metadata(schema: pa.Schema, media: Mapping[str, str]) -> dict[bytes, bytes] | None:
    """The metadata by which `datasets` knows columns of pictures; None without any. Other columns it knows by type, so
    that no version is asked for a feature that it lacks."""
    from hfpeer.conversion.rows.nesting import is_list
    from hfpeer.prepared.arrow.columns import is_media

    features: dict[str, Any] = {}
    for name, kind in media.items():
        index = schema.get_field_index(name)
        type_ = schema.field(index).type if index >= 0 else None
        if type_ is not None and is_media(type_):
            features[name] = {"_type": kind}
        elif type_ is not None and is_list(type_) and is_media(type_.value_type):
            features[name] = [{"_type": kind}]
    if not features:
        return None
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
