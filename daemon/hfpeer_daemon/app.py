"""The three doors as ASGI apps over one node, and the checks of each.

LAN: GET and HEAD only, beside requests for an add; no browsers, shared things only. Endpoint: only under one of its own
names, and nothing for web pages, so that no page can make this node fetch or change anything. Control: no browsers; any
process that may open the socket file may do everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException

from hfpeer.budgets import MAX_BATCHES, MAX_DIGESTED_BLOBS
from hfpeer.control.environment import Digests
from hfpeer.control.operations import Operations
from hfpeer.errors import AccessDenied, InvalidName
from hfpeer.net.address import Address
from hfpeer.net.limiter import Limiter
from hfpeer.peers.protocol.paths import (
    ADDS_PATH,
    BATCH_PATH,
    BLOBS_PREFIX,
    DIGESTS_SUFFIX,
    FOLLOW_SUFFIX,
    PIECES_SUFFIX,
)
from hfpeer.peers.provider import AddTaker, Provider
from hfpeer_daemon.control.adds import Adds, Calls
from hfpeer_daemon.control.routes import control_routes
from hfpeer_daemon.endpoint.pages import endpoint_routes
from hfpeer_daemon.http.problems import answer_problems, with_problems
from hfpeer_daemon.http.responses import App, Receive, Scope, Send, header
from hfpeer_daemon.lan.blobs import BlobApp
from hfpeer_daemon.lan.follow import FollowApp
from hfpeer_daemon.lan.messages import peer_routes
from hfpeer_daemon.lan.piece_digests import PieceDigestApp
from hfpeer_daemon.lan.remote_adds import add_routes
from hfpeer_daemon.lan.upload_slots import UploadSlots
from hfpeer_daemon.page.routes import PAGE_PREFIX, wants_page

OWN_PAGES = frozenset({"/", "/healthz", "/metrics"})
"""Paths of the endpoint that no Hub has."""
VIEWER_PREFIX = "datasets-server."
"""Hub protocol: `datasets` puts it before the endpoint's host to reach a dataset's viewer."""
Check = Callable[[Scope], None]


def lan_app(
    provider: Provider,
    threads: Executor,
    slots: UploadSlots,
    stopping: asyncio.Event,
    limiter: Limiter | None = None,
    batches: UploadSlots | None = None,
    adds: AddTaker | None = None,
) -> App:
    """The LAN door. `slots` bounds the uploads, `batches` the batches of small blobs (MAX_BATCHES by default),
    `limiter` the rate of both. `threads` needs a few more threads than both have slots, and MAX_DIGESTED_BLOBS.
    `stopping` ends the responses to followers. `adds` takes the requests of other nodes; None takes none."""
    batches = batches or UploadSlots(MAX_BATCHES, max_per_peer=MAX_BATCHES // 2)
    blobs = BlobApp(provider, threads, slots, batches, limiter)
    digested = PieceDigestApp(provider, threads, UploadSlots(MAX_DIGESTED_BLOBS, max_per_peer=MAX_DIGESTED_BLOBS // 2))
    followed = FollowApp(provider, stopping)
    messages = _framework(peer_routes(provider), *([] if adds is None else [add_routes(adds)]))

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith(BLOBS_PREFIX) and path.endswith(FOLLOW_SUFFIX):
            await followed.follow(scope, receive, send)
        elif path.startswith(BLOBS_PREFIX) and path.endswith(DIGESTS_SUFFIX):
            await digested.digests(scope, receive, send)
        elif path.startswith(BLOBS_PREFIX) and not path.endswith(PIECES_SUFFIX):
            await blobs.blob(scope, receive, send)
        elif path == BATCH_PATH:
            await blobs.batch(scope, receive, send)
        else:
            await messages(scope, receive, send)

    return _door(route, refuse_change, refuse_browser)


def endpoint_app(
    node: Operations,
    own_address: Address,
    names: Iterable[str] = (),
    hub: App | None = None,
    page: APIRouter | None = None,
) -> App:
    """The endpoint: its own pages, for a browser the routes of `page`, and everything else at `hub`. `names` are
    further valid values of `Host`, with or without a port."""
    pages: App = _framework(endpoint_routes(node))
    for_browsers = pages if page is None else _framework(page)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith(PAGE_PREFIX) or (path == "/" and wants_page(header(scope, b"accept") or "")):
            app = for_browsers
        else:
            app = pages if hub is None or path in OWN_PAGES else hub
        await app(scope, receive, send)

    return _door(route, host_check(own_address, names), refuse_page)


def control_app(
    node: Operations, adds: Adds, calls: Calls, stop: Callable[[], None], environment: Digests | None = None
) -> App:
    """The control door. `stop` begins the end of the daemon; `environment` is what the daemon works with."""
    return _door(_framework(control_routes(node, adds, calls, stop, environment)), refuse_browser)


def refuse_change(scope: Scope) -> None:
    """Raises the error of a 405 unless the method is GET or HEAD (RFC 9110 §15.5.6), or POST of a request for an
    add."""
    allowed = ("GET", "HEAD", "POST") if scope["path"] == ADDS_PATH else ("GET", "HEAD")
    if scope["method"] not in allowed:
        raise HTTPException(405, headers={"Allow": ", ".join(allowed)})


def refuse_browser(scope: Scope) -> None:
    """Raises AccessDenied for a request from a web page."""
    for name in (b"origin", b"referer", b"sec-fetch-site"):
        if header(scope, name) is not None:
            raise AccessDenied("This door is not for web pages.", hint="Ask without Origin and Referer.")


def refuse_page(scope: Scope) -> None:
    """Raises AccessDenied for a request that a browser makes for a page other than this endpoint's own.

    A foreign page, a link on it, and a typed address all look harmless to a browser, and each would make the node
    fetch. So a browser gets the endpoint's own pages only, and the requests of those pages. `Host` has been checked
    before.
    """
    site, mode = (header(scope, name) for name in (b"sec-fetch-site", b"sec-fetch-mode"))
    own = (header(scope, b"host") or "").strip().lower()
    origins = [header(scope, name) for name in (b"origin", b"referer")]
    is_own_page = all(_host_of(origin) == own for origin in origins if origin is not None)
    if site == "same-origin" and is_own_page:
        return
    is_own_path = scope["path"] in OWN_PAGES or scope["path"].startswith(PAGE_PREFIX)
    if scope["method"] in ("GET", "HEAD") and is_own_path and mode in (None, "navigate"):
        return
    if site is not None or not is_own_page or _is_browser(scope):
        raise AccessDenied(
            "This endpoint fetches nothing for a web page or a browser's address bar.",
            hint="Ask with a Hugging Face tool, or with curl.",
        )


def _host_of(url: str) -> str:
    """Host and port of an origin or URL, in lower case; "" for `null` and other texts."""
    scheme, found, rest = url.strip().lower().partition("://")
    return rest.partition("/")[0] if found and scheme in ("http", "https") else ""


def _is_browser(scope: Scope) -> bool:
    """Whether a browser sends this without naming the page: an older browser, or one at an address of the LAN, for
    which browsers send no Sec-Fetch-Site."""
    is_named_so = (header(scope, b"user-agent") or "").startswith("Mozilla/")
    return is_named_so and header(scope, b"accept-language") is not None


def host_check(own_address: Address, names: Iterable[str] = ()) -> Check:
    """A check that raises unless `Host` is one of the door's own names: it stops web pages that rebind their name to
    this machine (DNS rebinding).

    A door that is open to other machines accepts every IP address, because it cannot know them all.
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
            raise InvalidName("The request needs exactly one Host header.")
        host = given[0].decode("latin-1").strip().lower()
        if host.removeprefix(VIEWER_PREFIX) not in allowed and not (is_open and _is_address(host)):
            raise AccessDenied(
                f"This endpoint is not {host!r}.",
                hint=f"Use this machine's address with port {own_address.port}; if this is one of its names, run "
                "hfpeer conf set endpoint.names NAME.",
            )

    return check


def _is_address(host: str) -> bool:
    """Whether a `Host` is an IP address, which no web page can make its own name."""
    try:
        return Address.parse(host).ip is not None
    except InvalidName:
        return False


def _framework(*routers: APIRouter) -> FastAPI:
    app = FastAPI(title="hfpeer", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for router in routers:
        app.include_router(router)
    answer_problems(app)
    return app


def _door(app: App, *checks: Check) -> App:
    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        for check in checks:
            check(scope)
        await app(scope, receive, send)

    return with_problems(checked)
