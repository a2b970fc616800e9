"""The bodies of uploads while they come in: counted, hashed, written to the disk, slowed down or cut.

Owns what happens before a PUT can be answered. Must never decide whether it is accepted.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from fakes.hub.wire import BadRequest, ConnectionCut, Request

from .storage import Storage

BLOCK_BYTES = 1 << 20


@dataclass
class Upload:
    """One PUT: its path, its announced size, and the bytes that came."""

    path: str
    size_bytes: int
    received_bytes: int = 0
    is_whole: bool = False


@dataclass
class Cut:
    """The next `remaining` uploads end after some bytes; `resets` asks for RST."""

    after_bytes: int
    remaining: int
    resets: bool
    path: str


class Uploads:
    """Thread-safe."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._changed = threading.Condition()
        self._uploads: list[Upload] = []
        self._digests: dict[Path, str] = {}
        self._cuts: list[Cut] = []
        self.bytes_per_second: float | None = None
        """The rate of each upload, if it is bounded."""

    @property
    def all(self) -> list[Upload]:
        """Every upload, in order of arrival."""
        with self._changed:
            return list(self._uploads)

    @property
    def received_bytes(self) -> int:
        """The bytes of all uploads together, also of those that were cut."""
        with self._changed:
            return sum(upload.received_bytes for upload in self._uploads)

    def clear(self) -> None:
        """Forgets the uploads until now."""
        with self._changed:
            self._uploads = []

    def cut_after(self, size_bytes: int, times: int = 1, *, resets: bool = False, path: str = "") -> None:
        """The next uploads, with `path` in their address, end after that many bytes."""
        with self._changed:
            self._cuts.append(Cut(size_bytes, times, resets, path))

    def wait_for_bytes(self, size_bytes: int, seconds: float = 60) -> None:
        """Returns when that many bytes have come in all. Raises TimeoutError."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: sum(upload.received_bytes for upload in self._uploads) >= size_bytes, seconds
            )
        if not came:
            raise TimeoutError(f"only {self.received_bytes} of {size_bytes} bytes came within {seconds:g} s")

    def digest_of(self, path: Path) -> str:
        """The sha256 of a whole upload, by the file in which it lies. To be asked once."""
        with self._changed:
            return self._digests.pop(path, "")

    def receive(self, head: Request, reader: BufferedReader) -> Request | None:
        """Reads the body of a PUT into a file; leaves other requests to the caller."""
        if head.method != "PUT":
            return None
        length = head.headers.get("content-length", "")
        if not length.isdigit():
            raise BadRequest("a PUT needs a Content-Length")
        upload = Upload(head.path, int(length))
        cut = self._begin(upload)
        path = self._storage.new_path()
        digest, began = hashlib.sha256(), time.monotonic()
        with path.open("wb") as file:
            while upload.received_bytes < upload.size_bytes:
                left = upload.size_bytes - upload.received_bytes
                if cut is not None:
                    left = min(left, cut.after_bytes - upload.received_bytes)
                    if left <= 0:
                        path.unlink()
                        raise ConnectionCut(cut.resets)
                block = reader.read1(min(left, BLOCK_BYTES))
                if not block:
                    path.unlink()
                    raise BadRequest("the body ended early")
                digest.update(block)
                file.write(block)
                self._came(upload, len(block))
                if self.bytes_per_second:
                    time.sleep(max(0.0, began + upload.received_bytes / self.bytes_per_second - time.monotonic()))
        with self._changed:
            upload.is_whole = True
            self._digests[path] = digest.hexdigest()
        return Request(head.listener, head.method, head.target, head.headers, b"", head.keeps_alive, path)

    def _begin(self, upload: Upload) -> Cut | None:
        with self._changed:
            self._uploads.append(upload)
            for cut in self._cuts:
                if cut.remaining and cut.path in upload.path:
                    cut.remaining -= 1
                    return cut
        return None

    def _came(self, upload: Upload, size_bytes: int) -> None:
        with self._changed:
            upload.received_bytes += size_bytes
            self._changed.notify_all()
