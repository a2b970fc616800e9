"""Makes the HTTP clients with which hubs are asked: their certificates, proxies and destinations.

Every request to an upstream goes through one of these. A fault on the way becomes a sentence that names what to mend:
a certificate, a variable, a proxy.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Generic, TypeVar

import httpx

from hfpeer.net.proxies import Proxy, ProxyRules, UnusableProxy
from hfpeer.upstream.connection.certificates import UnusableCertificates, tls_context
from hfpeer.upstream.connection.destinations import restrict_destinations
from hfpeer.upstream.responses.refusals import LATER

log = logging.getLogger(__name__)
Transport = TypeVar("Transport", httpx.HTTPTransport, httpx.AsyncHTTPTransport)

CA_HINT = (
    "A proxy on the way may sign with an authority of its own: install that in this system's store, or name its file "
    "with `hfpeer conf set ca FILE` or SSL_CERT_FILE, then `hfpeer daemon restart`."
)
CLOCK_HINT = "Look whether the clock of this machine is right (`date`)."
PASSWORD_HINT = "Name it as http://USER:PASSWORD@HOST:PORT, then `hfpeer daemon restart`."
_OUT_OF_DATE = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED. Source: OpenSSL's x509_vfy.h."""
_OTHER_NAME = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH."""


_PROXY_REFUSALS = frozenset({403, 502, 503, 504, 511})
_HUB_HEADERS = frozenset({"x-error-code", "x-error-message", "x-request-id", "ratelimit", "retry-after"})
"""Headers of which a hub sends at least one with a refusal."""


class Connections:
    """How this node connects to hubs, by its environment and its settings: for all clients of a process.

    Certificates are read when the first client is made.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, *, proxy: str | None = None, ca: str | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._ca = ca
        self._proxy = proxy

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Raises UnusableCertificates."""
        return tls_context(self._environ, self._ca)

    @cached_property
    def proxies(self) -> ProxyRules:
        rules = ProxyRules(self._environ, self._proxy)
        for note in rules.notes:
            log.warning("%s", note)
        return rules

    def client(self, hub_url: str | None, timeout: httpx.Timeout, limits: httpx.Limits) -> httpx.Client:
        """A blocking client for one hub. Raises UnusableCertificates. May block for some 20 ms, as `async_client`."""

        def transport(proxy: Proxy | None) -> httpx.HTTPTransport:
            return httpx.HTTPTransport(
                verify=self.context, limits=limits, trust_env=False, proxy=_httpx_proxy(proxy, self.context)
            )

        routes = _Routes(self.proxies, transport, hub_url)
        return httpx.Client(transport=_BlockingRoutes(routes), timeout=timeout, cookies=without_cookies())

    def async_client(self, hub_url: str | None, timeout: httpx.Timeout, limits: httpx.Limits) -> httpx.AsyncClient:
        """A client for the event loop. With `hub_url` it goes only where that hub may send it."""

        def transport(proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
            return httpx.AsyncHTTPTransport(
                verify=self.context, limits=limits, trust_env=False, proxy=_httpx_proxy(proxy, self.context)
            )

        routes = _Routes(self.proxies, transport, hub_url)
        return httpx.AsyncClient(transport=_AsyncRoutes(routes), timeout=timeout, cookies=without_cookies())


class _Routes(Generic[Transport]):
    """The transports of a client: the direct one, and one for each proxy that has been needed."""

    def __init__(self, rules: ProxyRules, make: Callable[[Proxy | None], Transport], hub_url: str | None) -> None:
        self._rules = rules
        self._make: Callable[[Proxy | None], Transport] = make
        direct = make(None)
        if hub_url is not None:
            restrict_destinations(direct, hub_url)
        self.transports: dict[Proxy | None, Transport] = {None: direct}

    def choose(self, url: httpx.URL) -> tuple[Transport, Proxy | None]:
        """The transport for a URL. Raises httpx.ProxyError that says what in the environment stands in the way."""
        try:
            proxy = self._rules.proxy_for(url.scheme, url.host, url.port)
        except UnusableProxy as error:
            raise httpx.ProxyError(str(error)) from error
        if proxy not in self.transports:
            self.transports[proxy] = self._make(proxy)
        return self.transports[proxy], proxy


class _BlockingRoutes(httpx.BaseTransport):
    def __init__(self, routes: _Routes[httpx.HTTPTransport]) -> None:
        self._routes = routes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        transport, proxy = self._routes.choose(request.url)
        with _naming(proxy):
            response = transport.handle_request(request)
            if proxy is not None and _is_of_proxy(request, response):
                response.close()
                raise _refusal(response)
            return response

    def close(self) -> None:
        for transport in self._routes.transports.values():
            transport.close()


class _AsyncRoutes(httpx.AsyncBaseTransport):
    def __init__(self, routes: _Routes[httpx.AsyncHTTPTransport]) -> None:
        self._routes = routes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        transport, proxy = self._routes.choose(request.url)
        with _naming(proxy):
            response = await transport.handle_async_request(request)
            if proxy is not None and _is_of_proxy(request, response):
                await response.aclose()
                raise _refusal(response)
            return response

    async def aclose(self) -> None:
        for transport in self._routes.transports.values():
            await transport.aclose()


@contextmanager
def _naming(proxy: Proxy | None) -> Iterator[None]:
    """Names the proxy, and the variable that names it, in a fault on the way to it."""
    if proxy is None:
        yield
        return
    try:
        yield
    except httpx.ProxyError as error:
        raise httpx.ProxyError(f"{_subject(proxy)} says {error}") from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if _certificate_fault(error) is not None:
            raise
        raise httpx.ProxyError(f"{_subject(proxy)} does not answer ({str(error) or 'no answer'})") from error
    except httpx.ReadTimeout as error:
        raise httpx.ProxyError(f"{_subject(proxy)} passes on no answer") from error


def _is_of_proxy(request: httpx.Request, response: httpx.Response) -> bool:
    """Whether a response that came through a proxy is the proxy's own. Without TLS nothing proves it: a refusal that
    lacks what hubs send counts as one."""
    if request.url.scheme != "http":
        return False
    is_refusal = response.status_code in _PROXY_REFUSALS and not _HUB_HEADERS & response.headers.keys()
    return is_refusal or response.status_code == 407


def _refusal(response: httpx.Response) -> httpx.ProxyError:
    return httpx.ProxyError(f"{response.status_code} {HTTPStatus(response.status_code).phrase}")


def _subject(proxy: Proxy) -> str:
    return f"cannot be asked: the proxy {proxy.address} of {proxy.named_by}"


def _httpx_proxy(proxy: Proxy | None, context: ssl.SSLContext) -> httpx.Proxy | None:
    if proxy is None:
        return None
    return httpx.Proxy(proxy.url, ssl_context=context if proxy.url.startswith("https:") else None)


def fault_of(error: Exception) -> tuple[str, str]:
    """The words for a request that got no response: why, which ends a sentence that starts with the hub's name, and a
    hint on what to do."""
    if isinstance(error, UnusableCertificates):
        return str(error), "Mend or unset it, then `hfpeer daemon restart`."
    if isinstance(error, httpx.ProxyError):
        needs_password = "407" in str(error)
        return str(error), PASSWORD_HINT if needs_password else "Mend or unset it, then `hfpeer daemon restart`."
    certificate = _certificate_fault(error)
    if certificate is not None:
        return certificate
    if isinstance(error, httpx.ConnectTimeout):
        return "does not accept a connection in time", LATER
    if isinstance(error, httpx.TimeoutException):
        return "is silent", LATER
    return f"cannot be reached ({str(error) or type(error).__name__})", LATER


def _certificate_fault(error: BaseException) -> tuple[str, str] | None:
    """The words for a certificate that does not prove itself."""
    found = next((each for each in _causes(error) if isinstance(each, ssl.SSLCertVerificationError)), None)
    if found is None:
        return None
    if found.verify_code in _OUT_OF_DATE:
        return f"cannot be trusted: its certificate is out of date ({found.verify_message.rstrip('.')})", CLOCK_HINT
    if found.verify_code in _OTHER_NAME:
        return f"cannot be trusted: its certificate is for another name ({found.verify_message.rstrip('.')})", CA_HINT
    return (
        f"cannot be trusted: no authority known here signed its certificate ({found.verify_message.rstrip('.')})",
        CA_HINT,
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def without_cookies() -> CookieJar:
    """A jar that keeps no cookie."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
