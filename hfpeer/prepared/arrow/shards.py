"""Reads and writes the shards of a set: Arrow streams, batch by batch, with memory that does not grow with their size.

A shard is written with other paths, never in place, or only hashed where no column can name a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpeer.cache.disk.linking import place_file
from hfpeer.errors import CorruptData
from hfpeer.prepared.arrow.columns import Rewrite, media_columns, paths_in, rewritten
from hfpeer.prepared.hashing import OnBytes, hashed
from hfpeer.prepared.manifest import SetFile
from hfpeer.prepared.media import looks_foreign
from hfpeer.system.cancellation import check_stop

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLED_ROWS = 200
"""Rows of each shard whose ordinary texts are looked at for paths of another machine."""


@dataclass(frozen=True)
class NamedFile:
    """A path in a set, or a text that looks like one. `row` counts in the shard, from 0."""

    shard: str
    row: int
    column: str
    text: str

    def __str__(self) -> str:
        return f"row {self.row:,} of {self.shard}, column {self.column}: {self.text[:200]}"


@contextmanager
def opened(path: Path) -> Iterator[pa.RecordBatchStreamReader]:
    """An Arrow file as `datasets` writes it. Raises CorruptData for a file that is cut short or no Arrow stream."""
    import pyarrow as pa

    try:
        if path.is_symlink():
            raise OSError("it is a link")
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            yield reader
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, OSError) as error:
        raise CorruptData(
            f"{path} cannot be read as Arrow: {str(error)[:200]}.",
            hint="It was cut short or damaged. `hfpeer dataset prepare` makes the set again.",
            path=str(path),
        ) from error


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a shard. Raises CorruptData."""
    with opened(path) as reader:
        while True:
            check_stop()
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            yield batch


def can_name_files(path: Path) -> bool:
    """Whether a column of a shard can name files by path. Raises CorruptData."""
    with opened(path) as reader:
        return bool(media_columns(reader.schema))


def paths_of(path: Path) -> Iterator[NamedFile]:
    """Every path without bytes in a shard, with its place. Raises CorruptData."""
    if not can_name_files(path):
        return
    start = 0
    for batch in batches(path):
        for name in media_columns(batch.schema):
            for row, text in paths_in(batch.column(batch.schema.get_field_index(name))):
                yield NamedFile(path.name, start + row, name, text)
        start += batch.num_rows


def foreign_texts(path: Path) -> list[NamedFile]:
    """Texts in ordinary columns of the first rows that look like paths of some machine, one for each column."""
    from pyarrow import types

    found = []
    for batch in batches(path):
        sample = batch.slice(0, SAMPLED_ROWS)
        for index, field in enumerate(batch.schema):
            if types.is_string(field.type) or types.is_large_string(field.type):
                texts = enumerate(sample.column(index).to_pylist())
                first = next(((row, text) for row, text in texts if text and looks_foreign(text)), None)
                if first is not None:
                    found.append(NamedFile(path.name, first[0], field.name, first[1]))
        break
    return found


def rows_of(path: Path) -> int:
    """The rows of a shard. Raises CorruptData."""
    return sum(batch.num_rows for batch in batches(path))


def write_shard(source: Path, target: Path, rewrite: Rewrite, on_bytes: OnBytes = lambda count: None) -> SetFile:
    """Writes a shard with other paths to `target`, a new file; a shard without media becomes a copy with the same
    bytes. Returns the facts of the new file. Raises CorruptData, OSError, and what `rewrite` raises."""
    if not can_name_files(source):
        place_file(source, target, on_chunk=on_bytes)
        return hashed(target, target.name)
    with target.open("xb") as file:
        sink = _Hashing(file)
        _write_rewritten(source, sink, rewrite, on_bytes)
        file.flush()
        os.fsync(file.fileno())
    return SetFile(target.name, sink.size_bytes, sink.digest.hexdigest())


def canonical_facts(source: Path, rewrite: Rewrite, on_bytes: OnBytes = lambda count: None) -> SetFile:
    """The size and hash that `write_shard` would give, without writing."""
    if not can_name_files(source):
        return hashed(source, source.name, on_bytes)
    sink = _Hashing(None)
    _write_rewritten(source, sink, rewrite, on_bytes)
    return SetFile(source.name, sink.size_bytes, sink.digest.hexdigest())


def _write_rewritten(source: Path, sink: _Hashing, rewrite: Rewrite, on_bytes: OnBytes) -> None:
    """Streams the record batches of a shard with other paths."""
    import pyarrow as pa

    with opened(source) as reader:
        schema = reader.schema
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in batches(source):
            writer.write_batch(rewritten(batch, rewrite))
            on_bytes(batch.nbytes)


class _Hashing:
    """A file that hashes what is written to it, and passes it on to another file if there is one."""

    closed = False

    def __init__(self, file: Any) -> None:
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self._file = file

    def write(self, chunk: Any) -> int:
        view = memoryview(chunk)
        self.digest.update(view)
        self.size_bytes += view.nbytes
        if self._file is not None:
            self._file.write(view)
        return view.nbytes

    def tell(self) -> int:
        return self.size_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
