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
    if types.is_map(array.type):
        return _changed_map(array, known, rows, change, inner)
    return array


def is_list(type_: pa.DataType) -> bool:
    from pyarrow import types

    is_usual = types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)
    return bool(is_usual or is_view_of_list(type_))


def is_view_of_list(type_: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list_view(type_) or types.is_large_list_view(type_))


def usual(array: pa.Array) -> pa.Array:
    """The array without views and without run ends, which neither the writers nor most functions of Arrow take."""
    return changed(array, None, range(len(array)), _usual, lambda known, name: None)


def _usual(array: Any, known: Any, rows: Sequence[int]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_string_view(array.type):
        return array.cast(pa.large_string())
    if types.is_binary_view(array.type):
        return array.cast(pa.large_binary())
    return usual(pc.run_end_decode(array)) if types.is_run_end_encoded(array.type) else None


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
    return array if made is values and not is_view_of_list(array.type) else list_of(array, made)


def _changed_map(array: Any, known: Any, rows: Sequence[int], change: Change, inner: Any) -> Any:
    entries = entries_of(array)
    made = _changed_list(entries, known, rows, change, inner)
    return array if made is entries else map_of(made, *made.flatten().flatten())


def entries_of(array: Any) -> Any:
    """A map as a list of structs of a key and a value."""
    import pyarrow as pa

    type_ = array.type
    entry = pa.struct([pa.field("key", type_.key_type, nullable=False), ("value", type_.item_type)])
    return array.cast(pa.list_(entry))


def map_of(entries: Any, keys: Any, items: Any) -> Any:
    """A map array with the lengths and nulls of a list array, and these keys and items."""
    import pyarrow as pa

    mask = entries.is_null() if entries.null_count else None
    return pa.MapArray.from_arrays(offsets_of(entries).cast(pa.int32()), keys, items, mask=mask)


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

    if not array.null_count and (types.is_list(array.type) or types.is_large_list(array.type)):
        return pc.subtract(array.offsets, array.offsets[0]).cast(pa.int64())
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
