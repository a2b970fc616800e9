"""The endpoint's own pages: its version, a health check, and the metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from hfpeer.control.operations import Operations
from hfpeer.version import __version__
from hfpeer_daemon.endpoint.metrics import CONTENT_TYPE, metrics_text


def endpoint_routes(node: Operations) -> APIRouter:
    """`/`, `/healthz` and `/metrics` over one node."""
    router = APIRouter()

    @router.get("/")
    async def version() -> Response:
        return PlainTextResponse(f"hfpeer {__version__}\n")

    @router.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(metrics_text(await node.status()), media_type=CONTENT_TYPE)

    return router
