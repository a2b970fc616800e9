"""Errors as the Hub's: status, `X-Error-Code`, `X-Error-Message`, a small JSON body.

Hub protocol: clients decide by the code, and remember `EntryNotFound` for ever. The response for a missing repo has its
code here, although the real Hub leaves it out, because clients do not guess it over plain http. An outage of a hub is
never "not found". For a GET of a file it is status 429, because a 503 ends a download at once. For all else it is 503
with `Retry-After: 0`: clients repeat the request several times, wait each time for as long as this says, and look in
their own cache only then. A node that has no hub to ask has no outage: no later request is answered otherwise, so
clients must not wait for it. They get 404 without a code.
"""

from __future__ import annotations

import math

from hfpeer.errors import (
    AccessDenied,
    EntryNotFound,
    GatedRepo,
    HfpeerError,
    HubUnreachable,
    InvalidName,
    NotFound,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    Unreachable,
)
from hfpeer.upstream.responses.refusals import BAD_TOKEN, DISABLED
from hfpeer_daemon.endpoint.requests.request import HubRequest
from hfpeer_daemon.http.problems import problem_of
from hfpeer_daemon.http.responses import json_bytes, send_whole

FILE_RETRY_SECONDS = 5
"""The value of `Retry-After` for a file if the error names none: its bytes come when the hub is back."""
REALM = 'Bearer realm="Authentication required", charset="UTF-8"'
GIT_REALM = 'Basic realm="Hugging Face"'


async def send_refusal(request: HubRequest, error: BaseException, *, has_hubs: bool) -> None:
    """Sends the Hub's response for an error. `has_hubs`: the node has upstreams to ask."""
    problem = problem_of(error)
    if isinstance(problem, HubUnreachable) and not has_hubs:
        problem = NotFound(problem.message)
    status, code, message = _refusal(request, problem)
    headers = {"X-Error-Message": printable(message), "Content-Type": "application/json"}
    if code:
        headers["X-Error-Code"] = code
    if status == 401:
        headers["WWW-Authenticate"] = REALM if (request.header("user-agent") or "")[:3] != "git" else GIT_REALM
    if status in (429, 503):
        headers["Retry-After"] = str(_retry_seconds(problem, FILE_RETRY_SECONDS if status == 429 else 0))
    commit = problem.facts.get("commit")
    if isinstance(problem, EntryNotFound) and isinstance(commit, str):
        headers["X-Repo-Commit"] = commit
    body = b"" if request.is_head else json_bytes({"error": message})
    await send_whole(request.send, status, body, headers.items())


def printable(text: str) -> str:
    """The text in the characters that a header may have."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)[:500]


def _refusal(request: HubRequest, problem: HfpeerError) -> tuple[int, str | None, str]:
    is_anonymous = request.caller.token is None
    if isinstance(problem, EntryNotFound):
        return 404, "EntryNotFound", "Entry not found"
    if isinstance(problem, RevisionNotFound):
        return 404, "RevisionNotFound", problem.message
    if isinstance(problem, RepoNotFound):
        return (401 if is_anonymous else 404), "RepoNotFound", problem.message
    if isinstance(problem, GatedRepo):
        return (401 if is_anonymous else 403), "GatedRepo", problem.message
    if isinstance(problem, AccessDenied):
        return _denial(problem)
    if isinstance(problem, NotFound):
        return 404, None, problem.message
    if isinstance(problem, InvalidName):
        return 400, None, problem.message
    if isinstance(problem, Unreachable):
        is_limit = isinstance(problem, RateLimited) or _waits_for_file(request)
        return (429 if is_limit else 503), None, problem.message
    return problem.http_status, None, problem.message


def _denial(problem: AccessDenied) -> tuple[int, str | None, str]:
    if problem.facts.get("reason") == "bad token":
        return 401, None, BAD_TOKEN
    if problem.facts.get("reason") == "disabled":
        return 403, None, DISABLED
    return 403, None, problem.message


def _waits_for_file(request: HubRequest) -> bool:
    return request.method == "GET" and request.url is not None and request.url.verb == "resolve"


def _retry_seconds(problem: HfpeerError, usual_seconds: int) -> int:
    retry_seconds = problem.facts.get("retry_after_seconds")
    return math.ceil(retry_seconds) if isinstance(retry_seconds, (int, float)) else usual_seconds
