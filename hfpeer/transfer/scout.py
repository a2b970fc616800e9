"""Who has a blob: asks the peers before a fetch starts, and goes on asking while it runs.

A peer's answer is its piece map; asking is also how a peer learns that we want the blob. A map that is not whole
yet is followed by long polls, so that a peer which is still fetching gives on what it has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from hfpeer.errors import HfpeerError
from hfpeer.transfer.fetch import BlobFetch
from hfpeer.transfer.sources import PeerSource, UpstreamSource, WantedBlob
from hfpeer.wire import PieceMap

FIRST_LOOK_SECONDS = 2.0
GRACE_SECONDS = 0.1
LONG_POLL_SECONDS = 20.0
ASK_AGAIN_SECONDS = 3.0

Neighbours = Callable[[WantedBlob], Sequence[PeerSource]]
"""The peers that may be asked for a blob now, the likeliest first; bounded by whoever answers."""


class Scout:
    """Finds the sources of blobs. `upstreams` are in the order in which they are to be asked."""

    def __init__(self, neighbours: Neighbours, upstreams: Sequence[UpstreamSource]) -> None:
        self._neighbours = neighbours
        self.upstreams = tuple(upstreams)

    def peers_for(self, blob: WantedBlob) -> Sequence[PeerSource]:
        return self._neighbours(blob)

    async def look(self, fetch: BlobFetch, blob: WantedBlob, *, asks_peers: bool) -> None:
        """Gives a fetch its first sources: every peer that answers in time, then the upstreams.

        Once a peer has all of it the others get a moment only; `watch` finds them later.
        """
        asking = {asyncio.create_task(self._ask(fetch, blob, peer)) for peer in self._neighbours(blob) if asks_peers}
        deadline = time.monotonic() + FIRST_LOOK_SECONDS
        try:
            while asking and (left := deadline - time.monotonic()) > 0:
                done, asking = await asyncio.wait(asking, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result() for task in done):
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        for upstream in self.upstreams:
            fetch.add_source(upstream)

    async def watch(self, fetch: BlobFetch, blob: WantedBlob) -> None:
        """Follows the peers until cancelled: new ones, and what those that fetch it too have got since."""
        followers: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for peer in self._neighbours(blob):
                    if peer.name not in followers:
                        followers[peer.name] = asyncio.create_task(self._follow(fetch, blob, peer))
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        finally:
            for follower in followers.values():
                follower.cancel()
            await asyncio.gather(*followers.values(), return_exceptions=True)

    async def _ask(self, fetch: BlobFetch, blob: WantedBlob, peer: PeerSource) -> bool:
        """Whether the peer says that it has all of it."""
        try:
            pieces = await peer.client.pieces(blob.digest)
        except HfpeerError:
            return False
        if pieces is None:
            return False
        fetch.add_source(peer, pieces)
        return pieces.bits is None

    async def _follow(self, fetch: BlobFetch, blob: WantedBlob, peer: PeerSource) -> None:
        pieces: PieceMap | None = None
        while True:
            asked_at = time.monotonic()
            try:
                pieces = await peer.client.pieces(
                    blob.digest, after=pieces.version if pieces else None, wait_seconds=LONG_POLL_SECONDS
                )
            except HfpeerError:
                pieces = None
            if pieces is not None:
                fetch.add_source(peer, pieces)
                if pieces.bits is None:
                    return
            is_answered_late = time.monotonic() - asked_at >= 0.05
            await asyncio.sleep(0 if pieces and is_answered_late else ASK_AGAIN_SECONDS if pieces is None else 0.05)
