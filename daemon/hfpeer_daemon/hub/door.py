"""The Hub's routes on the local door: which request is answered from the node, and which goes through to the hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.errors import NotFound
from hfpeer_daemon.hub.addresses import Address
from hfpeer_daemon.hub.answering import send_json
from hfpeer_daemon.hub.asked import Asked
from hfpeer_daemon.hub.files import HTTP_WALL_BYTES, FileDoor
from hfpeer_daemon.hub.git import GitDoor
from hfpeer_daemon.hub.listings import Listings
from hfpeer_daemon.hub.passing import lfs_batch, pass_through
from hfpeer_daemon.hub.refusals import send_refusal
from hfpeer_daemon.hub.xet import XetDoor
from hfpeer_daemon.problems import log_unforeseen
from hfpeer_daemon.responses import Message, Receive, Scope, Send

VIEWER_HOST = "datasets-server."
NO_HARNESSES = b'{"standardEnvVars":["AI_AGENT","AGENT"],"harnesses":{}}'

Route = Callable[[Asked, Address], Awaitable[None]]


class HubDoor:
    """An ASGI app over one endpoint; every error becomes an answer of the Hub's kind. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, threads: Executor, http_wall_bytes: int = HTTP_WALL_BYTES) -> None:
        """`http_wall_bytes` is the size above which clients do not download over plain HTTP."""
        self._endpoint = endpoint
        self._xet = XetDoor(endpoint, threads)
        files, listings = FileDoor(endpoint, threads, http_wall_bytes), Listings(endpoint)
        self._files: dict[str, Route] = {"resolve": files.resolve, "raw": files.raw}
        self._api: dict[str, Route] = {
            "": listings.info,
            "revision": listings.info,
            "tree": listings.tree,
            "refs": listings.refs,
            "commits": listings.commits,
            "auth-check": listings.auth_check,
            "xet-read-token": self._xet.token,
        }
        self._paths_info: Route = listings.paths_info
        self._git = GitDoor(endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        asked = Asked(scope, receive, watched)
        try:
            await self._answer(asked)
        except ConnectionError:
            return
        except Exception as error:  # noqa: BLE001  the outermost frame of a request: nothing may pass it
            log_unforeseen(f"{asked.method} {asked.path}", error)
            if has_begun:
                # An answer that has begun can only be broken off, and the server does that when it is left unfinished.
                return
            await send_refusal(asked, error)

    async def _answer(self, asked: Asked) -> None:
        if (asked.header("host") or "").lower().startswith(VIEWER_HOST):
            raise NotFound("There is no dataset viewer here.")
        if asked.path == "/api/agent-harnesses":
            await send_json(asked, NO_HARNESSES)
            return
        if await self._xet.answer(asked):
            return
        address = asked.address
        route = self._route(asked, address) if address else None
        if address is not None and route is not None:
            await route(asked, address)
        else:
            await pass_through(self._endpoint, asked)

    def _route(self, asked: Asked, address: Address) -> Route | None:
        if not address.is_api:
            return self._file_route(asked, address)
        if address.verb == "paths-info" and asked.method == "POST" and len(address.rest) == 1:
            return self._paths_info
        return self._api.get(address.verb) if asked.method in ("GET", "HEAD") else None

    def _file_route(self, asked: Asked, address: Address) -> Route | None:
        if address.verb == "info" and address.rest == ("lfs", "objects", "batch") and asked.method == "POST":
            return lambda asked, address: lfs_batch(self._endpoint, asked, address)
        if address.verb == "info" and address.rest == ("refs",) and asked.method == "GET":
            return self._git.info_refs
        if address.verb == "git-upload-pack" and not address.rest and asked.method == "POST":
            return self._git.upload_pack
        is_file = asked.method in ("GET", "HEAD") and len(address.rest) > 1
        return self._files.get(address.verb) if is_file else None
