"""What answers about repos have in common: JSON, and how old what they say of a name is."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hfpeer.endpoint.seen import Seen
from hfpeer_daemon.hub.asked import Asked
from hfpeer_daemon.hub.refusals import printable
from hfpeer_daemon.responses import send_whole


async def send_json(asked: Asked, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """A JSON answer; to HEAD without its body."""
    lines = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body)), **(headers or {})}
    await send_whole(asked.send, 200, b"" if asked.is_head else body, lines.items())


def age_headers(seen: Seen) -> dict[str, str]:
    """How old the answer about a name is, and a warning, which clients show once, when no hub could be asked."""
    if seen.asked_at is None:
        return {}
    stale_seconds = seen.resolution.age_seconds
    age_seconds = (stale_seconds or 0.0) + time.monotonic() - seen.asked_at
    headers = {"Age": f"{age_seconds:.0f}"}
    if stale_seconds is not None:
        said = f"no hub could be asked what this is now; the answer is {age_seconds:.0f} s old"
        headers["X-HF-Warning"] = printable(f"hfpeer; {seen.repo}: {said}")
    return headers
