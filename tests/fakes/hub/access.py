"""The asker, the repository, and whether they may: with the Hub's own refusals.

Owns addresses, tokens, visibility and the error answers. Must never serve content.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from .repo import Repo, Snapshot
from .site import Site
from .storage import User
from .wire import Request, Response, json_response, text_response

API_VERBS = frozenset(
    ["revision", "tree", "paths-info", "refs", "commits", "auth-check", "xet-read-token", "discussions"]
)
FILE_VERBS = frozenset(["resolve", "raw", "info", "git-upload-pack", "git-receive-pack"])
REALM = {"WWW-Authenticate": 'Bearer realm="Authentication required", charset="UTF-8"'}


class Answered(Exception):
    """The request is answered before its route got to it: a refusal or a redirect."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def refusal(
    request: Request,
    status: int,
    message: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answered:
    """An error as the Hub words it: JSON under /api, text elsewhere."""
    named = {"X-Error-Code": code} if code else {}
    all_headers = {**named, "X-Error-Message": message, **(headers or {})}
    if request.path.startswith("/api/"):
        return Answered(json_response({"error": message}, status, all_headers))
    return Answered(text_response(status, message, all_headers))


@dataclass(frozen=True)
class Address:
    """Which repository a path names; `rest` is what follows, still percent-encoded."""

    prefix: str
    repo_type: str
    repo_id: str
    rest: tuple[str, ...]

    def path_for(self, repo_id: str) -> str:
        return "/" + "/".join([*filter(None, [self.prefix]), repo_id, *self.rest])


def api_address(request: Request) -> Address | None:
    """The repository of `/api/{type}s/{id}/...`."""
    parts = request.path.strip("/").split("/")
    if len(parts) < 3 or parts[1] not in ("models", "datasets", "spaces"):
        return None
    return _address("/".join(parts[:2]), parts[1][:-1], parts[2:], API_VERBS)


def file_address(request: Request) -> Address | None:
    """The repository of `/[{type}s/]{id}/{verb}/...`; a trailing `.git` of the id is dropped."""
    parts = request.path.strip("/").split("/")
    typed = parts[0] in ("datasets", "spaces")
    prefix, repo_type = (parts[0], parts[0][:-1]) if typed else ("", "model")
    address = _address(prefix, repo_type, parts[1:] if typed else parts, FILE_VERBS)
    return address if address and address.rest else None


def _address(prefix: str, repo_type: str, parts: list[str], verbs: frozenset[str]) -> Address | None:
    if not parts:
        return None
    has_no_namespace = len(parts) == 1 or (parts[1] in verbs and not (len(parts) > 2 and parts[2] in verbs))
    length = 1 if has_no_namespace else 2
    repo_id = "/".join(unquote(part) for part in parts[:length]).removesuffix(".git")
    return Address(prefix, repo_type, repo_id, tuple(parts[length:])) if repo_id else None


def caller(site: Site, request: Request) -> User | None:
    """The user of the request's token, None for an anonymous one. An unknown token is refused."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return None
    if scheme.lower() == "basic":
        secret = base64.b64decode(secret).decode().partition(":")[2]
    if secret not in site.storage.users:
        raise refusal(request, 401, "Invalid credentials in Authorization header", headers=REALM)
    return site.storage.users[secret]


def visible_repo(site: Site, request: Request, address: Address) -> Repo:
    """The repository, if the caller may know of it. Old names and wrong case are redirected."""
    user = caller(site, request)
    repo = site.storage.find_repo(address.repo_type, address.repo_id)
    if repo is None or (repo.is_private and (user is None or user.name not in repo.readers)):
        raise _no_such_repo(site, request, user)
    if repo.repo_id != address.repo_id:
        query = f"?{request.query_string}" if request.query_string else ""
        location = address.path_for(repo.repo_id) + query
        raise Answered(text_response(307, f"Temporary Redirect. Redirecting to {location}", {"Location": location}))
    if repo.is_disabled:
        raise refusal(request, 403, "Access to this resource is disabled.")
    return repo


def _no_such_repo(site: Site, request: Request, user: User | None) -> Answered:
    if user is not None:
        return refusal(request, 404, "Repository not found", "RepoNotFound")
    code = "RepoNotFound" if site.behaviour.repo_not_found_on_401 else None
    return refusal(request, 401, "Invalid username or password.", code, REALM)


def readable_repo(site: Site, request: Request, address: Address) -> Repo:
    """The repository, if the caller may have its files: a gated one needs a grant."""
    repo = visible_repo(site, request, address)
    user = caller(site, request)
    if repo.gated is None or (user is not None and user.name in repo.readers):
        return repo
    sentence = f"Access to {repo.repo_type} {repo.repo_id} is restricted"
    if user is None:
        message = f"{sentence}. You must have access to it and be authenticated to access it. Please log in."
        raise refusal(request, 401, message, "GatedRepo", REALM)
    message = f"{sentence} and you are not in the authorized list. Visit {site.endpoint}/{repo.repo_id} to ask."
    raise refusal(request, 403, message, "GatedRepo")


def snapshot_at(request: Request, repo: Repo, revision: str) -> Snapshot:
    """The content of the revision. Refused with RevisionNotFound when there is none."""
    commit = repo.find_commit(revision)
    if commit is None:
        printable = re.sub(r"[^\x20-\x7e]", "?", revision)
        raise refusal(request, 404, f"Invalid rev id: {printable}", "RevisionNotFound")
    return repo.snapshot(commit)
