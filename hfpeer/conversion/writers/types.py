"""Finds the Arrow types of rows of JSON: the narrowest that all values of a column have; text where there is none."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from hfpeer.conversion.rows.json_text import JsonText

if TYPE_CHECKING:
    import pyarrow as pa

_INT64 = 1 << 63


class TypeOfRows:
    """The types of the columns of rows that were added, as far as they are known."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}

    def add(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            self._columns[name] = _both(self._columns.get(name, ""), _type_of(value))

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([(name, _arrow(type_)) for name, type_ in self._columns.items()])


def _type_of(value: Any) -> Any:
    """A name of a type, a list with the type of the items, or a dict with those of the fields; empty for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_INT64 <= value < _INT64 else "json"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return {name: _type_of(inner) for name, inner in value.items()}
    known: Any = ""
    for item in value:
        known = _both(known, _type_of(item))
    return [known]


def _both(one: Any, other: Any) -> Any:
    """The narrowest type of values of two types; `json` where there is none."""
    if one == other or other == "":
        return one
    if one == "":
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _both(one.get(name, ""), other.get(name, "")) for name in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return [_both(one[0], other[0])]
    if {str(one), str(other)} == {"int", "float"}:
        return "float"
    return "json"


def _arrow(type_: Any) -> Any:
    import pyarrow as pa

    if isinstance(type_, dict):
        fields = [(name, _arrow(inner)) for name, inner in type_.items()]
        return pa.struct(fields) if fields else pa.string()
    if isinstance(type_, list):
        return pa.list_(_arrow(type_[0]))
    return {"": pa.null(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}.get(type_, pa.string())


def as_types(row: dict[str, Any], schema: pa.Schema, writer: JsonText) -> dict[str, Any]:
    """A row with text in the place of values that do not have the type of their column."""
    return {field.name: _as_type(row.get(field.name), field.type, writer) for field in schema}


def _as_type(value: Any, type_: Any, writer: JsonText) -> Any:
    from pyarrow import types

    if value is None:
        return None
    if types.is_string(type_):
        return value if isinstance(value, str) else writer.text(value)
    if types.is_binary(type_):
        return base64.b64decode(value)
    if types.is_list(type_):
        return [_as_type(item, type_.value_type, writer) for item in value]
    if types.is_struct(type_):
        fields = [type_.field(index) for index in range(type_.num_fields)]
        return {field.name: _as_type(value.get(field.name), field.type, writer) for field in fields}
    return float(value) if types.is_floating(type_) else value
