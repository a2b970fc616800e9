"""The three doors as ASGI apps over one node, and who is let in at each.

LAN: GET and HEAD, no browsers, shared things only. Endpoint: only by one of its own names, so that no web page can
reach it through a name of its own. Control: no browsers; who may open the socket file may do everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException

from hfpeer.errors import AccessDenied, InvalidName
from hfpeer.limits import Limiter
from hfpeer.names import Address
from hfpeer.operations import Holdings, Operations
from hfpeer.wire import BATCH_PATH, BLOBS_PREFIX, FOLLOW_SUFFIX, PIECES_SUFFIX
from hfpeer_daemon.background import Adds
from hfpeer_daemon.blobs import BlobDoor
from hfpeer_daemon.following import FollowDoor
from hfpeer_daemon.problems import answer_problems, with_problems
from hfpeer_daemon.responses import App, Receive, Scope, Send, header
from hfpeer_daemon.routes.control import control_routes
from hfpeer_daemon.routes.endpoint import endpoint_routes
from hfpeer_daemon.routes.peer import peer_routes
from hfpeer_daemon.uploads import UploadLine

MAX_BATCHES = 4
MAX_BATCHES_PER_PEER = 2
OWN_PAGES = frozenset({"/", "/healthz", "/metrics"})
"""Paths of the endpoint that are no Hub's."""
VIEWER_PREFIX = "datasets-server."
"""Hub protocol: `datasets` puts it before the endpoint's host to ask for a dataset's viewer."""
Check = Callable[[Scope], None]


def lan_app(
    holdings: Holdings,
    threads: Executor,
    line: UploadLine,
    stopping: asyncio.Event,
    limiter: Limiter | None = None,
) -> App:
    """The peers' door. `line` bounds the uploads, `limiter` their rate; `threads` should be somewhat more than the
    line's places. `stopping` ends what is followed."""
    batches = UploadLine(MAX_BATCHES, max_per_peer=MAX_BATCHES_PER_PEER)
    blobs = BlobDoor(holdings, threads, line, batches, limiter)
    followed = FollowDoor(holdings, stopping)
    messages = _framework(peer_routes(holdings))

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith(BLOBS_PREFIX) and path.endswith(FOLLOW_SUFFIX):
            await followed.follow(scope, receive, send)
        elif path.startswith(BLOBS_PREFIX) and not path.endswith(PIECES_SUFFIX):
            await blobs.blob(scope, receive, send)
        elif path == BATCH_PATH:
            await blobs.batch(scope, receive, send)
        else:
            await messages(scope, receive, send)

    return _door(route, refuse_change, refuse_browser)


def endpoint_app(node: Operations, own_address: Address, names: Iterable[str] = (), hub: App | None = None) -> App:
    """The local tools' door: its own pages, and everything else at `hub`. `names` are further values of `Host`, with or
    without a port, that are its own."""
    pages = _framework(endpoint_routes(node))

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        app = pages if hub is None or scope["path"] in OWN_PAGES else hub
        await app(scope, receive, send)

    return _door(route, host_check(own_address, names))


def control_app(node: Operations, adds: Adds, stop: Callable[[], None]) -> App:
    """The control door. `stop` begins the end of the daemon."""
    return _door(_framework(control_routes(node, adds, stop)), refuse_browser)


def refuse_change(scope: Scope) -> None:
    """Raises what becomes a 405 unless the method is GET or HEAD."""
    if scope["method"] not in ("GET", "HEAD"):
        raise HTTPException(405, headers={"Allow": "GET, HEAD"})


def refuse_browser(scope: Scope) -> None:
    """Raises AccessDenied for a request that a web page made."""
    for name in (b"origin", b"referer"):
        if header(scope, name) is not None:
            raise AccessDenied("This door is not for web pages.", hint="Ask without Origin and Referer.")


def host_check(own_address: Address, names: Iterable[str] = ()) -> Check:
    """A check that raises unless `Host` is one of the door's own names: else a web page could rebind its name to us.

    A door that is open to other machines takes every IP address, because it cannot know them all.
    """
    hosts = {own_address.host, "localhost", "127.0.0.1", "::1"}
    allowed = {str(Address(host, own_address.port)).lower() for host in hosts}
    if own_address.port == 80:
        allowed |= {"localhost", "127.0.0.1", "[::1]"}
    is_open = not own_address.is_loopback
    for name in names:
        allowed |= {name.lower(), f"{name.lower()}:{own_address.port}"}

    def check(scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            raise InvalidName("A request has one Host header.")
        host = given[0].decode("latin-1").strip().lower()
        if host.removeprefix(VIEWER_PREFIX) not in allowed and not (is_open and _is_address(host)):
            raise AccessDenied(
                f"This endpoint is not {host!r}.",
                hint=f"Use this machine's address with port {own_address.port}; if this is a name of it: "
                "hfpeer conf set endpoint.names NAME.",
            )

    return check


def _is_address(host: str) -> bool:
    """Whether a `Host` is an IP address: no web page can make its own name lead there."""
    try:
        return Address.parse(host).ip is not None
    except InvalidName:
        return False


def _framework(routes: APIRouter) -> FastAPI:
    app = FastAPI(title="hfpeer", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(routes)
    answer_problems(app)
    return app


def _door(app: App, *checks: Check) -> App:
    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        for check in checks:
            check(scope)
        await app(scope, receive, send)

    return with_problems(checked)
