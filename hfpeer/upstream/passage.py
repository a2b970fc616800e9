"""Passing a request on to a hub as it is, streaming both ways: for what the node does not know better.

Owns what may cross: no hop-by-hop header, no cookie, no Xet; the caller's Authorization only where that hub may see
tokens. Addresses of the hub in an answer become addresses of ours. Redirects are not followed, only turned.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from hfpeer.errors import HubUnreachable
from hfpeer.upstream.access import origin_of, without_cookies
from hfpeer.upstream.api import UNUSABLE_ENVIRONMENT, Timeouts
from hfpeer.upstream.hub import Upstream
from hfpeer.upstream.refusals import outage

HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"})
HOP_BY_HOP |= {"proxy-authenticate", "proxy-authorization", "upgrade", "host"}
NOT_PASSED_ON = HOP_BY_HOP | {"cookie", "origin", "referer", "forwarded", "x-forwarded-for", "x-forwarded-host"}
NOT_PASSED_BACK = HOP_BY_HOP | {"set-cookie", "alt-svc", "strict-transport-security", "server", "date"}
NOT_PASSED_BACK |= {"x-xet-hash", "x-xet-refresh-route"}
"""What leads a download to Xet. The tokens for uploads to it go through."""
PUBLIC_HOSTS = frozenset({"huggingface.co", "hf.co", "www.huggingface.co"})
"""Hosts that a mirror may name where it means itself."""
OUTAGE_SECONDS = 30.0
"""How long a hub that could not be reached is asked last."""
_XET_LINK = re.compile(r'\s*<[^>]*>\s*;\s*rel="?xet-[^,]*,?')
_LINKED = re.compile(r"<([^>]*)>")

Header = tuple[str, str]


@dataclass(frozen=True)
class Passed:
    """A request to be passed on: `target` is the raw path with its query, `body` is None where there is none.

    Texts are bytes as Latin-1, as everywhere in HTTP.
    """

    method: str
    target: str
    headers: Sequence[Header]
    body: AsyncIterator[bytes] | None = None


@dataclass(frozen=True)
class PassedBack:
    """An answer: its body comes as it was encoded, by `chunks`, which may raise HubUnreachable in the middle."""

    hub: str
    status: int
    headers: Sequence[Header]
    chunks: AsyncIterator[bytes]


class Passage:
    """The way through to the hubs: the origin first, then mirrors where a request asks only. Belongs to one loop."""

    def __init__(
        self,
        upstreams: Iterable[Upstream],
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = sorted(upstreams, key=lambda upstream: upstream.kind != "origin")
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._out_until: dict[str, float] = {}
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def open(self, request: Passed, own_url: str) -> AsyncIterator[PassedBack]:
        """The answer of the first hub that can be reached. `own_url` is what takes the place of the hub's address.

        Raises HubUnreachable when none can; what fails after the request has left is not tried elsewhere.
        """
        upstream, response = await self._first_answer(request)
        try:
            yield PassedBack(
                upstream.name,
                response.status_code,
                _passed_back(response.headers, upstream.endpoint, own_url),
                _chunks(upstream, response),
            )
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _first_answer(self, request: Passed) -> tuple[Upstream, httpx.Response]:
        reasons: list[str] = []
        for upstream in self._in_order(request):
            try:
                return upstream, await self._send(upstream, request)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
                self._out_until[upstream.name] = self._clock() + OUTAGE_SECONDS
                reasons.append(f"{upstream.name} cannot be reached ({str(error) or type(error).__name__})")
            except httpx.RequestError as error:
                raise outage(upstream.name, f"gives no answer ({str(error) or type(error).__name__})") from error
        said = "; ".join(reasons) or "there is no upstream to ask"
        raise HubUnreachable(f"This can only be answered by a hub, and {said}.", hint="Try again later.")

    def _in_order(self, request: Passed) -> list[Upstream]:
        """Only the origin is asked to change anything, unless there is none."""
        asked = self._upstreams
        if request.method not in ("GET", "HEAD", "OPTIONS") and not request.target.split("?")[0].endswith(
            "-upload-pack"
        ):
            asked = asked[:1]
        now = self._clock()
        return sorted(asked, key=lambda upstream: self._out_until.get(upstream.name, 0.0) > now)

    async def _send(self, upstream: Upstream, request: Passed) -> httpx.Response:
        client = await self._open_client(upstream)
        base = httpx.URL(upstream.endpoint)
        url = base.copy_with(raw_path=base.raw_path.rstrip(b"/") + request.target.encode("latin-1"))
        headers = _passed_on(request.headers, with_token=upstream.sends_token)
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        built = client.build_request(request.method, url, headers=encoded, content=request.body)
        return await client.send(built, stream=True, follow_redirects=False)

    async def _open_client(self, upstream: Upstream) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                try:
                    context = await asyncio.to_thread(httpx.create_ssl_context)
                    self._client = httpx.AsyncClient(
                        verify=context,
                        timeout=self._timeouts.httpx,
                        limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                        cookies=without_cookies(),
                    )
                    self._client.headers.clear()
                except UNUSABLE_ENVIRONMENT as error:
                    raise outage(upstream.name, f"cannot be asked: {error}") from error
        return self._client


async def _chunks(upstream: Upstream, response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx.RequestError as error:
        raise outage(upstream.name, f"broke off ({str(error) or type(error).__name__})") from error


def _passed_on(headers: Iterable[Header], *, with_token: bool) -> list[Header]:
    kept = _end_to_end(headers, NOT_PASSED_ON)
    return [(name, value) for name, value in kept if with_token or name.lower() != "authorization"]


def _passed_back(headers: httpx.Headers, hub_url: str, own_url: str) -> list[Header]:
    turned = []
    given = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw)
    for name, value in _end_to_end(given, NOT_PASSED_BACK):
        if name.lower() == "location":
            value = own_address(value, hub_url, own_url)
        elif name.lower() == "link":
            kept = _XET_LINK.sub("", value).strip().rstrip(",")
            value = _LINKED.sub(lambda found: f"<{own_address(found[1], hub_url, own_url)}>", kept)
        if value or name.lower() != "link":
            turned.append((name, value))
    return turned


def own_address(address: str, hub_url: str, own_url: str) -> str:
    """An address of the hub as one of ours; any other, and what is no address, as it is."""
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


def _end_to_end(headers: Iterable[Header], unwanted: frozenset[str]) -> list[Header]:
    """The headers that are not for the next hop only, nor named by Connection, nor unwanted."""
    given = list(headers)
    named = {part.strip().lower() for name, value in given if name.lower() == "connection" for part in value.split(",")}
    return [(name, value) for name, value in given if name.lower() not in unwanted | named]
