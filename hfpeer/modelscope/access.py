"""Decides where the ModelScope token is sent, for every request to the site. Pure.

It goes to the hosts of the site's API, and to the host of an upload only if the address is exactly the one of the blob
that is sent. No redirect of a read gets it.
Source: modelscope_hub sends the token as a header and as a cookie: some routes read one, some the other.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from hfpeer.errors import HubUnreachable
from hfpeer.modelscope.answers import malformed
from hfpeer.modelscope.names import SiteRepo, is_host_of, site_name


@dataclass(frozen=True)
class SiteAccess:
    """A site's endpoint and the token for it; without a token, requests are anonymous."""

    endpoint: str
    token: str | None = field(default=None, repr=False)

    @property
    def site(self) -> str:
        """The name of the site for people."""
        return site_name(self.endpoint)

    def headers_for(self, url: object) -> dict[str, str]:
        """The headers with the token, if this URL, as text, may get it."""
        return self._credentials() if self.token and self._is_api(urlsplit(str(url))) else {}

    def is_api(self, url: str) -> bool:
        """Whether a URL belongs to the site's API, so that a redirect to it may be followed with a request's body."""
        return self._is_api(urlsplit(url))

    def upload_headers(self, href: str, repo: SiteRepo, sha256: str, size_bytes: int) -> dict[str, str]:
        """The headers with the token for the address at which a blob is to be put.

        Raises HubUnreachable for an address that is not the one of this blob at this site.
        """
        try:
            url = urlsplit(href)
            is_ours = self._is_upload_host(url) and url.path == self._upload_path(repo, sha256, size_bytes)
        except ValueError:
            is_ours = False
        if not is_ours:
            raise self._foreign(href)
        return self._credentials()

    def _upload_path(self, repo: SiteRepo, sha256: str, size_bytes: int) -> str:
        return f"/api/v1/repos/{repo.api_path}/blobs/{sha256}/{size_bytes}"

    def _credentials(self) -> dict[str, str]:
        if not self.token:
            return {}
        return {"Authorization": f"Bearer {self.token}", "Cookie": f"m_session_id={self.token}"}

    def _is_api(self, url: SplitResult) -> bool:
        ours = urlsplit(self.endpoint)
        if (url.scheme, url.netloc) == (ours.scheme, ours.netloc):
            return True
        hosts = {(url.hostname or "").removeprefix("www."), (ours.hostname or "").removeprefix("www.")}
        return len(hosts) == 1 and url.scheme == ours.scheme == "https" and url.port is ours.port is None

    def _is_upload_host(self, url: SplitResult) -> bool:
        ours = urlsplit(self.endpoint)
        host, own = url.hostname or "", ours.hostname or ""
        if _is_loopback(own):
            return url.scheme in ("http", "https") and _is_loopback(host)
        if not is_host_of(host, own):
            return False
        return url.scheme == "https" or (url.scheme == ours.scheme and host == own)

    def _foreign(self, href: str) -> HubUnreachable:
        host = href[:200].partition("?")[0]
        return malformed(self.site, f"it names {host!r} as the place for a blob, which is not the blob's address there")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
