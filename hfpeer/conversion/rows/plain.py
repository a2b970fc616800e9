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

from hfpeer.conversion.rows.nesting import changed, is_list

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
        """The column with values that JSON has. Maps stay: `objects` makes them objects."""
        if has_map(column.type):
            return column
        return changed(column, None, range(len(column)), self._change, lambda known, name: None)

    def objects(self, column: pa.Array) -> list[Any]:
        """A column with maps in it as Python values."""
        return [self.value(value, column.type) for value in column.to_pylist()]

    def value(self, value: Any, type_: Any = None) -> Any:
        """A Python value as one that JSON has. `type_` is its Arrow type, by which maps are known."""
        from pyarrow import types

        if value is None or isinstance(value, (str, bool, int)):
            return value
        if isinstance(value, float):
            if math.isfinite(value):
                return value
            self._replaced[NOT_FINITE] += 1
            return None
        if isinstance(value, dict):
            inner = {} if type_ is None else {type_.field(i).name: type_.field(i).type for i in range(type_.num_fields)}
            return {str(key): self.value(one, inner.get(key)) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            if type_ is not None and types.is_map(type_):
                return {_key(self.value(key)): self.value(one, type_.item_type) for key, one in value}
            item = type_.value_type if type_ is not None and is_list(type_) else None
            return [self.value(one, item) for one in value]
        return _scalar(value)

    def _change(self, array: Any, known: Any, rows: Sequence[int]) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import types

        type_ = array.type
        if isinstance(array, pa.ExtensionArray):
            return changed(array.storage, None, rows, self._change, lambda known, name: None)
        if types.is_dictionary(type_):
            return changed(array.dictionary_decode(), None, rows, self._change, lambda known, name: None)
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
            return pc.divide(array.cast(pa.int64()).cast(pa.float64()), float(_UNITS[type_.unit]))
        if types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_):
            return pa.array([None if one is None else _text_of(one) for one in array.to_pylist()], pa.string())
        return None

    def _finite(self, array: Any) -> Any:
        import pyarrow.compute as pc

        finite = pc.is_finite(array)
        bad = int(pc.sum(pc.invert(finite)).as_py() or 0)
        if not bad:
            return array
        self._replaced[NOT_FINITE] += bad
        return pc.if_else(finite, array, None)


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


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(key).lower() if isinstance(key, bool) else str(key)


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
