"""The batch API of git-lfs: downloads lead to this endpoint, uploads go to the hub.

Source: git-lfs, docs/api/batch.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from hfpeer.budgets import MAX_LFS_OBJECTS
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.errors import InvalidName, NotFound, Unreachable
from hfpeer.names import Revision
from hfpeer_daemon.endpoint.pass_through import PassThroughApp
from hfpeer_daemon.endpoint.requests.request import HubRequest, read_json
from hfpeer_daemon.endpoint.requests.urls import HubUrl, resolve_path
from hfpeer_daemon.http.responses import json_bytes, send_whole

LFS_JSON = "application/vnd.git-lfs+json"
MAX_LFS_COMMITS = 16
"""Objects are searched in the named branch and in at most this many other commits."""
EXPIRES_SECONDS = 86400
"""Seconds for which git-lfs may use the URL of an object."""
_OID = re.compile("[0-9a-f]{64}")


class LfsApp:
    """Answers batch requests. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, pass_through: PassThroughApp) -> None:
        self._endpoint = endpoint
        self._pass_through = pass_through

    async def batch(self, request: HubRequest, url: HubUrl) -> None:
        """`/{id}.git/info/lfs/objects/batch`."""
        body = await request.body()
        operation, ref, wanted = lfs_request(body)
        if operation != "download":
            await self._pass_through.forward(request, body)
            return
        await self._endpoint.admit(request.caller, url.repo, wants_files=True)
        revision = Revision.parse(ref.removeprefix("refs/heads/").removeprefix("refs/tags/"))
        oids = {oid for oid, _ in wanted}
        paths = await self._paths(request, url, revision, oids)
        if len(paths) < len(oids) and await self._pass_through.try_forward(request, body, range(500)):
            return
        objects = [_object(request, oid, size, paths.get(oid)) for oid, size in wanted]
        answer = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
        await send_whole(request.send, 200, json_bytes(answer), {"Content-Type": LFS_JSON}.items())

    async def _paths(
        self, request: HubRequest, url: HubUrl, revision: Revision, oids: Collection[str]
    ) -> dict[str, str]:
        """The path at this endpoint of each object that is found, in the branch's head first."""
        others = [Revision(commit) for commit in await self._endpoint.commits.listed(url.repo)]
        found: dict[str, str] = {}
        for name in (revision, *others[:MAX_LFS_COMMITS]):
            with suppress(NotFound, Unreachable):
                admitted = await self._endpoint.admit_revision(request.caller, url.repo, name, wants_files=True)
                paths = {file.digest.hex: file.path for file in admitted.manifest.files if file.is_lfs}
                here = {oid: resolve_path(url.repo, admitted.commit, paths[oid]) for oid in oids if oid in paths}
                found = here | found
            if len(found) == len(oids):
                break
        return found


def lfs_request(body: bytes) -> tuple[str, str, list[tuple[str, int]]]:
    """Operation, ref, and the objects' ids and sizes. Raises InvalidName."""
    try:
        document = read_json(body)
        operation, ref = document.get("operation"), (document.get("ref") or {}).get("name") or "main"
        wanted = [(item["oid"], item["size"]) for item in document["objects"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidName("This is not a batch request of git-lfs.") from error
    are_objects = all(
        type(oid) is str and _OID.fullmatch(oid) and type(size) is int and 0 <= size < 1 << 63 for oid, size in wanted
    )
    if not are_objects or not isinstance(operation, str) or not isinstance(ref, str):
        raise InvalidName("This is not a batch request of git-lfs.")
    if len(wanted) > MAX_LFS_OBJECTS:
        raise InvalidName(f"A batch request of git-lfs may name {MAX_LFS_OBJECTS} objects at most.")
    return operation, ref, wanted


def _object(request: HubRequest, oid: str, size: int, path: str | None) -> dict[str, Any]:
    named: dict[str, Any] = {"oid": oid, "size": size}
    if path is None:
        missing = {"code": 404, "message": "No commit known here has it, and no hub can be reached. Try again later."}
        return {**named, "error": missing}
    download = {"href": f"{request.own_url}{path}", "expires_in": EXPIRES_SECONDS}
    return {**named, "authenticated": True, "actions": {"download": download}}
