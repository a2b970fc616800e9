"""JSON Schema from the types of values: dataclasses, typed dictionaries, collections and plain values."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.prepared import results as prepared_results  # some types name those of it for type checkers alone

PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    object: {},
    Any: {},
    **{name: {"type": "string"} for name in (Commit, FilePath, Revision, Digest, Path)},
}
Schema = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class OneOf:
    """One of several types."""

    kinds: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayOf:
    """An array of values of one type."""

    kind: Any


@dataclasses.dataclass(frozen=True, eq=False)
class With:
    """The fields of a dataclass, without some and with others: what a command makes of a result."""

    name: str
    base: type
    plus: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without: frozenset[str] = frozenset()
    meaning: str = ""


def schema_of(kind: Any, found: dict[str, Schema]) -> Schema:
    """The schema of a type. Those of objects go into `found` by their name, and are named."""
    if isinstance(kind, OneOf):
        return {"anyOf": [schema_of(one, found) for one in kind.kinds]}
    if isinstance(kind, ArrayOf):
        return {"type": "array", "items": schema_of(kind.kind, found)}
    if isinstance(kind, With):
        return _named(kind.name, kind.meaning or _meaning(kind.base), _fields_with(kind), found)
    if kind in PLAIN:
        return dict(PLAIN[kind])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [one.value for one in kind]}
    if dataclasses.is_dataclass(kind) and kind is not RepoId:
        assert isinstance(kind, type)
        return _named(kind.__name__, _meaning(kind), _fields(kind), found)
    if is_typeddict(kind):
        optional = frozenset(kind.__optional_keys__)
        return _named(kind.__name__, _meaning(kind), get_type_hints(kind), found, optional)
    return _of_several(kind, found)


def _of_several(kind: Any, found: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(one, found) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[-1] is not Ellipsis:
        parts = [schema_of(one, found) for one in arguments]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    if origin in (list, tuple, frozenset):
        return {"type": "array", "items": schema_of(arguments[0], found)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], found)}
    raise TypeError(f"no schema of {kind!r}")


def _named(
    name: str, meaning: str, fields: Mapping[str, Any], found: dict[str, Schema], optional: frozenset[str] = frozenset()
) -> Schema:
    if name not in found:
        found[name] = {}  # a type may have fields of its own type
        properties = {field: schema_of(kind, found) for field, kind in fields.items()}
        found[name] = {
            "type": "object",
            "description": meaning,
            "properties": properties,
            "required": [field for field in properties if field not in optional],
        }
    return {"$ref": f"#/$defs/{name}"}


def _fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, localns=dict(vars(prepared_results)))
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if hints[field.name] is not ClassVar}


def _fields_with(kind: With) -> dict[str, Any]:
    fields = {name: type_ for name, type_ in _fields(kind.base).items() if name not in kind.without}
    return {**fields, **kind.plus}


def _meaning(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())
