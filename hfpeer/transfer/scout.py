"""Who has a blob: follows the peers from before a fetch starts until it ends.

A peer that has the whole blob says so once; one that fetches it too is a fellow, and is followed: it tells what it
gets as it gets it. Asking is also how a peer learns that we want the blob, and asks us in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing, suppress
from typing import Protocol

from hfpeer.errors import HfpeerError
from hfpeer.tasks import end_tasks
from hfpeer.transfer.fetch import BlobFetch
from hfpeer.transfer.sources import PeerSource, UpstreamSource, WantedBlob
from hfpeer.wire import PieceMap, PieceNews

FIRST_LOOK_SECONDS = 2.0
"""How long the first answers of peers are waited for."""
HOLDER_GRACE_SECONDS = 0.1
"""How long the others are, once a peer has all of it."""
FELLOW_GRACE_SECONDS = 0.15
"""How long before the WAN is asked, when nobody has it, for peers that start just now to say that they want it too."""
ASK_AGAIN_SECONDS = 3.0
FIRST_REST_SECONDS = 0.05

Neighbours = Callable[[WantedBlob], Sequence[PeerSource]]
"""The peers that may be asked for a blob now, the likeliest first; bounded by whoever answers."""

Called = Callable[[Collection[str]], Sequence[PeerSource]]
"""Those of the nodes with these ids that can be asked."""


class Followed(Protocol):
    """What peers are followed for: one blob, or a lot of small ones that is followed as if it were one."""

    @property
    def blob(self) -> WantedBlob: ...

    def add_source(self, source: PeerSource, pieces: PieceMap) -> None:
        """A peer has it, or what the map says of it."""
        ...

    def hear(self, name: str, news: PieceNews) -> None: ...

    def fellow_left(self, name: str) -> None: ...

    def envoys_to_follow(self) -> Collection[str]:
        """The node ids of those that are to be followed whoever else is."""
        ...


class Scout:
    """Finds the sources of blobs. `upstreams` are in the order in which they are to be asked."""

    def __init__(
        self, neighbours: Neighbours, upstreams: Sequence[UpstreamSource], called: Called = lambda node_ids: ()
    ) -> None:
        self._neighbours = neighbours
        self._called = called
        self.upstreams = tuple(upstreams)

    def peers_for(self, blob: WantedBlob) -> Sequence[PeerSource]:
        return self._neighbours(blob)

    def watch(self, fetch: Followed) -> Watch:
        """Begins to follow the peers for a fetch; to be stopped with it."""
        return Watch(self._neighbours, fetch, self._called)

    def add_upstreams(self, fetch: BlobFetch) -> None:
        for upstream in self.upstreams:
            fetch.add_source(upstream)


class Watch:
    """The peers followed for one fetch. Belongs to the event loop in which it was made."""

    def __init__(self, neighbours: Neighbours, fetch: Followed, called: Called) -> None:
        self._neighbours = neighbours
        self._called = called
        self._fetch = fetch
        self._has_asked: dict[str, asyncio.Event] = {}
        """By the node id of every peer that was met."""
        self._answered: dict[str, asyncio.Event] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._has_holder = asyncio.Event()
        self._follow_new()
        self._looking = asyncio.create_task(self._look_for_new())

    def heard_of(self, node_id: str) -> None:
        """This peer has asked for the blob: if it had nothing so far, it is asked again soon."""
        if node_id in self._has_asked:
            self._has_asked[node_id].set()
        self._follow_new()

    async def answers(self, seconds: float) -> None:
        """Waits until the peers that are known have answered, and at most so long."""
        waiting = [asyncio.ensure_future(event.wait()) for event in self._answered.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
            await end_tasks(waiting)

    async def settle(self) -> None:
        """Waits until the peers that are known have answered, within the times above."""
        answers = [event.wait() for event in self._answered.values()]
        if not answers:
            return
        answering = asyncio.gather(*answers)
        holding = asyncio.create_task(self._has_holder.wait())
        try:
            await asyncio.wait((answering, holding), timeout=FIRST_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if holding.done():
                await asyncio.wait((answering,), timeout=HOLDER_GRACE_SECONDS)
            else:
                await asyncio.wait((holding,), timeout=FELLOW_GRACE_SECONDS)
        finally:
            holding.cancel()
            answering.cancel()
            await asyncio.gather(holding, answering, return_exceptions=True)

    async def stop(self) -> None:
        await end_tasks([self._looking, *self._following.values()])

    async def _look_for_new(self) -> None:
        while True:
            await asyncio.sleep(ASK_AGAIN_SECONDS)
            self._follow_new()

    def _follow_new(self) -> None:
        self._follow_these(self._neighbours(self._fetch.blob))

    def _follow_envoys(self) -> None:
        """Those who ask the holders of a blob know each other, however many others there are."""
        unmet = set(self._fetch.envoys_to_follow()) - self._has_asked.keys()
        if unmet:
            self._follow_these(self._called(unmet))

    def _follow_these(self, peers: Sequence[PeerSource]) -> None:
        for peer in peers:
            if peer.name not in self._following and peer.node_id not in self._has_asked:
                self._has_asked[peer.node_id] = asyncio.Event()
                self._answered[peer.name] = asyncio.Event()
                self._following[peer.name] = asyncio.create_task(self._follow(peer), name=f"follow {peer.name}")

    async def _follow(self, peer: PeerSource) -> None:
        """Until the peer has all of the blob, or this is cancelled.

        One that has asked for the blob will have something to tell in moments: when it has made its file, or has learnt
        that it may share it. But two that tell each other nothing must not ask each other for ever: each time one had
        nothing to tell it is left alone for longer.
        """
        has_asked = self._has_asked[peer.node_id]
        rest_seconds = FIRST_REST_SECONDS
        while True:
            asked_at = time.monotonic()
            if await self._hear(peer):
                return
            self._answered[peer.name].set()
            has_told = time.monotonic() - asked_at > ASK_AGAIN_SECONDS
            if has_told:
                rest_seconds = FIRST_REST_SECONDS
            if has_asked.is_set():
                await asyncio.sleep(rest_seconds)
                rest_seconds = min(2 * rest_seconds, ASK_AGAIN_SECONDS)
            else:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(has_asked.wait(), ASK_AGAIN_SECONDS)

    async def _hear(self, peer: PeerSource) -> bool:
        """What a peer tells, to the end. Whether it has all of the blob now."""
        is_fellow = False
        try:
            async with aclosing(peer.client.follow(self._fetch.blob.digest)) as lines:
                async for line in lines:
                    if not isinstance(line, PieceMap):
                        self._fetch.hear(peer.name, line)
                        if line.company:
                            self._follow_envoys()
                        continue
                    self._fetch.add_source(peer, line)
                    is_fellow = line.bits is not None
                    if not is_fellow:
                        self._has_holder.set()
                    self._answered[peer.name].set()
                    if not is_fellow:
                        return True
        except HfpeerError:
            pass
        if is_fellow:
            self._fetch.fellow_left(peer.name)
        return False
