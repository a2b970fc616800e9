"""The routes of the page: its views, its changes as server-sent events, its files. It changes nothing, and its headers
forbid a browser to load anything from elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from hfpeer.errors import HfpeerError
from hfpeer.version import __version__
from hfpeer_daemon.http.problems import problem_of
from hfpeer_daemon.page.live import Live
from hfpeer_daemon.page.viewer import LANGUAGE_COOKIE, Viewer, viewer_of
from hfpeer_daemon.page.views import LIVE_VIEWS, Context, Views, nothing_there

PAGE_PREFIX = "/-/"
"""No repo can have a name that begins with a dash, so no path of the Hub begins so."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Encoding, Accept-Language, Cookie",
}
KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
LANGUAGE_SECONDS = 365 * 86400
MIN_GZIP_BYTES = 1000
MAX_SEEN = 16
"""Most versions of fragments that a page may name."""
METHODS = ["GET", "HEAD"]


def wants_page(accept: str) -> bool:
    """Whether a request for `/` comes from a browser: tools do not name text/html."""
    return "text/html" in accept.lower()


def page_routes(views: Views, stopping: asyncio.Event) -> APIRouter:
    """The routes over one node. `stopping` ends the streams."""
    router, live = APIRouter(), Live(views, stopping)

    @router.api_route("/", methods=METHODS)
    async def node(request: Request) -> Response:
        return await _live_page(request, live, "node")

    @router.api_route(PAGE_PREFIX + "settings", methods=METHODS)
    async def settings(request: Request) -> Response:
        return await _page(request, "settings", views.settings)

    @router.api_route(PAGE_PREFIX + "repo", methods=METHODS)
    async def repo(request: Request, name: str = "", commit: str = "", file: str = "") -> Response:
        return await _page(request, "repo", lambda viewer: views.repo(viewer, name, commit, file))

    @router.get(PAGE_PREFIX + "live/{view}")
    async def changes(request: Request, view: str, seen: str = "") -> Response:
        if view not in LIVE_VIEWS:
            raise nothing_there()
        events = await live.events(view, await viewer_of(request), seen.split(",")[:MAX_SEEN])
        return StreamingResponse(events, headers=HEADERS, media_type="text/event-stream")

    @router.api_route(PAGE_PREFIX + "static/{name}", methods=METHODS)
    async def static(request: Request, name: str) -> Response:
        if name not in await asyncio.to_thread(_static_files):
            raise nothing_there()
        content, etag = _static_files()[name]
        headers = {**HEADERS, "Cache-Control": "no-cache", "ETag": etag}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return _sent(request, content, KINDS[name.rpartition(".")[2]], headers)

    @router.api_route(PAGE_PREFIX + "{view}", methods=METHODS)
    async def view(request: Request, view: str) -> Response:
        if view not in LIVE_VIEWS:
            return await _page(request, "problem", _nothing_there)
        return await _live_page(request, live, view)

    return router


async def _nothing_there(_viewer: Viewer) -> Context:
    raise nothing_there()


async def _live_page(request: Request, live: Live, view: str) -> Response:
    async def fragments(viewer: Viewer) -> Context:
        found = await live.fragments(view, viewer)
        return {"fragments": {one.name: one for one in found}, "seen": ",".join(one.version for one in found)}

    return await _page(request, view, fragments)


async def _page(request: Request, view: str, gather: Callable[[Viewer], Awaitable[Context]]) -> Response:
    """A view as a whole page; an error of the node as a page, too."""
    viewer, status = await viewer_of(request), 200
    try:
        context: dict[str, Any] = await gather(viewer)
    except HfpeerError as error:
        problem = problem_of(error)
        view, status, context = "problem", problem.http_status, {"problem": problem}
    shared = {"view": view, "version": __version__, "path": request.url.path, "query": dict(request.query_params)}
    html = await asyncio.to_thread(_html, f"{view}.html", viewer, {**shared, **context})
    response = _sent(request, html.encode(), "text/html; charset=utf-8", HEADERS, status)
    if "lang" in request.query_params:
        response.set_cookie(
            LANGUAGE_COOKIE, viewer.language, max_age=LANGUAGE_SECONDS, httponly=True, samesite="strict", path="/"
        )
    return response


def _html(template: str, viewer: Viewer, context: Context) -> str:
    from hfpeer_daemon.page.texts import html_of  # a daemon whose page is never looked at does not need jinja2

    return html_of(template, viewer, context)


@cache
def _static_files() -> dict[str, tuple[bytes, str]]:
    """The page's own files with their entity tags. Blocking."""
    folder = resources.files("hfpeer_daemon.page") / "static"
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    return {name: (content, f'"{hashlib.sha256(content).hexdigest()[:16]}"') for name, content in found.items()}


def _sent(request: Request, content: bytes, kind: str, headers: dict[str, str], status: int = 200) -> Response:
    """A response, compressed if the browser takes that."""
    if "gzip" in request.headers.get("accept-encoding", "") and len(content) >= MIN_GZIP_BYTES:
        content, headers = gzip.compress(content, 6, mtime=0), {**headers, "Content-Encoding": "gzip"}
    return Response(content, status, headers, media_type=kind)
