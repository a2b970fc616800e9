"""Asks a hub whether it answers, how soon, and what time it is there."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from hfpeer.upstream.connection.clients import Connections, fault_of

ANSWER_SECONDS = 5.0
QUESTION = "/api/whoami-v2"
"""A route that every hub answers at once, if only with 401."""


@dataclass(frozen=True)
class Probe:
    """The answer of a hub, or the fault on the way: `reason` ends a sentence that starts with the hub's name, `hint`
    says what to do. `ahead_seconds` is how much the hub's clock is ahead of this one, if it told the time."""

    status: int = 0
    seconds: float = 0.0
    ahead_seconds: float | None = None
    reason: str = ""
    hint: str = ""


async def probe(hub_url: str, connections: Connections) -> Probe:
    """Sends one request, without a token, and waits at most ANSWER_SECONDS. Raises nothing."""
    timeout, limits = httpx.Timeout(ANSWER_SECONDS), httpx.Limits(max_connections=1)
    began = time.monotonic()
    try:
        async with connections.async_client(hub_url, timeout, limits) as client:
            response = await asyncio.wait_for(client.get(hub_url + QUESTION), ANSWER_SECONDS)
    except Exception as error:  # noqa: BLE001  whatever stands in the way is the answer
        is_late = isinstance(error, asyncio.TimeoutError)
        reason, hint = fault_of(httpx.ConnectTimeout("") if is_late else error)
        return Probe(reason=reason, hint=hint)
    return Probe(response.status_code, time.monotonic() - began, _ahead_seconds(response))


def _ahead_seconds(response: httpx.Response) -> float | None:
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return None
