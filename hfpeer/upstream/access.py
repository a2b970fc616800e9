"""Decides where a token is sent and which redirects are followed, for every request to an upstream.

A token is sent to the origin (scheme, host, port) it was given for and nowhere else, whatever redirects there. httpx
follows no redirect by itself, keeps no cookies, and reads no netrc.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

import httpx

from hfpeer.budgets import MAX_SMALL_BODY_BYTES
from hfpeer.net.http1 import whole_number
from hfpeer.version import __version__

Token: TypeAlias = Callable[[], "str | None"]

USER_AGENT = f"hfpeer/{__version__}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}


class BadRedirect(Exception):
    """A redirect that must not be followed. Its text ends a sentence that starts with the hub's name."""


@dataclass(frozen=True)
class Access:
    """A hub's endpoint and the right to send a token to it. `token` is called for each request and may block.

    `rest_seconds`: the longest wait of a request for a hub that limits requests.
    """

    endpoint: str
    token: Token | None
    sends_token: bool
    rest_seconds: float = 0.0

    def headers_for(self, url: httpx.URL) -> dict[str, str]:
        """The Authorization header, if this URL may get it."""
        if not self.sends_token or self.token is None or origin_of(url) != origin_of(httpx.URL(self.endpoint)):
            return {}
        token = self.token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def anonymous(self) -> Access:
        return Access(self.endpoint, None, False)

    def url(self, path: str) -> httpx.URL:
        """The URL of an absolute, quoted path at this hub."""
        return httpx.URL(self.endpoint + path)

    def at_this_endpoint(self, url: httpx.URL) -> httpx.URL:
        """The same path and query below this endpoint: the links of mirrors name the hub they mirror."""
        ours = httpx.URL(self.endpoint)
        prefix = ours.raw_path.rstrip(b"/")
        path = url.raw_path if url.raw_path.startswith(prefix + b"/") else prefix + url.raw_path
        return ours.copy_with(raw_path=path)


@contextmanager
def readable_endpoint() -> Iterator[None]:
    """A block in which huggingface_hub can be imported: the import raises ValueError for an HF_ENDPOINT whose port
    cannot be read. hfpeer goes by its own settings."""
    value = os.environ.get("HF_ENDPOINT", "")
    if is_readable(value):
        yield
        return
    del os.environ["HF_ENDPOINT"]
    try:
        yield
    finally:
        os.environ["HF_ENDPOINT"] = value


def is_readable(url: str) -> bool:
    """Whether the parts of a URL can be told."""
    try:
        urlsplit(url).port  # noqa: B018 - the property parses it
    except ValueError:
        return False
    return True


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """(scheme, host, port), with the default port of the scheme."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def redirect_target(response: httpx.Response) -> httpx.URL | None:
    """The target of a redirect; None for any other response. Raises BadRedirect, also for one from https to http."""
    if response.status_code not in _REDIRECTS:
        return None
    location = response.headers.get("location")
    if not location:
        raise BadRedirect(f"answers {response.status_code} without a Location")
    try:
        target = response.url.join(location).copy_with(fragment=None, userinfo=b"")
        has_host = bool(target.host)  # httpx decodes the host only here
    except (httpx.InvalidURL, ValueError) as error:
        raise BadRedirect("redirects to something that is no URL") from error
    if target.scheme not in _PORTS or not has_host:
        raise BadRedirect(f"redirects to something that is no http URL ({target.scheme}:)")
    if response.url.scheme == "https" and target.scheme == "http":
        raise BadRedirect("redirects from https to plain http")
    return target


def after_redirect(asked: httpx.URL, target: httpx.URL, reason: str) -> str:
    """Why a request failed: a reason that is true of the host to which the hub redirected is not the hub's. Both end a
    sentence that starts with the hub's name."""
    if origin_of(asked) == origin_of(target):
        return reason
    place = target.netloc.decode("ascii", "replace")
    return f"redirects to {place}, which {reason}"


def is_small(headers: Mapping[str, str]) -> bool:
    """Whether a response announces a body small enough to be read only to keep its connection."""
    return whole_number(headers.get("content-length", ""), MAX_SMALL_BODY_BYTES) is not None
