"""Forwards a request to a hub and streams the response back (a gateway in the sense of RFC 9110 §3.7).

Decides which headers are forwarded in both directions: those that Hugging Face tools need, and the caller's
Authorization only to a hub that may see tokens. URLs of the hub in a response are rewritten to URLs of this endpoint.
Redirects are rewritten, not followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from hfpeer.errors import HubUnreachable
from hfpeer.upstream.access import origin_of
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.connection.certificates import UnusableCertificates
from hfpeer.upstream.connection.clients import fault_of
from hfpeer.upstream.responses.rate_limit import Rest
from hfpeer.upstream.responses.refusals import outage
from hfpeer.upstream.upstream import Upstream

REQUEST_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "cache-control", "content-encoding", "content-length"),
        *("content-type", "git-protocol", "if-match", "if-modified-since", "if-none-match", "if-range"),
        *("if-unmodified-since", "pragma", "prefer", "range", "user-agent", "x-amzn-trace-id", "x-request-id"),
        *("x-hf-bill-to", "x-hf-download-counter"),
    }
)
"""Headers of a request that are forwarded to a hub. All others are dropped: cookies, headers about the browser or
proxy, hop-by-hop headers (RFC 9110 §7.6.1)."""
RESPONSE_HEADERS = frozenset(
    {
        *("accept-ranges", "age", "allow", "cache-control", "content-disposition", "content-encoding"),
        *("content-language", "content-length", "content-range", "content-type", "etag", "expires", "last-modified"),
        *("lfs-authenticate", "link", "location", "ratelimit", "ratelimit-policy", "retry-after", "vary"),
        *("www-authenticate", "x-amz-cf-id", "x-amzn-trace-id", "x-error-code", "x-error-message", "x-hf-warning"),
        *("x-linked-etag", "x-linked-size", "x-repo-commit", "x-request-id", "x-revision", "x-total-count"),
        # The tokens for uploads to Xet are forwarded; the headers that lead a download to Xet are not.
        *("x-xet-access-token", "x-xet-cas-url", "x-xet-token-expiration"),
    }
)
"""Headers of a response that are forwarded to the caller: those that Hugging Face tools read. All others are dropped:
cookies, permissions for web pages (Access-Control-*), and headers that a browser would store for this endpoint's
address (Alt-Svc, Strict-Transport-Security, NEL)."""
PUBLIC_HOSTS = frozenset({"huggingface.co", "hf.co", "www.huggingface.co"})
"""Hosts by which a mirror may mean itself."""
OUTAGE_SECONDS = 30.0
"""Seconds for which a hub that could not be reached is asked last."""

Header = tuple[str, str]


@dataclass(frozen=True)
class ProxyRequest:
    """A request to forward: `target` is the raw path with its query; `body` is None if there is none.

    Texts are bytes decoded as Latin-1.
    """

    method: str
    target: str
    headers: Sequence[Header]
    body: AsyncIterator[bytes] | None = None


@dataclass(frozen=True)
class ProxyResponse:
    """A response. `chunks` yields its body, still encoded, and may raise HubUnreachable in the middle."""

    hub: str
    status: int
    headers: Sequence[Header]
    chunks: AsyncIterator[bytes]


class ReverseProxy:
    """Forwards requests to the hubs: to the origin first, then for reading requests to mirrors. Belongs to one event
    loop."""

    def __init__(
        self,
        upstreams: Iterable[Upstream],
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = sorted(upstreams, key=lambda upstream: upstream.kind != "origin")
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._unreachable_until: dict[str, float] = {}
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def open(self, request: ProxyRequest, own_url: str) -> AsyncIterator[ProxyResponse]:
        """The response of the first hub that can be reached. `own_url` replaces the hub's URL in it.

        Raises HubUnreachable if none can be reached. A request that has been sent is not repeated at another hub.
        """
        upstream, response = await self._first_response(request)
        try:
            yield ProxyResponse(
                upstream.name,
                response.status_code,
                _response_headers(response.headers, upstream.endpoint, own_url),
                _chunks(upstream, response),
            )
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _first_response(self, request: ProxyRequest) -> tuple[Upstream, httpx.Response]:
        """The response of the first hub that can be reached and does not limit requests."""
        reasons: list[str] = []
        rests: list[Rest] = []
        for upstream in self._in_order(request):
            url = _url_at(upstream, request)
            if (rest := upstream.rate_limit.rest(url)) is not None:
                rests.append(rest)
                continue
            try:
                response = await self._send(upstream, url, request)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
                self._unreachable_until[upstream.name] = self._clock() + OUTAGE_SECONDS
                reasons.append(f"{upstream.name} {fault_of(error)[0]}")
                continue
            except (httpx.RequestError, httpx.InvalidURL, ValueError) as error:
                raise outage(upstream.name, f"sends no response ({str(error) or type(error).__name__})") from error
            if (rest := upstream.rate_limit.note(url, response)) is None:
                return upstream, response
            await response.aclose()
            rests.append(rest)
            if request.body is not None:
                break
        if rests:
            raise min(rests, key=lambda rest: rest.seconds).error
        said = "; ".join(reasons) or "no hub is set"
        raise HubUnreachable(f"Only a hub can answer this, and {said}.", hint="Try again later.")

    def _in_order(self, request: ProxyRequest) -> list[Upstream]:
        """Requests that change something go to the first upstream only: the origin, if there is one."""
        candidates = self._upstreams
        if request.method not in ("GET", "HEAD", "OPTIONS") and not request.target.split("?")[0].endswith(
            "-upload-pack"
        ):
            candidates = candidates[:1]
        now = self._clock()
        return sorted(candidates, key=lambda upstream: self._unreachable_until.get(upstream.name, 0.0) > now)

    async def _send(self, upstream: Upstream, url: httpx.URL, request: ProxyRequest) -> httpx.Response:
        client = await self._open_client(upstream)
        headers = _request_headers(request.headers, with_token=upstream.sends_token)
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        built = client.build_request(request.method, url, headers=encoded, content=request.body)
        return await client.send(built, stream=True, follow_redirects=False)

    async def _open_client(self, upstream: Upstream) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
                try:
                    self._client = await asyncio.to_thread(
                        upstream.connections.async_client, None, self._timeouts.httpx, limits
                    )
                except UnusableCertificates as error:
                    reason, hint = fault_of(error)
                    raise outage(upstream.name, reason, hint=hint) from error
                self._client.headers.clear()
        return self._client


def _url_at(upstream: Upstream, request: ProxyRequest) -> httpx.URL:
    """The URL of a request at a hub. Raises HubUnreachable if its target is none."""
    base = httpx.URL(upstream.endpoint)
    try:
        return base.copy_with(raw_path=base.raw_path.rstrip(b"/") + request.target.encode("latin-1"))
    except (httpx.InvalidURL, ValueError) as error:
        raise outage(upstream.name, f"sends no response ({str(error) or type(error).__name__})") from error


async def _chunks(upstream: Upstream, response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx.RequestError as error:
        raise outage(upstream.name, f"broke off ({str(error) or type(error).__name__})") from error


def _request_headers(headers: Iterable[Header], *, with_token: bool) -> list[Header]:
    kept = _end_to_end(headers, REQUEST_HEADERS)
    return [(name, value) for name, value in kept if with_token or name.lower() != "authorization"]


def _response_headers(headers: httpx.Headers, hub_url: str, own_url: str) -> list[Header]:
    rewritten = []
    given = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw)
    for name, value in _end_to_end(given, RESPONSE_HEADERS):
        if name.lower() == "location":
            value = rewritten_url(value, hub_url, own_url)
        elif name.lower() == "link":
            value = _rewritten_links(value, hub_url, own_url)
        if value or name.lower() != "link":
            rewritten.append((name, value))
    return rewritten


def _rewritten_links(value: str, hub_url: str, own_url: str) -> str:
    """A `Link` header (RFC 8288) with this endpoint's URLs, and without the links to Xet."""
    rewritten = []
    for link in _links(value):
        address, end, parameters = link.partition(">")
        names = [parameter.strip().replace('"', "") for parameter in parameters.split(";")]
        if not any(name.startswith("rel=xet-") for name in names):
            rewritten.append(f"<{rewritten_url(address[1:], hub_url, own_url)}>{parameters}" if end else link)
    return ", ".join(rewritten)


def _links(value: str) -> Iterator[str]:
    """The links of a `Link` header, each from its `<`. A comma that no `<` follows is part of a link."""
    parts: list[str] = []
    for part in value.split(","):
        if part.lstrip().startswith("<") and parts:
            yield ",".join(parts).strip()
            parts = []
        parts.append(part)
    yield ",".join(parts).strip()


def rewritten_url(address: str, hub_url: str, own_url: str) -> str:
    """A URL of the hub as one of this endpoint; any other text unchanged."""
    try:
        url, hub = httpx.URL(address), httpx.URL(hub_url)
    except (httpx.InvalidURL, ValueError):
        return address
    prefix = hub.raw_path.rstrip(b"/").decode("latin-1")
    if url.is_relative_url:
        return address.removeprefix(prefix) if prefix and address.startswith(prefix + "/") else address
    if origin_of(url) != origin_of(hub) and url.host not in PUBLIC_HOSTS:
        return address
    return own_url + url.raw_path.decode("latin-1").removeprefix(prefix)


def _end_to_end(headers: Iterable[Header], wanted: frozenset[str]) -> list[Header]:
    """The wanted headers, without those that Connection names for the next hop (RFC 9110 §7.6.1)."""
    given = list(headers)
    named = {part.strip().lower() for name, value in given if name.lower() == "connection" for part in value.split(",")}
    return [(name, value) for name, value in given if name.lower() in wanted - named]
