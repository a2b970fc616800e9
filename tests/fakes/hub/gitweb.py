"""Git over HTTP: the smart protocol for fetching, and the LFS batch route.

Owns those routes. Must never accept a push.
"""

from __future__ import annotations

import json
from typing import Any

from . import git
from .access import Address, Answered, readable_repo, refusal
from .repo import Repo
from .site import Site
from .wire import Request, Response, text_response

NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}
BASIC = {"WWW-Authenticate": 'Basic realm="Hugging Face"'}
LFS_JSON = "application/vnd.git-lfs+json"


def git_route(site: Site, request: Request, address: Address) -> Response:
    """Everything under `/{id}[.git]/info/` and `/{id}[.git]/git-upload-pack`."""
    repo = _git_repo(site, request, address)
    if address.rest == ("info", "refs"):
        return info_refs(site, request, repo)
    if address.rest == ("git-upload-pack",):
        return upload_pack(site, request, repo)
    if address.rest == ("info", "lfs", "objects", "batch"):
        return lfs_batch(site, request, repo)
    return text_response(403, "Pushing is not simulated")


def _git_repo(site: Site, request: Request, address: Address) -> Repo:
    if not site.behaviour.has_git:
        raise refusal(request, 404, "Not found")
    try:
        return readable_repo(site, request, address)
    except Answered as answered:
        if answered.response.status != 401:
            raise
        # git asks for credentials only when the Basic scheme is offered
        raise Answered(answered.response.with_header("WWW-Authenticate", BASIC["WWW-Authenticate"])) from None


def info_refs(site: Site, request: Request, repo: Repo) -> Response:
    """The advertisement of refs, or of capabilities in protocol version 2."""
    if request.query_value("service") != "git-upload-pack":
        return text_response(403, "Only git-upload-pack is simulated")
    protocol = request.headers.get("git-protocol", "")
    body = git.advertise_refs(repo.git_dir, protocol, site.behaviour.git_allows_filter)
    headers = {"Content-Type": "application/x-git-upload-pack-advertisement", **NO_CACHE}
    return Response(200, headers, (body,))


def upload_pack(site: Site, request: Request, repo: Repo) -> Response:
    """One round of fetching, streamed."""
    protocol = request.headers.get("git-protocol", "")
    stream = git.upload_pack(repo.git_dir, protocol, site.behaviour.git_allows_filter, request.body)
    return Response(200, {"Content-Type": "application/x-git-upload-pack-result", **NO_CACHE}, stream=stream)


def lfs_batch(site: Site, request: Request, repo: Repo) -> Response:
    """Signed CDN addresses of LFS objects."""
    asked = json.loads(request.body)
    objects = [_lfs_object(site, wanted["oid"], wanted["size"]) for wanted in asked["objects"]]
    body = json.dumps({"transfer": "basic", "objects": objects, "hash_algo": "sha256"}).encode()
    return Response(200, {"Content-Type": LFS_JSON}, (body,))


def _lfs_object(site: Site, sha256: str, size_bytes: int) -> dict[str, Any]:
    if not site.storage.objects.has_lfs(sha256):
        error = {"code": 404, "message": "Object does not exist"}
        return {"oid": sha256, "size": size_bytes, "error": error}
    action = {"href": site.signed_url(sha256, sha256), "expires_in": int(site.behaviour.signed_url_seconds)}
    return {"oid": sha256, "size": size_bytes, "authenticated": True, "actions": {"download": action}}
