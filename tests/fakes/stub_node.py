"""Adds what tests of a node's callers need to a MemoryNode: a cached repo, a peer, a status, the end of an add."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fakes.node import MemoryNode
from hfpeer.config.settings import Settings
from hfpeer.control.operations import AddRequest, CachedFile, CachedRevision, NodeStatus, PeerStatus
from hfpeer.transfer.events import Finished, OnEvent

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


class StubNode(MemoryNode):
    """A MemoryNode with one repo and one peer, whose adds end as `finished` says and whose status is `picture`.

    `broken` is raised by every operation that the command line calls through a session.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cached = [TINY]
        self.peers = {PEGASUS.address: PEGASUS}
        self.finished = FINISHED
        self.picture = STATUS
        self.broken: BaseException | None = None
        self.sessions = 0

    @asynccontextmanager
    async def session(self, settings: Settings) -> AsyncIterator[StubNode]:
        self.sessions += 1
        if self.broken is not None:
            raise self.broken
        yield self

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        await super().add(request, on_event)
        await asyncio.sleep(0)
        return self.finished

    async def status(self) -> NodeStatus:
        return replace(self.picture, peers=tuple(self.peers.values()))
