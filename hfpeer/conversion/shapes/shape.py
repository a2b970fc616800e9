"""Finds the shape that the user chose, and the files that it needs beside the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hfpeer.conversion.options import ConversionOptions

Row = dict[str, Any]
Shape = Callable[[Sequence[Row], int], Sequence[Row]]
"""Called with rows and with the number of rows before them in the part; gives the rows to write."""


def shape_of(options: ConversionOptions, split: str, media_columns: Mapping[str, bool]) -> Shape:
    """The shape of the rows of a split. `media_columns` are known only when the first rows have been made."""
    return lambda rows, before: rows


def side_files(options: ConversionOptions, files: Mapping[str, str]) -> dict[str, bytes]:
    """The files beside the rows, by name. `files` are the files of rows, by split."""
    return {}
