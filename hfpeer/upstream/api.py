"""Small questions to one hub over HTTP: JSON, pages of JSON, and raw answers of bounded size.

Owns retries, waiting where a hub asks for it, and following redirects. Every answer has a largest size, every loop
an end; what a hub does wrong becomes HubUnreachable, what it refuses the error that `refusals` reads in it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from hfpeer.names import RepoId
from hfpeer.upstream.access import (
    MAX_REDIRECTS,
    USER_AGENT,
    Access,
    BadRedirect,
    is_small,
    origin_of,
    redirect_target,
    without_cookies,
)
from hfpeer.upstream.refusals import is_passing, no_hub, outage, refusal, rest_seconds

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_PAGES = 2_000
MAX_ELEMENTS = 2_000_000
MAX_TRIES = 3
UNUSABLE_ENVIRONMENT = (OSError, ValueError, ImportError)
"""What httpx raises for proxy variables and certificate files of the environment that it cannot use."""
MAX_WAIT_SECONDS = 30.0
"""The longest rest that is waited out, in sum over one question, when a hub answers 429."""


@dataclass(frozen=True)
class Timeouts:
    """How long a hub may take, in seconds: to connect, without a byte, for one answer, for the git exchange."""

    connect_seconds: float = 10.0
    silence_seconds: float = 20.0
    answer_seconds: float = 120.0
    git_seconds: float = 60.0
    backoff_seconds: float = 0.5

    @property
    def httpx(self) -> httpx.Timeout:
        return httpx.Timeout(self.silence_seconds, connect=self.connect_seconds, pool=None)


@dataclass(frozen=True)
class Question:
    """One request about a repo. `body` makes it a POST, which is only sent to where a redirect keeps it one."""

    url: httpx.URL
    repo: RepoId
    revision: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    max_bytes: int = MAX_ANSWER_BYTES


class Api:
    """The asking side of one hub, bound to the event loop it is first used in. `name` is what people see."""

    def __init__(self, name: str, timeouts: Timeouts) -> None:
        self.name = name
        self._timeouts = timeouts
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def json(self, question: Question, access: Access) -> Any:
        """The document an answer holds. Raises the errors of `refusals`."""
        return (await self.document(question, access))[0]

    async def pages(self, question: Question, access: Access) -> list[Any]:
        """The elements of a paged array. Next pages are asked of our own endpoint, whatever host the link names."""
        elements: list[Any] = []
        for _ in range(MAX_PAGES):
            page, answer = await self.document(question, access)
            if not isinstance(page, list):
                no_hub(self.name, "a listing is no array")
            elements += page
            following = self._next_page(answer, access)
            if following is None:
                return elements
            if following == question.url or len(elements) > MAX_ELEMENTS:
                break
            question = Question(following, question.repo, question.revision)
        no_hub(self.name, "a listing has no end")

    async def read(self, question: Question, access: Access) -> httpx.Response:
        """A whole answer with a status below 300, after redirects and retries."""
        rest_left = MAX_WAIT_SECONDS
        for attempt in range(1, MAX_TRIES + 1):
            try:
                return await asyncio.wait_for(self._read_once(question, access), self._timeouts.answer_seconds)
            except (asyncio.TimeoutError, TimeoutError) as error:
                raise outage(self.name, "takes too long to answer") from error
            except PassingFault as fault:
                rest = fault.rest_seconds
                if rest is None:
                    rest = self._timeouts.backoff_seconds * 2 ** (attempt - 1)
                rest_left -= rest
                if attempt == MAX_TRIES or rest_left < 0:
                    raise outage(self.name, fault.reason, retry_after_seconds=fault.rest_seconds) from fault
                await asyncio.sleep(rest)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def open(self, question: Question, access: Access) -> AsyncIterator[httpx.Response]:
        """An answer with a status below 300 whose body is still to be read, after redirects; no retries.

        Raises PassingFault for what `read` tries again after, HubUnreachable for other outages, else a refusal.
        """
        client = await self._open_client()
        url, response = question.url, None
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._send(client, question, access, url)
                target = redirect_target(response)
                if target is None:
                    break
                await self._leave(response)
                url = target
            else:
                raise outage(self.name, f"redirects more than {MAX_REDIRECTS} times")
            if response.status_code >= 300 and is_small(response.headers):
                await response.aread()
            self._refuse(response, question)
            yield response
        except BadRedirect as error:
            raise outage(self.name, str(error)) from error
        except httpx.TimeoutException as error:
            raise outage(self.name, _timeout_reason(error)) from error
        except httpx.ConnectError as error:
            # Asking again at once does not help who is off the network, and an add from a peer would wait for it.
            raise outage(self.name, f"cannot be reached ({_reason(error)})") from error
        except httpx.RequestError as error:
            raise PassingFault(f"cannot be reached ({_reason(error)})") from error
        finally:
            if response is not None:
                await response.aclose()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def document(self, question: Question, access: Access) -> tuple[Any, httpx.Response]:
        """The document an answer holds, and the answer."""
        answer = await self.read(question, access)
        try:
            return await asyncio.to_thread(json.loads, answer.content), answer
        except (ValueError, RecursionError) as error:
            no_hub(self.name, f"{answer.url.path} is no JSON", error)

    def _next_page(self, answer: httpx.Response, access: Access) -> httpx.URL | None:
        link = answer.links.get("next", {}).get("url")
        try:
            return access.at_this_endpoint(answer.url.join(link)) if link else None
        except (httpx.InvalidURL, ValueError) as error:
            no_hub(self.name, "the link to the next page is no URL", error)

    async def _open_client(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                try:
                    context = await asyncio.to_thread(httpx.create_ssl_context)
                    self._client = self._new_client(context)
                except UNUSABLE_ENVIRONMENT as error:
                    raise outage(self.name, f"cannot be asked: {error}") from error
        return self._client

    def _new_client(self, context: ssl.SSLContext) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=context,
            timeout=self._timeouts.httpx,
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=8),
            cookies=without_cookies(),
            headers={"User-Agent": USER_AGENT},
        )

    async def _send(
        self, client: httpx.AsyncClient, question: Question, access: Access, url: httpx.URL
    ) -> httpx.Response:
        if question.body is not None and origin_of(url) != origin_of(question.url):
            raise BadRedirect("redirects a POST to another origin")
        allowed = await asyncio.to_thread(access.headers_for, url)
        method = "GET" if question.body is None else "POST"
        request = client.build_request(method, url, headers={**question.headers, **allowed}, content=question.body)
        return await client.send(request, stream=True, follow_redirects=False)

    def _refuse(self, response: httpx.Response, question: Question) -> None:
        status = response.status_code
        if is_passing(status):
            rest = rest_seconds(response.headers)
            asked = "" if rest is None else f" and asks to wait {rest:.0f} s"
            raise PassingFault(f"answers {status}{asked}", rest)
        if status >= 400:
            raise refusal(self.name, status, response.headers, question.repo, question.revision)
        if status >= 300:
            no_hub(self.name, f"it answers {status}")

    async def _read_once(self, question: Question, access: Access) -> httpx.Response:
        async with self.open(question, access) as response:
            return await self._whole(response, question.max_bytes)

    async def _whole(self, response: httpx.Response, max_bytes: int) -> httpx.Response:
        """The response with its content read. The size is bounded after decoding, as gzip hides it."""
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > max_bytes:
                no_hub(self.name, f"an answer is larger than {max_bytes} bytes")
        whole = httpx.Response(response.status_code, content=bytes(content), request=response.request)
        whole.headers = response.headers
        return whole

    async def _leave(self, response: httpx.Response) -> None:
        if is_small(response.headers):
            await response.aread()
        await response.aclose()


class PassingFault(Exception):
    """A fault that may be gone a moment later; `reason` ends a sentence that starts with the hub's name."""

    def __init__(self, reason: str, rest_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rest_seconds = rest_seconds


def _timeout_reason(error: httpx.TimeoutException) -> str:
    return "does not accept a connection in time" if isinstance(error, httpx.ConnectTimeout) else "is silent"


def _reason(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__
