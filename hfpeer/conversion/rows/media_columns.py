"""Finds pictures and sounds in columns, and replaces them by what the output has in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfpeer.conversion.features import Feature
from hfpeer.conversion.media.writing import ROW_DROPPED, MediaWriter, RowDropped
from hfpeer.conversion.rows.nesting import changed
from hfpeer.prepared.arrow.columns import has_media, is_media

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Picture:
    """A picture or sound of a row that is no Arrow: its bytes, or the name by which it is to be found, or both."""

    content: bytes | None
    path: str | None


def names_media(type_: pa.DataType, feature: Feature | None, is_named: bool) -> bool:
    """Whether a column has pictures or sounds in it: by its type, its feature, or the word of the user."""
    return is_named or has_media(type_) or has_media_feature(feature)


def has_media_feature(feature: Feature | None) -> bool:
    """Whether a feature is media, or has some in it."""
    if feature is None:
        return False
    inner = [*(feature.fields or {}).values(), *([feature.item] if feature.item else [])]
    return bool(feature.media) or any(map(has_media_feature, inner))


class MediaColumns:
    """The media of the batches of one file. `is_embedded`: the output has them as bytes."""

    def __init__(self, media: MediaWriter, *, is_embedded: bool) -> None:
        self._media = media
        self._is_embedded = is_embedded
        self.dropped: set[int] = set()
        """The rows that are to be left out, because a picture of theirs is missing."""

    def written(
        self, column: pa.Array, name: str, feature: Feature | None, is_named: bool, source: str, rows: Sequence[int]
    ) -> pa.Array:
        """The column with what the output has in the place of media. `rows` are the rows in the source."""
        known = Feature(media="Image", item=Feature(media="Image")) if is_named else feature

        def change(array: Any, of: Any, at: Sequence[int]) -> Any:
            from pyarrow import types

            if is_media(array.type):
                content, path = _parts(array)
            elif of is not None and of.media and (types.is_string(array.type) or types.is_large_string(array.type)):
                content, path = None, array
            elif of is not None and of.media and (types.is_binary(array.type) or types.is_large_binary(array.type)):
                content, path = array, None
            else:
                return None
            return self._replaced(content, path, name, source, at)

        return changed(column, known, list(rows), change, inner_feature)

    def _replaced(self, content: Any, path: Any, name: str, source: str, rows: Sequence[int]) -> pa.Array:
        import pyarrow as pa

        paths = [None] * len(content) if path is None else path.to_pylist()
        contents = [None] * len(paths) if content is None else [scalar.as_buffer() for scalar in content]
        made: list[Any] = []
        for one, text, row in zip(contents, paths, rows, strict=True):
            view = None if one is None else memoryview(one)
            value = (
                self._embedded(view, text, name, source, row)
                if self._is_embedded
                else self._media.value(view, text, source, row, name)
            )
            if isinstance(value, RowDropped):
                self.dropped.add(row)
                value = None
            made.append(value)
        if self._is_embedded:
            return pa.array(made, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        return pa.array(made, pa.string())

    def _embedded(self, content: Any, path: str | None, name: str, source: str, row: int) -> Any:
        if content is None and not path:
            return None
        if content is None:
            assert path is not None
            found = self._media.found_bytes(path, source, row, name)
            if isinstance(found, RowDropped):
                return ROW_DROPPED
            return None if found is None else {"bytes": found, "path": path.rpartition("/")[2]}
        return {"bytes": bytes(content), "path": None if path is None else path.rpartition("/")[2]}

    def written_value(
        self, value: Any, name: str, feature: Feature | None, is_named: bool, source: str, row: int
    ) -> Any:
        """The same for a value of a row that is no Arrow."""
        known = Feature(media="Image", item=Feature(media="Image")) if is_named else feature
        return self._written_value(value, name, known, source, row)

    def _written_value(self, value: Any, name: str, feature: Feature | None, source: str, row: int) -> Any:
        if isinstance(value, Picture) or (isinstance(value, str) and feature is not None and feature.media):
            picture = value if isinstance(value, Picture) else Picture(None, value)
            write = self._embedded if self._is_embedded else self._value
            made = write(picture.content, picture.path, name, source, row)
            if isinstance(made, RowDropped):
                self.dropped.add(row)
                return None
            return made
        if isinstance(value, dict):
            if feature is not None and feature.media and {"bytes", "path"} >= set(value):
                text = value.get("bytes")
                picture = Picture(text.encode() if isinstance(text, str) else text, value.get("path"))
                return self._written_value(picture, name, feature, source, row)
            fields: Mapping[str, Feature] = (feature.fields if feature else None) or {}
            return {key: self._written_value(inner, name, fields.get(key), source, row) for key, inner in value.items()}
        if isinstance(value, list):
            item = feature.item if feature else None
            return [self._written_value(inner, name, item, source, row) for inner in value]
        return value

    def _value(self, content: Any, path: str | None, name: str, source: str, row: int) -> Any:
        return self._media.value(content, path, source, row, name)


def inner_feature(feature: Feature | None, name: str) -> Feature | None:
    """What is known of a field of a struct, or of the items of a list."""
    if feature is None:
        return None
    if not name:
        return feature.item
    return feature.field(name)


def _parts(array: Any) -> tuple[Any, Any]:
    names = [array.type.field(index).name for index in range(array.type.num_fields)]
    parts = dict(zip(names, array.flatten(), strict=True))
    return parts["bytes"], parts["path"]


def media_names(schema: pa.Schema, feature: Feature | None, named: Sequence[str]) -> list[str]:
    """The columns of a schema that have pictures or sounds in them."""
    return [
        field.name
        for field in schema
        if names_media(field.type, inner_feature(feature, field.name), field.name in named)
    ]
