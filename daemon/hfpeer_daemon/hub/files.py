"""Files by revision and path, whole or in ranges: from the cache with zero copy, or as they are fetched.

Owns the headers that clients read metadata from. A body is as long as it was announced and verified to its end, or
the connection breaks.
"""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import os
import re
from concurrent.futures import Executor
from typing import Literal
from urllib.parse import quote

from hfpeer.endpoint.answers import pointer_of
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.reading import Reading
from hfpeer.endpoint.seen import Seen
from hfpeer.errors import CorruptData
from hfpeer.manifest import ManifestFile
from hfpeer.names import FilePath
from hfpeer.ranges import MIB, ByteRange
from hfpeer_daemon.hub.addresses import Address, decoded, resolve_path
from hfpeer_daemon.hub.answering import age_headers
from hfpeer_daemon.hub.asked import Asked
from hfpeer_daemon.responses import (
    Unsatisfiable,
    allows_range,
    content_range,
    header_lines,
    names_etag,
    parse_range,
    send_whole,
)
from hfpeer_daemon.zero_copy import EXTENSION, SendBroken

READ_BYTES = MIB
HEADERS_SECONDS = 4.0
"""How long the headers wait for the first byte, so that what is in vain has a status; clients wait ten seconds."""
HTTP_WALL_BYTES = 50_000_000_000
"""Hub protocol: huggingface_hub downloads no larger file over plain HTTP, if it knows the size beforehand."""
UNKNOWN_SIZE_SINCE = (1, 33)
"""huggingface_hub from this version on takes the size from the GET when the HEAD does not say it."""
EXPOSED = "X-Repo-Commit,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size"
_HF_HUB = re.compile(r"\bhf_hub/(\d{1,4})\.(\d{1,4})")

_log = logging.getLogger(__name__)
Headers = dict[str, "str | int"]


class FileDoor:
    """Answers GET and HEAD of files. `threads` reads and sends."""

    def __init__(self, endpoint: Endpoint, threads: Executor, http_wall_bytes: int) -> None:
        self._endpoint = endpoint
        self._http_wall_bytes = http_wall_bytes
        self._threads = threads

    async def resolve(self, asked: Asked, address: Address) -> None:
        """`/{id}/resolve/{rev}/{path}`: a name is redirected to the commit that it is, a commit answered."""
        seen, file = await self._find(asked, address)
        headers = _metadata(asked, seen, file)
        revision, _ = address.revision()
        if not revision.is_commit:
            location = {"Location": resolve_path(seen.repo, seen.commit, file.path)}
            lines = {**_as_text(headers), **self._size_headers(asked, seen, file), **location}
            await send_whole(asked.send, 307, b"", lines.items())
            return
        etag = f'"{file.digest.hex}"'
        if names_etag(asked.header("if-none-match"), etag):
            await send_whole(asked.send, 304, b"", _as_text(headers).items())
        elif asked.is_head:
            await self._send_head(asked, seen, file, headers)
        else:
            await self._send_file(asked, seen, file, headers)

    async def raw(self, asked: Asked, address: Address) -> None:
        """`/{id}/raw/{rev}/{path}`: the git blob itself, of an LFS file its pointer."""
        seen, file = await self._find(asked, address)
        headers = {"X-Repo-Commit": str(seen.commit), "ETag": f'"{file.blob_id}"', **age_headers(seen)}
        headers["Content-Type"] = "text/plain; charset=utf-8"
        if file.is_lfs:
            await send_whole(asked.send, 200, b"" if asked.is_head else pointer_of(file), headers.items())
        elif asked.is_head:
            await send_whole(asked.send, 200, b"", {**headers, "Content-Length": str(file.size_bytes)}.items())
        else:
            await self._send_file(asked, seen, file, {**headers, "Accept-Ranges": "bytes"})

    async def _find(self, asked: Asked, address: Address) -> tuple[Seen, ManifestFile]:
        """Raises EntryNotFound only where the whole listing proves it."""
        revision, rest = address.revision()
        path = FilePath.parse(decoded("/".join(rest)))
        seen = await self._endpoint.look(asked.caller, address.repo, revision, wants_files=True)
        return seen, seen.manifest.file(path)

    async def _send_file(self, asked: Asked, seen: Seen, file: ManifestFile, headers: Headers) -> None:
        part, is_whole = self._wanted_part(asked, file)
        if isinstance(part, Unsatisfiable):
            lines = {**headers, "Content-Range": f"bytes */{file.size_bytes}", "Content-Length": 0}
            await send_whole(asked.send, 416, b"", _as_text(lines).items())
            return
        lines = {**headers, "Content-Length": part.size_bytes}
        if not is_whole:
            lines["Content-Range"] = content_range(part, file.size_bytes)
        status = 200 if is_whole else 206
        source = await self._endpoint.read(seen, file)
        if isinstance(source, bytes):
            await send_whole(asked.send, status, source[part.start : part.stop], _as_text(lines).items())
            return
        try:
            await self._stream(asked, source, file, part, status, lines)
        finally:
            await asyncio.shield(asyncio.ensure_future(source.close()))

    def _size_headers(self, asked: Asked, seen: Seen, file: ManifestFile) -> dict[str, str]:
        """How large the file is; of one that is too large for plain HTTP, what gets the client over the wall."""
        way = _way_over(asked) if file.size_bytes > self._http_wall_bytes else None
        if way == "unknown size":
            return {}
        size = {"X-Linked-Size": str(file.size_bytes)}
        if way is None or not file.is_lfs:
            return size
        token = f"{asked.own_url}/api/{seen.repo.api_path}/xet-read-token/{seen.commit}"
        return {**size, "X-Xet-Hash": file.digest.hex, "Link": f'<{token}>; rel="xet-auth"'}

    async def _send_head(self, asked: Asked, seen: Seen, file: ManifestFile, headers: Headers) -> None:
        sizes = self._size_headers(asked, seen, file)
        lines = {**_as_text(headers), **sizes}
        if "X-Linked-Size" in sizes:
            lines["Content-Length"] = str(file.size_bytes)
        # Without a Content-Length an answer to GET would come in chunks; one to HEAD just does not say.
        await asked.send({"type": "http.response.start", "status": 200, "headers": header_lines(lines)})
        await asked.send({"type": "http.response.body", "body": b""})

    def _wanted_part(self, asked: Asked, file: ManifestFile) -> tuple[ByteRange | Unsatisfiable, bool]:
        """What to send, and whether it is an answer to no range. Who was given wrong bytes gets the whole again."""
        whole = ByteRange(0, file.size_bytes)
        suspicion = self._endpoint.files.suspicion
        is_misled = suspicion.has_wrong(asked.client, file.digest)
        if is_misled or not allows_range(asked.header("if-range"), f'"{file.digest.hex}"'):
            part: ByteRange | Unsatisfiable | None = None
        else:
            part = parse_range(asked.header("range"), file.size_bytes)
        return (whole, True) if part is None else (part, False)

    async def _stream(
        self, asked: Asked, reading: Reading, file: ManifestFile, part: ByteRange, status: int, lines: Headers
    ) -> None:
        waiting = asyncio.ensure_future(reading.readable(part.start, part.stop))
        try:
            await asyncio.wait([waiting], timeout=HEADERS_SECONDS)
            if waiting.done():
                waiting.result()
            await asked.send({"type": "http.response.start", "status": status, "headers": header_lines(lines)})
            await self._send_parts(asked, reading, file, part, waiting)
            if status == 200:
                self._endpoint.files.suspicion.has_all(asked.client, file.digest)
        except CorruptData:
            self._endpoint.files.suspicion.misled(asked.client, file.digest)
            raise
        finally:
            waiting.cancel()

    async def _send_parts(
        self, asked: Asked, reading: Reading, file: ManifestFile, part: ByteRange, waiting: asyncio.Future[int]
    ) -> None:
        suspicion = self._endpoint.files.suspicion
        is_the_remedy = part.size_bytes == file.size_bytes and suspicion.has_wrong(asked.client, file.digest)
        position = part.start
        stop = await waiting if part.size_bytes else position
        while True:
            if not is_the_remedy and suspicion.has_wrong(asked.client, file.digest):
                # Perhaps over another connection: several can make one file.
                raise CorruptData("Bytes that were sent already have turned out to be wrong.", hint="Start again.")
            if not reading.is_verified:
                suspicion.gave(asked.client, file.digest, position, stop)
            await self._send_part(asked, reading.fd, ByteRange(position, stop), has_more=stop < part.stop)
            position = stop
            if position >= part.stop:
                return
            stop = await reading.readable(position, part.stop)

    async def _send_part(self, asked: Asked, fd: int, part: ByteRange, *, has_more: bool) -> None:
        if part.size_bytes and EXTENSION in asked.scope.get("extensions", {}):
            message = {"type": EXTENSION, "file": fd, "offset": part.start, "count": part.size_bytes}
            await asked.send({**message, "more_body": has_more})
            return
        loop = asyncio.get_running_loop()
        position = part.start
        while True:
            count = min(READ_BYTES, part.stop - position)
            chunk = await loop.run_in_executor(self._threads, os.pread, fd, count, position)
            if len(chunk) == 0 < count:
                raise SendBroken("was cut off: the file ended early")
            position += len(chunk)
            is_last = position >= part.stop
            await asked.send({"type": "http.response.body", "body": chunk, "more_body": has_more or not is_last})
            if is_last:
                return


def _metadata(asked: Asked, seen: Seen, file: ManifestFile) -> Headers:
    etag = f'"{file.digest.hex}"'
    name = file.path.rpartition("/")[2]
    plain = "".join(character if " " <= character <= "~" and character not in '"\\' else "_" for character in name)
    return {
        "X-Repo-Commit": str(seen.commit),
        "ETag": etag,
        "X-Linked-ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}; filename=\"{plain}\";",
        "Access-Control-Expose-Headers": EXPOSED,
        **age_headers(seen),
    }


def _way_over(asked: Asked) -> Literal["unknown size", "xet"] | None:
    """How this caller gets a file above the wall; None for one that has no wall."""
    found = _HF_HUB.search(asked.header("user-agent") or "") if asked.is_head else None
    if found is None:
        return None
    return "unknown size" if (int(found[1]), int(found[2])) >= UNKNOWN_SIZE_SINCE else "xet"


def _as_text(headers: Headers) -> dict[str, str]:
    return {name: str(value) for name, value in headers.items()}
