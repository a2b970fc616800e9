"""The requests of other nodes to add something: their terms, the requests, and how far each is.

Only `POST /adds` changes something. The node decides whether it is taken; here its size and its time are bounded.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from hfpeer.budgets import MAX_REQUEST_BYTES, REQUEST_SECONDS
from hfpeer.errors import InvalidName, NotFound
from hfpeer.net.http1 import whole_number
from hfpeer.peers.protocol.paths import ADDS_PATH, SIGNATURE_HEADER
from hfpeer.peers.protocol.remote_adds import AddProgress, AddTerms, parse_ticket
from hfpeer.peers.provider import AddTaker
from hfpeer_daemon.http.responses import json_bytes, sender_node_id

MAX_WAIT_SECONDS = 5
"""A question for the progress that would wait longer is answered at once."""


def add_routes(adds: AddTaker) -> APIRouter:
    """The routes over the node that takes the requests."""
    router = APIRouter()

    @router.api_route(ADDS_PATH, methods=["GET", "HEAD"])
    async def terms() -> Response:
        return _json(adds.terms())

    @router.post(ADDS_PATH)
    async def take(request: Request) -> Response:
        body = await _body(request)
        host = request.client.host if request.client else ""
        signed = request.headers.get(SIGNATURE_HEADER, "")
        return _json(await adds.take(body, sender=sender_node_id(request.scope), host=host, signed=signed))

    @router.get(ADDS_PATH + "/{ticket}")
    async def progress(ticket: str, request: Request) -> Response:
        wait_seconds = whole_number(request.query_params.get("wait", ""), MAX_WAIT_SECONDS) or 0
        found = await adds.progress(parse_ticket(ticket), wait_seconds)
        if found is None:
            raise NotFound("This node knows no request with this ticket.")
        return _json(found)

    return router


async def _body(request: Request) -> bytes:
    """Raises InvalidName for a body that is too large or too slow."""
    body = bytearray()

    async def read() -> None:
        async for chunk in request.stream():
            body.extend(chunk)
            if len(body) > MAX_REQUEST_BYTES:
                raise InvalidName(f"A request has at most {MAX_REQUEST_BYTES} bytes.")

    try:
        await asyncio.wait_for(read(), REQUEST_SECONDS)
    except asyncio.TimeoutError:
        raise InvalidName("The request did not arrive in time.") from None
    return bytes(body)


def _json(found: AddProgress | AddTerms) -> Response:
    return Response(json_bytes(found.to_json()), media_type="application/json")
