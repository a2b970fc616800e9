"""Files that only the `datasets` library reads: row by row, in a process of its own that has no network.

It is slower than the readers here, and its memory is its own. Builders that would run code of the files, such as
pickles of pandas, are not asked.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from hfpeer.conversion.sources import datasets_program
from hfpeer.conversion.sources.batches import ROWS, Batch, LocalFile
from hfpeer.conversion.sources.selection import Selection
from hfpeer.errors import ConversionFailed
from hfpeer.system.cancellation import check_stop

BUILDERS = frozenset({"conll", "eval", "fasta", "fastq", "genbank", "hdf5", "mmcif", "parquet", "pdb", "text", "xml"})
"""The builders that are asked: each makes rows of one file, and runs no code of it."""


class DatasetsSource:
    """Files of one builder. `reading` are the options that the config sets."""

    def __init__(self, builder: str, reading: Mapping[str, Any]) -> None:
        self._builder = builder
        self._reading = {key: value for key, value in reading.items() if value is not None}

    def count(self, files: Sequence[LocalFile]) -> int:
        return sum(batch.count for batch in self.batches(files, Selection(0, None)))

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        import pyarrow as pa

        file, row = files[0], 0
        for content in self._answers(file):
            check_stop()
            table = pa.ipc.open_stream(io.BytesIO(content)).read_all().combine_chunks()
            for batch in table.to_batches():
                if selection.wants_any(row, row + batch.num_rows):
                    yield Batch(file.path, row, batch.num_rows, batch)
                row += batch.num_rows
            if selection.ends_before(row):
                return

    def _answers(self, file: LocalFile) -> Iterator[bytes]:
        """What the program writes. It is ended when no more is wanted."""
        reader, writer = os.pipe()
        order = {"builder": self._builder, "path": str(file.place), "options": self._reading, "rows": ROWS}
        quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        try:
            process = subprocess.Popen(
                [sys.executable, str(datasets_program.__file__), str(writer), json.dumps(order)],
                env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(writer,),
            )
        finally:
            os.close(writer)
        try:
            with os.fdopen(reader, "rb") as pipe:
                yield from self._contents(pipe, file)
        finally:
            process.kill()
            process.wait()

    def _contents(self, pipe: IO[bytes], file: LocalFile) -> Iterator[bytes]:
        while True:
            length = int.from_bytes(self._read(pipe, 8, file), "big")
            if not length:
                return
            if length == datasets_program.ERROR:
                said = self._read(pipe, int.from_bytes(self._read(pipe, 8, file), "big"), file)
                raise ConversionFailed(
                    f"datasets cannot read {file.path}: {said.decode('utf-8', 'replace')}",
                    hint="It is an answer of the `datasets` beside hfpeer.",
                    path=file.path,
                )
            yield self._read(pipe, length, file)

    def _read(self, pipe: IO[bytes], count: int, file: LocalFile) -> bytes:
        content = pipe.read(count)
        if len(content) < count:
            raise ConversionFailed(
                f"The process in which datasets reads {file.path} ended early: it was killed, or the memory was full.",
                hint="Run the command again; what is done is kept.",
            )
        return content
