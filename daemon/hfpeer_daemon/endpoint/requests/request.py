"""Reads one request to the endpoint: path, query, headers, body, caller. Decides nothing."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import mmap
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl

from hfpeer.budgets import (
    BODY_SECONDS,
    MAX_BODY_BYTES,
    MAX_GUEST_BODY_BYTES,
    MIN_BYTES_PER_ITEM,
    SMALL_MESSAGE_BYTES,
)
from hfpeer.endpoint.access.caller import Caller
from hfpeer.errors import InvalidName
from hfpeer.net.http1 import whole_number
from hfpeer_daemon.endpoint.requests.held_bodies import Held, HeldBytes
from hfpeer_daemon.endpoint.requests.urls import HubUrl, collapsed, parse_url
from hfpeer_daemon.http.responses import Receive, Scope, Send, header

MAX_FIELDS = 20_000
"""Most fields of a query or form."""
MAX_AGENT_LENGTH = 200
"""Characters of a user agent in which its first product is looked for."""
_PRODUCT = re.compile(r"[A-Za-z][\w.+-]{0,40}/[\w.+-]{1,40}", re.ASCII)
_TRUE = frozenset({"true", "1", "yes", "on"})


@dataclass(frozen=True)
class HubRequest:
    """A request and the way to answer it."""

    scope: Scope
    receive: Receive
    send: Send
    all_held: HeldBytes = field(default_factory=HeldBytes)

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def is_head(self) -> bool:
        return self.method == "HEAD"

    @cached_property
    def path(self) -> str:
        """The undecoded path, with runs of slashes collapsed."""
        return collapsed(self.scope["raw_path"].decode("latin-1"))

    @cached_property
    def url(self) -> HubUrl | None:
        """The repo and verb of the path; see `parse_url`."""
        return parse_url(self.path)

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
        """The values of all query fields with these names."""
        return [value for name, value in self.query if name in names]

    def flag(self, name: str) -> bool:
        """Whether the last query field of this name is true."""
        return (self.values(name) or [""])[-1].lower() in _TRUE

    def header(self, name: str) -> str | None:
        return header(self.scope, name.encode("latin-1"))

    @property
    def own_url(self) -> str:
        """The endpoint's URL as the caller uses it, without a trailing slash."""
        return f"{self.scope.get('scheme', 'http')}://{self.header('host')}"

    @cached_property
    def caller(self) -> Caller:
        """The caller. The token of a caller on another machine is ignored."""
        is_local = _is_loopback(self.scope.get("client"))
        token, host = _token(self.header("authorization")) if is_local else None, "" if is_local else self._host
        return Caller(token, is_local, host, program_of(self.header("user-agent") or ""))

    @property
    def _host(self) -> str:
        return str((self.scope.get("client") or ("",))[0])

    @property
    def client(self) -> str:
        """Tells client programs apart, as well as possible: address, user agent, and the hash of the token."""
        return f"{self._host} {self.header('user-agent') or ''} {self.caller.fingerprint}"

    async def body(self, seconds: float = BODY_SECONDS) -> bytes:
        """The whole body, which counts as held until the request ends.

        Raises InvalidName if it is too large or takes longer than `seconds`, Unreachable if too much is held already.
        """
        try:
            return await asyncio.wait_for(self._whole_body(), seconds)
        except asyncio.TimeoutError as error:
            raise InvalidName(f"The body of this request may take {seconds:g} seconds at most.") from error

    async def _whole_body(self) -> bytes:
        most_bytes = MAX_BODY_BYTES if self.caller.is_local else MAX_GUEST_BODY_BYTES
        announced = self.header("content-length")
        size_bytes = most_bytes if announced is None else whole_number(announced.strip()) or 0
        if size_bytes > most_bytes:
            raise _too_large(most_bytes)
        if announced is not None:
            self.held.add(size_bytes)  # Before a byte is read.
        # A memory map takes no memory before it is written to, and returns all of it at once.
        with mmap.mmap(-1, size_bytes or 1) as room:
            end = 0
            async for chunk in self.stream():
                if end + len(chunk) > size_bytes:
                    raise _too_large(most_bytes)
                if announced is None:
                    self.held.add(len(chunk))
                room[end : end + len(chunk)] = chunk
                end += len(chunk)
            return room[:end]

    @cached_property
    def held(self) -> Held:
        """The bytes of this request in memory. Call `free` when the request ends."""
        return self.all_held.of(None if self.caller.is_local else self._host)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in chunks, as it comes. Raises ConnectionError if the caller disconnects."""
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


def read_json(body: bytes) -> Any:
    """The JSON document in a body. Raises InvalidName for anything else, and for a body of hardly more than commas and
    brackets, because the document would take thirty times its size."""
    items = body.count(b",") + body.count(b"[") + body.count(b"{")
    if len(body) > SMALL_MESSAGE_BYTES and items * MIN_BYTES_PER_ITEM > len(body):
        raise InvalidName("This request has next to nothing but commas and brackets.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidName("The body of this request is not JSON.") from error


def _too_large(most_bytes: int) -> InvalidName:
    return InvalidName(f"The body of this request may have {most_bytes} bytes at most.")


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """The fields of an HTML form. Raises InvalidName."""
    try:
        return _fields(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidName("The form is not UTF-8.") from error


def _fields(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise InvalidName("There are too many fields in this request.") from error


def program_of(user_agent: str) -> str:
    """The first product of a user agent that has a name and a version: `transformers/4.50.0`."""
    products = _PRODUCT.findall(user_agent[:MAX_AGENT_LENGTH])
    return next((product for product in products if not product.startswith("unknown/")), "")


def _is_loopback(client: Any) -> bool:
    try:
        found = ip_address(str(client[0]).partition("%")[0]) if client else None
    except ValueError:
        return False
    return found is not None and (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _token(authorization: str | None) -> str | None:
    """The token in an Authorization header: a bearer token, or the password that git sends."""
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
