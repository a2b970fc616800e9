"""Turns a hub's error response into an error of hfpeer. Pure.

The rules are those of the Hub's client, in its order (huggingface_hub `hf_raise_for_status`), with two differences. A
bare 401 means a missing or private repo over plain http as well. A 404 that does not name the missing thing does not
come from a Hub: it is a fault of the upstream, never proof that something does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from hfpeer.budgets import MAX_HINT_HEADER_CHARACTERS, MAX_RATE_LIMIT_SECONDS
from hfpeer.errors import (
    AccessDenied,
    EntryNotFound,
    GatedRepo,
    HfpeerError,
    HubUnreachable,
    RepoNotFound,
    RevisionNotFound,
)
from hfpeer.names import RepoId
from hfpeer.net.http1 import parse_delay_seconds
from hfpeer.system.printable import printable

BAD_TOKEN = "Invalid credentials in Authorization header"
DISABLED = "Access to this resource is disabled."
LATER = "Try again later; what has arrived is kept."
CHECK_ADDRESS = "Look whether the setting `upstreams` names the address of a hub: `hfpeer conf get upstreams`."
WEB_PAGE = (
    "A network that wants a login answers so, and so does a proxy: open the address of the hub in a browser on this "
    "machine. `hfpeer conf get upstreams` shows it."
)
_NO_HUB = frozenset({400, 404, 405, 410, 501})
"""Statuses by which a server says that it does not know what every hub knows."""
_NETWORK_LOGIN = 511
"""Source: RFC 6585 §6."""
_LOGIN = "`hfpeer auth login` stores a token."


def refusal(
    hub: str, status: int, headers: Mapping[str, str], repo: RepoId, revision: str | None = None
) -> HfpeerError:
    """The error for a status of 400 and above, in response to a request about `repo` (at `revision`)."""
    code, text = headers.get("x-error-code"), printable(headers.get("x-error-message", "")[:300]).strip()
    facts: dict[str, Any] = {"hub": hub, "repo": repo.api_path, "status": status}
    if code == "RevisionNotFound":
        message = f"{hub} has no revision {revision or 'of this name'} of {repo}."
        return RevisionNotFound(message, revision=revision, **facts)
    if code == "EntryNotFound":
        return EntryNotFound(f"{hub} has no such file in {repo}.", **facts)
    if code == "GatedRepo":
        hint = f"Ask for access on the page of {repo} at its hub, then use a token of that account. {_LOGIN}"
        return GatedRepo(f"{repo} is gated, and {hub} gives no access to it.", hint=hint, **facts)
    if text == DISABLED:
        hint = "No one can fetch it from there now."
        return AccessDenied(f"{hub} has disabled {repo}.", hint=hint, reason="disabled", **facts)
    if status == 401 and text == BAD_TOKEN:
        hint = f"It may have expired. {_LOGIN}"
        return AccessDenied(f"{hub} does not accept the token.", hint=hint, reason="bad token", **facts)
    if code == "RepoNotFound" or status == 401:
        hint = f"Check the name; if it is private, a token that may see it is needed. {_LOGIN}"
        return RepoNotFound(f"{hub} has no {repo.type.value} {repo.full_name} that you can see.", hint=hint, **facts)
    if status == 451:
        hint = "No one can fetch it from there now."
        return AccessDenied(f"{hub} may not give {repo} for legal reasons.", hint=hint, **facts)
    if status == 403:
        reason = f": {text}" if text else ""
        return AccessDenied(f"{hub} refuses access to {repo}{reason}.", hint=_LOGIN, **facts)
    hint = CHECK_ADDRESS if status in _NO_HUB else WEB_PAGE if status == _NETWORK_LOGIN else LATER
    answer = f"answers {status}" + (f" ({text})" if text else "")
    return outage(hub, answer, hint=hint, repo=repo.api_path, status=status)


def outage(hub: str, reason: str, *, hint: str = LATER, **facts: Any) -> HubUnreachable:
    """The hub cannot help now. `reason` ends a sentence that starts with its name."""
    facts = {"hub": hub, "reason": reason, **facts}
    return HubUnreachable(f"{hub} {reason}.", hint=hint, **facts)


def not_a_hub(hub: str, reason: str, cause: Exception | None = None, *, hint: str = CHECK_ADDRESS) -> NoReturn:
    """Raises HubUnreachable, with the fact `is_no_hub`, for a response that no Hub would send."""
    raise outage(hub, f"does not answer like a Hub: {reason}", hint=hint, is_no_hub=True) from cause


@dataclass(frozen=True)
class AskedRest:
    """A rest that a response asks for: its length in seconds, None if it does not say, and the bucket of requests that
    is used up, "" for all of them."""

    seconds: float | None
    bucket: str = ""


def asked_rest(headers: Mapping[str, str], now: float | None = None) -> AskedRest:
    """The rest for which a 429 or 503 asks, at most MAX_RATE_LIMIT_SECONDS.

    `RateLimit` counts before `Retry-After`, if it says that nothing is left. A date is read by the clock of its sender;
    `now`, in seconds since the epoch, counts if the response does not tell the time.
    """
    used_up = _used_up(headers.get("ratelimit", "")[:MAX_HINT_HEADER_CHARACTERS]) or _used_up_by_window(headers)
    if used_up is not None:
        return used_up
    text = headers.get("retry-after", "")[:MAX_HINT_HEADER_CHARACTERS]
    seconds = parse_delay_seconds(text, MAX_RATE_LIMIT_SECONDS)
    if seconds is None and (until := _http_date(text)) is not None:
        sent_at = _http_date(headers.get("date", "")[:MAX_HINT_HEADER_CHARACTERS])
        since = now if sent_at is None else sent_at
        seconds = None if since is None else min(max(0.0, until - since), MAX_RATE_LIMIT_SECONDS)
    return AskedRest(seconds)


def _used_up(rate_limit: str) -> AskedRest | None:
    """The first policy in `RateLimit` with both `r` and `t`, if its `r` is 0. A second is added, as the Hub's client
    does. Source: draft-ietf-httpapi-ratelimit-headers."""
    for policy in rate_limit.split(","):
        name, *parameters = policy.split(";")
        text = {key.strip(): value.strip() for key, _, value in (each.partition("=") for each in parameters)}
        if "r" in text and "t" in text:
            seconds = parse_delay_seconds(text["t"], MAX_RATE_LIMIT_SECONDS) if text["r"] == "0" else None
            bucket = name.strip().strip('"')
            return None if seconds is None else AskedRest(min(seconds + 1, MAX_RATE_LIMIT_SECONDS), bucket)
    return None


def _used_up_by_window(headers: Mapping[str, str]) -> AskedRest | None:
    """The same in the forms before version 8 of that draft: `RateLimit: limit=10, remaining=0, reset=5`, or a header
    for each of them."""
    parts = (each.partition("=") for each in headers.get("ratelimit", "")[:MAX_HINT_HEADER_CHARACTERS].split(","))
    said = {key.strip().lower(): value.strip() for key, _, value in parts}
    remaining, reset = (said.get(key) or headers.get(f"ratelimit-{key}", "").strip() for key in ("remaining", "reset"))
    seconds = parse_delay_seconds(reset, MAX_RATE_LIMIT_SECONDS) if remaining == "0" else None
    return None if seconds is None else AskedRest(min(seconds + 1, MAX_RATE_LIMIT_SECONDS))


def _http_date(text: str) -> float | None:
    """The time of an HTTP-date (RFC 9110 §5.6.7) in seconds since the epoch; None for anything else."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def is_transient(status: int) -> bool:
    """Whether the same request may succeed a moment later."""
    return status in (408, 429) or (status >= 500 and status not in (501, _NETWORK_LOGIN))
