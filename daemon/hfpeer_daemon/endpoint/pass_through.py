"""Forwards requests that the node cannot answer to a hub, and the response back, streaming both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.errors import AccessDenied, HubUnreachable
from hfpeer.upstream.proxy import Header, ProxyRequest, ProxyResponse
from hfpeer_daemon.endpoint.requests.request import HubRequest


class PassThroughApp:
    """Sends requests to a hub with the caller's own token and no other.

    A caller on another machine may only read, and only anonymously. Belongs to one event loop.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def forward(self, request: HubRequest, body: bytes | None = None) -> None:
        """Answers with the hub's response. `body` replaces a body that was read already.

        Raises HubUnreachable before the response, ConnectionError in its middle.
        """
        async with self._opened(request, body) as response:
            await _send_back(request, response if _only_reads(request) else self._forgetting(request, response))

    async def try_forward(
        self,
        request: HubRequest,
        body: bytes | None,
        statuses: Container[int],
        transform: Callable[[ProxyResponse], ProxyResponse] = lambda response: response,
    ) -> bool:
        """Answers with the hub's response, transformed, if it has one of these statuses. False if it has not or no hub
        can be reached; then nothing was sent. The response is not compressed.

        Raises ConnectionError in the middle of the response.
        """
        async with AsyncExitStack() as stack:
            try:
                opened = self._opened(request, body, without=("accept-encoding",))
                response = await stack.enter_async_context(opened)
            except HubUnreachable:
                return False
            if response.status not in statuses:
                return False
            await _send_back(request, transform(response))
            return True

    @asynccontextmanager
    async def _opened(
        self, request: HubRequest, body: bytes | None, without: Container[str] = ()
    ) -> AsyncIterator[ProxyResponse]:
        """The hub's response to the request without the headers `without`, in lower case."""
        if not request.caller.is_local and not _only_reads(request):
            raise AccessDenied("This endpoint takes changes from its own machine only.", hint="Ask the hub itself.")
        content = request.stream() if body is None else _single(body)
        headers = [(name, value) for name, value in _headers(request) if name not in without]
        forwarded = ProxyRequest(request.method, request.target, headers, content if request.has_body else None)
        async with self._endpoint.proxy.open(forwarded, request.own_url) as response:
            yield response

    def _forgetting(self, request: HubRequest, response: ProxyResponse) -> ProxyResponse:
        """The same response. The repo's refs are forgotten before its first and after its last byte is sent."""
        url = request.url
        if url is None:
            return response

        async def chunks() -> AsyncIterator[bytes]:
            await self._endpoint.refs.forget(url.repo)
            async for chunk in response.chunks:
                yield chunk
            await self._endpoint.refs.forget(url.repo)

        return ProxyResponse(response.hub, response.status, response.headers, chunks())


def _only_reads(request: HubRequest) -> bool:
    return request.method in ("GET", "HEAD") or request.path.endswith("/git-upload-pack")


def _headers(request: HubRequest) -> list[Header]:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
    return [(name, value) for name, value in headers if name != "authorization" or request.caller.is_local]


async def _send_back(request: HubRequest, response: ProxyResponse) -> None:
    lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    await request.send({"type": "http.response.start", "status": response.status, "headers": lines})
    try:
        async for chunk in response.chunks:
            await request.send({"type": "http.response.body", "body": chunk, "more_body": True})
    except HubUnreachable as error:
        # The status is sent already: the client can only see that the response breaks off.
        raise ConnectionError(f"The response of {response.hub} broke off.") from error
    await request.send({"type": "http.response.body", "body": b""})


async def _single(body: bytes) -> Any:
    yield body
