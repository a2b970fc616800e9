"""Applies a change to the parts of nested Arrow arrays, and builds the lists and structs around them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Change = Callable[["pa.Array", Any, Sequence[int]], "pa.Array | None"]
"""Called with an array, what is known of it, and the row of each of its items. Gives a new array, or None to go on with
the parts of this one."""


def changed(array: pa.Array, known: Any, rows: Sequence[int], change: Change, inner: Callable[[Any, str], Any]) -> Any:
    """The array with `change` applied to it, or to its parts. `inner` gives what is known of a field, or of an item
    (named by an empty text)."""
    from pyarrow import types

    made = change(array, known, rows)
    if made is not None:
        return made
    if types.is_struct(array.type):
        return _changed_struct(array, known, rows, change, inner)
    if is_list(array.type):
        return _changed_list(array, known, rows, change, inner)
    return array


def is_list(type_: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def _changed_struct(array: Any, known: Any, rows: Sequence[int], change: Change, inner: Any) -> Any:
    import pyarrow as pa

    names = [array.type.field(index).name for index in range(array.type.num_fields)]
    parts = array.flatten()
    made = [changed(part, inner(known, name), rows, change, inner) for name, part in zip(names, parts, strict=True)]
    if all(new is old for new, old in zip(made, parts, strict=True)):
        return array
    fields = [pa.field(name, new.type) for name, new in zip(names, made, strict=True)]
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(made, fields=fields, mask=mask)


def _changed_list(array: Any, known: Any, rows: Sequence[int], change: Change, inner: Any) -> Any:
    import pyarrow.compute as pc

    values = array.flatten()
    parents = pc.list_parent_indices(array).to_pylist() if isinstance(rows, list) else []
    inner_rows: Sequence[int] = [rows[parent] for parent in parents] if parents else rows
    made = changed(values, inner(known, ""), inner_rows, change, inner)
    return array if made is values else list_of(array, made)


def list_of(array: Any, values: Any) -> Any:
    """A list array with the lengths and nulls of `array` and other items."""
    import pyarrow as pa

    mask = array.is_null() if array.null_count else None
    return pa.LargeListArray.from_arrays(offsets_of(array), values, mask=mask)


def offsets_of(array: Any) -> Any:
    """Where each list begins among the items of all, and where the last ends; a null is an empty list."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if not array.null_count and not types.is_fixed_size_list(array.type):
        return pc.subtract(array.offsets, array.offsets[0]).cast(pa.int64())
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
