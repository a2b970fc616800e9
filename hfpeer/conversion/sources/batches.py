"""What a source gives: some rows, as Arrow or as Python values, with the row of the part at which they begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hfpeer.conversion.sources.selection import Selection

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1000
"""At most this many rows are read at a time."""
TARGET_BYTES = 8 * 1024 * 1024
"""Bytes that the rows of one batch take, about."""


@dataclass(frozen=True)
class LocalFile:
    """A file of the commit, and where it lies here."""

    path: str
    place: Path


@dataclass(frozen=True)
class Batch:
    """Rows of one file of a part; `file` is empty where the rows name their files from the root of the commit. `first`
    is the place of the first row in the part; `done` is the share of the part that has been read, 0 where that is not
    known. `is_plain`: the rows have values of JSON only."""

    file: str
    first: int
    count: int
    arrow: pa.RecordBatch | None = None
    rows: Sequence[dict[str, Any]] = ()
    done: float = 0.0
    is_plain: bool = False


class Source(Protocol):
    """A kind of files."""

    def count(self, files: Sequence[LocalFile]) -> int:
        """The rows in the files of a part. Raises ConversionFailed if one cannot be read."""
        ...

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        """The rows of a part. It may leave out what is not selected. Raises ConversionFailed."""
        ...
