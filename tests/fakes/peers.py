"""The cast of peers: one good node's LAN door on a plain threaded socket server, and all the ways to be a bad one.

    with LyingPeer([b"some bytes"]) as peer:
        client = AddressClient(peer.address, own_node_id)
        ...
    peer.assert_anonymous()

Each peer takes its blobs (a mapping by digest, or just their bytes) and records every request it gets. A bad peer is a
good one with a single vice, so what a test sees is that vice. Must never import what it is there to test: only names,
manifests and the wire's words.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fakes.network.ports import listen
from hfpeer.git.lfs import pointer_text
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES, encode_batch_header, parse_batch_digests
from hfpeer.peers.protocol.copies import CopiesMessage, parse_asked_digests
from hfpeer.peers.protocol.messages import CatalogMessage, NodeMessage, PeersMessage, RefMessage, RevisionMessage
from hfpeer.peers.protocol.paths import (
    BATCH_PATH,
    BLOBS_PREFIX,
    CATALOG_PATH,
    COPIES_PATH,
    MANIFESTS_PREFIX,
    NODE_PATH,
    PEERS_PATH,
    PROTOCOL_VERSION,
    REFS_PREFIX,
    generation_etag,
)
from hfpeer.peers.protocol.pieces import PieceMap, piece_digest
from hfpeer.ranges import PieceGrid

JOIN_SECONDS = 5.0
CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 1024 * 1024


def digest_of(data: bytes, algorithm: str = "sha256") -> Digest:
    """The digest of `data`, as an LFS file (`sha256`) or as a plain one (`git-sha1`)."""
    if algorithm == "sha256":
        return Digest(algorithm, hashlib.sha256(data).hexdigest())
    return Digest(algorithm, hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())


@dataclass(frozen=True)
class Request:
    """One request as it came: header names in lower case, the query's last values."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """One response. `length` overrides the announced length, None announces the true one and -1 none at all;
    at `cuts_at` bytes of the body the connection is reset, at `ends_at` closed, at `stalls_at` it just stops."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    cuts_at: int | None = None
    ends_at: int | None = None
    stalls_at: int | None = None
    is_endless: bool = False


class GoodPeer:
    """A node that shares `blobs`, `manifests`, `refs` and tells of `peers`; a context manager.

    `bytes_per_second` paces bodies, over all connections of this peer each on its own.
    """

    bytes_per_second: float | None = None

    def __init__(
        self,
        blobs: Mapping[Digest, bytes] | Iterable[bytes] = (),
        *,
        manifests: Iterable[Manifest] = (),
        refs: Mapping[tuple[RepoId, Revision], RefMessage] | None = None,
        peers: Iterable[str] = (),
        node_id: str | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.blobs = dict(blobs) if isinstance(blobs, Mapping) else {digest_of(data): data for data in blobs}
        self.manifests = {(manifest.repo, manifest.commit): manifest for manifest in manifests}
        self.refs = dict(refs or {})
        self.peers = tuple(peers)
        self.name = type(self).__name__.removesuffix("Peer").lower()
        self.node_id = node_id or hashlib.sha256(f"{self.name}{id(self)}".encode()).hexdigest()[:32]
        self.generation = 1
        self.requests: list[Request] = []
        self.connections = 0
        self.sent_bytes = 0
        self._host = host
        self._address = Address(host, 0)
        self._came = threading.Condition()
        self._stopping = threading.Event()
        self._live: dict[socket.socket, threading.Thread] = {}

    # ---- for tests

    @property
    def address(self) -> Address:
        """Where it listens; the same after `stop` and `start`."""
        return self._address

    @property
    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [request.path for request in self.requests]

    def wait_for_request(self, part: str = "", timeout_seconds: float = 5.0) -> Request:
        """The first request with `part` in its path, once it has come."""
        with self._came:
            found = self._came.wait_for(
                lambda: next((request for request in self.requests if part in request.path), None), timeout_seconds
            )
        assert found is not None, f"no request for {part!r} came to {self.name} within {timeout_seconds} s"
        return found

    def assert_anonymous(self) -> None:
        """Nothing that names a user or belongs to a hub ever came here."""
        for request in self.requests:
            secret = {"authorization", "cookie", "proxy-authorization", "x-api-key"} & request.headers.keys()
            assert not secret, f"{request.path} came to {self.name} with {sorted(secret)}"

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen: on a free port the first time, on the same one after `stop`."""
        self._stopping.clear()
        self._server = listen(self._host, self._address.port, backlog=64)
        self._address = Address(self._host, self._server.getsockname()[1])
        self._acceptor = threading.Thread(target=self._accept, name=f"peer-{self.name}", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Die: refuse new connections and cut the live ones."""
        self._stopping.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes accept on Linux; elsewhere a connection does
            socket.create_connection((self._host, self._address.port), 1).close()
        self._acceptor.join(JOIN_SECONDS)
        self._server.close()
        self.cut_connections()

    def cut_connections(self) -> None:
        """End every live connection now, whatever it is doing."""
        with self._came:
            live = dict(self._live)
        for connection in live:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in live.values():
            thread.join(JOIN_SECONDS)

    # ---- what it answers: here the vices differ

    def answer(self, request: Request) -> Reply:
        if request.path == BATCH_PATH:
            return self.batch(parse_batch_digests(request.query["digests"]))
        if request.path.startswith(BLOBS_PREFIX):
            return self._blob_or_pieces(request)
        return self.message(request)

    def message(self, request: Request) -> Reply:
        if request.path == CATALOG_PATH and request.headers.get("if-none-match") == self._etag:
            return Reply(304)
        document = self._document(request.path, request.query)
        if document is None:
            return Reply(404)
        body = document if isinstance(document, str) else json.dumps(document)
        return Reply(body=body.encode(), headers={"Content-Type": "application/json", "ETag": self._etag})

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        if not is_ranged:
            return Reply(body=data)
        return Reply(206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return Reply(body=b"".join(self._framed(digest) for digest in digests))

    def manifest(self, repo: RepoId, commit: Commit) -> str | None:
        found = self.manifests.get((repo, commit))
        return None if found is None else found.to_json()

    def ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        return self.refs.get((repo, revision))

    def catalog(self) -> dict[str, Any]:
        shared = [
            RevisionMessage(manifest.repo, manifest.commit, True, len(manifest.files), manifest.size_bytes, {})
            for manifest in self.manifests.values()
        ]
        return CatalogMessage(self.generation, tuple(shared)).to_json()

    def content(self, digest: Digest) -> bytes | None:
        """The bytes it has, or says it has, under a digest."""
        return self.blobs.get(digest)

    # ---- the door itself

    @property
    def _etag(self) -> str:
        return generation_etag(self.generation)

    def _framed(self, digest: Digest) -> bytes:
        data = self.content(digest)
        if data is None or len(data) > MAX_BATCH_BLOB_BYTES:
            return encode_batch_header(digest, None)
        return encode_batch_header(digest, len(data)) + data

    def _blob_or_pieces(self, request: Request) -> Reply:
        name, _, rest = request.path.removeprefix(BLOBS_PREFIX).partition("/")
        data = self.content(Digest.parse(name))
        if data is None:
            return Reply(404)
        pieces = json.dumps(PieceMap(len(data), PIECE_BYTES, 1, None).to_json()).encode() + b"\n"
        if rest == "pieces":
            return Reply(body=pieces)
        if rest == "follow":
            in_chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(pieces), pieces)
            return Reply(body=in_chunks, headers={"Transfer-Encoding": "chunked"}, length=-1)
        if rest == "digests":
            extents = map(PieceGrid(len(data)).range_of, range(PieceGrid(len(data)).count))
            data = bytes.fromhex("".join(piece_digest(data[start:stop]) for start, stop in extents))
        wanted = request.headers.get("range", "")
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = (int(first), min(int(last) + 1, len(data))) if wanted else (0, len(data))
        return self.blob(data, start, stop, is_ranged=bool(wanted))

    def _document(self, path: str, query: Mapping[str, str]) -> Any:
        if path == NODE_PATH:
            return NodeMessage(self.node_id, self.name, "1.0", PROTOCOL_VERSION, self.generation).to_json()
        if path == CATALOG_PATH:
            return self.catalog()
        if path == PEERS_PATH:
            return PeersMessage(self.peers).to_json()
        if path == COPIES_PATH:
            asked = parse_asked_digests(query["digests"])
            return CopiesMessage(frozenset(asked) & self.blobs.keys()).to_json()
        if path.startswith(MANIFESTS_PREFIX):
            repo, _, commit = path.removeprefix(MANIFESTS_PREFIX).rpartition("/")
            return self.manifest(RepoId.from_api_path(repo), Commit.parse(commit))
        if path.startswith(REFS_PREFIX):
            repo, _, revision = path.removeprefix(REFS_PREFIX).rpartition("/")
            ref = self.ref(RepoId.from_api_path(repo), Revision.parse(unquote(revision)))
            return None if ref is None else ref.to_json()
        return None

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name=f"peer-{self.name}-c", daemon=True)
            with self._came:
                self.connections += 1
                self._live[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), connection.makefile("rb") as reader:
            while (request := _read_request(reader)) is not None:
                with self._came:
                    self.requests.append(request)
                    self._came.notify_all()
                if not self._send(connection, self.answer(request)):
                    break
        with self._came:
            self._live.pop(connection, None)
        connection.close()

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        """Whether the connection goes on after this reply."""
        length = len(reply.body) if reply.length is None else reply.length
        headers = {**reply.headers, **({} if length < 0 else {"Content-Length": str(length)})}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"HTTP/1.1 {reply.status} Said\r\n{head}\r\n".encode())
        while reply.is_endless:
            connection.sendall(reply.body)
        ends = [at for at in (reply.cuts_at, reply.ends_at, reply.stalls_at) if at is not None]
        self._send_paced(connection, memoryview(reply.body)[: min(ends, default=None)])
        if reply.stalls_at is not None:
            self._stall(connection)
        if reply.cuts_at is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return not ends and length >= 0

    def _send_paced(self, connection: socket.socket, body: memoryview) -> None:
        rate = self.bytes_per_second
        chunk = CHUNK_BYTES if rate is None else max(1, int(rate / 20))
        for offset in range(0, len(body), chunk):
            connection.sendall(body[offset : offset + chunk])
            self.sent_bytes += len(body[offset : offset + chunk])
            if rate is not None and self._stopping.wait(chunk / rate):
                return

    def _stall(self, connection: socket.socket) -> None:
        """Says nothing more until the other side gives up or this one is stopped."""
        connection.recv(1)


class UnreachablePeer(GoodPeer):
    """No program listens at its address, which stays reserved."""

    def start(self) -> None:
        self._server = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        self._server.bind((self._host, 0))
        self._address = Address(self._host, self._server.getsockname()[1])

    def stop(self) -> None:
        self._server.close()


class SilentPeer(GoodPeer):
    """Takes every connection and every request, and never answers."""

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        self._stall(connection)
        return False


class StallingPeer(GoodPeer):
    """Stops in the middle of a body and keeps the connection open."""

    stalls_at_share = 0.5

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        good = super().blob(data, start, stop, is_ranged=is_ranged)
        return replace(good, stalls_at=int(len(good.body) * self.stalls_at_share))


class SlowPeer(GoodPeer):
    """Gives everything that is asked, at 64 KiB a second; set `bytes_per_second` for another rate."""

    bytes_per_second = 64 * 1024


class FlakyPeer(GoodPeer):
    """The connection breaks after 40 % of each body."""

    breaks_at_share = 0.4

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        good = super().blob(data, start, stop, is_ranged=is_ranged)
        return replace(good, cuts_at=int(len(good.body) * self.breaks_at_share))

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        good = super().batch(digests)
        return replace(good, cuts_at=int(len(good.body) * self.breaks_at_share))


class TruncatingPeer(GoodPeer):
    """Announces the right length and closes politely one byte before it."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        good = super().blob(data, start, stop, is_ranged=is_ranged)
        return replace(good, ends_at=len(good.body) - 1)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        good = super().batch(digests)
        return replace(good, ends_at=len(good.body) - 1)


class LyingPeer(GoodPeer):
    """Right length, wrong bytes: in every body one byte out of each 4096, and the first, is another."""

    def content(self, digest: Digest) -> bytes | None:
        data = self.blobs.get(digest)
        if not data:
            return data
        wrong = bytearray(data)
        wrong[::4096] = bytes(byte ^ 0xFF for byte in wrong[::4096])
        return bytes(wrong)


class WrongLengthPeer(GoodPeer):
    """Says that its blobs are one byte longer than they are, and sends that byte."""

    def content(self, digest: Digest) -> bytes | None:
        data = self.blobs.get(digest)
        return None if data is None else data + b"!"

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return super().blob(data, start, min(stop + 1, len(data)), is_ranged=is_ranged)


class WrongRangePeer(GoodPeer):
    """Answers 206 with as many bytes as were asked, from another place in the blob."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        moved = start - 1 if start else start + 1
        good = super().blob(data + b"!", moved, moved + stop - start, is_ranged=is_ranged)
        return replace(good, headers={"Content-Range": f"bytes {moved}-{moved + stop - start - 1}/{len(data)}"})


class IgnoresRangePeer(GoodPeer):
    """Answers every range with 200 and the whole blob."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return super().blob(data, 0, len(data), is_ranged=False)


class GzippingPeer(GoodPeer):
    """Compresses whatever it sends, asked or not."""

    def answer(self, request: Request) -> Reply:
        good = super().answer(request)
        headers = {**good.headers, "Content-Encoding": "gzip"}
        return replace(good, body=gzip.compress(good.body, 1), headers=headers)


class ForgingManifestPeer(GoodPeer):
    """Has a blob of its own for the first file of each listing, and serves it readily."""

    forged = b"this is not what the commit says"

    def manifest(self, repo: RepoId, commit: Commit) -> str | None:
        real = self.manifests.get((repo, commit))
        if real is None:
            return None
        first, *others = real.files
        digest = digest_of(self.forged, first.digest.algorithm)
        fake = replace(first, size_bytes=len(self.forged), digest=digest)
        return replace(real, files=(fake, *others)).to_json()

    def content(self, digest: Digest) -> bytes | None:
        is_forged = digest == digest_of(self.forged, digest.algorithm)
        return self.forged if is_forged else super().content(digest)


class PassingOffPointersPeer(GoodPeer):
    """Lists each LFS file as the plain file that its pointer is: the trees fold to the commit all the same."""

    def manifest(self, repo: RepoId, commit: Commit) -> str | None:
        real = self.manifests.get((repo, commit))
        return None if real is None else replace(real, files=tuple(map(self._passed_off, real.files))).to_json()

    def content(self, digest: Digest) -> bytes | None:
        pointers = (pointer_text(f.digest.hex, f.size_bytes) for m in self.manifests.values() for f in m.files)
        return next((text for text in pointers if digest_of(text, digest.algorithm) == digest), super().content(digest))

    @staticmethod
    def _passed_off(file: ManifestFile) -> ManifestFile:
        if not file.is_lfs:
            return file
        size_bytes = len(pointer_text(file.digest.hex, file.size_bytes))
        return ManifestFile(file.path, size_bytes, Digest("git-sha1", file.blob_id), file.mode)


class ForgingSizesPeer(GoodPeer):
    """Lists plain files with other sizes than they have, which no tree contradicts."""

    def manifest(self, repo: RepoId, commit: Commit) -> str | None:
        real = self.manifests.get((repo, commit))
        if real is None:
            return None
        files = (f if f.is_lfs else replace(f, size_bytes=f.size_bytes + 1) for f in real.files)
        return replace(real, files=tuple(files)).to_json()


class ForgingRefsPeer(GoodPeer):
    """Claims for every revision to know the latest commit: a commit that it made up."""

    forged = Commit("f" * 40)

    def ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        return RefMessage(self.forged, time.time() + 3600, "https://huggingface.co")


class HugeMessagePeer(GoodPeer):
    """Its messages never end."""

    def message(self, request: Request) -> Reply:
        return Reply(body=b" " * CHUNK_BYTES, length=-1, is_endless=True)


class RedirectingPeer(GoodPeer):
    """Redirects each client to another host; set `target` to watch whether a client follows."""

    target = "http://127.0.0.1:1"

    def answer(self, request: Request) -> Reply:
        return Reply(302, headers={"Location": f"{self.target}{request.path}", "Set-Cookie": "seen=1; Path=/"})


class PathTraversalPeer(GoodPeer):
    """The names in its listings lead out of any folder they are put in."""

    names = ("../../../../escaped", "/escaped", "a/../../escaped", "a\\..\\escaped", "C:/escaped", "nul\0l")

    def manifest(self, repo: RepoId, commit: Commit) -> str | None:
        real = super().manifest(repo, commit)
        if real is None:
            return None
        document = json.loads(real)
        for file, name in zip(document["files"], self.names, strict=False):
            file["path"] = name
        return json.dumps(document)

    def catalog(self) -> dict[str, Any]:
        document = super().catalog()
        for revision in document["revisions"]:
            revision["repo"] = "models/../../../escaped"
        return document


BAD_AT_BODIES: tuple[type[GoodPeer], ...] = (
    UnreachablePeer,
    SilentPeer,
    StallingPeer,
    FlakyPeer,
    TruncatingPeer,
    WrongLengthPeer,
    WrongRangePeer,
    GzippingPeer,
    RedirectingPeer,
)
"""Peers of which a client notices at once that the body is not what was asked; LyingPeer only the hash finds out."""

CAST: tuple[type[GoodPeer], ...] = (
    *BAD_AT_BODIES,
    SlowPeer,
    LyingPeer,
    IgnoresRangePeer,
    ForgingManifestPeer,
    ForgingSizesPeer,
    PassingOffPointersPeer,
    ForgingRefsPeer,
    HugeMessagePeer,
    PathTraversalPeer,
)
"""All the bad peers."""


def _read_request(reader: Any) -> Request | None:
    line = reader.readline(65536)
    if not line.strip():
        return None
    method, target, _ = line.decode("ascii").split(" ", 2)
    headers: dict[str, str] = {}
    while (header := reader.readline(65536).strip()) != b"":
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    return Request(method, url.path, query, headers)
