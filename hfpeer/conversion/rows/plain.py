"""Values that strict JSON has: the rules by which all others become one of these.

NaN and infinity are null, and counted. Times are ISO 8601, durations seconds, decimals text, bytes base64, maps
objects.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hfpeer.conversion.rows.nesting import changed, entries_of, is_list, map_of

if TYPE_CHECKING:
    import pyarrow as pa

NOT_FINITE = "NaN or infinity became null"
BAD_TEXT = "text that is no Unicode got U+FFFD"
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class PlainValues:
    """Makes columns plain, and counts what was replaced."""

    def __init__(self, replaced: Counter[str]) -> None:
        self._replaced = replaced

    def column(self, column: pa.Array) -> pa.Array:
        """The column with values that JSON has. Maps stay maps, from texts: `objects` makes them objects."""
        return changed(column, None, range(len(column)), self._change, lambda known, name: None)

    def rows(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """A batch as rows of values that JSON has."""
        plain = self.batch(batch)
        rows: list[dict[str, Any]] = plain.to_pylist()
        maps = [field for field in plain.schema if has_map(field.type)]
        if not maps:
            return rows
        return [{**row, **{field.name: objects(row[field.name], field.type) for field in maps}} for row in rows]

    def batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with values that JSON has, and maps."""
        import pyarrow as pa

        return pa.RecordBatch.from_arrays(list(map(self.column, batch.columns)), names=batch.schema.names)

    def value(self, value: Any) -> Any:
        """A Python value as one that JSON has."""
        if value is None or isinstance(value, (str, bool, int)):
            return value
        if isinstance(value, float):
            if math.isfinite(value):
                return value
            self._replaced[NOT_FINITE] += 1
            return None
        if isinstance(value, dict):
            return {str(key): self.value(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(one) for one in value]
        return _scalar(value)

    def _change(self, array: Any, known: Any, rows: Sequence[int]) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import types

        type_ = array.type
        if isinstance(array, pa.ExtensionArray):
            return self.column(array.storage)
        if types.is_dictionary(type_):
            return self.column(array.dictionary_decode())
        if types.is_map(type_):
            return self._map(array)
        if types.is_string(type_) or types.is_large_string(type_):
            return self._unicode(array)
        if types.is_floating(type_):
            return self._finite(array.cast(pa.float32()) if types.is_float16(type_) else array)
        if types.is_decimal(type_):
            return array.cast(pa.string())
        if types.is_timestamp(type_):
            plain = array.cast(pa.int64()).cast(pa.timestamp(type_.unit))
            text = pc.strftime(plain, format="%Y-%m-%dT%H:%M:%S")
            return text if type_.tz is None else pc.binary_join_element_wise(text, "Z", "")
        if types.is_date(type_):
            return pc.strftime(array.cast(pa.timestamp("s")), format="%Y-%m-%d")
        if types.is_time(type_):
            return array.cast(pa.string())
        if types.is_duration(type_):
            return pc.divide(array.cast(pa.int64()).cast(pa.float64(), safe=False), float(_UNITS[type_.unit]))
        if types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_):
            return pa.array([None if one is None else _text_of(one) for one in array.to_pylist()], pa.string())
        return None

    def _map(self, array: Any) -> Any:
        """A map with texts as keys, and plain items."""
        import pyarrow as pa
        from pyarrow import types

        entries = entries_of(array)
        keys, items = entries.flatten().flatten()
        plain = keys if types.is_floating(keys.type) else self.column(keys)
        if not types.is_string(plain.type) and not types.is_nested(plain.type):
            plain = plain.cast(pa.string())
        return map_of(entries, plain, self.column(items))

    def _unicode(self, array: Any) -> Any:
        """Texts whose bytes are UTF-8: the writers of Parquet do not check them."""
        import pyarrow as pa

        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            texts = []
            for content in array.cast(pa.large_binary()).to_pylist():
                text = None if content is None else content.decode("utf-8", "replace")
                self._replaced[BAD_TEXT] += text is not None and text.encode() != content
                texts.append(text)
            return pa.array(texts, array.type)
        return array

    def _finite(self, array: Any) -> Any:
        import pyarrow.compute as pc

        finite = pc.is_finite(array)
        bad = int(pc.sum(pc.invert(finite)).as_py() or 0)
        if not bad:
            return array
        self._replaced[NOT_FINITE] += bad
        return pc.if_else(finite, array, None)


def objects(value: Any, type_: pa.DataType) -> Any:
    """A Python value of a plain column, with objects in the place of maps."""
    from pyarrow import types

    if value is None or not has_map(type_):
        return value
    if types.is_map(type_):
        return {str(key): objects(one, type_.item_type) for key, one in value}
    if types.is_struct(type_):
        return {name: objects(one, type_.field(name).type) for name, one in value.items()}
    return [objects(one, type_.value_type) for one in value]


def has_map(type_: pa.DataType) -> bool:
    """Whether values of this type have maps in them."""
    from pyarrow import types

    if types.is_map(type_):
        return True
    if types.is_struct(type_):
        return any(has_map(type_.field(index).type) for index in range(type_.num_fields))
    return is_list(type_) and has_map(type_.value_type)


def _text_of(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text_of(value)
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)
