"""The person who looks at the page: the user of the daemon, or a visitor; and in which language.

Only the user's own processes on this machine make an owner: the system knows whose each end of a loopback connection
is. All others, also other users of this machine and the browsers behind a proxy, see what peers may see.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from starlette.requests import Request

from hfpeer.language.tags import CHINESE, ENGLISH, language_of
from hfpeer.system.tcp_table import Place, user_of_client

LANGUAGE_COOKIE = "hfpeer_lang"
_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True)
class Viewer:
    """`is_owner`: may see what the commands of this daemon's user show."""

    is_owner: bool
    language: str = ENGLISH


async def viewer_of(request: Request) -> Viewer:
    """The viewer of a request to the endpoint."""
    return Viewer(await asyncio.to_thread(_is_owner, request), _language(request))


def _is_owner(request: Request) -> bool:
    client, server = (_place(request.scope.get(end)) for end in ("client", "server"))
    if client is None or server is None or not client[0].is_loopback:
        return False
    return not any(name in request.headers for name in _OF_PROXIES) and user_of_client(client, server) == os.geteuid()


def _place(end: Any) -> Place | None:
    """An end of a connection, as ASGI has it."""
    try:
        return ip_address(str(end[0]).partition("%")[0]), int(end[1])
    except (TypeError, ValueError):
        return None


def _language(request: Request) -> str:
    """The language of the link that was followed last, else the first of the browser's that the page has."""
    chosen = request.query_params.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
    if chosen:
        return language_of(chosen)
    wanted = [_weighed(part) for part in request.headers.get("accept-language", "").split(",")[:20]]
    for _, tag in sorted(wanted, key=lambda pair: -pair[0]):
        if language_of(tag) == CHINESE:
            return CHINESE
        if tag.lower().startswith("en"):
            break
    return ENGLISH


def _weighed(part: str) -> tuple[float, str]:
    """A tag of Accept-Language with its weight (RFC 9110 §12.5.4)."""
    tag, _, weight = part.strip().partition(";")
    try:
        return float(weight.strip().removeprefix("q=") or 1), tag.strip()
    except ValueError:
        return 0.0, tag.strip()
