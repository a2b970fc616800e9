"""Names of labels in the place of their numbers; a label that is not known, such as -1, is null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hfpeer.conversion.features import Feature
from hfpeer.conversion.rows.media_columns import inner_feature
from hfpeer.conversion.rows.nesting import changed

if TYPE_CHECKING:
    import pyarrow as pa


def with_label_names(column: pa.Array, feature: Feature) -> pa.Array:
    """The column with names for the numbers that the feature names, at any depth."""
    return changed(column, feature, range(len(column)), _named, inner_feature)


def _named(array: Any, feature: Feature | None, rows: Sequence[int]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if feature is None or not feature.has_labels:
        return array
    if not feature.labels or not types.is_integer(array.type):
        return None
    known = pc.and_(pc.greater_equal(array, 0), pc.less(array, len(feature.labels)))
    return pa.array(feature.labels, pa.string()).take(pc.if_else(known, array, None))


def label_name(value: Any, feature: Feature | None) -> Any:
    """The same for a value of a row that is no Arrow; a label that is a name already stays."""
    if feature is None or not feature.has_labels:
        return value
    if isinstance(value, dict):
        return {key: label_name(inner, feature.field(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [label_name(inner, feature.item) for inner in value]
    if feature.labels and type(value) is int:
        return feature.labels[value] if 0 <= value < len(feature.labels) else None
    return value
