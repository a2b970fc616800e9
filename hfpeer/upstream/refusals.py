"""What a hub says when it says no, as the errors of hfpeer. Pure.

The rules are the Hub client's own, in its order (huggingface_hub `hf_raise_for_status`), with two differences: a
bare 401 means a missing or private repo over plain http as well, and a 404 that does not say what is missing does
not come from a Hub, so it is a fault of the upstream and never proof that something does not exist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

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

BAD_TOKEN = "Invalid credentials in Authorization header"
DISABLED = "Access to this resource is disabled."
_RATE_LIMIT = re.compile(r'"[^"]*"\s*;\s*r=(\d+)\s*;\s*t=(\d+)')
_LOGIN = "`hfpeer auth login` stores a token."


def refusal(
    hub: str, status: int, headers: Mapping[str, str], repo: RepoId, revision: str | None = None
) -> HfpeerError:
    """The error that a status of 400 and above means, for a request about `repo` (at `revision`)."""
    code, said = headers.get("x-error-code"), _printable(headers.get("x-error-message", ""))
    facts: dict[str, Any] = {"hub": hub, "repo": repo.api_path, "status": status}
    if code == "RevisionNotFound":
        message = f"{hub} has no revision {revision or 'of this name'} of {repo}."
        return RevisionNotFound(message, revision=revision, **facts)
    if code == "EntryNotFound":
        return EntryNotFound(f"{hub} has no such file in {repo}.", **facts)
    if code == "GatedRepo":
        hint = f"Ask for access on the page of {repo} at its hub, then use a token of that account. {_LOGIN}"
        return GatedRepo(f"{repo} is gated, and {hub} gives no access to it.", hint=hint, **facts)
    if said == DISABLED:
        hint = "Nobody can fetch it there now."
        return AccessDenied(f"{hub} has disabled {repo}.", hint=hint, reason="disabled", **facts)
    if status == 401 and said == BAD_TOKEN:
        hint = f"It may have expired. {_LOGIN}"
        return AccessDenied(f"{hub} does not accept the token.", hint=hint, reason="bad token", **facts)
    if code == "RepoNotFound" or status == 401:
        hint = f"Check the name; if it is private, a token that may see it is needed. {_LOGIN}"
        return RepoNotFound(f"{hub} has no {repo.type.value} {repo.full_name} that you can see.", hint=hint, **facts)
    if status == 403:
        reason = f": {said}" if said else ""
        return AccessDenied(f"{hub} refuses access to {repo}{reason}.", hint=_LOGIN, **facts)
    return outage(hub, f"answers {status}" + (f" ({said})" if said else ""), repo=repo.api_path, status=status)


def outage(hub: str, reason: str, **facts: Any) -> HubUnreachable:
    """The hub cannot help now; `reason` ends a sentence that starts with its name."""
    facts = {"hub": hub, "reason": reason, **facts}
    return HubUnreachable(f"{hub} {reason}.", hint="Try again later; what has arrived is kept.", **facts)


def no_hub(hub: str, reason: str, cause: Exception | None = None) -> NoReturn:
    """Raises HubUnreachable for an answer that no Hub would give."""
    raise outage(hub, f"does not answer like a Hub: {reason}") from cause


def rest_seconds(headers: Mapping[str, str]) -> float | None:
    """How long a 429 or 503 asks to wait: `RateLimit` when it says that nothing is left, else `Retry-After`."""
    limit = _RATE_LIMIT.search(headers.get("ratelimit", ""))
    if limit and limit[1] == "0":
        return float(limit[2]) + 1
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, asked) if math.isfinite(asked) else None


def is_passing(status: int) -> bool:
    """Whether the same request may well succeed a moment later."""
    return status in (408, 429) or status >= 500


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:300].strip()
