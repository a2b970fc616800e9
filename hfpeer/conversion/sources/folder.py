"""Folders and zips of pictures or sounds. Without a list of them, the folder of a picture is its label.

With such a list, `metadata.jsonl`, `.csv` or `.parquet`, its rows are the rows, and `file_name` and `X_file_name` name
the pictures (`listed`). Source: datasets `packaged_modules/folder_based_builder`.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hfpeer.conversion.media.zips import ZipIndex
from hfpeer.conversion.rows.media_columns import Picture
from hfpeer.conversion.rows.plain import PlainValues
from hfpeer.conversion.sources.batches import Batch, LocalFile, Source
from hfpeer.conversion.sources.selection import Selection
from hfpeer.errors import ConversionFailed

COLUMNS = {"imagefolder": "image", "audiofolder": "audio", "videofolder": "video", "pdffolder": "pdf"}
"""By builder: the column of what lies in the folders."""
LISTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
PART_FILES = 1000
"""Pictures of one part."""
NO_MEDIA = frozenset({"", "csv", "gitattributes", "json", "jsonl", "md", "parquet", "txt", "xml", "yaml", "yml"})
"""Suffixes of files that lie beside pictures."""


class FolderSource:
    """Pictures in folders, or in a zip. `reading` may say `labels`: each row has the name of its folder."""

    def __init__(self, builder: str, reading: Mapping[str, Any]) -> None:
        self._column = COLUMNS[builder]
        self._has_labels = bool(reading.get("labels"))

    def count(self, files: Sequence[LocalFile]) -> int:
        if is_zip(files[0].path):
            with _opened(files[0]) as index:
                return len(media_of(index.names))
        return len(files)

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        if is_zip(files[0].path):
            yield from self._of_zip(files[0], selection)
            return
        for row, file in enumerate(files):
            if selection.wants_any(row, row + 1):
                rows = [self._row(file.path, file.path)]
                yield Batch("", row, 1, rows=rows, done=(row + 1) / len(files))

    def _of_zip(self, file: LocalFile, selection: Selection) -> Iterator[Batch]:
        with _opened(file) as index:
            names = media_of(index.names)
            for row, name in enumerate(names):
                if selection.wants_any(row, row + 1):
                    rows = [self._row(f"zip://{name}::{file.path}", name)]
                    yield Batch("", row, 1, rows=rows, done=(row + 1) / len(names))

    def _row(self, address: str, path: str) -> dict[str, Any]:
        row: dict[str, Any] = {self._column: Picture(None, address)}
        if self._has_labels:
            row["label"] = label_of(path)
        return row


class ListedSource:
    """The rows of a list of pictures; what reads the list is handed in."""

    def __init__(self, builder: str, rows: Source, replaced: Counter[str]) -> None:
        self._column = COLUMNS[builder]
        self._source = rows
        self._plain = PlainValues(replaced)

    def count(self, files: Sequence[LocalFile]) -> int:
        return self._source.count(files)

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        for batch in self._source.batches(files, selection):
            rows = batch.rows if batch.arrow is None else self._plain.rows(batch.arrow)
            yield replace(batch, arrow=None, rows=[self._named(row, batch.file) for row in rows], is_plain=False)

    def _named(self, row: Mapping[str, Any], file: str) -> dict[str, Any]:
        names = name_columns(list(row), self._column)
        twice = next((name for name in names.values() if name in row and name not in names), None)
        if twice is not None:
            raise ConversionFailed(f"{file} has pictures for a column {twice!r}, and such a column too.", path=file)
        return {names.get(key, key): _pictures(value) if key in names else value for key, value in row.items()}


def _pictures(names: Any) -> Any:
    if isinstance(names, list):
        return [_pictures(name) for name in names]
    return Picture(None, names) if isinstance(names, str) else None


def is_zip(path: str) -> bool:
    return path.lower().endswith(".zip")


def is_list(path: str) -> bool:
    """Whether a file is the list of the pictures beside it."""
    return posixpath.basename(path) in LISTS


def label_of(path: str) -> str:
    """The name of the folder in which a file lies."""
    return posixpath.basename(posixpath.dirname(path))


def media_of(paths: Sequence[str]) -> list[str]:
    """The files that are pictures or the like, and neither lists nor zips."""
    return [path for path in paths if path.rpartition(".")[2].lower() not in NO_MEDIA | {"zip"} and not is_list(path)]


def has_labels(paths: Sequence[str]) -> bool:
    """Whether the folders of pictures are labels: there are several, and all lie at one depth."""
    folders = {label_of(path) for path in paths}
    depths = {path.count("/") for path in paths}
    return len(folders) > 1 and len(depths) == 1


def name_columns(names: Sequence[str], column: str) -> dict[str, str]:
    """The columns of a list that name pictures, and what the pictures are called."""
    found: dict[str, str] = {}
    for name in names:
        for end, several in (("file_name", ""), ("file_names", "s")):
            if name == end:
                found[name] = column + several
            elif name.endswith(f"_{end}"):
                found[name] = name.removesuffix(f"_{end}")
    return found


def _opened(file: LocalFile) -> ZipIndex:
    try:
        return ZipIndex(file.place)
    except zipfile.BadZipFile as error:
        raise ConversionFailed(f"{file.path} cannot be read as a zip: {error}", path=file.path) from error
