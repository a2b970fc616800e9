"""The control door's language: operations as JSON over a Unix socket, and the client that speaks it.

Each operation is a route of its own name, its parameters and its result typed by `Operations` alone: an operation
added there needs a method here and nothing in the codec. Errors cross as problems and are the same class at the other
end. The codec does no input or output; the client decides nothing.
"""

from __future__ import annotations

import functools
import inspect
import json
import types
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

from hfpeer.errors import HfpeerError, InvalidName, NotRunning, VersionMismatch, from_problem
from hfpeer.exchange import BadAnswer, NoAnswer, PlainAnswer, Silent, question
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.operations import MAIN, AddRequest, Operations
from hfpeer.transfer.events import Finished, Listener
from hfpeer.transfer.events import from_json as event_from_json

if TYPE_CHECKING:
    from hfpeer.results import CachedRevision, Holding, NodeStatus, PeerStatus, Provenance, Published, Removed

CONTROL_VERSION = 1
"""Grows with every change that an older command or daemon could not read."""
VERSION_HEADER = "X-Hfpeer-Control"
HELLO_PATH = "/v1/hello"
STOP_PATH = "/v1/stop"
ADD_PATH = "/v1/add"
CALLS: tuple[str, ...] = tuple(name for name in vars(Operations) if not name.startswith("_") and name != "add")
"""The operations that are one question and one answer: all but `add`, which tells events on its way."""

CONNECT_TIMEOUT_SECONDS = 2.0
MAX_LINE_BYTES = 64 * 1024 * 1024
QUICK_TIMEOUT_SECONDS = 10.0
"""How long the daemon may take for what needs no work."""


def call_path(operation: str) -> str:
    return f"/v1/{operation}"


def parameter_types(operation: str) -> dict[str, Any]:
    """Name -> type of an operation's parameters."""
    return {name: kind for name, kind in _hints(operation).items() if name != "return"}


def result_type(operation: str) -> Any:
    return _hints(operation)["return"]


def _hints(operation: str) -> dict[str, Any]:
    from hfpeer import results  # no command needs them to add

    return get_type_hints(getattr(Operations, operation), localns=vars(results))


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
        raise InvalidName(f"The message is malformed: {error}.", hint="Are command and daemon the same?") from error


def decode_arguments(operation: str, document: Any) -> dict[str, Any]:
    """The arguments of a call from its JSON object; the ones left out keep their defaults. Raises InvalidName."""
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


class ControlClient:
    """The daemon behind `socket_path`, as `Operations`. It holds nothing open between two calls.

    Every method raises NotRunning when no daemon answers, VersionMismatch when it speaks another version, and else
    what the daemon's node raised. With `is_blocking` its coroutines never suspend, and are for `run_blocking`.
    """

    def __init__(self, socket_path: Path, *, is_blocking: bool = False) -> None:
        self._socket_path = socket_path
        self._is_blocking = is_blocking

    async def is_answering(self) -> bool:
        """Whether a daemon is there. Raises VersionMismatch if it is another one than this command can talk to."""
        try:
            await self._ask("GET", HELLO_PATH, timeout_seconds=QUICK_TIMEOUT_SECONDS)
        except NotRunning:
            return False
        return True

    async def stop(self) -> None:
        """Asks the daemon to end; it answers before it does. Works across versions."""
        await self._ask("POST", STOP_PATH, timeout_seconds=QUICK_TIMEOUT_SECONDS, checks_version=False)

    async def add(self, request: AddRequest, on_event: Listener) -> Finished:
        """See `Operations.add`. The add runs in the daemon; leaving ends it unless others wait for the same."""
        async with self._opened("POST", ADD_PATH, encode({"request": request})) as answer:
            await self._check(answer)
            async for line in answer.lines(MAX_LINE_BYTES):
                message = json.loads(line)
                if "event" in message:
                    on_event(event_from_json(message))
                elif "problem" in message:
                    raise from_problem(message["problem"])
                else:
                    return cast(Finished, decode(Finished, message["result"]))
        raise self._not_running("stopped before everything had come")

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        return cast("list[CachedRevision]", await self._call("list_revisions", repo=repo, revision=revision))

    async def remove(self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()) -> Removed:
        return cast("Removed", await self._call("remove", repo=repo, revision=revision, files=files))

    async def search(
        self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        return cast("list[Holding]", await self._call("search", repo=repo, revision=revision, files=files))

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        return cast("list[Provenance]", await self._call("why", repo=repo, revision=revision, files=files))

    async def publish(self, folder: str, repo: RepoId) -> Published:
        return cast("Published", await self._call("publish", folder=folder, repo=repo))

    async def add_peer(self, address: str) -> PeerStatus:
        return cast("PeerStatus", await self._call("add_peer", address=address))

    async def remove_peer(self, address: str) -> None:
        await self._call("remove_peer", address=address)

    async def list_peers(self) -> list[PeerStatus]:
        return cast("list[PeerStatus]", await self._call("list_peers"))

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        return cast("list[CachedRevision]", await self._call("share", repo=repo, is_shared=is_shared))

    async def status(self) -> NodeStatus:
        return cast("NodeStatus", await self._call("status", timeout_seconds=QUICK_TIMEOUT_SECONDS))

    async def _call(self, operation: str, *, timeout_seconds: float | None = None, **arguments: Any) -> Any:
        body = encode(arguments)
        answer = await self._ask("POST", call_path(operation), body, timeout_seconds=timeout_seconds)
        return decode(result_type(operation), answer)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_seconds: float | None = None,
        checks_version: bool = True,
    ) -> Any:
        async with self._opened(method, path, body, timeout_seconds) as answer:
            await self._check(answer, checks_version)
            return json.loads(await answer.body())

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: Any = None, timeout_seconds: float | None = None
    ) -> AsyncIterator[PlainAnswer]:
        """The one door to the socket: its errors leave as NotRunning."""
        asking = self._asking(method, path, b"" if body is None else json.dumps(body).encode(), timeout_seconds)
        try:
            async with asking as answer:
                yield answer
        except Silent as error:
            raise self._not_running("has not answered in time") from error
        except (NoAnswer, BadAnswer) as error:
            raise self._not_running(f"does not answer ({error})") from error

    def _asking(
        self, method: str, path: str, body: bytes, silence_seconds: float | None
    ) -> AbstractAsyncContextManager[PlainAnswer]:
        """Asks as who calls can wait. Each way is imported by itself: an event loop costs more than a whole command."""
        headers = {"Host": "hfpeer", VERSION_HEADER: str(CONTROL_VERSION), "Content-Type": "application/json"}
        request = question(method, path, headers, body)
        if self._is_blocking:
            from hfpeer.blocking import ask_unix

            return ask_unix(
                self._socket_path, request, connect_seconds=CONNECT_TIMEOUT_SECONDS, silence_seconds=silence_seconds
            )
        import asyncio

        from hfpeer.asking import ask

        connecting = asyncio.open_unix_connection(self._socket_path)
        return ask(connecting, request, connect_seconds=CONNECT_TIMEOUT_SECONDS, silence_seconds=silence_seconds)

    async def _check(self, answer: PlainAnswer, checks_version: bool = True) -> None:
        spoken = answer.headers.get(VERSION_HEADER.lower())
        if checks_version and spoken != str(CONTROL_VERSION):
            raise version_mismatch(spoken)
        if answer.status >= 400:
            raise _problem(await answer.body(), answer.status)

    def _not_running(self, what: str) -> NotRunning:
        return NotRunning(f"The daemon {what}.", hint="hfpeer daemon start", control_socket=str(self._socket_path))


def version_mismatch(spoken: str | None) -> VersionMismatch:
    """The error for a daemon and a command of different versions; `spoken` is what the other side said."""
    return VersionMismatch(
        f"The daemon and this command are of different versions (control protocol {spoken} and {CONTROL_VERSION}).",
        hint="hfpeer daemon restart",
        spoken=spoken,
        wanted=str(CONTROL_VERSION),
    )


def _problem(raw: bytes, status: int) -> HfpeerError:
    try:
        return from_problem(json.loads(raw))
    except (ValueError, AttributeError):
        return HfpeerError(f"The daemon answered with status {status}.", hint="Its log says more: hfpeer daemon logs.")
