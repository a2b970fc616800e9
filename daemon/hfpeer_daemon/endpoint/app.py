"""The Hub's routes at the endpoint: answers from the node, and forwards all other requests to the hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.errors import NotFound
from hfpeer_daemon.endpoint.files import HTTP_WALL_BYTES, FileApp
from hfpeer_daemon.endpoint.git.git import GitApp
from hfpeer_daemon.endpoint.git.lfs import LfsApp
from hfpeer_daemon.endpoint.pass_through import PassThroughApp
from hfpeer_daemon.endpoint.repo_info import RepoInfoApp
from hfpeer_daemon.endpoint.requests.held_bodies import HeldBytes
from hfpeer_daemon.endpoint.requests.request import HubRequest
from hfpeer_daemon.endpoint.requests.urls import HubUrl
from hfpeer_daemon.endpoint.responses.answers import send_json
from hfpeer_daemon.endpoint.responses.refusals import send_refusal
from hfpeer_daemon.endpoint.xet import XetApp
from hfpeer_daemon.http.problems import log_unforeseen
from hfpeer_daemon.http.responses import Message, Receive, Scope, Send

VIEWER_HOST = "datasets-server."
NO_HARNESSES = b'{"standardEnvVars":["AI_AGENT","AGENT"],"harnesses":{}}'

Route = Callable[[HubRequest, HubUrl], Awaitable[None]]


class HubApp:
    """An ASGI app over one endpoint. Errors become responses as the Hub's. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, threads: Executor, http_wall_bytes: int = HTTP_WALL_BYTES) -> None:
        """`threads` read files. Clients do not download files above `http_wall_bytes` over plain HTTP."""
        self._xet = XetApp(endpoint, threads)
        files, repo_info = FileApp(endpoint, threads, http_wall_bytes), RepoInfoApp(endpoint)
        self._files: dict[str, Route] = {"resolve": files.resolve, "raw": files.raw}
        self._api: dict[str, Route] = {
            "": repo_info.info,
            "revision": repo_info.info,
            "tree": repo_info.tree,
            "refs": repo_info.refs,
            "commits": repo_info.commits,
            "auth-check": repo_info.auth_check,
            "xet-read-token": self._xet.token,
        }
        self._paths_info: Route = repo_info.paths_info
        self._pass_through = PassThroughApp(endpoint)
        self._git = GitApp(endpoint, self._pass_through)
        self._lfs = LfsApp(endpoint, self._pass_through)
        self._held = HeldBytes()
        self._has_hubs = endpoint.has_hubs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        request = HubRequest(scope, receive, watched, self._held)
        try:
            await self._answer(request)
        except ConnectionError:
            return
        except Exception as error:  # noqa: BLE001  the outermost frame of a request: nothing may pass it
            log_unforeseen(f"{request.method} {request.path}", error)
            if has_begun:
                # A response that has begun can only be broken off. The server does so if it is left unfinished.
                return
            await send_refusal(request, error, has_hubs=self._has_hubs)
        finally:
            request.held.free()

    async def _answer(self, request: HubRequest) -> None:
        if (request.header("host") or "").lower().startswith(VIEWER_HOST):
            raise NotFound("There is no dataset viewer here.")
        if request.path == "/api/agent-harnesses":
            await send_json(request, NO_HARNESSES)
            return
        if await self._xet.answer(request):
            return
        url = request.url
        route = self._route(request, url) if url else None
        if url is not None and route is not None:
            await route(request, url)
        else:
            await self._pass_through.forward(request)

    def _route(self, request: HubRequest, url: HubUrl) -> Route | None:
        if not url.is_api:
            return self._file_route(request, url)
        if url.verb == "paths-info" and request.method == "POST" and len(url.rest) == 1:
            return self._paths_info
        return self._api.get(url.verb) if request.method in ("GET", "HEAD") else None

    def _file_route(self, request: HubRequest, url: HubUrl) -> Route | None:
        if url.verb == "info" and url.rest == ("lfs", "objects", "batch") and request.method == "POST":
            return self._lfs.batch
        if url.verb == "info" and url.rest == ("refs",) and request.method == "GET":
            return self._git.info_refs
        if url.verb == "git-upload-pack" and not url.rest and request.method == "POST":
            return self._git.upload_pack
        is_file = request.method in ("GET", "HEAD") and len(url.rest) > 1
        return self._files.get(url.verb) if is_file else None
