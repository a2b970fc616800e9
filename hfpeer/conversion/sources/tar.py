"""Tars in which the files of one row have one name but for their suffixes, as webdataset lays them out.

A row ends where the name changes. Source: datasets `packaged_modules/webdataset`, `base_plus_ext`, `DECODERS`.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfpeer.conversion.media.zips import is_of_a_mac
from hfpeer.conversion.rows.json_text import JsonText
from hfpeer.conversion.rows.media_columns import Picture
from hfpeer.conversion.sources.batches import ROWS, TARGET_BYTES, Batch, LocalFile
from hfpeer.conversion.sources.selection import Selection
from hfpeer.errors import ConversionFailed

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
TEXTS = frozenset({"txt", "text", "transcript"})
INTEGERS = frozenset({"cls", "cls2", "class", "count", "index", "inx", "id"})
JSONS = frozenset({"json", "jsn"})
MEDIA = frozenset(
    {"apng", "avif", "avi", "bmp", "flac", "gif", "heic", "jfif", "jp2", "jpe", "jpeg", "jpg", "jxl", "mkv", "mov"}
    | {"mp3", "mp4", "mpeg", "mpg", "ogg", "opus", "png", "ppm", "tif", "tiff", "wav", "webm", "webp"}
)
"""Suffixes of pictures, sounds and films."""


class TarSource:
    """Tars, also compressed ones."""

    def __init__(self, replaced: Counter[str]) -> None:
        self._json = JsonText(replaced)

    def count(self, files: Sequence[LocalFile]) -> int:
        return sum(1 for _ in self._samples(files[0], Selection(0, 0)))

    def batches(self, files: Sequence[LocalFile], selection: Selection) -> Iterator[Batch]:
        file, size_bytes = files[0], max(1, files[0].place.stat().st_size)
        rows: list[dict[str, Any]] = []
        first = taken_bytes = 0
        for row, (sample, sample_bytes, at) in enumerate(self._samples(file, selection)):
            if selection.ends_before(row):
                break
            if not sample:
                continue
            first = first if rows else row
            rows.append(sample)
            taken_bytes += sample_bytes
            if len(rows) >= ROWS or taken_bytes > TARGET_BYTES:
                yield Batch(file.path, first, len(rows), rows=rows, done=min(1.0, at / size_bytes))
                rows, taken_bytes = [], 0
        if rows:
            yield Batch(file.path, first, len(rows), rows=rows, done=1.0)

    def _samples(self, file: LocalFile, selection: Selection) -> Iterator[tuple[dict[str, Any], int, int]]:
        """Each row, the bytes of its files, and the place in the tar; an empty one if it is not selected."""
        sample: dict[str, Any] = {}
        key, row, sample_bytes = "", 0, 0
        try:
            with file.place.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as tar:
                for member in tar:
                    found = _NAME.fullmatch(member.name) if member.isfile() else None
                    if found is None or is_of_a_mac(member.name):
                        continue
                    if key and found[1] != key:
                        yield self._row(sample, key, file), sample_bytes, member.offset
                        sample, row, sample_bytes = {}, row + 1, 0
                    key = found[1]
                    if not selection.wants_any(row, row + 1):
                        continue
                    if found[2].lower() in sample:
                        raise ConversionFailed(
                            f"{file.path}: the row {key!r} has two files with the suffix {found[2].lower()!r}.",
                            path=file.path,
                        )
                    opened = tar.extractfile(member)
                    content = b"" if opened is None else opened.read()
                    sample[found[2].lower()] = self._value(content, found[2].lower(), member.name, file)
                    sample_bytes += len(content)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ConversionFailed(f"{file.path} cannot be read as a tar: {error}", path=file.path) from error
        if key:
            yield self._row(sample, key, file), sample_bytes, 0

    def _row(self, sample: Mapping[str, Any], key: str, file: LocalFile) -> dict[str, Any]:
        return {**sample, "__key__": key, "__url__": file.path} if sample else {}

    def _value(self, content: bytes, field: str, name: str, file: LocalFile) -> Any:
        suffix = field.rpartition(".")[2]
        if suffix in MEDIA:
            return Picture(content, name)
        try:
            if suffix in TEXTS:
                return content.decode("utf-8")
            if suffix in INTEGERS:
                return int(content)
            return self._json.parse(content) if suffix in JSONS else content
        except ValueError as error:
            raise ConversionFailed(f"{file.path}: {name} cannot be read: {error}", path=file.path) from error
