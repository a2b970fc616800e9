"""The JSON API that download clients use: info, listings, refs, commits, whoami, tokens for Xet.

Owns the shapes of its answers. Must never serve file content.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlencode

from .access import (
    REALM,
    Address,
    caller,
    readable_repo,
    refusal,
    snapshot_at,
    visible_repo,
)
from .repo import Entry, Repo, Snapshot
from .site import Site, xet_hash
from .wire import Request, Response, json_response

Json = dict[str, Any]
EXPANDED_PAGE_ENTRIES = 50
XET_TOKEN_SECONDS = 900


def repo_route(site: Site, request: Request, address: Address) -> Response:
    """Everything under `/api/{type}s/{id}`."""
    routes: dict[str, Callable[[Site, Request, Address], Response]] = {
        "": info,
        "revision": info,
        "tree": tree,
        "paths-info": paths_info,
        "refs": refs,
        "commits": commits,
        "auth-check": auth_check,
        "xet-read-token": xet_read_token,
        "discussions": discussions,
    }
    route = routes.get(address.rest[0] if address.rest else "")
    if route is None:
        raise refusal(request, 404, "Sorry, we can't find the page you are looking for.")
    return route(site, request, address)


def _revision(address: Address) -> str:
    return unquote(address.rest[1]) if len(address.rest) > 1 else "main"


def info(site: Site, request: Request, address: Address) -> Response:
    """A repository at a revision; its files are listed also when it is gated."""
    repo = visible_repo(site, request, address)
    snapshot = snapshot_at(request, repo, _revision(address))
    facts = _info(repo, snapshot, with_blobs=request.query_flag("blobs"))
    expand = [value for name, value in request.query if name in ("expand", "expand[]")]
    if expand:
        facts = {name: facts[name] for name in ("_id", "id", *expand) if name in facts}
    return json_response(facts)


def _info(repo: Repo, snapshot: Snapshot, with_blobs: bool = False) -> Json:
    siblings = [_sibling(entry) if with_blobs else {"rfilename": entry.path} for entry in snapshot.files]
    return {
        "_id": hashlib.sha256(str(repo.git_dir).encode()).hexdigest()[:24],
        "id": repo.repo_id,
        **({"modelId": repo.repo_id} if repo.repo_type == "model" else {}),
        "author": repo.repo_id.partition("/")[0] if "/" in repo.repo_id else None,
        "sha": snapshot.commit,
        "lastModified": snapshot.facts.date,
        "createdAt": "2023-11-14T22:13:20.000Z",
        "private": repo.is_private,
        "gated": repo.gated or False,
        "disabled": repo.is_disabled,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "cardData": {},
        **({"config": {}, "spaces": []} if repo.repo_type == "model" else {}),
        "siblings": siblings,
        "usedStorage": sum(entry.size_bytes for entry in snapshot.files),
    }


def _sibling(entry: Entry) -> Json:
    sibling: Json = {"rfilename": entry.path, "size": entry.size_bytes, "blobId": entry.oid}
    if entry.sha256:
        size, pointer_size = entry.size_bytes, entry.pointer_size_bytes
        sibling["lfs"] = {"sha256": entry.sha256, "size": size, "pointerSize": pointer_size}
    return sibling


def tree(site: Site, request: Request, address: Address) -> Response:
    """A listing: one folder or all below it, in pages whose `Link` is absolute."""
    repo = visible_repo(site, request, address)
    snapshot = snapshot_at(request, repo, _revision(address))
    folder = "/".join(unquote(part) for part in address.rest[2:]).strip("/")
    if folder and not (folder in snapshot.entries and snapshot.entries[folder].is_folder):
        headers = {"X-Repo-Commit": snapshot.commit}
        raise refusal(
            request,
            404,
            f"{folder.encode('ascii', 'replace').decode()} does not exist",
            "EntryNotFound",
            headers,
        )
    listed = _listed(snapshot, folder, request.query_flag("recursive"))
    is_expanded = request.query_flag("expand")
    page, headers = _page(site, request, listed, is_expanded)
    return json_response([_tree_entry(site, snapshot, entry, is_expanded) for entry in page], headers=headers)


def _listed(snapshot: Snapshot, folder: str, is_recursive: bool) -> list[Entry]:
    start = f"{folder}/" if folder else ""
    return [
        entry
        for path, entry in snapshot.entries.items()
        if path.startswith(start)
        and (is_recursive or "/" not in path[len(start) :])
        and (entry.is_file or entry.is_folder)
    ]


def _page(
    site: Site, request: Request, entries: list[Entry], is_expanded: bool
) -> tuple[Sequence[Entry], dict[str, str]]:
    longest = site.behaviour.tree_page_entries
    if longest is None:
        return entries, {}
    longest = min(longest, EXPANDED_PAGE_ENTRIES) if is_expanded else longest
    length = min(int(request.query_value("limit") or longest), longest)
    start = _cursor_offset(request.query_value("cursor"))
    if start + length >= len(entries):
        return entries[start:], {}
    cursor = base64.urlsafe_b64encode(json.dumps({"offset": start + length}).encode()).decode()
    return entries[start : start + length], _next_link(site, request, {"limit": str(length), "cursor": cursor})


def _cursor_offset(cursor: str) -> int:
    return int(json.loads(base64.urlsafe_b64decode(cursor))["offset"]) if cursor else 0


def _next_link(site: Site, request: Request, changes: dict[str, str]) -> dict[str, str]:
    kept = [(name, value) for name, value in request.query if name not in changes]
    query = urlencode([*kept, *changes.items()])
    return {"Link": f'<{site.endpoint}{request.path}?{query}>; rel="next"'}


def _tree_entry(site: Site, snapshot: Snapshot, entry: Entry, is_expanded: bool) -> Json:
    kind = "directory" if entry.is_folder else "file"
    shown: Json = {"type": kind, "oid": entry.oid, "size": entry.size_bytes, "path": entry.path}
    if entry.sha256:
        size, pointer_size = entry.size_bytes, entry.pointer_size_bytes
        shown["lfs"] = {"oid": entry.sha256, "size": size, "pointerSize": pointer_size}
        if site.behaviour.xet_trees:
            shown["xetHash"] = "*" * 64 if site.behaviour.xet_hashes_redacted else xet_hash(entry.sha256)
    if is_expanded:
        facts = snapshot.facts
        shown["lastCommit"] = {"id": facts.commit, "title": facts.title, "date": facts.date}
        if entry.is_file:
            shown["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return shown


def paths_info(site: Site, request: Request, address: Address) -> Response:
    """The entries of the named paths; unknown ones are left out. Form and JSON bodies."""
    repo = visible_repo(site, request, address)
    snapshot = snapshot_at(request, repo, _revision(address))
    paths, is_expanded = _wanted_paths(request)
    found = [snapshot.entries[path] for path in paths if path in snapshot.entries]
    shown = [_tree_entry(site, snapshot, entry, is_expanded) for entry in found if entry.is_file or entry.is_folder]
    return json_response(shown)


def _wanted_paths(request: Request) -> tuple[list[str], bool]:
    if "json" in request.headers.get("content-type", ""):
        asked = json.loads(request.body)
        return list(asked.get("paths", [])), bool(asked.get("expand"))
    form = Request("", "", f"/?{request.body.decode()}", {})
    return [value for name, value in form.query if name == "paths"], form.query_flag("expand")


def refs(site: Site, request: Request, address: Address) -> Response:
    """Branches, tags, conversions, and pull requests if asked."""
    repo = visible_repo(site, request, address)
    kinds = {"branches": "refs/heads/", "converts": "refs/convert/", "tags": "refs/tags/"}
    if request.query_flag("include_prs"):
        kinds["pullRequests"] = "refs/pr/"
    return json_response({kind: _refs_below(repo, start) for kind, start in kinds.items()})


def _refs_below(repo: Repo, start: str) -> list[Json]:
    return [
        {"name": ref.removeprefix(start), "ref": ref, "targetCommit": commit}
        for ref, commit in repo.refs().items()
        if ref.startswith(start)
    ]


def commits(site: Site, request: Request, address: Address) -> Response:
    """The history of a revision, newest first, in pages."""
    repo = visible_repo(site, request, address)
    history = repo.log(snapshot_at(request, repo, _revision(address)).commit)
    length, page = int(request.query_value("limit", "50")), int(request.query_value("p", "0"))
    shown = [
        {
            "id": facts.commit,
            "title": facts.title,
            "message": facts.message,
            "authors": [{"user": facts.author}],
            "date": facts.date,
        }
        for facts in history[page * length : (page + 1) * length]
    ]
    has_more = (page + 1) * length < len(history)
    link = _next_link(site, request, {"p": str(page + 1)}) if has_more else {}
    return json_response(shown, headers={"X-Total-Count": str(len(history)), **link})


def auth_check(site: Site, request: Request, address: Address) -> Response:
    """Whether the caller may have the files."""
    readable_repo(site, request, address)
    return json_response({})


def discussions(site: Site, request: Request, address: Address) -> Response:
    """None."""
    visible_repo(site, request, address)
    return json_response({"discussions": [], "count": 0, "start": 0})


def xet_read_token(site: Site, request: Request, address: Address) -> Response:
    """Where the CAS is and a token for it, in headers and in the body."""
    repo = readable_repo(site, request, address)
    snapshot_at(request, repo, _revision(address))
    token, expires = "xet_simulated_token", int(time.time()) + XET_TOKEN_SECONDS
    headers = {
        "X-Xet-Cas-Url": site.cas_endpoint,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires),
    }
    return json_response({"casUrl": site.cas_endpoint, "accessToken": token, "exp": expires}, headers=headers)


def whoami(site: Site, request: Request) -> Response:
    """The user of a valid token; 401 for others."""
    user = caller(site, request)
    if user is None:
        raise refusal(request, 401, "Invalid username or password.", headers=REALM)
    access_token = {
        "displayName": f"{user.name}-token",
        "role": "read",
        "createdAt": "2023-11-14T22:13:20.000Z",
    }
    return json_response(
        {
            "type": "user",
            "id": hashlib.sha256(user.name.encode()).hexdigest()[:24],
            "name": user.name,
            "fullname": user.name.title(),
            "orgs": [{"type": "org", "name": name} for name in user.organisations],
            "auth": {"type": "access_token", "accessToken": access_token},
        }
    )


def agent_harnesses(site: Site, request: Request) -> Response:
    """The client's daily question; the answer is empty."""
    return json_response({"standardEnvVars": ["AI_AGENT", "AGENT"], "harnesses": {}})


def repo_listing(site: Site, request: Request, repo_type: str) -> Response:
    """`/api/{type}s?search=&author=&limit=&offset=`: the repositories the caller may see."""
    user = caller(site, request)
    search, author = request.query_value("search").lower(), request.query_value("author")
    found = [
        repo
        for (kind, repo_id), repo in sorted(site.storage.repos.items())
        if kind == repo_type
        and search in repo_id.lower()
        and (not author or repo_id.startswith(f"{author}/"))
        and (not repo.is_private or (user is not None and user.name in repo.readers))
    ]
    length, start = int(request.query_value("limit") or 1000), int(request.query_value("offset") or 0)
    link = _next_link(site, request, {"offset": str(start + length)}) if start + length < len(found) else {}
    shown = [_summary(repo) for repo in found[start : start + length]]
    return json_response(shown, headers=link)


def _summary(repo: Repo) -> Json:
    commit = repo.find_commit("main") or next(iter(repo.refs().values()))
    facts = _info(repo, repo.snapshot(commit))
    return {name: value for name, value in facts.items() if name not in ("siblings", "usedStorage", "config")}
