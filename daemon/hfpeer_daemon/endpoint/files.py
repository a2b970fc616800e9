"""Files by revision and path, whole or in ranges: from the cache with zero copy, or while they are fetched.

Owns the headers in which clients read a file's metadata. A body is verified and has the announced length, or the
connection breaks before its end.
"""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import os
import re
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Literal
from urllib.parse import quote

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.files.reader import BlobReader
from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.errors import HfpeerError
from hfpeer.git.lfs import pointer_of
from hfpeer.manifest import ManifestFile
from hfpeer.names import FilePath
from hfpeer.net.tasks import end_tasks
from hfpeer.ranges import MIB, ByteRange
from hfpeer_daemon.endpoint.requests.request import HubRequest
from hfpeer_daemon.endpoint.requests.urls import HubUrl, decoded, resolve_path
from hfpeer_daemon.endpoint.responses.answers import age_headers
from hfpeer_daemon.http.responses import (
    Unsatisfiable,
    allows_range,
    content_range,
    header_lines,
    names_etag,
    parse_range,
    send_whole,
)
from hfpeer_daemon.http.zero_copy import EXTENSION, SendBroken

READ_BYTES = MIB
"""Most bytes of a file that are read at once where it is not sent with zero copy."""
HEADERS_SECONDS = 4.0
"""Seconds for which the headers wait for the first byte, so that a failure has a status. Clients wait ten seconds."""
HTTP_WALL_BYTES = 50_000_000_000
"""Hub protocol: huggingface_hub downloads no larger file over plain HTTP if it knows the size beforehand."""
UNKNOWN_SIZE_SINCE = (1, 33)
"""From this version on huggingface_hub takes the size from the GET if the HEAD has none."""
EXPOSED = "X-Repo-Commit,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size"
_HF_HUB = re.compile(r"\bhf_hub/(\d{1,4})\.(\d{1,4})")

_log = logging.getLogger(__name__)
Headers = dict[str, "str | int"]


class FileApp:
    """Answers GET and HEAD of files. Belongs to one event loop; `threads` read files."""

    def __init__(self, endpoint: Endpoint, threads: Executor, http_wall_bytes: int) -> None:
        self._endpoint = endpoint
        self._http_wall_bytes = http_wall_bytes
        self._threads = threads

    async def resolve(self, request: HubRequest, url: HubUrl) -> None:
        """`/{id}/resolve/{rev}/{path}`: redirects a name to its commit, and sends the file of a commit."""
        admitted, file = await self._find(request, url)
        headers = _metadata(request, admitted, file)
        revision, _ = url.revision()
        if not revision.is_commit:
            location = {"Location": resolve_path(admitted.repo, admitted.commit, file.path)}
            lines = {**_as_text(headers), **self._size_headers(request, admitted, file), **location}
            await send_whole(request.send, 307, b"", lines.items())
            return
        etag = f'"{file.digest.hex}"'
        if names_etag(request.header("if-none-match"), etag):
            await send_whole(request.send, 304, b"", _as_text(headers).items())
        elif request.is_head:
            await self._send_head(request, admitted, file, headers)
        else:
            await self._send_file(request, admitted, file, headers)

    async def raw(self, request: HubRequest, url: HubUrl) -> None:
        """`/{id}/raw/{rev}/{path}`: the git blob, which is the pointer of an LFS file."""
        admitted, file = await self._find(request, url)
        headers = {"X-Repo-Commit": str(admitted.commit), "ETag": f'"{file.blob_id}"', **age_headers(admitted)}
        headers["Content-Type"] = "text/plain; charset=utf-8"
        if file.is_lfs:
            await send_whole(request.send, 200, b"" if request.is_head else pointer_of(file), headers.items())
        elif request.is_head:
            await send_whole(request.send, 200, b"", {**headers, "Content-Length": str(file.size_bytes)}.items())
        else:
            await self._send_file(request, admitted, file, {**headers, "Accept-Ranges": "bytes"})

    async def _find(self, request: HubRequest, url: HubUrl) -> tuple[AdmittedRevision, ManifestFile]:
        """Raises EntryNotFound if the commit has no such file."""
        revision, rest = url.revision()
        path = FilePath.parse(decoded("/".join(rest)))
        admitted = await self._endpoint.admit_revision(request.caller, url.repo, revision, wants_files=True)
        return admitted, admitted.manifest.file(path)

    async def _send_file(
        self, request: HubRequest, admitted: AdmittedRevision, file: ManifestFile, headers: Headers
    ) -> None:
        for counts_late in (False, True):
            if await self._try_to_send(request, admitted, file, headers, counts_late=counts_late):
                return

    async def _try_to_send(
        self,
        request: HubRequest,
        admitted: AdmittedRevision,
        file: ManifestFile,
        headers: Headers,
        *,
        counts_late: bool,
    ) -> bool:
        """Sends the wanted part. False if the fetch that this request joined failed before the response began: a new
        fetch may succeed. With `counts_late` the error of such a fetch is raised."""
        wanted = self._wanted_part(request, file)
        if isinstance(wanted, Unsatisfiable):
            lines = {**headers, "Content-Range": f"bytes */{file.size_bytes}", "Content-Length": 0}
            await send_whole(request.send, 416, b"", _as_text(lines).items())
            return True
        status, part = (200, ByteRange(0, file.size_bytes)) if wanted is None else (206, wanted)
        lines = {**headers, "Content-Length": part.size_bytes}
        if status == 206:
            lines["Content-Range"] = content_range(part, file.size_bytes)
        source = await self._endpoint.read(admitted, file, request.client)
        if isinstance(source, bytes):
            await send_whole(request.send, status, source[part.start : part.stop], _as_text(lines).items())
            return True
        try:
            return await self._stream(request, source, part, status, lines, counts_late=counts_late)
        finally:
            await asyncio.shield(asyncio.ensure_future(source.close()))

    def _size_headers(self, request: HubRequest, admitted: AdmittedRevision, file: ManifestFile) -> dict[str, str]:
        """The size of the file. If it is too large for plain HTTP, the headers with which the client gets it anyway."""
        way = _way_over(request) if file.size_bytes > self._http_wall_bytes else None
        if way == "unknown size":
            return {}
        size = {"X-Linked-Size": str(file.size_bytes)}
        if way is None or not file.is_lfs:
            return size
        token = f"{request.own_url}/api/{admitted.repo.api_path}/xet-read-token/{admitted.commit}"
        return {**size, "X-Xet-Hash": file.digest.hex, "Link": f'<{token}>; rel="xet-auth"'}

    async def _send_head(
        self, request: HubRequest, admitted: AdmittedRevision, file: ManifestFile, headers: Headers
    ) -> None:
        sizes = self._size_headers(request, admitted, file)
        lines = {**_as_text(headers), **sizes}
        if "X-Linked-Size" in sizes:
            lines["Content-Length"] = str(file.size_bytes)
        # A response to GET without Content-Length would be chunked; one to HEAD may leave it out.
        await request.send({"type": "http.response.start", "status": 200, "headers": header_lines(lines)})
        await request.send({"type": "http.response.body", "body": b""})

    def _wanted_part(self, request: HubRequest, file: ManifestFile) -> ByteRange | Unsatisfiable | None:
        """The requested range; None if the whole file is sent, as to a client that was sent wrong bytes of it."""
        if self._endpoint.files.has_wrong_bytes(request.client, file.digest):
            return None
        if not allows_range(request.header("if-range"), f'"{file.digest.hex}"'):
            return None
        return parse_range(request.header("range"), file.size_bytes)

    async def _stream(
        self,
        request: HubRequest,
        reader: BlobReader,
        part: ByteRange,
        status: int,
        headers: Headers,
        *,
        counts_late: bool,
    ) -> bool:
        async with aclosing(reader.stretches(part)) as stretches:
            first = asyncio.ensure_future(anext(stretches))
            try:
                await asyncio.wait([first], timeout=HEADERS_SECONDS)
                if first.done():
                    is_late = reader.is_late and isinstance(first.exception(), HfpeerError)
                    if is_late and not counts_late:
                        return False
                    first.result()
                await request.send({"type": "http.response.start", "status": status, "headers": header_lines(headers)})
                stretch = await first
                await self._send_stretch(request, reader.fd, stretch, has_more=stretch.stop < part.stop)
            finally:
                await end_tasks([first])
            async for stretch in stretches:
                await self._send_stretch(request, reader.fd, stretch, has_more=stretch.stop < part.stop)
        return True

    async def _send_stretch(self, request: HubRequest, fd: int, stretch: ByteRange, *, has_more: bool) -> None:
        if stretch.size_bytes and EXTENSION in request.scope.get("extensions", {}):
            message = {"type": EXTENSION, "file": fd, "offset": stretch.start, "count": stretch.size_bytes}
            await request.send({**message, "more_body": has_more})
            return
        loop = asyncio.get_running_loop()
        position = stretch.start
        while True:
            count = min(READ_BYTES, stretch.stop - position)
            chunk = await loop.run_in_executor(self._threads, os.pread, fd, count, position)
            if len(chunk) == 0 < count:
                raise SendBroken("was cut off: the file ended early")
            position += len(chunk)
            is_last = position >= stretch.stop
            await request.send({"type": "http.response.body", "body": chunk, "more_body": has_more or not is_last})
            if is_last:
                return


def _metadata(request: HubRequest, admitted: AdmittedRevision, file: ManifestFile) -> Headers:
    etag = f'"{file.digest.hex}"'
    name = file.path.rpartition("/")[2]
    plain = "".join(character if " " <= character <= "~" and character not in '"\\' else "_" for character in name)
    return {
        "X-Repo-Commit": str(admitted.commit),
        "ETag": etag,
        "X-Linked-ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}; filename=\"{plain}\";",
        "Access-Control-Expose-Headers": EXPOSED,
        **age_headers(admitted),
    }


def _way_over(request: HubRequest) -> Literal["unknown size", "xet"] | None:
    """How this client gets a file above `http_wall_bytes`; None for clients without that limit."""
    found = _HF_HUB.search(request.header("user-agent") or "") if request.is_head else None
    if found is None:
        return None
    return "unknown size" if (int(found[1]), int(found[2])) >= UNKNOWN_SIZE_SINCE else "xet"


def _as_text(headers: Headers) -> dict[str, str]:
    return {name: str(value) for name, value in headers.items()}
