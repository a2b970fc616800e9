"""Makes rows of the output from the batches of a source: chosen rows and columns, media, labels, new names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hfpeer.conversion.features import Feature, of_metadata
from hfpeer.conversion.media.kinds import kind_of_media
from hfpeer.conversion.media.writing import MediaWriter
from hfpeer.conversion.plan import ConversionPlan
from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.conversion.rows.json_columns import json_lines
from hfpeer.conversion.rows.labels import label_name, with_label_names
from hfpeer.conversion.rows.media_columns import (
    MediaColumns,
    Picture,
    has_media_feature,
    inner_feature,
    names_media,
)
from hfpeer.conversion.rows.nesting import is_list, usual
from hfpeer.conversion.rows.plain import PlainValues, has_map
from hfpeer.conversion.sources.batches import Batch
from hfpeer.errors import EntryNotFound, InvalidName

if TYPE_CHECKING:
    import pyarrow as pa

MAX_NAMED = 40
"""At most this many columns are named in an error."""


class RowMaking:
    """The rows of one part. `media_columns` are the columns, by their new names, in which media were found."""

    def __init__(self, plan: ConversionPlan, media: MediaWriter, replaced: Counter[str]) -> None:
        self._options = plan.options
        self._features = plan.features
        self._media = MediaColumns(media, is_embedded=plan.options.way_of_images == "embed")
        self._plain = PlainValues(replaced)
        self._renamed = dict(plan.options.renamed)
        self._names: dict[str, None] = {}  # the columns of the source that have been seen
        self.media_columns: dict[str, bool] = {}
        """By column: whether a row can have several."""
        self.media_kinds: dict[str, str] = {}
        """By column: Image, Audio, Video, as `datasets` calls it."""
        self._builder = plan.builder

    @property
    def _drops_media(self) -> bool:
        return self._options.way_of_images == "drop"

    # Arrow

    def arrow(self, batch: Batch, places: Sequence[int]) -> pa.RecordBatch:
        """The chosen rows of a batch of Arrow, with the types that Parquet keeps."""
        import pyarrow as pa

        assert batch.arrow is not None
        chosen = _taken(batch.arrow, places)
        rows = [batch.first + place for place in places]
        feature = self._features or _feature_of(batch.arrow.schema)
        names = chosen.schema.names
        self._know(names)
        columns, made, known_names = [], [], set(names)
        for name in self._options.columns or names:
            if name not in known_names:  # another file of the dataset has it
                columns.append(pa.nulls(len(rows)))
                made.append(self._new_name(name))
                continue
            column, known = usual(chosen.column(chosen.schema.get_field_index(name))), inner_feature(feature, name)
            is_named = name in self._options.image_columns
            if names_media(column.type, known, is_named):
                self._found_media(name, known, is_several=is_list(column.type))
                if self._drops_media:
                    continue
                column = self._media.written(column, name, known, is_named, batch.file, rows)
            if known is not None and known.has_labels and self._options.labels == "names":
                column = with_label_names(column, known)
            columns.append(column)
            made.append(self._new_name(name))
        result = pa.RecordBatch.from_arrays(columns, names=made)
        if self._media.dropped:
            result = result.filter(pa.array([row not in self._media.dropped for row in rows]))
            self._media.dropped.clear()
        return result

    def lines_of(self, batch: pa.RecordBatch) -> memoryview | None:
        """A batch as lines of JSON; None if it has values that have to be written row by row."""
        if any(has_map(column.type) for column in batch.columns):
            return None
        return json_lines(self._plain.batch(batch))

    def rows_of(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """A batch as rows of values that JSON has."""
        return self._plain.rows(batch)

    def without_rows(self, schema: pa.Schema) -> pa.RecordBatch:
        """The columns of the output, without rows, of a source with these columns."""
        import pyarrow as pa

        if all(pa.types.is_null(kind) for kind in schema.types):  # only the names are known
            self._know(schema.names)
            kept = [name for name in self._options.columns or schema.names if not self._is_dropped(name)]
            return pa.RecordBatch.from_arrays([pa.nulls(0) for _ in kept], names=[*map(self._new_name, kept)])
        return self.arrow(Batch("", 0, 0, pa.RecordBatch.from_pylist([], schema=schema)), [])

    def _is_dropped(self, name: str) -> bool:
        is_media = name in self._options.image_columns or has_media_feature(inner_feature(self._features, name))
        return is_media and self._drops_media

    # Rows that are no Arrow

    def rows(self, batch: Batch, places: Sequence[int]) -> list[dict[str, Any]]:
        """The chosen rows of a batch that is no Arrow."""
        made = []
        for place in places:
            row = self._row(batch.rows[place], batch.file, batch.first + place)
            if row is not None:
                made.append(row if batch.is_plain else self.plain_row(row))
        return made

    def _row(self, row: dict[str, Any], file: str, number: int) -> dict[str, Any] | None:
        options, made = self._options, {}
        if not row.keys() <= self._names.keys():
            self._know(list(row))
        names = [name for name in options.columns if name in row] if options.columns else row
        for name in names:
            value, known = row[name], inner_feature(self._features, name)
            is_named = name in options.image_columns
            if is_named or has_media_feature(known) or _has_picture(value):
                self._found_media(name, known, is_several=isinstance(value, list))
                if self._drops_media:
                    continue
                value = self._media.written_value(value, name, known, is_named, file, number)
            if known is not None and options.labels == "names":
                value = label_name(value, known)
            made[self._new_name(name)] = value
        if number in self._media.dropped:
            self._media.dropped.clear()
            return None
        return made

    def plain_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row whose values are not known to be those of JSON, such as bytes of a tar."""
        made: dict[str, Any] = self._plain.value(row)
        return made

    def _found_media(self, name: str, feature: Feature | None, *, is_several: bool) -> None:
        self.media_columns.setdefault(self._new_name(name), is_several)
        told = feature and (feature.media or (feature.item and feature.item.media))
        suffix = name.rpartition(".")[2] if self._builder == "webdataset" else ""
        self.media_kinds.setdefault(self._new_name(name), told or kind_of_media(self._builder, suffix))

    # Columns

    def _new_name(self, name: str) -> str:
        return self._renamed.get(name, name)

    def _know(self, names: Sequence[str]) -> None:
        """Columns of the source have been seen. Raises InvalidName if two of them would get one name."""
        if len(set(names)) < len(names):  # a file may have two columns of one name
            check_names(self._options, names)
        if not self._names.keys() >= set(names):
            self._names.update(dict.fromkeys(names))
            check_names(self._options, list(self._names))

    def check_seen(self) -> None:
        """Raises EntryNotFound for a column that the user named and that no row had."""
        check_found(self._options, list(self._names))


def check_found(options: ConversionOptions, names: Sequence[str]) -> None:
    """Raises EntryNotFound for a column that the user named and that is not among these."""
    wanted = [*options.columns, *options.image_columns, *(old for old, _ in options.renamed)]
    missing = [name for name in wanted if name not in names]
    if missing:
        shown = ", ".join(names[:MAX_NAMED]) + (" …" if len(names) > MAX_NAMED else "")
        raise EntryNotFound(
            f"The dataset has no column {missing[0]!r}.", hint=f"Its columns are: {shown}.", columns=list(names)
        )


def check_names(options: ConversionOptions, names: Sequence[str]) -> None:
    """Raises InvalidName if two columns would get one name."""
    renamed = dict(options.renamed)
    chosen = [name for name in options.columns if name in names] if options.columns else names
    made = [renamed.get(name, name) for name in chosen]
    twice = next((name for name in made if made.count(name) > 1), None)
    if twice is not None:
        raise InvalidName(f"Two columns would be named {twice!r}.", hint="Choose columns with --columns.")


def _taken(batch: pa.RecordBatch, places: Sequence[int]) -> pa.RecordBatch:
    if isinstance(places, range):
        return batch.slice(places.start, len(places))
    import pyarrow as pa

    return batch.take(pa.array(places, pa.int64()))


def _feature_of(schema: pa.Schema) -> Feature | None:
    """The features that `datasets` left in the metadata of a schema."""
    import json

    try:
        document = json.loads((schema.metadata or {})[b"huggingface"])
        return of_metadata(document["info"]["features"])
    except (KeyError, ValueError, TypeError):
        return None


def _has_picture(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_picture, value))
    return isinstance(value, Picture)
