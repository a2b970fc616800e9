"""The routes of the control door: one for each operation, those of FOLLOWED as a stream of events, and the stop
of the daemon."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from hfpeer.budgets import MAX_BODY_BYTES
from hfpeer.control.codec import (
    CALLS,
    CONTROL_VERSION,
    FOLLOWED,
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
from hfpeer.control.environment import Digests
from hfpeer.control.operations import FollowedRequest, Operations
from hfpeer.errors import InvalidName
from hfpeer.version import __version__
from hfpeer_daemon.control.adds import Adds, Calls
from hfpeer_daemon.http.problems import log_unforeseen, problem_bytes, problem_of
from hfpeer_daemon.http.responses import json_bytes, until_gone

NDJSON = "application/x-ndjson"


def control_routes(
    node: Operations, adds: Adds, calls: Calls, stop: Callable[[], None], environment: Digests | None = None
) -> APIRouter:
    """The routes over one node. `stop` begins the end of the daemon; `environment` is what the daemon works with."""
    router = APIRouter()
    checked = [Depends(_check_version)]

    @router.get(HELLO_PATH)
    async def hello() -> Response:
        told = environment.to_json() if environment else None
        return _json({"version": __version__, "control": CONTROL_VERSION, "pid": os.getpid(), "environment": told})

    @router.post(STOP_PATH)
    async def stop_daemon() -> Response:
        stop()
        return _json({"stopping": True})

    for operation in FOLLOWED:
        endpoint = _followed_endpoint(adds, operation)
        router.add_api_route(call_path(operation), endpoint, methods=["POST"], dependencies=checked)
    for operation in CALLS:
        methods = ["POST"] if parameter_types(operation) else ["GET", "POST"]
        endpoint = _endpoint(node, calls, operation)
        router.add_api_route(call_path(operation), endpoint, methods=methods, dependencies=checked)
    return router


def _endpoint(node: Operations, calls: Calls, operation: str) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        arguments = decode_arguments(operation, await _document(request))
        result = await calls.run(getattr(node, operation)(**arguments), until_gone(request.receive))
        return Response(await asyncio.to_thread(lambda: json_bytes(encode(result))), media_type="application/json")

    handle.__name__ = operation
    return handle


def _followed_endpoint(adds: Adds, operation: str) -> Callable[[Request], Awaitable[Response]]:
    kind = parameter_types(operation)["request"]

    async def handle(request: Request) -> Response:
        document = await _document(request)
        wanted = decode(kind, document.get("request") if isinstance(document, dict) else None)
        return StreamingResponse(_lines(adds, operation, wanted), media_type=NDJSON)

    handle.__name__ = operation
    return handle


async def _lines(adds: Adds, operation: str, request: FollowedRequest) -> AsyncIterator[bytes]:
    """The operation as JSON lines: its events, then its result or its problem."""
    async with adds.follow(request) as (add, follower):
        async for event in follower.events():
            yield json_bytes(event.to_json()) + b"\n"
        try:
            result = await add.result()
        except Exception as error:  # noqa: BLE001  the status line is sent: a problem must travel as the last line
            log_unforeseen(operation, error)
            yield b'{"problem":' + problem_bytes(problem_of(error)) + b"}\n"
        else:
            yield await asyncio.to_thread(lambda: json_bytes({"result": encode(result)})) + b"\n"


async def _check_version(request: Request) -> None:
    spoken = request.headers.get(VERSION_HEADER)
    if spoken not in (None, str(CONTROL_VERSION)):
        raise version_mismatch(spoken)


async def _document(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InvalidName(f"The request exceeds {MAX_BODY_BYTES} bytes.")
    try:
        return json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise InvalidName(f"The request is not JSON: {error}.") from error


def _json(document: Any) -> Response:
    return Response(json_bytes(document), media_type="application/json")
