"""JSON responses, and the headers that tell the age of an answer about a name."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.resolver.commits import Resolution
from hfpeer.trust.precedence import Voice
from hfpeer_daemon.endpoint.requests.request import HubRequest
from hfpeer_daemon.endpoint.responses.refusals import printable
from hfpeer_daemon.http.responses import send_whole

UNKNOWN_AGE = 1 << 31
"""Largest age in seconds. Source: RFC 9111, section 1.2.2."""


async def send_json(request: HubRequest, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Sends a JSON response; to HEAD without its body."""
    lines = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body)), **(headers or {})}
    await send_whole(request.send, 200, b"" if request.is_head else body, lines.items())


def age_headers(admitted: AdmittedRevision) -> dict[str, str]:
    """The age of the answer about a name, and a warning if it is not a hub's current answer. Clients show it once."""
    if admitted.asked_at is None:
        return {}
    resolution, held_seconds = admitted.resolution, time.monotonic() - admitted.asked_at
    if resolution.is_current:
        headers = {"Age": age_header(held_seconds)}
    else:
        headers = {"Age": age_header(None if resolution.age_seconds is None else resolution.age_seconds + held_seconds)}
    warning = _warning(resolution, headers["Age"])
    if warning:
        headers["X-HF-Warning"] = printable(f"hfpeer; {admitted.repo}: {warning}")
    return headers


def age_header(age_seconds: float | None) -> str:
    """The value of `Age`; for an unknown age the largest."""
    return str(UNKNOWN_AGE) if age_seconds is None else f"{age_seconds:.0f}"


def _warning(resolution: Resolution, age: str) -> str:
    """The source of an answer that is not a hub's current one; empty for a hub's current answer."""
    if resolution.voice is Voice.PUBLISHED_HERE:
        return ""
    if resolution.voice is Voice.PUBLISHED:
        return f"published by {resolution.answered_by} on the LAN, on no hub"
    if resolution.is_current:
        return ""
    old = "of unknown age" if age == str(UNKNOWN_AGE) else f"{age} s old"
    silence = "no hub could be asked what this is now"
    if resolution.voice is Voice.PEER:
        return f"{silence}; the answer is what {resolution.answered_by} on the LAN says, {old}"
    return f"{silence}; the answer is {old}" + (
        f", as {resolution.answered_by} gave it" if resolution.upstream_refusal else ""
    )
