"""API requests to one hub: JSON, pages of JSON, and raw responses of bounded size.

Retries, keeps the rests that the hub asks for, and follows redirects. Every response has a largest size and every loop
an end. A fault of the hub becomes HubUnreachable, a refusal the error that `refusals` finds for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from hfpeer.budgets import (
    LARGE_MESSAGE_BYTES,
    MAX_ANSWER_BYTES,
    MAX_ELEMENTS,
    MAX_PAGES,
    MAX_PAGES_BYTES,
    MAX_REDIRECTS,
)
from hfpeer.errors import RateLimited
from hfpeer.names import RepoId
from hfpeer.net.http1 import has_too_many_items
from hfpeer.upstream.access import USER_AGENT, Access, BadRedirect, after_redirect, is_small, origin_of, redirect_target
from hfpeer.upstream.connection.certificates import UnusableCertificates
from hfpeer.upstream.connection.clients import Connections, fault_of
from hfpeer.upstream.reach import Reach
from hfpeer.upstream.responses.rate_limit import RateLimit, Rests
from hfpeer.upstream.responses.refusals import WEB_PAGE, is_transient, not_a_hub, outage, refusal
from hfpeer.upstream.responses.unpacking import ENCODINGS, BadEncoding, drain, unpacked

MAX_TRIES = 3


@dataclass(frozen=True)
class Timeouts:
    """Time limits for a hub in seconds: to connect, between two bytes, for one response, for the git exchange."""

    connect_seconds: float = 10.0
    silence_seconds: float = 20.0
    response_seconds: float = 120.0
    git_seconds: float = 60.0
    backoff_seconds: float = 0.5

    @property
    def httpx(self) -> httpx.Timeout:
        return httpx.Timeout(self.silence_seconds, connect=self.connect_seconds, pool=None)


@dataclass(frozen=True)
class ApiRequest:
    """One request about a repo. With a `body` it is a POST, which is not repeated at another origin after a
    redirect. `is_head`: a HEAD; its response is the first, redirect or not, that tells etag and size of a linked file.
    """

    url: httpx.URL
    repo: RepoId
    revision: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    max_bytes: int = MAX_ANSWER_BYTES
    is_head: bool = False


class Api:
    """Sends requests to one hub; belongs to the event loop it is first used in. `name` is shown to people."""

    def __init__(
        self,
        name: str,
        timeouts: Timeouts,
        hub_url: str,
        connections: Connections,
        reach: Reach | None = None,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self.name = name
        self._reach = reach or Reach()
        self._rate_limit = rate_limit or RateLimit(name)
        self._hub_url = hub_url
        self._connections = connections
        self._timeouts = timeouts
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def get_json(self, request: ApiRequest, access: Access) -> Any:
        """The JSON document of a response. Raises the errors of `refusals`."""
        return (await self.get_document(request, access))[0]

    async def get_pages(self, request: ApiRequest, access: Access) -> list[Any]:
        """The elements of a paged array. The next page is requested from this endpoint, whatever host its link
        names."""
        items: list[Any] = []
        size_bytes, visited = 0, {request.url}
        for _ in range(MAX_PAGES):
            page, response = await self.get_document(request, access)
            size_bytes += len(response.content)
            if not isinstance(page, list):
                not_a_hub(self.name, "a listing is no array")
            items += page
            following = self._next_page(response, access)
            if following is None:
                return items
            is_circular = following in visited or not page
            if is_circular or len(items) > MAX_ELEMENTS or size_bytes > MAX_PAGES_BYTES:
                break
            visited.add(following)
            request = ApiRequest(following, request.repo, request.revision)
        not_a_hub(self.name, "a listing has no end")

    async def get(self, request: ApiRequest, access: Access) -> httpx.Response:
        """A whole response with a status below 300, after redirects, retries, and rests that the access allows.

        Raises RateLimited if the hub asks for a longer rest, or for short ones again and again.
        """
        failures, rests = 0, Rests(access.rest_seconds)
        while True:
            try:
                return await asyncio.wait_for(self._read_once(request, access), self._timeouts.response_seconds)
            except (asyncio.TimeoutError, TimeoutError) as error:
                raise outage(self.name, "takes too long to answer") from error
            except RateLimited as limit:
                await rests.after(limit)
            except TransientFault as fault:
                failures += 1
                if failures == MAX_TRIES:
                    raise outage(self.name, fault.reason, **fault.facts) from fault
                await asyncio.sleep(self._timeouts.backoff_seconds * 2 ** (failures - 1))

    @asynccontextmanager
    async def open(self, request: ApiRequest, access: Access) -> AsyncIterator[httpx.Response]:
        """A response with a status below 300, its body unread, after redirects; without retries.

        Raises TransientFault where `get` would retry, RateLimited while the hub rests, HubUnreachable for other
        outages, else a refusal.
        """
        if (rest := self._rate_limit.rest(request.url)) is not None:
            raise rest.error
        client = await self._open_client()
        url, response = request.url, None
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._send(client, request, access, url)
                if request.is_head and {"x-linked-etag", "x-linked-size"} <= response.headers.keys():
                    break
                target = redirect_target(response)
                if target is None:
                    break
                await self._discard(response)
                url = target
            else:
                raise outage(self.name, f"redirects more than {MAX_REDIRECTS} times")
            if response.status_code >= 300 and not request.is_head and is_small(response.headers):
                await drain(response)
            self._raise_for_status(response, request)
            yield response
        except BadRedirect as error:
            raise outage(self.name, str(error)) from error
        except BadEncoding as error:
            raise outage(self.name, str(error), is_no_hub=True) from error
        except (httpx.TimeoutException, httpx.ConnectError, httpx.ProxyError) as error:
            # No retry: it does not help a machine without network, and an add from a peer would wait for it.
            self._reach.note_failure()
            reason, hint = fault_of(error)
            raise outage(self.name, after_redirect(request.url, url, reason), hint=hint) from error
        except httpx.RequestError as error:
            self._reach.note_failure()
            raise TransientFault(after_redirect(request.url, url, fault_of(error)[0])) from error
        finally:
            if response is not None:
                await response.aclose()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def get_document(
        self, request: ApiRequest, access: Access, *, keeps_siblings: bool = False
    ) -> tuple[Any, httpx.Response]:
        """The JSON document of a response, and the response. Without `keeps_siblings` the files in a repo's info are
        dropped: they may be many, and few callers need them."""
        response = await self.get(request, access)
        try:
            return await asyncio.to_thread(_parsed, response.content, keeps_siblings), response
        except (ValueError, RecursionError) as error:
            if response.headers.get("content-type", "").startswith("text/html"):
                not_a_hub(self.name, f"{response.url.path} is a web page", error, hint=WEB_PAGE)
            not_a_hub(self.name, f"{response.url.path} is no JSON", error)

    def _next_page(self, response: httpx.Response, access: Access) -> httpx.URL | None:
        link = response.links.get("next", {}).get("url")
        try:
            return access.at_this_endpoint(response.url.join(link)) if link else None
        except (httpx.InvalidURL, ValueError) as error:
            not_a_hub(self.name, "the link to the next page is no URL", error)

    async def _open_client(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                limits = httpx.Limits(max_connections=16, max_keepalive_connections=8)
                try:
                    self._client = await asyncio.to_thread(
                        self._connections.async_client, self._hub_url, self._timeouts.httpx, limits
                    )
                except UnusableCertificates as error:
                    reason, hint = fault_of(error)
                    raise outage(self.name, reason, hint=hint) from error
                self._client.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": ENCODINGS})
        return self._client

    async def _send(
        self, client: httpx.AsyncClient, request: ApiRequest, access: Access, url: httpx.URL
    ) -> httpx.Response:
        if request.body is not None and origin_of(url) != origin_of(request.url):
            raise BadRedirect("redirects a POST to another origin")
        allowed = await asyncio.to_thread(access.headers_for, url)
        method = "HEAD" if request.is_head else "GET" if request.body is None else "POST"
        built = client.build_request(
            method,
            url,
            headers={**request.headers, **allowed},
            content=request.body,
            extensions={"trace": self._trace},
        )
        try:
            return await client.send(built, stream=True, follow_redirects=False)
        except (
            httpx.InvalidURL,
            ValueError,
        ) as error:  # httpx parses the target of a redirect even if it does not follow it
            raise BadRedirect("redirects to something that is no URL") from error

    async def _trace(self, event: str, _: Mapping[str, Any]) -> None:
        """Called by httpcore for each step of a request."""
        if event == "connection.connect_tcp.started":
            self._reach.note_attempt()
        elif event in ("connection.connect_tcp.complete", "http11.send_request_headers.started"):
            self._reach.note_connection()
        elif event == "http11.receive_response_headers.complete":
            self._reach.note_answer()

    def _raise_for_status(self, response: httpx.Response, request: ApiRequest) -> None:
        status = response.status_code
        if (rest := self._rate_limit.note(request.url, response)) is not None:
            raise rest.error
        if is_transient(status):
            raise TransientFault(f"answers {status}", status=status)
        if status >= 400:
            raise refusal(self.name, status, response.headers, request.repo, request.revision)
        if status >= 300 and not request.is_head:
            not_a_hub(self.name, f"it answers {status}")

    async def _read_once(self, request: ApiRequest, access: Access) -> httpx.Response:
        async with self.open(request, access) as response:
            return await self._read_body(response, request.max_bytes)

    async def _read_body(self, response: httpx.Response, max_bytes: int) -> httpx.Response:
        """The response with its content. The bound holds after decoding, because gzip hides the size."""
        content = bytearray()
        async for chunk in unpacked(response):
            content += chunk
            if len(content) > max_bytes:
                not_a_hub(self.name, f"a response is larger than {max_bytes} bytes")
        whole = httpx.Response(response.status_code, content=bytes(content), request=response.request)
        whole.headers = response.headers
        return whole

    async def _discard(self, response: httpx.Response) -> None:
        if is_small(response.headers):
            await drain(response)
        await response.aclose()


def _parsed(raw: bytes, keeps_siblings: bool) -> Any:
    """The document. Raises ValueError, also for a large one that would take many times its size in memory."""
    if len(raw) > LARGE_MESSAGE_BYTES and has_too_many_items(raw):
        raise ValueError("it has too many values for its size")
    return json.loads(raw, object_hook=None if keeps_siblings else _without_sibling)


def _without_sibling(found: dict[str, Any]) -> dict[str, Any] | None:
    return None if "rfilename" in found else found


class TransientFault(Exception):
    """A fault that may be gone a moment later. `reason` ends a sentence that starts with the hub's name."""

    def __init__(self, reason: str, **facts: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.facts = facts
