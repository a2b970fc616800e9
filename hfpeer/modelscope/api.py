"""Requests to a ModelScope: JSON questions with retries, and one PUT for each blob.

Every answer has a largest size, every wait and every loop an end. A wait that the site asks for is told to the user.
Only the caller knows whether a commit may be sent again, so a commit is never retried here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from hfpeer.budgets import MAX_ANSWER_BYTES, MAX_REDIRECTS, MAX_SITE_WAITS_SECONDS, MAX_SMALL_BODY_BYTES
from hfpeer.modelscope.access import SiteAccess
from hfpeer.modelscope.answers import Aim, Answer, Transient, outage, refusal
from hfpeer.modelscope.names import SiteRepo
from hfpeer.net.backoff import backoff_seconds
from hfpeer.upstream.access import USER_AGENT, BadRedirect, redirect_target
from hfpeer.upstream.connection.certificates import UnusableCertificates
from hfpeer.upstream.connection.clients import Connections, fault_of
from hfpeer.upstream.responses.unpacking import ENCODINGS, BadEncoding, unpacked

MAX_TRIES = 5
TOLD_WAIT_SECONDS = 2.0
"""A wait of this many seconds or more is told to the user."""


@dataclass(frozen=True)
class SiteTimeouts:
    """Seconds: to connect, between two bytes, for an answer after a whole blob or a commit was sent, and the first
    pause before a further try."""

    connect_seconds: float = 15.0
    silence_seconds: float = 60.0
    answer_seconds: float = 600.0
    pause_seconds: float = 1.0


@dataclass(frozen=True)
class SiteRequest:
    """One question. `document` is sent as JSON, `form` as a multipart form."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    document: Any = None
    form: Mapping[str, str] | None = None
    repo: str = ""
    aim: Aim = "read"
    was_allowed: bool = False
    """The site has just shown this repo, so that a 403 is a fault of a moment."""


class SiteApi:
    """Asks one site; belongs to the event loop in which it is first used."""

    def __init__(
        self,
        access: SiteAccess,
        timeouts: SiteTimeouts | None = None,
        on_wait: Callable[[str], None] = lambda sentence: None,
        connections: Connections | None = None,
    ) -> None:
        """`on_wait` is called with a sentence before a wait that the user would notice. `connections` has the proxy and
        the certificates of the settings."""
        self.access = access
        self.timeouts = timeouts or SiteTimeouts()
        self._on_wait = on_wait
        self._connections = connections or Connections()
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    @property
    def site(self) -> str:
        """The name of the site for people."""
        return self.access.site

    async def ask(self, request: SiteRequest) -> Any:
        """The payload of the answer, after retries. Raises the errors of `answers.refusal`."""
        waits = Waits(self, MAX_TRIES)
        while True:
            try:
                return await self.ask_once(request)
            except Transient as fault:
                await waits.after(fault)

    async def ask_once(self, request: SiteRequest) -> Any:
        """The payload of one answer. Raises Transient where `ask` would try again."""
        answer = await self._send(request)
        if answer.is_success:
            return answer.data
        found = refusal(self.site, answer, request.repo, request.aim)
        if request.was_allowed and answer.status == 403:
            found = Transient(f"answers {answer.said}")
        raise found

    async def put_blob(
        self, href: str, repo: SiteRepo, sha256: str, size_bytes: int, body: AsyncIterator[bytes]
    ) -> None:
        """Puts a blob at the address that the site named for it. The request has its exact length, and no encoding.

        Raises Transient where a further try may help, and the errors of `answers.refusal`.
        Source: modelscope_hub `upload_blob`; an empty answer counts as a success.
        """
        headers = {
            **self.access.upload_headers(href, repo, sha256, size_bytes),
            "Content-Length": str(size_bytes),
            "Content-Type": "application/octet-stream",
        }
        timeout = httpx.Timeout(
            self.timeouts.answer_seconds,
            connect=self.timeouts.connect_seconds,
            write=self.timeouts.silence_seconds,
            pool=None,
        )
        answer = await self._exchange(
            "PUT", href, headers, content=body, timeout=timeout, max_bytes=MAX_SMALL_BODY_BYTES
        )
        if answer.is_success or (answer.status < 300 and answer.document is None):
            return
        raise refusal(self.site, answer, str(repo), "write")

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()

    def tell_wait(self, fault: Transient, seconds: float) -> None:
        """Tells the user of a wait after a fault."""
        if seconds >= TOLD_WAIT_SECONDS:
            self._on_wait(f"{self.site} {fault.reason}; going on in {seconds:.0f} s.")

    async def _send(self, request: SiteRequest) -> Answer:
        """The answer to a question, after redirects within the site's API."""
        url = self.access.endpoint + request.path
        for _ in range(MAX_REDIRECTS + 1):
            sent: dict[str, Any] = {"params": request.params} if request.params else {}
            if request.form is not None:
                sent["files"] = {name: (None, value) for name, value in request.form.items()}
            elif request.document is not None:
                sent["json"] = request.document
            seconds = self.timeouts.answer_seconds if request.aim != "read" else self.timeouts.silence_seconds
            timeout = httpx.Timeout(seconds, connect=self.timeouts.connect_seconds, pool=None)
            answer = await self._exchange(
                request.method,
                url,
                {**self.access.headers_for(url), "Accept-Encoding": ENCODINGS},
                timeout=timeout,
                max_bytes=MAX_ANSWER_BYTES,
                **sent,
            )
            if not isinstance(answer, _Redirect):
                return answer
            url = self._target(answer, request)
        raise outage(self.site, f"redirects more than {MAX_REDIRECTS} times")

    def _target(self, answer: _Redirect, request: SiteRequest) -> str:
        if not self.access.is_api(answer.target) or (request.method != "GET" and answer.status not in (307, 308)):
            raise outage(self.site, f"redirects a question to {answer.target.partition('?')[0][:200]}")
        return answer.target.partition("?")[0]

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], *, timeout: httpx.Timeout, max_bytes: int, **sent: Any
    ) -> Answer:
        try:
            client = await self._open_client()
            sent_headers = {"User-Agent": USER_AGENT, **headers}
            request = client.build_request(method, url, headers=sent_headers, timeout=timeout, **sent)
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                target = None if method == "PUT" else redirect_target(response)
                if target is not None:
                    return _Redirect(response.status_code, {}, b"", str(target))
                return Answer(response.status_code, dict(response.headers), await self._read(response, max_bytes))
            finally:
                await response.aclose()
        except (BadRedirect, BadEncoding) as error:
            raise outage(self.site, str(error)) from error
        except (UnusableCertificates, httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise outage(self.site, *fault_of(error)) from error
        except httpx.TimeoutException as error:
            raise Transient("is silent") from error
        except httpx.RequestError as error:
            raise Transient(f"ended the connection ({str(error) or type(error).__name__})") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise outage(self.site, f"cannot be asked ({error})") from error

    async def _read(self, response: httpx.Response, max_bytes: int) -> bytes:
        """The body. The bound holds after decoding. Of a refusal that is too long, the begin."""
        content = bytearray()
        async for chunk in unpacked(response):
            content += chunk
            if len(content) > max_bytes:
                if response.status_code >= 300 or response.request.method == "PUT":
                    return bytes(content[:max_bytes])
                raise outage(self.site, f"sends an answer of more than {max_bytes} bytes")
        return bytes(content)

    async def _open_client(self) -> httpx.AsyncClient:
        """The client. Uploads over HTTP/2 were measured at half the rate, and these clients speak HTTP/1.1."""
        async with self._opening:
            if self._client is None:
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
                timeout = httpx.Timeout(self.timeouts.silence_seconds)
                self._client = await asyncio.to_thread(
                    self._connections.async_client, self.access.endpoint, timeout, limits
                )
        return self._client


@dataclass(frozen=True)
class _Redirect(Answer):
    """An answer that sends the question elsewhere."""

    target: str = ""


async def rest(seconds: float) -> None:
    """Waits. Tests replace it."""
    await asyncio.sleep(seconds)


class Waits:
    """The pauses between the tries of one request: as long as the site asks, else growing. Their number and sum have
    bounds."""

    def __init__(self, api: SiteApi, tries: int) -> None:
        self._api = api
        self._tries = tries
        self._failures = 0
        self._left_seconds = MAX_SITE_WAITS_SECONDS

    async def after(self, fault: Transient) -> None:
        """Waits before the next try. Raises HubUnreachable when there is none."""
        self._failures += 1
        seconds = fault.retry_after_seconds
        if seconds is None:
            factor = 4 if fault.is_rate_limit else 1
            seconds = factor * self._api.timeouts.pause_seconds * backoff_seconds(self._failures) / backoff_seconds(1)
        self._left_seconds -= seconds
        if self._failures >= self._tries or self._left_seconds < 0:
            raise outage(self._api.site, fault.reason) from fault
        self._api.tell_wait(fault, seconds)
        await rest(seconds)
