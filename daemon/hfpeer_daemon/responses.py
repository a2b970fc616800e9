"""HTTP's small print, parsed and printed: ranges, etags, whole answers. Pure but for `send_whole` and `until_gone`.

Inclusive ranges exist only here: what goes in and out of the functions is half-open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from hfpeer.ranges import ByteRange
from hfpeer.wire import NODE_HEADER

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_ONE_RANGE = re.compile(r"bytes\s*=\s*(?P<first>[0-9]*)\s*-\s*(?P<last>[0-9]*)", re.IGNORECASE)
_MAX_DIGITS = 19
_ETAG = re.compile(r'(?:W/)?"[^"]*"|\*')


class Unsatisfiable:
    """The range was understood and lies outside the bytes there are."""


UNSATISFIABLE: Final = Unsatisfiable()


def parse_range(header: str | None, size_bytes: int) -> ByteRange | Unsatisfiable | None:
    """The one range that a `Range` header asks of `size_bytes` bytes; None means the whole.

    Many ranges, another unit and what is malformed are ignored, as RFC 9110 §14.2 allows; so is any range of an
    empty body, for which no Content-Range could be written.
    """
    found = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if found is None or size_bytes == 0:
        return None
    first, last = _number(found["first"]), _number(found["last"])
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
    """The number, cut off at 19 digits: more than any file has bytes, and cheap to read."""
    significant = digits.lstrip("0") or digits[:1]
    if not significant:
        return None
    return int(significant) if len(significant) <= _MAX_DIGITS else 10**_MAX_DIGITS


def content_range(part: ByteRange, size_bytes: int) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{size_bytes}"


def names_etag(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names `etag`: the weak comparison of RFC 9110 §13.1.2."""
    named = _ETAG.findall(header) if header else []
    return "*" in named or etag in (tag.removeprefix("W/") for tag in named)


def allows_range(if_range: str | None, etag: str) -> bool:
    """Whether a `Range` counts beside this `If-Range`: only the very same strong etag, never a date."""
    return if_range is None or if_range.strip() == etag


def header(scope: Scope, name: bytes) -> str | None:
    """The value of the first header `name` (lower case), or None."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def asker(scope: Scope) -> str:
    """The id of the node that asks, as it says; "" if it says none."""
    return header(scope, NODE_HEADER.lower().encode()) or ""


def header_lines(headers: Mapping[str, str | int]) -> Headers:
    return [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]


async def send_whole(send: Send, status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> None:
    """A whole answer in one go. A 304 has neither body nor length."""
    lines = dict(headers) if status == 304 else {"Content-Length": str(len(body)), **dict(headers)}
    await send({"type": "http.response.start", "status": status, "headers": header_lines(lines)})
    await send({"type": "http.response.body", "body": b"" if status == 304 else body})


async def until_gone(receive: Receive) -> None:
    """Waits until the client has gone, or has all of the answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


def json_bytes(document: Any) -> bytes:
    """Compact JSON, in ASCII: a file's name may hold what UTF-8 cannot say."""
    return json.dumps(document, separators=(",", ":")).encode()
