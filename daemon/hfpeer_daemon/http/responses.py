"""Parses and writes parts of HTTP: ranges, entity tags, whole responses. Pure, except `send_whole` and `until_gone`.

Ranges in headers are inclusive; those of the functions are half-open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from hfpeer.peers.protocol.paths import NODE_HEADER
from hfpeer.ranges import ByteRange

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_DIGITS = re.compile("[0-9]*")
_MAX_DIGITS = 19
_ETAG = re.compile(r'(?:W/)?"[^"]*"|\*')


class Unsatisfiable:
    """A valid range outside the content."""


UNSATISFIABLE: Final = Unsatisfiable()


def parse_range(header: str | None, size_bytes: int) -> ByteRange | Unsatisfiable | None:
    """The range that a `Range` header requests of `size_bytes` bytes; None for the whole.

    Several ranges, other units and invalid headers are ignored, as RFC 9110 §14.2 allows. So is any range of an empty
    body, for which no Content-Range exists.
    """
    unit, _, range_set = (header or "").partition("=")
    numbers = [number.strip() for number in range_set.split("-")] if range_set.count("-") == 1 else []
    is_range = unit.strip().lower() == "bytes" and numbers and all(map(_DIGITS.fullmatch, numbers))
    if not is_range or size_bytes == 0:
        return None
    first, last = map(_number, numbers)
    if first is None:
        return None if last is None else _suffix(last, size_bytes)
    if last is not None and last < first:
        return None
    if first >= size_bytes:
        return UNSATISFIABLE
    return ByteRange(first, size_bytes if last is None else min(last + 1, size_bytes))


def _suffix(length: int, size_bytes: int) -> ByteRange | Unsatisfiable:
    return ByteRange(max(0, size_bytes - length), size_bytes) if length else UNSATISFIABLE


def _number(digits: str) -> int | None:
    """The number, at most 10**19: more than any file has bytes, and cheap to parse."""
    significant = digits.lstrip("0") or digits[:1]
    if not significant:
        return None
    return int(significant) if len(significant) <= _MAX_DIGITS else 10**_MAX_DIGITS


def content_range(part: ByteRange, size_bytes: int) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{size_bytes}"


def names_etag(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names `etag`, by the weak comparison of RFC 9110 §13.1.2."""
    named = _ETAG.findall(header) if header else []
    return "*" in named or etag in (tag.removeprefix("W/") for tag in named)


def allows_range(if_range: str | None, etag: str) -> bool:
    """Whether a `Range` applies beside this `If-Range` (RFC 9110 §13.1.5): only for the same strong entity tag, never
    for a date."""
    return if_range is None or if_range.strip() == etag


def header(scope: Scope, name: bytes) -> str | None:
    """The value of the first header `name` (lower case), or None."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def sender_node_id(scope: Scope) -> str:
    """The node id in the request; "" if there is none. Not proved."""
    return header(scope, NODE_HEADER.lower().encode()) or ""


def header_lines(headers: Mapping[str, str | int]) -> Headers:
    return [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]


async def send_whole(send: Send, status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> None:
    """Sends a whole response. A 304 has neither body nor length."""
    lines = dict(headers) if status == 304 else {"Content-Length": str(len(body)), **dict(headers)}
    await send({"type": "http.response.start", "status": status, "headers": header_lines(lines)})
    await send({"type": "http.response.body", "body": b"" if status == 304 else body})


async def until_gone(receive: Receive) -> None:
    """Waits until the client has gone, or has received the whole response."""
    while (await receive())["type"] != "http.disconnect":
        pass


def json_bytes(document: Any) -> bytes:
    """Compact JSON, in ASCII: a file name may contain what UTF-8 cannot encode."""
    return json.dumps(document, separators=(",", ":")).encode()
