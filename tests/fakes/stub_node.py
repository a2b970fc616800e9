"""A node of plain values: it answers what it is told to, and remembers what it was asked. For tests of its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hfpeer.errors import NotFound
from hfpeer.names import FilePath, RepoId, Revision
from hfpeer.operations import (
    AddRequest,
    CachedFile,
    CachedRevision,
    Holding,
    NodeStatus,
    PeerStatus,
    Published,
    Removed,
)
from hfpeer.settings import Settings
from hfpeer.transfer.events import Event, Finished, Listener

COMMIT = "5a0d" * 10
TINY = CachedRevision(
    repo="acme/tiny",
    type="model",
    commit=COMMIT,
    refs=("main",),
    files=2,
    size_bytes=1_200_000,
    is_complete=True,
    is_proved=True,
    visibility="public",
    is_shared=True,
    used_at=0.0,
    snapshot="/cache/models--acme--tiny/snapshots/" + COMMIT,
    listing=(CachedFile("config.json", 20, "git-sha1:" + "0" * 40, True), CachedFile("w.bin", 5, "sha256:..", False)),
)
PEGASUS = PeerStatus("n1", "pegasus", "192.168.1.20:9437", "alive", "mdns", "0.1.0", 3, 2.0, 5_000_000)
FINISHED = Finished(
    repo="acme/tiny",
    commit=COMMIT,
    snapshot=TINY.snapshot,
    files=2,
    size_bytes=1_200_000,
    reused_bytes=200_000,
    bytes_by_source={"pegasus": 900_000, "hf-mirror.com": 100_000},
    bytes_by_kind={"peer": 900_000, "mirror": 100_000},
    seconds=2.0,
)
STATUS = NodeStatus(
    node_id="ab12",
    name="cygnus",
    version="0.1.0",
    pid=77,
    home="/home/me/hfpeer",
    cache="/cache",
    started_at=0.0,
    listeners={"lan": "0.0.0.0:9437"},
    upstreams={"hf-mirror.com": "mirror"},
    peers=(PEGASUS,),
    received_bytes={"peer": 900_000, "mirror": 100_000, "origin": 0},
    sent_bytes=5,
    revisions=1,
    files=2,
    size_bytes=1_200_000,
    unverified_files=0,
)


@dataclass
class StubNode:
    """Operations that answer with what they are told to, and remember what they were asked."""

    revisions: list[CachedRevision] = field(default_factory=lambda: [TINY])
    peers: list[PeerStatus] = field(default_factory=lambda: [PEGASUS])
    holdings: list[Holding] = field(default_factory=list)
    picture: NodeStatus = STATUS
    events: list[Event] = field(default_factory=list)
    finished: Finished = FINISHED
    failure: BaseException | None = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    sessions: int = 0

    @asynccontextmanager
    async def session(self, settings: Settings) -> AsyncIterator[StubNode]:
        self.sessions += 1
        yield self

    def _note(self, *words: Any) -> None:
        self.asked.append(words)
        if self.failure:
            raise self.failure

    async def add(self, request: AddRequest, on_event: Listener) -> Finished:
        for event in self.events:
            on_event(event)
            await asyncio.sleep(0)
        self._note("add", request)
        return self.finished

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        self._note("list_revisions", repo, revision)
        return self.revisions

    async def remove(self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()) -> Removed:
        self._note("remove", repo, revision, files)
        return Removed(str(repo), (COMMIT,), 2, 1_200_000)

    async def search(
        self, repo: RepoId, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        self._note("search", repo, revision, files)
        return self.holdings

    async def publish(self, folder: str, repo: RepoId) -> Published:
        self._note("publish", folder, repo)
        return Published(str(repo), COMMIT, TINY.snapshot, 2, 1_200_000)

    async def add_peer(self, address: str) -> PeerStatus:
        self._note("add_peer", address)
        return replace(PEGASUS, address=address)

    async def remove_peer(self, address: str) -> None:
        self._note("remove_peer", address)
        if all(peer.address != address for peer in self.peers):
            raise NotFound(f"No peer {address} was added.", hint="`hfpeer peer ls` lists them.")

    async def list_peers(self) -> list[PeerStatus]:
        self._note("list_peers")
        return self.peers

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        self._note("share", repo, is_shared)
        return self.revisions

    async def status(self) -> NodeStatus:
        self._note("status")
        return self.picture
