"""The routes of accounts and of repos as such: login, create, information, revisions, commits, tags."""

from __future__ import annotations

import json
import re
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from fakes.hub.wire import Request, Response

from .site import NO_SUCH_REPO, Answered, Site, failure, open_failure, open_success, refuse, success
from .storage import PUBLIC

NAME = re.compile(r"[A-Za-z0-9_.-]+")


def whoami(site: Site, request: Request) -> Response:
    """GET /openapi/v1/users/me"""
    user = site.user(request)
    if user is None:
        return open_failure(401, "InvalidAuthentication", "the access token is invalid or expired")
    return open_success({"username": user.name, "email": f"{user.name}@example.com", "nickname": user.name})


def login(site: Site, request: Request) -> Response:
    """POST /api/v1/login: refuses a token that may only read, too."""
    token = str(document(request).get("AccessToken"))
    user = site.storage.users.get(token)
    if user is None or user.tier == "read":
        return failure(400, "AccessToken is invalid or expired", 10010103009)
    answer = success({"AccessToken": f"git-{user.name}", "Username": user.name, "Email": f"{user.name}@example.com"})
    return answer.with_header("Set-Cookie", f"m_session_id={token}; Path=/; Max-Age=2592000")


def create(site: Site, request: Request, type: str) -> Response:
    """POST /api/v1/models with JSON, POST /api/v1/datasets with a form."""
    user = site.logged_in(request)
    fields = document(request) if type == "model" else form(request)
    owner, name = str(fields.get("Path" if type == "model" else "Owner")), str(fields.get("Name"))
    if not NAME.fullmatch(name) or not NAME.fullmatch(owner):
        refuse(400, "the name of the repository is invalid")
    if owner not in user.namespaces or user.tier != "write":
        refuse(403, f"no permission to create a repository under {owner}")
    visibility = int(fields.get("Visibility") or PUBLIC)
    try:
        repo = site.storage.create(
            type,
            f"{owner}/{name}",
            visibility=visibility,
            is_gated=str(fields.get("ProtectedMode")) == "1",
            license=str(fields.get("License", "")),
            is_seeded=site.behaviour.fresh_repo == "seeded",
        )
    except KeyError:
        refuse(400, "该名称已被注册使用，请重新命名", 10010101001 if type == "model" else 10020101001)
    return success({"Id": repo.number, "Name": repo.name, "Path": repo.owner})


def info(site: Site, request: Request, type: str, repo_id: str) -> Response:
    """GET /api/v1/{type}s/{id}"""
    repo = site.readable(request, type, repo_id)
    return success(
        {
            "Id": repo.number,
            "Name": repo.name,
            "Path": repo.owner,
            "Visibility": repo.visibility,
            "License": repo.license,
            "Revision": "master",
        }
    )


def open_info(site: Site, request: Request, type: str, repo_id: str) -> Response:
    """GET /openapi/v1/{type}s/{id}"""
    try:
        repo = site.readable(request, type, repo_id)
    except Answered:
        return open_failure(404, "ResourceNotFound", "the repository does not exist")
    shown = {"id": repo.id, "license": repo.license, "private": repo.visibility != PUBLIC, "gated": repo.is_gated}
    return open_success({**shown, "downloads": 0})


def revisions(site: Site, request: Request, type: str, repo_id: str) -> Response:
    """GET /api/v1/{type}s/{id}/revisions: both lists are empty before the first commit."""
    repo = site.readable(request, type, repo_id)

    def shown(refs: dict[str, str]) -> list[dict[str, Any]]:
        return [{"Revision": name, "CreatedAt": repo.commits[commit].at} for name, commit in refs.items()]

    return success({"RevisionMap": {"Branches": shown(repo.branches), "Tags": shown(repo.tags)}})


def commits(site: Site, request: Request, type: str, repo_id: str) -> Response:
    """GET /api/v1/{type}s/{id}/commits: a misspelt `Ref` gives master, an unknown one 200 with null."""
    repo = site.readable(request, type, repo_id)
    head = repo.find(request.query_value("Ref", "master"))
    if head is None:
        return success({"Commit": None, "TotalCount": 0})
    log = repo.log[: repo.log.index(head.id) + 1][::-1]
    size = max(1, int(request.query_value("PageSize", "10")))
    first = (int(request.query_value("PageNumber", "1")) - 1) * size
    shown = [{"Id": commit, "Message": repo.commits[commit].message} for commit in log[first : first + size]]
    return success({"Commit": shown, "TotalCount": len(log)})


def tag(site: Site, request: Request, type: str, repo_id: str) -> Response:
    """POST /api/v1/{type}s/{id}/repo/tag"""
    repo, _ = site.writable(request, type, repo_id)
    fields = document(request)
    name, at = str(fields.get("TagName") or ""), repo.find(str(fields.get("Ref")))
    if not name or name in ("main", "master"):
        refuse(400, "参数错误：版本名称不能为空")
    if at is None:
        refuse(404, "record not found", NO_SUCH_REPO)
    repo.tags[name] = at.id
    return success({"TagName": name})


def document(request: Request) -> dict[str, Any]:
    """The JSON object in a request. Raises Answered."""
    try:
        fields = json.loads(request.body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        refuse(400, "invalid parameter")
    return fields


def form(request: Request) -> dict[str, str]:
    """The fields of a multipart form. Raises Answered."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        refuse(400, "invalid parameter")
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + request.body)
    fields = {}
    for part in message.iter_parts():
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        fields[str(name)] = content.decode().strip() if isinstance(content, bytes) else ""
    return fields
