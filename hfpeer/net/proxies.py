"""Decides through which proxy a request to a hub goes, by the variables of the environment and the setting `proxy`.

The variables are those of curl and Python: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in small letters
before capitals. What cannot be read is passed over with a note, never an error: only a request that has no other way
is refused. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from hfpeer.net.address import IP, parse_ip

DIRECT = "none"
"""The value of the setting for a node that uses no proxy at all."""
SCHEMES = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}
_CREDENTIALS = re.compile(r"//[^/@]*@")


class UnusableProxy(Exception):
    """No variable that applies to a request names a proxy that can be used. The text ends a sentence that starts with
    the hub's name."""


@dataclass(frozen=True)
class Proxy:
    """A proxy: its URL, which may hold a password, and the variable or setting that names it."""

    url: str
    named_by: str

    @property
    def address(self) -> str:
        """The URL without credentials, for people."""
        return _CREDENTIALS.sub("//", self.url)


@dataclass(frozen=True)
class _Exemption:
    """One entry of `no_proxy`: a network, or a domain with all names below it, and perhaps a port."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    domain: str
    port: int | None

    def covers(self, host: str, ip: IP | None, port: int | None) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return ip is not None and ip.version == self.network.version and ip in self.network
        return host == self.domain or host.endswith(f".{self.domain}")


class ProxyRules:
    """The proxy for each URL. `notes` are sentences on what was passed over."""

    def __init__(self, environ: Mapping[str, str], setting: str | None = None) -> None:
        """`setting` is a proxy for all requests, DIRECT, or empty for what the environment says."""
        self.notes: list[str] = []
        self._candidates: dict[str, list[Proxy | str]] = {}
        """Scheme -> the proxies to use, the first that can be used; a text says why one cannot."""
        self._exemptions: list[_Exemption] = []
        self._is_direct = setting == DIRECT
        if setting and not self._is_direct:
            named = read_proxy(setting, "the setting `proxy`")
            self._candidates = {"http": [named], "https": [named]}
            return
        for scheme in ("http", "https"):
            found = [_variable(environ, f"{scheme}_proxy"), _variable(environ, "all_proxy")]
            self._candidates[scheme] = [read_proxy(value, name) for name, value in found if value]
        self._read_exemptions(*_variable(environ, "no_proxy"))

    def proxy_for(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """The proxy of a request; None for a direct connection. Raises UnusableProxy."""
        candidates = self._candidates.get(scheme, [])
        if not candidates or self._is_direct or self._is_exempt(host, port or _PORTS.get(scheme)):
            return None
        for candidate in candidates:
            if isinstance(candidate, Proxy):
                return candidate
        raise UnusableProxy(f"cannot be asked: {candidates[0]}")

    def _is_exempt(self, host: str, port: int | None) -> bool:
        host = host.strip("[]").rstrip(".").lower()
        ip = parse_ip(host)
        return any(exemption.covers(host, ip, port) for exemption in self._exemptions)

    def _read_exemptions(self, name: str, value: str) -> None:
        entries = re.split(r"[,\s]+", value.strip())
        if "*" in entries:
            self._is_direct = True
            return
        for entry in filter(None, entries):
            exemption = _exemption(entry)
            if exemption is None:
                self.notes.append(f"{name} has an entry that names no host or network: {entry!r}. It is passed over.")
            else:
                self._exemptions.append(exemption)


def read_proxy(value: str, named_by: str) -> Proxy | str:
    """The proxy that a text names, or why it cannot be used. Without a scheme it is an HTTP proxy, as for curl."""
    text = value.strip()
    if "://" not in text:
        text = f"http://{text}"
    if text.startswith("socks://"):
        text = text.replace("socks", "socks5", 1)
    shown = _CREDENTIALS.sub("//", text)
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        return f"{named_by} names a proxy whose address cannot be read ({shown})"
    if scheme not in SCHEMES:
        return f"{named_by} names a proxy of a kind that hfpeer cannot use ({shown}); it can use {', '.join(SCHEMES)}"
    if not host or port == 0:
        return f"{named_by} names a proxy without a host or port ({shown})"
    return Proxy(text, named_by)


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The name under which a variable is set and its value. An empty one in small letters hides that in capitals."""
    if name in environ:
        return name, environ[name]
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        return name, ""  # a header of a CGI request can set HTTP_PROXY (CVE-2016-5385)
    return name.upper(), environ.get(name.upper(), "")


def _exemption(entry: str) -> _Exemption | None:
    """An entry of `no_proxy`: a domain, an address or a network, perhaps with a port; None for anything else."""
    text = entry.partition("://")[2].partition("/")[0] if "://" in entry else entry
    host, port = text, None
    if found := re.fullmatch(r"(\[[^\]]*\]|[^:/]*):(\d{1,5})", text):
        host, port = found[1], int(found[2])
    host = re.sub(r"^\[([^\]]*)\](?=/|$)", r"\1", host).rstrip(".").lower()
    try:
        return _Exemption(ipaddress.ip_network(host.partition("%")[0], strict=False), "", port)
    except ValueError:
        domain = host.removeprefix("*").lstrip(".")
        is_domain = re.fullmatch(r"[\w-]+(\.[\w-]+)*", domain) and not re.fullmatch(r"[\d.]+", domain)
        return _Exemption(None, domain, port) if is_domain else None
