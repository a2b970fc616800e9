"""A Hub for one program on this machine, with one commit of one repo: the snapshot that this node has proved.

`datasets` finds the folder of a set, its config and its files by asking the Hub; offline it never looks at a snapshot.
So its build is given a Hub of its own on loopback, which asks nobody and knows nothing else. A path begins with a
secret, so no other program of this machine reads a gated repo here.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hfpeer.endpoint.metadata.hub_json import TreeEntries, info
from hfpeer.manifest import Manifest
from hfpeer.names import FilePath

MAX_FORM_BYTES = 8 * 1024 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@contextmanager
def hub_of(manifest: Manifest, snapshot: Path) -> Iterator[str]:
    """Serves a snapshot until the end of the block. Yields the endpoint."""
    key = secrets.token_hex(8)
    handler = type("Handler", (_Handler,), {"shown": TreeEntries(manifest), "snapshot": snapshot, "key": key})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="snapshot-hub", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{key}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers the calls that huggingface_hub makes for `datasets`: info, tree, paths-info and resolve."""

    protocol_version = "HTTP/1.1"
    shown: TreeEntries
    snapshot: Path
    key: str

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def do_POST(self) -> None:
        self._answer(is_head=False)

    def _answer(self, *, is_head: bool) -> None:
        body = b""
        if self.command == "POST":
            body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_FORM_BYTES))
        split = urlsplit(self.path)
        repo, commit = self.shown.manifest.repo, self.shown.manifest.commit
        path = unquote(split.path)
        api, files = f"/{self.key}/api/{repo.api_path}", f"/{self.key}/{repo.url_path}/resolve/"
        if path in (api, f"{api}/revision/{commit}", f"{api}/revision/main"):
            self._json(info(self.shown.manifest, {}, with_blobs="blobs" in split.query))
        elif path.startswith(f"{api}/tree/"):
            self._tree(path.removeprefix(f"{api}/tree/").partition("/")[2], parse_qs(split.query))
        elif path.startswith(f"{api}/paths-info/"):
            self._json(self._dated(self.shown.paths(_wanted(body, self.headers.get("Content-Type") or ""))))
        elif path.startswith(files):
            self._file(path.removeprefix(files).partition("/")[2], is_head=is_head)
        else:
            self._missing("RepoNotFound", "This Hub has one repo at one commit.")

    def _tree(self, folder: str, query: dict[str, list[str]]) -> None:
        is_recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
        entries = self.shown.tree(folder.strip("/"), is_recursive=is_recursive)
        if entries is None:
            self._missing("EntryNotFound", f"There is no folder {folder}.")
        else:
            self._json(self._dated(entries))

    def _dated(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The entries as with `expand`: some versions of huggingface_hub read the last commit of each."""
        last = {"id": self.shown.manifest.commit, "title": "", "date": "1970-01-01T00:00:01.000Z"}
        return [{**entry, "lastCommit": last} for entry in entries]

    def _file(self, path: str, *, is_head: bool) -> None:
        file = self.shown.manifest.by_path.get(FilePath(path))
        place = self.snapshot / path
        if file is None:
            self._missing("EntryNotFound", f"There is no file {path}.")
            return
        if not place.is_file():
            self.send_response(503, "This node does not have the file")
            self._end(b"", is_head=is_head)
            return
        start, stop = self._part(file.size_bytes)
        is_part = self.headers.get("Range") is not None
        self.send_response(206 if is_part else 200)
        self.send_header("ETag", f'"{file.digest.hex}"')
        self.send_header("X-Repo-Commit", str(self.shown.manifest.commit))
        self.send_header("Accept-Ranges", "bytes")
        if file.is_lfs:
            self.send_header("X-Linked-Etag", f'"{file.digest.hex}"')
            self.send_header("X-Linked-Size", str(file.size_bytes))
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{file.size_bytes}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if not is_head:
            with place.open("rb") as source:
                source.seek(start)
                _copy(source, self.wfile, stop - start)

    def _part(self, size_bytes: int) -> tuple[int, int]:
        wanted = _RANGE.fullmatch(self.headers.get("Range") or "")
        if wanted is None:
            return 0, size_bytes
        if not wanted[1]:
            return max(0, size_bytes - int(wanted[2] or 0)), size_bytes
        return int(wanted[1]), min(size_bytes, int(wanted[2]) + 1 if wanted[2] else size_bytes)

    def _json(self, document: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", str(self.shown.manifest.commit))
        self._end(json.dumps(document).encode(), is_head=self.command == "HEAD")

    def _missing(self, code: str, message: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message.encode("ascii", "replace").decode())
        self._end(json.dumps({"error": message}).encode(), is_head=self.command == "HEAD")

    def _end(self, body: bytes, *, is_head: bool) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not is_head:
            self.wfile.write(body)


def _wanted(body: bytes, content_type: str) -> list[str]:
    """The paths that a request asks about, as a form or as JSON."""
    if "json" in content_type:
        paths = json.loads(body).get("paths", [])
        return [paths] if isinstance(paths, str) else list(paths)
    return parse_qs(body.decode()).get("paths", [])


def _copy(source: Any, target: Any, size_bytes: int) -> None:
    left = size_bytes
    while left and (chunk := source.read(min(1024 * 1024, left))):
        target.write(chunk)
        left -= len(chunk)
