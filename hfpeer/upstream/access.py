"""Where a token goes, and which redirects are followed. Both rules hold for every request to an upstream.

A token goes to the origin (scheme, host, port) it was given for and nowhere else, whatever redirected there. httpx
never follows a redirect by itself, keeps no cookies, and reads no netrc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeAlias

import httpx

from hfpeer import __version__

Token: TypeAlias = Callable[[], "str | None"]

MAX_REDIRECTS = 10
MAX_SMALL_BODY_BYTES = 64 * 1024
"""A refusal or redirect with a body up to this size is read to its end, so that its connection can be used again."""
USER_AGENT = f"hfpeer/{__version__}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}


class BadRedirect(Exception):
    """A redirect that must not be followed; its text ends a sentence that starts with the hub's name."""


@dataclass(frozen=True)
class Access:
    """One hub's endpoint and the right to send a token to it. `token` is asked for each request and may block."""

    endpoint: str
    token: Token | None
    sends_token: bool

    def headers_for(self, url: httpx.URL) -> dict[str, str]:
        """The Authorization header, if this URL may have it."""
        if not self.sends_token or self.token is None or origin_of(url) != origin_of(httpx.URL(self.endpoint)):
            return {}
        token = self.token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def anonymous(self) -> Access:
        return Access(self.endpoint, None, False)

    def url(self, path: str) -> httpx.URL:
        """An absolute path, already quoted, at this hub."""
        return httpx.URL(self.endpoint + path)

    def at_this_endpoint(self, url: httpx.URL) -> httpx.URL:
        """The same path and query below our endpoint: mirrors hand out links that name the hub they mirror."""
        ours = httpx.URL(self.endpoint)
        prefix = ours.raw_path.rstrip(b"/")
        path = url.raw_path if url.raw_path.startswith(prefix + b"/") else prefix + url.raw_path
        return ours.copy_with(raw_path=path)


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """(scheme, host, port), the port of the scheme filled in."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def redirect_target(response: httpx.Response) -> httpx.URL | None:
    """Where a redirect leads; None for any other answer. Raises BadRedirect, also for one from https to http."""
    if response.status_code not in _REDIRECTS:
        return None
    location = response.headers.get("location")
    if not location:
        raise BadRedirect(f"answers {response.status_code} without a Location")
    try:
        target = response.url.join(location).copy_with(fragment=None, userinfo=b"")
    except (httpx.InvalidURL, ValueError) as error:
        raise BadRedirect("redirects to something that is no URL") from error
    if target.scheme not in _PORTS or not target.host:
        raise BadRedirect(f"redirects to something that is no http URL ({target.scheme}:)")
    if response.url.scheme == "https" and target.scheme == "http":
        raise BadRedirect("redirects from https to plain http")
    return target


def without_cookies() -> CookieJar:
    """A jar that takes nothing."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))


def is_small(headers: Mapping[str, str]) -> bool:
    """Whether an answer announces a body small enough to be read just to keep its connection."""
    length = headers.get("content-length", "")
    return length.isdecimal() and int(length) <= MAX_SMALL_BODY_BYTES
