"""A node in memory: Operations and Provider with nothing behind them but what a test puts in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfpeer.config.peer_names import parse_peer
from hfpeer.control.operations import (
    AddRequest,
    AdoptReport,
    AdoptRequest,
    AttachRequest,
    CachedFile,
    CachedRevision,
    CacheReport,
    CleanReport,
    CleanRequest,
    FollowedRepo,
    Forgotten,
    HistoryEntry,
    Holding,
    ListedCommit,
    ListedFile,
    NodeStatus,
    PeerStatus,
    Provenance,
    Published,
    PublishRequest,
    RepairReport,
    RepairRequest,
    TransferStatus,
    VerifyReport,
    VerifyRequest,
)
from hfpeer.errors import NotFound
from hfpeer.manifest import Manifest
from hfpeer.names import MAIN, Commit, Digest, FilePath, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.peers.protocol.copies import CopiesMessage
from hfpeer.peers.protocol.messages import CatalogMessage, NodeMessage, RefMessage, RevisionMessage
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.events import Event, Finished, OnEvent
from hfpeer.version import __version__

COMMIT = Commit("ab" * 20)
TRANSFER = TransferStatus(7, "org/name", "main", COMMIT, "running", present_bytes=1, size_bytes=2, files=1)


class MemoryBlob:
    """An open file, whole or with gaps."""

    def __init__(
        self, path: Path, ranges: RangeSet | None, on_close: Callable[[], None], coming: queue.Queue[int] | None = None
    ) -> None:
        """`coming` gives how far the bytes are there by now, again and again."""
        self.fd = os.open(path, os.O_RDONLY)
        self.size_bytes = os.fstat(self.fd).st_size
        self._ranges = ranges
        self._on_close = on_close
        self._coming = coming

    def present(self) -> RangeSet | None:
        return self._ranges

    def is_coming(self, start: int, stop: int) -> bool:
        return self._coming is not None

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        assert self._coming is not None
        return min(stop, self._coming.get(timeout=seconds))

    def close(self) -> None:
        os.close(self.fd)
        self._on_close()


class MemoryNode:
    """`put` shares a file, `partial` limits a shared blob to what is here; `cached`, `found`, `peers` are what the
    operations answer. An `add` tells `events`, waits for `gate` if there is one, then raises `failure` or finishes.
    Every operation is remembered in `calls` as (name, arguments)."""

    def __init__(self, name: str = "memory") -> None:
        self.started_at = time.time()
        self.name = name
        self.blobs: dict[Digest, Path] = {}
        self.sizes: dict[Digest, int] = {}
        self.leaving: set[Digest] = set()
        self.coming: dict[Digest, queue.Queue[int]] = {}
        self.partial: dict[Digest, RangeSet] = {}
        self.manifests: dict[tuple[RepoId, Commit], Manifest] = {}
        self.refs: dict[tuple[RepoId, Revision], RefMessage] = {}
        self.cached: list[CachedRevision] = []
        self.found: list[Holding] = []
        self.provenance: list[Provenance] = []
        self.listeners: dict[str, str] = {}
        self.peers: dict[str, PeerStatus] = {}
        self.asked_by: list[tuple[str, str]] = []
        self.report = VerifyReport("/cache", False, (), ())
        self.adopted = AdoptReport((), 0, 0, 0, 0, 0, 0, {})
        self.repaired = RepairReport("/cache", False, (), self.report)
        self.transfers: list[TransferStatus] = []
        self.followed: list[FollowedRepo] = []
        self.entries: list[HistoryEntry] = []
        self.events: list[Event] = []
        self.gate: asyncio.Event | None = None
        self.failure: Exception | None = None
        self.stored = CacheReport("/cache", (), (), (), (), 0, 0, 0, 0)
        self.cleaned = CleanReport(False, (), (), 0)
        self.generation = 1
        self.news: asyncio.Queue[PieceNews] = asyncio.Queue()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.sent_bytes = 0
        self.open_blobs = 0
        self.running_adds = 0
        self.add_ended = asyncio.Event()
        self.is_started = False
        self.endpoint = None

    def put(self, path: Path) -> Digest:
        """Makes a file a shared blob."""
        content = path.read_bytes()
        digest = Digest("sha256", hashlib.sha256(content).hexdigest())
        self.blobs[digest] = path
        self.sizes[digest] = len(content)
        return digest

    async def start(self, lan_address: Address | None) -> None:
        self.calls.append(("start", {"lan_address": lan_address}))
        self.is_started = True

    async def stop(self) -> None:
        self.is_started = False

    # Operations

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        self.calls.append(("add", {"request": request}))
        self.running_adds += 1
        try:
            for event in self.events:
                on_event(event)
            if self.gate is not None:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            return Finished(str(request.repo), COMMIT, f"/cache/{request.repo.folder}/{COMMIT}", 1, 2, 0, {"peer": 2})
        finally:
            self.running_adds -= 1
            self.add_ended.set()

    async def list_commit(self, request: AddRequest) -> ListedCommit:
        self._record("list_commit", request=request)
        files = (ListedFile("a.json", 2, "git-sha1:" + "0" * 40, True, True),)
        kind, folder = request.repo.type.value, f"/cache/{request.repo.folder}/{COMMIT}"
        return ListedCommit(request.repo.full_name, kind, COMMIT, folder, "public", True, files)

    async def begin_transfer(self, request: AddRequest, priority: str = "normal") -> TransferStatus:
        self._record("begin_transfer", request=request, priority=priority)
        if self.failure is not None:
            raise self.failure
        return replace(TRANSFER, id=len(self.calls), repo=str(request.repo), priority=priority, state="queued")

    async def attach(self, request: AttachRequest, on_event: OnEvent) -> Finished:
        self.calls.append(("attach", {"request": request}))
        for event in self.events:
            on_event(event)
        if self.failure is not None:
            raise self.failure
        return Finished("org/name", COMMIT, f"/cache/{COMMIT}", 1, 2, 0, {"peer": 2})

    async def leave_transfer(self, id: int, follower: int) -> str:
        self._record("leave_transfer", id=id, follower=follower)
        return "paused"

    async def list_transfers(self) -> list[TransferStatus]:
        self._record("list_transfers")
        return self.transfers

    async def change_transfers(self, ids: tuple[int, ...], change: str) -> list[TransferStatus]:
        self._record("change_transfers", ids=ids, change=change)
        known = {one.id: one for one in self.transfers}
        if not set(ids) <= known.keys():
            raise NotFound(f"There is no transfer {max(ids)}.", hint="`hfpeer transfers` lists them.")
        return [known[id] for id in ids]

    async def history(self, since: float = 0.0) -> list[HistoryEntry]:
        self._record("history", since=since)
        return [entry for entry in self.entries if entry.ended_at > since]

    async def follow_repo(self, wanted: FollowedRepo) -> FollowedRepo:
        self._record("follow_repo", wanted=wanted)
        return wanted

    async def unfollow_repo(self, repo: RepoId, revision: Revision | None = None) -> list[FollowedRepo]:
        self._record("unfollow_repo", repo=repo, revision=revision)
        found = [one for one in self.followed if one.repo == repo]
        if not found:
            raise NotFound(f"{repo} is not followed.")
        return found

    async def list_followed(self) -> list[FollowedRepo]:
        self._record("list_followed")
        return self.followed

    async def verify(self, request: VerifyRequest, on_event: OnEvent) -> VerifyReport:
        self.calls.append(("verify", {"request": request}))
        for event in self.events:
            on_event(event)
        if self.failure is not None:
            raise self.failure
        return self.report

    async def repair(self, request: RepairRequest, on_event: OnEvent) -> RepairReport:
        self.calls.append(("repair", {"request": request}))
        for event in self.events:
            on_event(event)
        if self.failure is not None:
            raise self.failure
        return self.repaired

    async def adopt(self, request: AdoptRequest, on_event: OnEvent) -> AdoptReport:
        self.calls.append(("adopt", {"request": request}))
        for event in self.events:
            on_event(event)
        if self.failure is not None:
            raise self.failure
        return self.adopted

    async def forget_adopted(self, places: tuple[str, ...] = ()) -> Forgotten:
        self._record("forget_adopted", places=places)
        return Forgotten(2, 20)

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        self._record("list_revisions", repo=repo, revision=revision)
        found = [
            row for row in self.cached if repo is None or (row.repo, row.type) == (repo.full_name, repo.type.value)
        ]
        if revision is not None and not found:
            raise NotFound(f"{repo} is not in the cache.", repo=str(repo))
        return found

    async def cache_report(self) -> CacheReport:
        self._record("cache_report")
        return self.stored

    async def clean(self, request: CleanRequest) -> CleanReport:
        self._record("clean", request=request)
        if self.failure is not None:
            raise self.failure
        return replace(self.cleaned, is_dry_run=request.is_dry_run)

    async def search(
        self, repo: RepoId | None, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        self._record("search", repo=repo, revision=revision, files=files)
        return self.found

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        self._record("why", repo=repo, revision=revision, files=files)
        return self.provenance

    async def publish(self, request: PublishRequest, on_event: OnEvent) -> Published:
        self._record("publish", request=request)
        return Published(str(request.repo), COMMIT, f"/cache/{request.repo.folder}", 2, 20, ("model.safetensors",))

    async def add_peer(self, address: str) -> PeerStatus:
        self._record("add_peer", address=address)
        peer = PeerStatus("id", "peer", str(parse_peer(address)), "alive", "static", last_seen_seconds_ago=0.5)
        self.peers[address] = peer
        return peer

    async def remove_peer(self, address: str) -> None:
        self._record("remove_peer", address=address)
        if self.peers.pop(address, None) is None:
            raise NotFound(f"There is no static peer {address}.", address=address)

    async def list_peers(self) -> list[PeerStatus]:
        self._record("list_peers")
        return list(self.peers.values())

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        self._record("share", repo=repo, is_shared=is_shared)
        return [replace(row, is_shared=bool(is_shared)) for row in self.cached]

    async def status(self) -> NodeStatus:
        return NodeStatus(
            node_id="00" * 8,
            name=self.name,
            version=__version__,
            pid=os.getpid(),
            home="/home",
            cache="/cache",
            started_at=self.started_at,
            listeners=dict(self.listeners),
            upstreams={"huggingface.co": "origin"},
            peers=tuple(self.peers.values()),
            received_bytes={"peer": 5, "origin": 7},
            sent_bytes=self.sent_bytes,
            revisions=len(self.cached),
            files=3,
            size_bytes=11,
            unverified_files=0,
            is_daemon=False,
        )

    # Provider

    @property
    def adds_of_others(self) -> None:
        return None

    @property
    def provider(self) -> MemoryNode:
        return self

    @property
    def identity(self) -> NodeMessage:
        return NodeMessage("00" * 8, self.name, "0", 1, self.generation)

    async def catalog(self) -> CatalogMessage:
        rows = [RevisionMessage(repo, commit, True, 1, 2, {"main": 1.0}) for repo, commit in self.manifests]
        return CatalogMessage(self.generation, tuple(rows))

    async def peer_addresses(self) -> list[str]:
        return [peer.address for peer in self.peers.values() if peer.state == "alive"]

    def note_asked(self, host: str, door: str) -> None:
        self.asked_by.append((host, door))

    async def shared_manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        return self.manifests.get((repo, commit))

    async def shared_ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        return self.refs.get((repo, revision))

    def read_shared(self, digests: Sequence[Digest], max_bytes: int) -> Iterator[bytes | None]:
        whole = (None if digest in self.partial else self.blobs.get(digest) for digest in digests)
        return (path.read_bytes() if path and path.stat().st_size <= max_bytes else None for path in whole)

    def open_shared(self, digest: Digest) -> MemoryBlob | None:
        if digest not in self.blobs:
            return None
        self.open_blobs += 1
        return MemoryBlob(self.blobs[digest], self.partial.get(digest), self._closed, self.coming.get(digest))

    async def piece_map(self, digest: Digest) -> PieceMap | None:
        if digest not in self.blobs:
            return None
        size_bytes = self.sizes[digest]
        return PieceMap(size_bytes, MIB, 1, self._bits(digest, size_bytes))

    async def copies(self, digests: Sequence[Digest]) -> CopiesMessage:
        return CopiesMessage(
            frozenset(self.blobs).intersection(digests) - frozenset(self.partial), frozenset(self.leaving)
        )

    async def follow(
        self, digest: Digest, asked_by: str, until: asyncio.Event
    ) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """The map, then the `news` that a test puts in for as long as the blob is partial."""
        first = await self.piece_map(digest)
        if first is not None:
            yield first
        while first is not None and digest in self.partial:
            yield await self.news.get()

    def note_sent(self, size_bytes: int) -> None:
        self.sent_bytes += size_bytes

    def _bits(self, digest: Digest, size_bytes: int) -> bytes | None:
        present = self.partial.get(digest)
        if present is None:
            return None
        grid = PieceGrid(size_bytes)
        bits = bytearray(-(-grid.count // 8))
        for piece in (piece for part in present for piece in grid.pieces_inside(*part)):
            bits[piece >> 3] |= 1 << (piece & 7)
        return bytes(bits)

    def _closed(self) -> None:
        self.open_blobs -= 1

    def _record(self, name: str, **arguments: Any) -> None:
        self.calls.append((name, arguments))


def cached_revision(repo: str = "org/name", type: str = "model") -> CachedRevision:
    """A row as `ls` shows it, with a listing of one file."""
    listing = (CachedFile("config.json", 2, f"git-sha1:{'cd' * 20}", True),)
    return CachedRevision(
        repo, type, COMMIT, ("main",), 1, 2, True, True, "public", True, 1.5, f"/cache/{repo}", listing
    )
