"""Parquet and Arrow files, read page by page: memory does not depend on the size of a row group.

Files are mapped, so that a page that is not compressed, as those of pictures, is not copied before its rows are made.
Files of a cache are never changed, only replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hfpeer.conversion.sources.batches import ROWS, Batch, LocalFile
from hfpeer.conversion.sources.selection import Selection
from hfpeer.errors import ConversionFailed

BATCH_BYTES = 2 * 1024 * 1024
"""Bytes that the rows of one batch take, about. Arrow needs a multiple of it while it makes a batch."""


class ParquetSource:
    """Parquet files. `columns` are those to read; empty means all."""

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._columns = list(columns) or None

    def count(self, files: Sequence[LocalFile]) -> int:
        with _opened(files[0]) as opened:
            return int(opened.metadata.num_rows)

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        file = files[0]
        with _opened(file) as opened:
            total, row = max(1, opened.metadata.num_rows), 0
            for index in range(opened.metadata.num_row_groups):
                group = opened.metadata.row_group(index)
                if selection.wants_any(row, row + group.num_rows):
                    size = batch_rows(group.num_rows, group.total_byte_size)
                    here = row
                    for batch in opened.iter_batches(
                        batch_size=size, row_groups=[index], columns=self._columns, use_threads=False
                    ):
                        here += batch.num_rows
                        start = here - batch.num_rows
                        yield Batch(file.path, start, batch.num_rows, batch, done=here / total)
                        if selection.ends_before(here):
                            return
                row += group.num_rows


class ArrowSource:
    """Arrow files, as `datasets` and pyarrow write them."""

    def count(self, files: Sequence[LocalFile]) -> int:
        return sum(batch.num_rows for batch in self._read(files[0]))

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        file, row = files[0], 0
        for whole in self._read(file):
            size = batch_rows(whole.num_rows, whole.nbytes)
            for start in range(0, whole.num_rows, size):
                batch = whole.slice(start, size)
                if selection.wants_any(row, row + batch.num_rows):
                    yield Batch(file.path, row, batch.num_rows, batch)
                row += batch.num_rows
            if selection.ends_before(row):
                return

    def _read(self, file: LocalFile) -> Iterator[Any]:
        import pyarrow as pa

        with _failing(file), pa.memory_map(str(file.place)) as mapped:
            try:
                yield from pa.ipc.open_stream(mapped)
            except pa.ArrowInvalid:
                opened = pa.ipc.open_file(mapped)
                for index in range(opened.num_record_batches):
                    yield opened.get_batch(index)


def batch_rows(rows: int, size_bytes: int) -> int:
    """How many rows are read at a time, so that a batch has a bounded size."""
    return max(1, min(ROWS, BATCH_BYTES * rows // max(size_bytes, 1)))


def schema_of(file: LocalFile) -> Any:
    """The Arrow schema of a Parquet file."""
    with _opened(file) as opened:
        return opened.schema_arrow


def text_leaves(file: LocalFile, names: Sequence[str]) -> tuple[str, ...]:
    """The leaves of these columns that have texts, by their paths in the file: writers name the items of lists
    differently."""
    with _opened(file) as opened:
        leaves = [opened.schema.column(index) for index in range(len(opened.schema))]
    texts = [leaf.path for leaf in leaves if leaf.converted_type == "UTF8" or leaf.logical_type.type == "STRING"]
    return tuple(path for path in texts if any(path == name or path.startswith(f"{name}.") for name in names))


@contextmanager
def _opened(file: LocalFile) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with (
        _failing(file),
        pq.ParquetFile(str(file.place), memory_map=True, pre_buffer=False) as opened,
    ):
        yield opened


@contextmanager
def _failing(file: LocalFile) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the file
        raise ConversionFailed(
            f"{file.path} cannot be read: {str(error)[:300]}",
            hint="Its bytes are those of the commit; the file itself is not what its name says.",
            path=file.path,
        ) from error
