"""A Xet storage made of ordinary blobs, for clients that cannot get files above 50 GB in another way.

Hub protocol: such clients (huggingface_hub before 1.33 with hf_xet) ask for a token, then for the reconstruction of a
file, then for ranges of the xorbs that it names. They check no hash of chunks, so xorbs are cut from the blob on the
fly: 32 MiB each, in uncompressed chunks of 128 KiB behind 8 bytes each. A file's Xet hash here is its sha256. Only the
HEAD of a file that is too large for plain HTTP leads clients here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.files.reader import BlobReader
from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.errors import AccessDenied, EntryNotFound, NotFound
from hfpeer.manifest import ManifestFile
from hfpeer.net.lru_cache import LruCache
from hfpeer.ranges import ByteRange
from hfpeer_daemon.endpoint.requests.request import HubRequest
from hfpeer_daemon.endpoint.requests.urls import HubUrl
from hfpeer_daemon.endpoint.responses.answers import send_json
from hfpeer_daemon.http.responses import Unsatisfiable, content_range, header_lines, json_bytes, parse_range, send_whole

CHUNK_BYTES = 128 * 1024
CHUNK_HEADER_BYTES = 8
PACKED_CHUNK_BYTES = CHUNK_BYTES + CHUNK_HEADER_BYTES
XORB_CHUNKS = 256
XORB_BYTES = XORB_CHUNKS * CHUNK_BYTES
TICKET_SECONDS = 3600
"""Seconds for which a token is valid."""
MAX_TICKETS = 10_000
"""Number of tokens, those used last, that are valid."""
CHUNKS_AT_ONCE = 16
"""Number of chunks that are sent at once."""

_RECONSTRUCTION = re.compile(r"/(?:(?P<version>v1|v2)/)?reconstructions?/(?P<sha256>[0-9a-f]{64})")
_XORB = re.compile(r"/xorbs/(?P<ticket>[\w-]{43})/(?P<sha256>[0-9a-f]{64})/(?P<number>[0-9]{1,9})")
_TELEMETRY = "/v1/telemetry"

Json = dict[str, Any]


@dataclass(frozen=True)
class _Ticket:
    """The revision that a token opens, until `expires_at` in monotonic seconds."""

    admitted: AdmittedRevision
    expires_at: float


class XetApp:
    """Answers Xet clients. `threads` read blobs. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, threads: Executor) -> None:
        self._endpoint = endpoint
        self._threads = threads
        self._tickets: LruCache[str, _Ticket] = LruCache(MAX_TICKETS)

    async def token(self, request: HubRequest, url: HubUrl) -> None:
        """`/xet-read-token/{rev}`: the URL of this storage and a token for the files of one commit."""
        revision, _ = url.revision()
        admitted = await self._endpoint.admit_revision(request.caller, url.repo, revision, wants_files=True)
        ticket = secrets.token_urlsafe(32)
        self._tickets.put(ticket, _Ticket(admitted, time.monotonic() + TICKET_SECONDS))
        expires_at = int(time.time()) + TICKET_SECONDS
        headers = {
            "X-Xet-Cas-Url": request.own_url,
            "X-Xet-Access-Token": ticket,
            "X-Xet-Token-Expiration": str(expires_at),
        }
        document = {"casUrl": request.own_url, "accessToken": ticket, "exp": expires_at}
        await send_json(request, json_bytes(document), headers)

    async def answer(self, request: HubRequest) -> bool:
        """Answers a request of a Xet client; False for any other request."""
        if request.path == _TELEMETRY:
            await send_json(request, b"{}")
            return True
        if found := _RECONSTRUCTION.fullmatch(request.path):
            await self._reconstruction(request, found["sha256"], has_xorbs=found["version"] == "v2")
            return True
        if found := _XORB.fullmatch(request.path):
            await self._xorb(request, found["ticket"], found["sha256"], int(found["number"]))
            return True
        return False

    async def _reconstruction(self, request: HubRequest, sha256: str, *, has_xorbs: bool) -> None:
        ticket = (request.header("authorization") or "").partition(" ")[2]
        _, file = await self._admitted(ticket, sha256)
        part = parse_range(request.header("range"), file.size_bytes)
        if isinstance(part, Unsatisfiable):
            await send_whole(request.send, 416, b"", {"Content-Range": f"bytes */{file.size_bytes}"}.items())
            return
        place = f"{request.own_url}/xorbs/{ticket}/{sha256}"
        document = reconstruction(sha256, file.size_bytes, part or ByteRange(0, file.size_bytes), place, has_xorbs)
        await send_json(request, json_bytes(document))

    async def _xorb(self, request: HubRequest, ticket: str, sha256: str, number: int) -> None:
        admitted, file = await self._admitted(ticket, sha256)
        plain = ByteRange(number * XORB_BYTES, min((number + 1) * XORB_BYTES, file.size_bytes))
        if plain.start >= plain.stop:
            raise NotFound("This file has no such part.")
        packed_bytes = plain.size_bytes + CHUNK_HEADER_BYTES * -(-plain.size_bytes // CHUNK_BYTES)
        part = parse_range(request.header("range"), packed_bytes)
        if isinstance(part, Unsatisfiable):
            await send_whole(request.send, 416, b"", {"Content-Range": f"bytes */{packed_bytes}"}.items())
            return
        source = await self._endpoint.read(admitted, file)
        if isinstance(source, bytes):
            raise NotFound("A file as small as this one has no xorbs.")
        try:
            await self._send_packed(request, source, plain, part or ByteRange(0, packed_bytes), packed_bytes)
        finally:
            await asyncio.shield(asyncio.ensure_future(source.close()))

    async def _send_packed(
        self, request: HubRequest, reader: BlobReader, plain: ByteRange, part: ByteRange, packed_bytes: int
    ) -> None:
        """Sends the bytes `part` of a xorb, chunks as soon as the blob has them."""
        headers: dict[str, str | int] = {"Content-Type": "application/octet-stream", "Content-Length": part.size_bytes}
        headers["Content-Range"] = content_range(part, packed_bytes)
        await request.send({"type": "http.response.start", "status": 206, "headers": header_lines(headers)})
        first, end = part.start // PACKED_CHUNK_BYTES, -(-part.stop // PACKED_CHUNK_BYTES)
        for low in range(first, end, CHUNKS_AT_ONCE):
            high = min(low + CHUNKS_AT_ONCE, end)
            span = ByteRange(plain.start + low * CHUNK_BYTES, min(plain.start + high * CHUNK_BYTES, plain.stop))
            body = await self._pack(reader, span)
            offset = low * PACKED_CHUNK_BYTES
            body = body[max(0, part.start - offset) : part.stop - offset]
            await request.send({"type": "http.response.body", "body": body, "more_body": high < end})

    async def _pack(self, reader: BlobReader, span: ByteRange) -> bytes:
        position = span.start
        while position < span.stop:
            position = await reader.readable(position, span.stop)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, packed, reader.fd, span)

    async def _admitted(self, ticket: str, sha256: str) -> tuple[AdmittedRevision, ManifestFile]:
        """The revision and file that a token opens. The caller is admitted again, because a hub may have closed the
        commit since."""
        admitted, file = self._find(ticket, sha256)
        grant = await self._endpoint.admit(admitted.caller, admitted.repo, admitted.commit, wants_files=True)
        return replace(admitted, grant=grant), file

    def _find(self, ticket: str, sha256: str) -> tuple[AdmittedRevision, ManifestFile]:
        """Raises AccessDenied for an invalid token, EntryNotFound for a file that it does not open."""
        found = self._tickets.get(ticket)
        if found is None or found.expires_at < time.monotonic():
            raise AccessDenied("This Xet token is unknown or has expired.", reason="bad token")
        for file in found.admitted.manifest.files:
            if file.is_lfs and file.digest.hex == sha256:
                return found.admitted, file
        raise EntryNotFound("There is no file of this Xet hash.", commit=str(found.admitted.commit))


def reconstruction(sha256: str, size_bytes: int, part: ByteRange, place: str, has_xorbs: bool) -> Json:
    """The chunks of the xorbs that cover `part` of a file, as JSON; xorb number n is at `place`/n."""
    terms: list[Json] = []
    old: dict[str, list[Json]] = {}
    new: dict[str, list[Json]] = {}
    for number in range(part.start // XORB_BYTES, -(-part.stop // XORB_BYTES)):
        whole = ByteRange(number * XORB_BYTES, min((number + 1) * XORB_BYTES, size_bytes))
        low, high = max(part.start, whole.start) - whole.start, min(part.stop, whole.stop) - whole.start
        first, end = low // CHUNK_BYTES, -(-high // CHUNK_BYTES)
        plain_bytes = min(end * CHUNK_BYTES, whole.size_bytes) - first * CHUNK_BYTES
        start = first * PACKED_CHUNK_BYTES
        last = start + plain_bytes + (end - first) * CHUNK_HEADER_BYTES - 1
        name, url = hashlib.sha256(f"xorb {sha256} {number}".encode()).hexdigest(), f"{place}/{number}"
        chunks, span = {"start": first, "end": end}, {"start": start, "end": last}
        terms.append({"hash": name, "unpacked_length": plain_bytes, "range": chunks})
        old[name] = [{"range": chunks, "url": url, "url_range": span}]
        new[name] = [{"url": url, "ranges": [{"chunks": chunks, "bytes": span}]}]
    found = {"xorbs": new} if has_xorbs else {"fetch_info": old}
    return {"offset_into_first_range": part.start % CHUNK_BYTES, "terms": terms, **found}


def packed(fd: int, span: ByteRange) -> bytes:
    """Whole chunks of a file, each behind its header: version, packed length, no compression, length. Blocking."""
    body = bytearray()
    for start in range(span.start, span.stop, CHUNK_BYTES):
        chunk = os.pread(fd, min(CHUNK_BYTES, span.stop - start), start)
        length = len(chunk).to_bytes(3, "little")
        body += b"\0" + length + b"\0" + length + chunk
    return bytes(body)
