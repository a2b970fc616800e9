"""Requests that the node knows nothing better about: through to the hub and back, streaming both ways."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Container
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.errors import AccessDenied, HubUnreachable, InvalidName, NotFound, Unreachable
from hfpeer.names import RepoId, Revision
from hfpeer.upstream.passage import Header, Passed, PassedBack
from hfpeer_daemon.hub.addresses import Address, resolve_path
from hfpeer_daemon.hub.asked import Asked
from hfpeer_daemon.responses import json_bytes, send_whole

LFS_JSON = "application/vnd.git-lfs+json"
MAX_LFS_OBJECTS = 10_000
MAX_LFS_COMMITS = 16
"""In so many commits, besides the branch's head, an object is looked for."""


async def pass_through(endpoint: Endpoint, asked: Asked, body: bytes | None = None) -> None:
    """Asks the hub the very same, with the caller's own token and no other. Raises HubUnreachable before the answer.

    `body` takes the place of one that was read already. A caller on another machine may only ask, and as nobody.
    """
    async with _opened(endpoint, asked, body) as answer:
        await _send_back(asked, answer if _only_asks(asked) else _changing(endpoint, asked, answer))


async def passed(
    endpoint: Endpoint,
    asked: Asked,
    body: bytes | None,
    counts: Container[int],
    turned: Callable[[PassedBack], PassedBack] = lambda answer: answer,
) -> bool:
    """Passes a request through if a hub answers it with a status that counts; whether one did, for else the caller
    has heard nothing yet. `turned` sees the answer, which is not compressed. Raises HubUnreachable in its middle."""
    async with AsyncExitStack() as stack:
        try:
            answer = await stack.enter_async_context(_opened(endpoint, asked, body, without=("accept-encoding",)))
        except HubUnreachable:
            return False
        if answer.status not in counts:
            return False
        await _send_back(asked, turned(answer))
        return True


@asynccontextmanager
async def _opened(
    endpoint: Endpoint, asked: Asked, body: bytes | None, without: Container[str] = ()
) -> AsyncIterator[PassedBack]:
    """The hub's answer to the very same; the headers `without` (lower case) are left out."""
    if not asked.caller.is_local and not _only_asks(asked):
        raise AccessDenied("This endpoint takes changes from its own machine only.", hint="Ask the hub itself.")
    content = asked.stream() if body is None else _once(body)
    headers = [(name, value) for name, value in _headers(asked) if name not in without]
    request = Passed(asked.method, asked.target, headers, content if asked.has_body else None)
    async with endpoint.passage.open(request, asked.own_url) as answer:
        yield answer


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
    await endpoint.admit(asked.caller, address.repo, wants_files=True)
    revision = Revision.parse(str(ref).removeprefix("refs/heads/").removeprefix("refs/tags/"))
    places = await _lfs_places(endpoint, asked, address.repo, revision, {oid for oid, _ in wanted})
    if len(places) < len({oid for oid, _ in wanted}) and await passed(endpoint, asked, body, range(500)):
        return
    objects = [_lfs_object(asked, oid, size, places.get(oid)) for oid, size in wanted]
    answer = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
    await send_whole(asked.send, 200, json_bytes(answer), {"Content-Type": LFS_JSON}.items())


async def _lfs_places(
    endpoint: Endpoint, asked: Asked, repo: RepoId, revision: Revision, oids: Collection[str]
) -> dict[str, str]:
    """Where the objects are that are known here: in the branch's head, or else in another commit."""
    others = [Revision(commit) for commit in await endpoint.commits.listed(repo)]
    places: dict[str, str] = {}
    for name in (revision, *others[:MAX_LFS_COMMITS]):
        with suppress(NotFound, Unreachable):
            seen = await endpoint.look(asked.caller, repo, name, wants_files=True)
            paths = {file.digest.hex: file.path for file in seen.manifest.files if file.is_lfs}
            places = {oid: resolve_path(repo, seen.commit, paths[oid]) for oid in oids if oid in paths} | places
        if len(places) == len(oids):
            break
    return places


def _lfs_object(asked: Asked, oid: str, size: int, path: str | None) -> dict[str, Any]:
    named: dict[str, Any] = {"oid": oid, "size": size}
    if path is None:
        missing = {"code": 404, "message": "No commit known here has it, and no hub can be reached. Try again later."}
        return {**named, "error": missing}
    download = {"href": f"{asked.own_url}{path}", "expires_in": 86400}
    return {**named, "authenticated": True, "actions": {"download": download}}


def _only_asks(asked: Asked) -> bool:
    return asked.method in ("GET", "HEAD") or asked.path.endswith("/git-upload-pack")


def _changing(endpoint: Endpoint, asked: Asked, answer: PassedBack) -> PassedBack:
    """The same answer. Before its first and its last word comes through, what the repo's names meant is forgotten."""
    address = asked.address
    if address is None:
        return answer

    async def chunks() -> AsyncIterator[bytes]:
        await endpoint.refs.forget(address.repo)
        async for chunk in answer.chunks:
            yield chunk
        await endpoint.refs.forget(address.repo)

    return PassedBack(answer.hub, answer.status, answer.headers, chunks())


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
