"""The messages of the LAN door: node, catalog, copies, peers, manifests, refs and piece maps. GET and HEAD only.

Everything comes from `Provider`, which shows only shared things. A node that asks for peers becomes known;
nothing else here changes anything.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request
from starlette.responses import Response

from hfpeer.errors import InvalidName, NotFound
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.peers.protocol.copies import parse_asked_digests
from hfpeer.peers.protocol.messages import PeersMessage
from hfpeer.peers.protocol.paths import (
    BLOBS_PREFIX,
    CATALOG_PATH,
    COPIES_PATH,
    DOOR_HEADER,
    MANIFESTS_PREFIX,
    NODE_PATH,
    PEERS_PATH,
    PIECES_SUFFIX,
    REFS_PREFIX,
    generation_etag,
)
from hfpeer.peers.provider import Provider
from hfpeer_daemon.http.responses import json_bytes, names_etag

READ_ONLY = ["GET", "HEAD"]


def peer_routes(provider: Provider) -> APIRouter:
    """The routes over one node."""
    router = APIRouter()

    @router.api_route(NODE_PATH, methods=READ_ONLY)
    async def node() -> Response:
        return _json(provider.identity.to_json())

    @router.api_route(CATALOG_PATH, methods=READ_ONLY)
    async def catalog(request: Request) -> Response:
        known = request.headers.get("if-none-match")
        if names_etag(known, etag := generation_etag(provider.identity.catalog_generation)):
            return Response(status_code=304, headers={"ETag": etag})
        message = await provider.catalog()
        body = await asyncio.to_thread(lambda: json_bytes(message.to_json()))
        return _json_bytes(body, ETag=generation_etag(message.generation))

    @router.api_route(COPIES_PATH, methods=READ_ONLY)
    async def copies(request: Request) -> Response:
        asked = parse_asked_digests(",".join(request.query_params.getlist("digests")))
        return _json((await provider.copies(asked)).to_json())

    @router.api_route(PEERS_PATH, methods=READ_ONLY)
    async def peers(request: Request) -> Response:
        door = request.headers.get(DOOR_HEADER)
        if door is not None and request.client is not None:
            provider.note_asked(request.client.host, door)
        return _json(PeersMessage(tuple(await provider.peer_addresses())).to_json())

    @router.api_route(MANIFESTS_PREFIX + "{name:path}", methods=READ_ONLY)
    async def manifest(request: Request) -> Response:
        repo_path, commit = _last_apart(request, MANIFESTS_PREFIX)
        repo = RepoId.from_api_path(repo_path)
        found = await provider.shared_manifest(repo, Commit.parse(commit))
        if found is None:
            raise NotFound(f"This node does not share {repo} at {commit}.", repo=str(repo), commit=commit)
        return _json_bytes(await asyncio.to_thread(_bytes_of, found))

    @router.api_route(REFS_PREFIX + "{name:path}", methods=READ_ONLY)
    async def ref(request: Request) -> Response:
        repo_path, revision = _last_apart(request, REFS_PREFIX)
        repo = RepoId.from_api_path(repo_path)
        found = await provider.shared_ref(repo, Revision.parse(revision))
        if found is None:
            raise NotFound(f"This node does not know {revision} of {repo}.", repo=str(repo), revision=revision)
        return _json(found.to_json())

    @router.api_route(BLOBS_PREFIX + "{digest}" + PIECES_SUFFIX, methods=READ_ONLY)
    async def pieces(digest: str) -> Response:
        blob = Digest.parse(digest)
        found = await provider.piece_map(blob)
        if found is None:
            raise NotFound(f"This node does not share {blob}.", digest=digest)
        return _json(found.to_json())

    return router


def _last_apart(request: Request, prefix: str) -> tuple[str, str]:
    """The path after the prefix, and its last segment, decoded: a revision may contain slashes."""
    raw = request.scope["raw_path"].decode("latin-1").partition(prefix)[2]
    head, slash, last = raw.rpartition("/")
    if not slash:
        raise InvalidName("This address names no repo and revision.")
    return unquote(head), unquote(last)


def _bytes_of(manifest: Manifest) -> bytes:
    """The text of a manifest, which may be large: it is in memory once."""
    raw = io.BytesIO()
    raw.writelines(part.encode() for part in manifest.json_parts())
    return raw.getvalue()


def _json(document: Any) -> Response:
    return _json_bytes(json_bytes(document))


def _json_bytes(body: bytes, **headers: str) -> Response:
    return Response(body, media_type="application/json", headers=headers)
