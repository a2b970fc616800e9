"""One request at the Hub's door, read: path, query, headers, who asks. Owns reading, decides nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl

from hfpeer.endpoint.callers import Caller
from hfpeer.errors import InvalidName
from hfpeer_daemon.hub.addresses import Address, collapsed, read_address
from hfpeer_daemon.responses import Receive, Scope, Send, header

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_FIELDS = 20_000
_TRUE = frozenset({"true", "1", "yes", "on"})


@dataclass(frozen=True)
class Asked:
    """A request and the way to answer it."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def is_head(self) -> bool:
        return self.method == "HEAD"

    @cached_property
    def path(self) -> str:
        """The undecoded path, its slashes collapsed."""
        return collapsed(self.scope["raw_path"].decode("latin-1"))

    @cached_property
    def address(self) -> Address | None:
        """See `read_address`."""
        return read_address(self.path)

    @property
    def query_string(self) -> str:
        return str(self.scope["query_string"].decode("latin-1"))

    @property
    def target(self) -> str:
        """Path and query, undecoded."""
        return self.path + (f"?{self.query_string}" if self.query_string else "")

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        return _fields(self.query_string)

    def values(self, *names: str) -> list[str]:
        """All values of the query's fields of these names."""
        return [value for name, value in self.query if name in names]

    def flag(self, name: str) -> bool:
        """Whether a field of the query is true; the last one counts."""
        return (self.values(name) or [""])[-1].lower() in _TRUE

    def header(self, name: str) -> str | None:
        return header(self.scope, name.encode("latin-1"))

    @property
    def own_url(self) -> str:
        """The endpoint as the caller addresses it, without a trailing slash."""
        return f"{self.scope.get('scheme', 'http')}://{self.header('host')}"

    @cached_property
    def caller(self) -> Caller:
        """Who asks. Whoever is not on this machine is nobody: its token is not looked at."""
        is_local = _is_loopback(self.scope.get("client"))
        return Caller(_token(self.header("authorization")) if is_local else None, is_local)

    @property
    def client(self) -> str:
        """Tells one client program from the other, as far as one can."""
        host = (self.scope.get("client") or ("",))[0]
        return f"{host} {self.header('user-agent') or ''} {self.caller.fingerprint}"

    async def body(self) -> bytes:
        """The whole body. Raises InvalidName when it is larger than any that is read here."""
        chunks = bytearray()
        async for chunk in self.stream():
            chunks += chunk
            if len(chunks) > MAX_BODY_BYTES:
                raise InvalidName(f"The body of this request may have {MAX_BODY_BYTES} bytes at most.")
        return bytes(chunks)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ConnectionError when the caller goes away."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("The caller has gone.")
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return

    @property
    def has_body(self) -> bool:
        length = self.header("content-length")
        return self.header("transfer-encoding") is not None or (length is not None and length != "0")


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form. Raises InvalidName."""
    try:
        return _fields(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidName("The form is not UTF-8.") from error


def _fields(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise InvalidName("There are too many fields in this request.") from error


def _is_loopback(client: Any) -> bool:
    try:
        found = ip_address(str(client[0]).partition("%")[0]) if client else None
    except ValueError:
        return False
    return found is not None and (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _token(authorization: str | None) -> str | None:
    """The token in an Authorization header: a bearer's, or the password that git sends."""
    scheme, _, secret = (authorization or "").partition(" ")
    secret = secret.strip()
    if scheme.lower() == "bearer":
        return secret or None
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(secret, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None
