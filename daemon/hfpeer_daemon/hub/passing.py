"""Requests that the node knows nothing better about: through to the hub and back, streaming both ways."""

from __future__ import annotations

import json
from typing import Any

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.errors import AccessDenied, InvalidName
from hfpeer.names import Revision
from hfpeer.upstream.passage import Header, Passed, PassedBack
from hfpeer_daemon.hub.addresses import Address, resolve_path
from hfpeer_daemon.hub.asked import Asked
from hfpeer_daemon.responses import json_bytes, send_whole

LFS_JSON = "application/vnd.git-lfs+json"
MAX_LFS_OBJECTS = 10_000


async def pass_through(endpoint: Endpoint, asked: Asked, body: bytes | None = None) -> None:
    """Asks the hub the very same, with the caller's own token and no other. Raises HubUnreachable before the answer.

    `body` takes the place of one that was read already. A caller on another machine may only ask, and as nobody.
    """
    is_question = asked.method in ("GET", "HEAD") or asked.path.endswith("/git-upload-pack")
    if not asked.caller.is_local and not is_question:
        raise AccessDenied("This endpoint takes changes from its own machine only.", hint="Ask the hub itself.")
    content = asked.stream() if body is None else _once(body)
    request = Passed(asked.method, asked.target, _headers(asked), content if asked.has_body else None)
    async with endpoint.passage.open(request, asked.own_url) as answer:
        await _send_back(asked, answer)


async def lfs_batch(endpoint: Endpoint, asked: Asked, address: Address) -> None:
    """`/{id}.git/info/lfs/objects/batch`: downloads are given addresses of ours, uploads are the hub's business."""
    body = await asked.body()
    try:
        document = json.loads(body)
        wanted = [(str(item["oid"]), int(item["size"])) for item in document["objects"]][:MAX_LFS_OBJECTS]
        operation, ref = document.get("operation"), (document.get("ref") or {}).get("name") or "main"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidName("This is not a batch request of git-lfs.") from error
    if operation != "download":
        await pass_through(endpoint, asked, body)
        return
    revision = Revision.parse(str(ref).removeprefix("refs/heads/").removeprefix("refs/tags/"))
    seen = await endpoint.look(asked.caller, address.repo, revision, wants_files=True)
    paths = {file.digest.hex: file.path for file in seen.manifest.files if file.is_lfs}
    if any(oid not in paths for oid, _ in wanted):
        # Of another commit than the branch's head: only the hub knows all of them.
        await pass_through(endpoint, asked, body)
        return
    places = {oid: resolve_path(seen.repo, seen.commit, paths[oid]) for oid, _ in wanted}
    objects = [_lfs_object(asked, oid, size, places[oid]) for oid, size in wanted]
    answer = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
    await send_whole(asked.send, 200, json_bytes(answer), {"Content-Type": LFS_JSON}.items())


def _lfs_object(asked: Asked, oid: str, size: int, path: str) -> dict[str, Any]:
    return {
        "oid": oid,
        "size": size,
        "authenticated": True,
        "actions": {"download": {"href": f"{asked.own_url}{path}", "expires_in": 86400}},
    }


def _headers(asked: Asked) -> list[Header]:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in asked.scope["headers"]]
    return [(name, value) for name, value in headers if name != "authorization" or asked.caller.is_local]


async def _send_back(asked: Asked, answer: PassedBack) -> None:
    lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await asked.send({"type": "http.response.start", "status": answer.status, "headers": lines})
    async for chunk in answer.chunks:
        await asked.send({"type": "http.response.body", "body": chunk, "more_body": True})
    await asked.send({"type": "http.response.body", "body": b""})


async def _once(body: bytes) -> Any:
    yield body
