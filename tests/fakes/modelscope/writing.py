"""The routes that write: ask which blobs are wanted, put a blob, commit."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from fakes.hub.wire import Request, Response

from .accounts import document
from .site import Answered, Site, failure, refuse, success
from .storage import CommitRefused, Entry

SHA256 = re.compile("[0-9a-f]{64}")


def batch(site: Site, request: Request, type: str, repo_id: str) -> Response:
    """POST /api/v1/repos/{type}s/{id}/info/lfs/objects/batch: a blob that any repo has stored is left out."""
    repo, _ = site.writable(request, type, repo_id)
    objects = []
    host = site.behaviour.href_host or site.lfs_endpoint
    for wanted in document(request).get("objects", []):
        oid, size = str(wanted.get("oid")), wanted.get("size")
        if not SHA256.fullmatch(oid) or not isinstance(size, int):
            refuse(400, "invalid parameter")
        if (oid, size) not in site.storage.stored:
            href = f"{host}/api/v1/repos/{type}s/{repo.id}/blobs/{oid}/{size}"
            upload = {"href": href, "offset": 0, "upload_header": {"Range": "bytes=0-"}, "upload_parameters": {}}
            objects.append({"oid": oid, "size": size, "actions": {"upload": upload}})
    return success({"objects": objects, "reused-objects": []})


def put(site: Site, request: Request, type: str, repo_id: str, sha256: str, size: int) -> Response:
    """PUT {lfs}/api/v1/repos/{type}s/{id}/blobs/{sha256}/{size}"""
    try:
        site.writable(request, type, repo_id)
        if request.body_path is None or not request.body_path.is_file():
            refuse(400, "the body is missing")
        if request.body_path.stat().st_size != size:
            refuse(400, f"the body has {request.body_path.stat().st_size} bytes, not {size}")
        if site.uploads.digest_of(request.body_path) != sha256:
            refuse(400, "the sha256 of the body does not match")
        site.storage.store_file(request.body_path, sha256)
    except Answered as answered:
        return answered.response
    finally:
        if request.body_path is not None:
            request.body_path.unlink(missing_ok=True)
    return success({})


def commit(site: Site, request: Request, type: str, repo_id: str, branch: str) -> Response:
    """POST /api/v1/repos/{type}s/{id}/commit/{branch}: all actions or none."""
    repo, _ = site.writable(request, type, repo_id)
    fields = document(request)
    actions = fields.get("actions") or []
    if len(actions) > site.behaviour.max_actions:
        too_many = f"commit request exceeds actions limit: {len(actions)} > {site.behaviour.max_actions}"
        return failure(422, f"{too_many}; split the commit into smaller batches")
    try:
        changed, deleted = [], []
        for action in actions:
            path = str(action.get("path"))
            if not _is_path(path):
                raise CommitRefused(400, f"invalid commit action: {path}")
            if action.get("action") == "delete":
                deleted.append(path)
            elif action.get("action") in ("create", "update"):
                changed.append(_entry(site, action, path))
            else:
                raise CommitRefused(400, "invalid commit action")
        if not actions:
            raise CommitRefused(400, "invalid commit action: nothing to commit")
        made = site.storage.commit(repo, branch, str(fields.get("commit_message")), changed, deleted)
    except CommitRefused as refused:
        return failure(refused.status, refused.message, refused.code)
    return success({"oid": made})


def _is_path(path: str) -> bool:
    parts = path.split("/")
    return bool(path) and not path.startswith("/") and not {"", ".", ".."} & {*parts}


def _entry(site: Site, action: dict[str, Any], path: str) -> Entry:
    if action.get("type") == "lfs":
        return Entry(path, int(action["size"]), str(action["sha256"]), True)
    try:
        data = base64.b64decode(str(action.get("content")), validate=True)
    except binascii.Error as error:
        raise CommitRefused(400, "invalid commit action: bad base64") from error
    return Entry(path, len(data), site.storage.put_bytes(data), False)
