"""One HTTP/1.1 exchange as data: what was asked, what is answered, and how the answer's bytes leave.

Owns parsing requests, serving ranges of files, and the shape of an answer, down to the offset at which it breaks.
Must never look at repositories: it does not know what a hub is.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from urllib.parse import parse_qsl, unquote

MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 200


class BadRequest(Exception):
    """The bytes that arrived are not HTTP/1.1."""


class ConnectionCut(Exception):
    """The answer ends here, in the middle; `reset` asks for RST instead of FIN."""

    def __init__(self, reset: bool = False) -> None:
        super().__init__("cut on purpose")
        self.reset = reset


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    `path` is still percent-encoded, with duplicate slashes collapsed; `headers` has lower-case names;
    `body` is without transfer and content encoding. The body of an upload that a `Receive` took is in `body_path`.
    """

    listener: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    keeps_alive: bool = True
    body_path: Path | None = None

    @property
    def path(self) -> str:
        return re.sub(r"/{2,}", "/", self.target.partition("?")[0])

    @property
    def query_string(self) -> str:
        return self.target.partition("?")[2]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query_string, keep_blank_values=True)

    @property
    def segments(self) -> list[str]:
        """The path's parts, each decoded on its own: an encoded slash stays inside its part."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    def query_value(self, name: str, default: str = "") -> str:
        return dict(self.query).get(name, default)

    def query_flag(self, name: str) -> bool:
        return self.query_value(name).lower() in ("true", "1")

    def without_header(self, name: str) -> Request:
        return replace(self, headers={key: value for key, value in self.headers.items() if key != name.lower()})


@dataclass(frozen=True)
class FileSlice:
    """Bytes [start, stop) of a file on disk."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(len(self))

    def cut(self, start: int, stop: int) -> FileSlice:
        return FileSlice(self.path, self.start + start, self.start + stop)


Piece = bytes | FileSlice
Body = tuple[Piece, ...]


def body_length(body: Body) -> int:
    return sum(len(piece) for piece in body)


def body_bytes(body: Body) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else piece.read() for piece in body)


def cut_body(body: Body, start: int, stop: int) -> Body:
    """Bytes [start, stop) of a body, as a body."""
    pieces: list[Piece] = []
    offset = 0
    for piece in body:
        low, high = max(start - offset, 0), min(stop - offset, len(piece))
        if low < high:
            pieces.append(piece[low:high] if isinstance(piece, bytes) else piece.cut(low, high))
        offset += len(piece)
    return tuple(pieces)


@dataclass(frozen=True)
class Response:
    """An answer and the way it is delivered.

    `stream` replaces `body` by chunks of unknown total length. `marks` are actions run when that many bytes of
    the body have been sent; an action may wait, or raise ConnectionCut. `pace` is called with the size of each
    chunk before it is sent and may wait; `chunk_bytes` bounds the chunks. Content-Length is the body's length
    unless `headers` says otherwise.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = ()
    stream: Generator[bytes, None, None] | None = None
    marks: tuple[tuple[int, Callable[[], None]], ...] = ()
    pace: Callable[[int], None] | None = None
    chunk_bytes: int = 1024 * 1024

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    def with_header(self, name: str, value: str) -> Response:
        return replace(self, headers={**self.without_header(name).headers, name: value})

    def without_header(self, name: str) -> Response:
        kept = {key: value for key, value in self.headers.items() if key.lower() != name.lower()}
        return replace(self, headers=kept)

    def settled(self) -> Response:
        """The same answer with its whole body at hand."""
        return self if self.stream is None else replace(self, body=(b"".join(self.stream),), stream=None)

    def head(self, keeps_alive: bool) -> bytes:
        """The status line and header block."""
        headers = dict(self.headers)
        if self.stream is not None:
            headers["Transfer-Encoding"] = "chunked"
        elif self.header("content-length") is None and self.status not in (204, 304):
            headers["Content-Length"] = str(body_length(self.body))
        headers["Connection"] = "keep-alive" if keeps_alive else "close"
        phrase = HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else "Odd"
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{key}: {value}" for key, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def text_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """A plain text answer."""
    return Response(status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, (text.encode(),))


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, (body,))


def file_response(request: Request, path: Path, size_bytes: int, headers: Mapping[str, str]) -> Response:
    """200, or 206 / 416 for a single range; `If-Range` with another validator gives 200."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    wanted = wanted_range(request, size_bytes, headers.get("ETag"))
    if wanted is None:
        return Response(200, headers, (FileSlice(path, 0, size_bytes),))
    start, stop = wanted
    if start >= stop:
        return Response(416, {**headers, "Content-Range": f"bytes */{size_bytes}"})
    content_range = f"bytes {start}-{stop - 1}/{size_bytes}"
    return Response(206, {**headers, "Content-Range": content_range}, (FileSlice(path, start, stop),))


def wanted_range(request: Request, size_bytes: int, etag: str | None = None) -> tuple[int, int] | None:
    """The single range asked for as [start, stop), empty if unsatisfiable; None when the whole is to be sent."""
    if request.headers.get("if-range", etag) != etag:
        return None
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "").replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    return int(first), min(int(last) + 1, size_bytes) if last else size_bytes


Receive = Callable[[Request, BufferedReader], "Request | None"]
"""Reads the body of a request of which only the head has come, in its own way, and gives the whole request; or None,
with the body unread. May raise ConnectionCut."""


def read_request(
    reader: BufferedReader, listener: str, invite_body: Callable[[], None], receive: Receive | None = None
) -> Request | None:
    """The next request of a connection, or None when the client has gone.

    `invite_body` is called when the client waits for `100 Continue`. Raises BadRequest for anything malformed.
    """
    line = reader.readline(MAX_LINE_BYTES)
    if not line:
        return None
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(f"not a request line: {line[:100]!r}")
    headers = _read_headers(reader)
    if headers.get("expect", "").lower() == "100-continue":
        invite_body()
    asks_close = headers.get("connection", "").lower() == "close" or words[2].strip() == "HTTP/1.0"
    head = Request(listener, words[0], _origin_form(words[1]), headers, b"", not asks_close)
    received = receive(head, reader) if receive is not None else None
    if received is not None:
        return received
    try:
        return replace(head, body=_read_body(reader, headers))
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadRequest(f"not a body: {error}") from error


def _origin_form(target: str) -> str:
    """`http://host/path?query` (as sent to a proxy) becomes `/path?query`."""
    return re.sub(r"^https?://[^/]*", "", target) or "/"


def _read_headers(reader: BufferedReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = reader.readline(MAX_LINE_BYTES)
        if line in (b"\r\n", b"\n", b""):
            return headers
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if not colon:
            raise BadRequest(f"not a header: {line[:100]!r}")
        headers[name.strip().lower()] = value.strip()
    raise BadRequest("too many headers")


def _read_body(reader: BufferedReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join(_read_chunks(reader))
    else:
        body = reader.read(int(headers.get("content-length", "0")))
    return gzip.decompress(body) if headers.get("content-encoding") in ("gzip", "x-gzip") else body


def _read_chunks(reader: BufferedReader) -> Iterator[bytes]:
    while size := int(reader.readline(MAX_LINE_BYTES).split(b";")[0], 16):
        yield reader.read(size)
        reader.readline(MAX_LINE_BYTES)
    while reader.readline(MAX_LINE_BYTES) not in (b"\r\n", b"\n", b""):
        pass
