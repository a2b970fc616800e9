"""Addresses of machines: an IP address or a host name, and a port; or the path of a Unix socket. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from hfpeer.errors import InvalidName

LAN_PORT = 9437
ENDPOINT_PORT = 9438
MAX_SOCKET_PATH_BYTES = 107
"""Linux: `sun_path` of unix(7) without its final zero."""
IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_LOOKS_NUMERIC = re.compile(r"[0-9.]+|0[xX][0-9a-fA-F]+")


@dataclass(frozen=True, order=True)
class Address:
    """A host (a name, an IPv4 address, or an IPv6 address with its `%scope` if it has one) and a TCP port.

    The host of a Unix socket is its path, and the port is 0. Only `parse_source` makes such an address.
    """

    host: str
    port: int = LAN_PORT

    @classmethod
    def parse(cls, text: str, default_port: int = LAN_PORT, *, is_listener: bool = False) -> Address:
        """Reads `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`. The port of a listener may be 0: any free port.

        Raises InvalidName.
        """
        host, port = _split_address(text.strip())
        number = default_port if port is None else _parse_port(port, 0 if is_listener else 1)
        if number is None or not (_is_ip(host) or _is_host_name(host)):
            raise InvalidName(
                f"{text!r} is not an address.",
                hint="An address is HOST or HOST:PORT, such as 192.168.1.20:9437, gpu-3.local or [fd00::2]:9437; "
                "a port is a number from 1 to 65535.",
                address=text,
            )
        return cls(host if "%" in host else host.lower(), number)

    @classmethod
    def parse_source(cls, text: str) -> Address:
        """Like `parse`, for a peer that the owner names; also takes the absolute path of a Unix socket.

        Raises InvalidName.
        """
        if not text.startswith("/"):
            return cls.parse(text)
        if not text.isprintable() or len(text.encode()) > MAX_SOCKET_PATH_BYTES:
            raise InvalidName(
                f"{text!r:.200} is no path of a socket.",
                hint=f"It has at most {MAX_SOCKET_PATH_BYTES} bytes.",
                address=text,
            )
        return cls(text, 0)

    @property
    def is_socket(self) -> bool:
        """Whether it is the path of a Unix socket."""
        return self.host.startswith("/")

    @property
    def ip(self) -> IP | None:
        """The host as `parse_ip` reads it; None for a name."""
        return parse_ip(self.host)

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" if self.ip is None else self.ip.is_loopback

    @property
    def url(self) -> str:
        """`http://host:port`; a Unix socket has no URL, and gets that of this machine."""
        return "http://localhost" if self.is_socket else f"http://{self}"

    def __str__(self) -> str:
        if self.is_socket:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_ip(text: str) -> IP | None:
    """An IP address without its scope, `::ffff:1.2.3.4` as `1.2.3.4` (RFC 4291 §2.5.5.2); None for anything else."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _split_address(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        is_v6 = bracket == "]" and ":" in host and (rest == "" or rest.startswith(":"))
        return (host, rest[1:] if rest else None) if is_v6 else ("", None)
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _parse_port(text: str, lowest: int) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= 5
    return int(text) if is_number and lowest <= int(text) <= 65535 else None


def _is_ip(host: str) -> bool:
    bare, percent, scope = host.partition("%")
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        return False
    return not percent or (ip.version == 6 and _SCOPE.fullmatch(scope) is not None)


def _is_host_name(host: str) -> bool:
    """Whether it is a host name. `256.1.1.1` and `0x7f000001` are none, although resolvers would accept them."""
    return _HOST_NAME.fullmatch(host) is not None and _LOOKS_NUMERIC.fullmatch(host.rpartition(".")[2] or host) is None
