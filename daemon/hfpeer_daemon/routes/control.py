"""The control door: one route for each operation, the add as a stream of events, and the end of the daemon."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from hfpeer import __version__
from hfpeer.control import (
    ADD_PATH,
    CALLS,
    CONTROL_VERSION,
    HELLO_PATH,
    STOP_PATH,
    VERSION_HEADER,
    call_path,
    decode,
    decode_arguments,
    encode,
    parameter_types,
    version_mismatch,
)
from hfpeer.errors import InvalidName
from hfpeer.operations import AddRequest, Operations
from hfpeer_daemon.background import Adds
from hfpeer_daemon.problems import log_unforeseen, problem_bytes, problem_of
from hfpeer_daemon.responses import json_bytes

NDJSON = "application/x-ndjson"


def control_routes(node: Operations, adds: Adds, stop: Callable[[], None]) -> APIRouter:
    """The routes over one node. `stop` begins the end of the daemon."""
    router = APIRouter()
    checked = [Depends(_check_version)]

    @router.get(HELLO_PATH)
    async def hello() -> Response:
        return _json({"version": __version__, "control": CONTROL_VERSION, "pid": os.getpid()})

    @router.post(STOP_PATH)
    async def stop_daemon() -> Response:
        stop()
        return _json({"stopping": True})

    @router.post(ADD_PATH, dependencies=checked)
    async def add(request: Request) -> Response:
        document = await _document(request)
        wanted = decode(AddRequest, document.get("request") if isinstance(document, dict) else None)
        return StreamingResponse(_story(adds, wanted), media_type=NDJSON)

    for operation in CALLS:
        methods = ["POST"] if parameter_types(operation) else ["GET", "POST"]
        endpoint = _endpoint(node, operation)
        router.add_api_route(call_path(operation), endpoint, methods=methods, dependencies=checked)
    return router


def _endpoint(node: Operations, operation: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        arguments = decode_arguments(operation, await _document(request))
        result = await getattr(node, operation)(**arguments)
        return Response(await asyncio.to_thread(lambda: json_bytes(encode(result))), media_type="application/json")

    answer.__name__ = operation
    return answer


async def _story(adds: Adds, request: AddRequest) -> AsyncIterator[bytes]:
    """The add as lines: its events, then its result or its problem."""
    async with adds.watch(request) as (add, watcher):
        async for event in watcher.events():
            yield json_bytes(event.to_json()) + b"\n"
        try:
            result = await add.result()
        except Exception as error:  # noqa: BLE001  the status line is sent: a problem must travel as the last line
            log_unforeseen("add", error)
            yield b'{"problem":' + problem_bytes(problem_of(error)) + b"}\n"
        else:
            yield json_bytes({"result": encode(result)}) + b"\n"


async def _check_version(request: Request) -> None:
    spoken = request.headers.get(VERSION_HEADER)
    if spoken not in (None, str(CONTROL_VERSION)):
        raise version_mismatch(spoken)


async def _document(request: Request) -> Any:
    body = await request.body()
    try:
        return json.loads(body) if body else {}
    except ValueError as error:
        raise InvalidName(f"The request is not JSON: {error}.") from error


def _json(document: Any) -> Response:
    return Response(json_bytes(document), media_type="application/json")
