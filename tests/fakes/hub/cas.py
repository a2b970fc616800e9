"""The Xet storage that a hub names in its Xet headers. It holds nothing, unless the hub's behaviour has a CAS.

Owns the CAS origin: a synthetic one, which cuts uncompressed chunks out of ordinary LFS objects on the fly under
made-up ids; clients do not check them. Must never be needed by a client that goes through plain HTTP.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from .site import Site, xet_hash
from .wire import (
    Body,
    FileSlice,
    Piece,
    Request,
    Response,
    body_length,
    cut_body,
    json_response,
    text_response,
    wanted_range,
)

CHUNK_BYTES = 128 * 1024
CHUNK_HEADER_BYTES = 8
XORB_CHUNKS = 256
XORB_BYTES = XORB_CHUNKS * CHUNK_BYTES

Json = dict[str, Any]


def cas_route(site: Site, request: Request) -> Response:
    """Reconstructions, xorbs and telemetry; 404 for everything without a CAS, and tests assert that no client came."""
    if not site.behaviour.has_cas:
        return text_response(404, "Not found")
    if request.path == "/v1/telemetry":
        return json_response({})
    match = re.fullmatch(r"/(v1/|v2/)?reconstructions?/([0-9a-f]{64})", request.path)
    if match and site.storage.objects.has_lfs(sha256 := xet_hash(match.group(2))):
        return _reconstruction(site, request, sha256, has_xorbs_key=match.group(1) == "v2/")
    match = re.fullmatch(r"/xorbs/([0-9a-f]{64})/(\d+)", request.path)
    if match and site.storage.objects.has_lfs(match.group(1)):
        return _xorb(request, site.storage.objects.lfs_path(match.group(1)), int(match.group(2)))
    return text_response(404, "Not found")


def _reconstruction(site: Site, request: Request, sha256: str, has_xorbs_key: bool) -> Response:
    size = site.storage.objects.lfs_path(sha256).stat().st_size
    start, stop = wanted_range(request, size) or (0, size)
    if start >= stop:
        return text_response(416, "", {"Content-Range": f"bytes */{size}"})
    terms: list[Json] = []
    v1: dict[str, list[Json]] = {}
    v2: dict[str, list[Json]] = {}
    for number in range(start // XORB_BYTES, (stop - 1) // XORB_BYTES + 1):
        xorb = hashlib.sha256(f"xorb {sha256} {number}".encode()).hexdigest()
        url = f"{site.cas_endpoint}/xorbs/{sha256}/{number}"
        low, high = max(start, number * XORB_BYTES), min(stop, (number + 1) * XORB_BYTES)
        chunks, plain, packed = _chunk_span(low - number * XORB_BYTES, high - number * XORB_BYTES, size, number)
        terms.append({"hash": xorb, "unpacked_length": plain, "range": chunks})
        v1[xorb] = [{"range": chunks, "url": url, "url_range": packed}]
        v2[xorb] = [{"url": url, "ranges": [{"chunks": chunks, "bytes": packed}]}]
    found = {"xorbs": v2} if has_xorbs_key else {"fetch_info": v1}
    return json_response({"offset_into_first_range": start % CHUNK_BYTES, "terms": terms, **found})


def _chunk_span(low: int, high: int, size: int, number: int) -> tuple[Json, int, Json]:
    """Chunks of a xorb that cover plain bytes [low, high) of it: their numbers, plain length, packed byte range."""
    in_xorb = min(XORB_BYTES, size - number * XORB_BYTES)
    first, end = low // CHUNK_BYTES, -(-high // CHUNK_BYTES)
    plain = min(end * CHUNK_BYTES, in_xorb) - first * CHUNK_BYTES
    packed_start = first * (CHUNK_BYTES + CHUNK_HEADER_BYTES)
    packed_last = packed_start + plain + (end - first) * CHUNK_HEADER_BYTES - 1
    return {"start": first, "end": end}, plain, {"start": packed_start, "end": packed_last}


def _xorb(request: Request, path: Path, number: int) -> Response:
    body = _packed(path, number)
    size = body_length(body)
    start, stop = wanted_range(request, size) or (0, size)
    headers = {"Content-Type": "application/octet-stream", "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Response(206, headers, cut_body(body, start, stop))


def _packed(path: Path, number: int) -> Body:
    """A xorb: each chunk after its header (version, packed length, scheme 0, plain length; little endian)."""
    stop = min((number + 1) * XORB_BYTES, path.stat().st_size)
    pieces: list[Piece] = []
    for offset in range(number * XORB_BYTES, stop, CHUNK_BYTES):
        chunk = FileSlice(path, offset, min(offset + CHUNK_BYTES, stop))
        length = len(chunk).to_bytes(3, "little")
        pieces += [b"\0" + length + b"\0" + length, chunk]
    return tuple(pieces)
