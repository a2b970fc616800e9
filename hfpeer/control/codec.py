"""Calls and results of the control socket as JSON, checked against their types. No input or output."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from hfpeer.control.operations import Operations
from hfpeer.errors import InvalidName, VersionMismatch
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.transfer.events import Event

CONTROL_VERSION = 3
"""Grows with every change that an older command or daemon cannot read."""
VERSION_HEADER = "Hfpeer-Control"
HELLO_PATH = "/v1/hello"
STOP_PATH = "/v1/stop"
FOLLOWED = ("add", "attach", "verify", "repair", "adopt", "publish")
"""The operations that send events before their result."""
CALLS: tuple[str, ...] = tuple(name for name in vars(Operations) if not name.startswith("_") and name not in FOLLOWED)
"""The operations with one request and one response: all others."""


def call_path(operation: str) -> str:
    return f"/v1/{operation}"


def parameter_types(operation: str) -> dict[str, Any]:
    """Name -> type of an operation's parameters."""
    return {name: kind for name, kind in _hints(operation).items() if name != "return"}


def result_type(operation: str) -> Any:
    return _hints(operation)["return"]


def _hints(operation: str) -> dict[str, Any]:
    from hfpeer.control import results

    # The alias OnEvent is a text, because the receiver of a push runs on older Pythons too.
    names = {**vars(results), "Callable": Callable, "Event": Event}
    return get_type_hints(getattr(Operations, operation), localns=names)


def encode(value: Any) -> Any:
    """The JSON form of a parameter or result: dataclasses as objects, names as text, tuples as arrays."""
    if isinstance(value, RepoId):
        return value.api_path
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, value: Any) -> Any:
    """The value of type `kind` that `encode` wrote. Raises InvalidName for anything else."""
    try:
        return _decode(kind, value)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidName(
            f"The message is malformed: {error}.", hint="Are the command and the daemon of the same version?"
        ) from error


def decode_arguments(operation: str, document: Any) -> dict[str, Any]:
    """The arguments of a call from its JSON object. Arguments that it leaves out keep their defaults. Raises
    InvalidName."""
    kinds = parameter_types(operation)
    if not isinstance(document, dict) or not document.keys() <= kinds.keys():
        raise InvalidName(f"{operation} takes an object of: {', '.join(kinds) or 'nothing'}.")
    arguments = {name: decode(kinds[name], value) for name, value in document.items()}
    try:
        inspect.signature(getattr(Operations, operation)).bind(None, **arguments)
    except TypeError as error:
        raise InvalidName(f"{operation}: {error}.") from error
    return arguments


def _decode(kind: Any, value: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), value)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise TypeError(f"{value!r:.80} is not an array")
        return origin(_decode(get_args(kind)[0], item) for item in value)
    if origin is dict:
        return {str(key): _decode(get_args(kind)[1], item) for key, item in value.items()}
    if kind is RepoId:
        return RepoId.from_api_path(value)
    if kind in (Revision, FilePath, Commit):
        return kind.parse(value)
    return _decode_object(kind, value) if is_dataclass(kind) else _decode_plain(kind, value)


def _decode_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not types.NoneType)
    return _decode(kind, value)


def _decode_object(kind: Any, document: Any) -> Any:
    kinds = _field_types(kind)
    return kind(**{name: _decode(kinds[name], value) for name, value in document.items() if name in kinds})


def _decode_plain(kind: Any, value: Any) -> Any:
    if kind is types.NoneType and value is None:
        return None
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r:.80} is not of type {getattr(kind, '__name__', kind)}")
    return value


@functools.cache
def _field_types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def version_mismatch(spoken: str | None) -> VersionMismatch:
    """The error for a daemon and a command of different versions; `spoken` is the version of the other side."""
    return VersionMismatch(
        f"The daemon and this command are of different versions (control protocol {spoken} and {CONTROL_VERSION}).",
        hint="hfpeer daemon restart",
        spoken=spoken,
        wanted=str(CONTROL_VERSION),
    )
