"""The media in the columns of a record batch: structs of bytes and a path, at any depth.

A path counts only where the bytes are null: only then a program opens it. Source: datasets `features/image.py`,
`embed_array_storage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hfpeer.errors import CorruptData

if TYPE_CHECKING:
    import pyarrow as pa

Rewrite = Callable[[str], str]


def has_media(type_: pa.DataType) -> bool:
    """Whether a column of this type can name files by path."""
    from pyarrow import types

    if is_media(type_):
        return True
    if types.is_struct(type_):
        return any(has_media(type_.field(index).type) for index in range(type_.num_fields))
    if types.is_map(type_):
        return has_media(type_.item_type) or has_media(type_.key_type)
    if _is_list(type_):
        return has_media(type_.value_type)
    return False


def is_media(type_: pa.DataType) -> bool:
    """Whether a type is a struct of bytes and a path, as `datasets` stores pictures, sounds and the like."""
    from pyarrow import types

    if not types.is_struct(type_) or {type_.field(index).name for index in range(type_.num_fields)} != {
        "bytes",
        "path",
    }:
        return False
    path, content = type_.field("path").type, type_.field("bytes").type
    is_text = types.is_string(path) or types.is_large_string(path)
    return bool(is_text and (types.is_binary(content) or types.is_large_binary(content)))


def media_columns(schema: pa.Schema) -> list[str]:
    """The names of the columns that can name files by path."""
    return [field.name for field in schema if has_media(field.type)]


def rewritten(batch: pa.RecordBatch, rewrite: Rewrite) -> pa.RecordBatch:
    """The batch with `rewrite` applied to each path without bytes. The schema and its metadata stay."""
    import pyarrow as pa

    columns = [_rewritten(column, rewrite) if has_media(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def paths_in(column: pa.Array) -> Iterator[tuple[int, str]]:
    """The row and the text of each path without bytes. Rows of lists count from the start of the column's batch."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pa.array(range(len(column)), pa.int64())
    yield from _paths(column, rows, pc)


def _paths(column: pa.Array, rows: pa.Array, compute: Any) -> Iterator[tuple[int, str]]:
    from pyarrow import types

    if is_media(column.type):
        lone = compute.and_(compute.is_null(column.field("bytes")), compute.is_valid(column.field("path")))
        lone = compute.and_(lone, compute.is_valid(column))
        yield from zip(rows.filter(lone).to_pylist(), column.field("path").filter(lone).to_pylist(), strict=True)
    elif types.is_struct(column.type):
        for index in range(column.type.num_fields):
            if has_media(column.type.field(index).type):
                yield from _paths(column.field(index), rows, compute)
    elif types.is_map(column.type):
        raise _no_maps()
    elif _is_list(column.type):
        yield from _paths(column.flatten(), rows.take(compute.list_parent_indices(column)), compute)


def _rewritten(column: pa.Array, rewrite: Rewrite) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    type_ = column.type
    if is_media(type_):
        content, path = column.field("bytes"), column.field("path")
        lone = pc.and_(pc.is_null(content), pc.is_valid(path)).to_pylist()
        texts = [rewrite(text) if is_lone else text for text, is_lone in zip(path.to_pylist(), lone, strict=True)]
        made = {"bytes": content, "path": pa.array(texts, path.type)}
        fields = [type_.field(index) for index in range(type_.num_fields)]
        return pa.StructArray.from_arrays([made[one.name] for one in fields], fields=fields, mask=column.is_null())
    if types.is_struct(type_):
        fields = [type_.field(index) for index in range(type_.num_fields)]
        inner = [
            _rewritten(column.field(index), rewrite) if has_media(one.type) else column.field(index)
            for index, one in enumerate(fields)
        ]
        return pa.StructArray.from_arrays(inner, fields=fields, mask=column.is_null())
    if types.is_list(type_) or types.is_large_list(type_):
        values = _rewritten(column.values, rewrite)
        made = (pa.ListArray if types.is_list(type_) else pa.LargeListArray).from_arrays(_offsets(column), values)
        return made.cast(type_)
    if types.is_fixed_size_list(type_):
        values = _rewritten(column.values, rewrite)
        return pa.FixedSizeListArray.from_arrays(values, type_.list_size, mask=column.is_null()).cast(type_)
    raise _no_maps()


def _offsets(column: pa.Array) -> pa.Array:
    """The offsets of a list column, with a null where a list is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count == 0:
        return column.offsets
    starts = column.offsets[:-1]
    marked = pc.if_else(column.is_null(), pa.scalar(None, starts.type), starts)
    return pa.concat_arrays([marked, column.offsets[-1:]])


def _is_list(type_: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def _no_maps() -> CorruptData:
    return CorruptData(
        "A column of the set is a map with pictures or sounds in it, which `datasets` does not make.",
        hint="Build the set again with `hfpeer dataset prepare`.",
    )
