"""The broadcast of a fetch: the lines that its followers read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import MIB, PieceGrid, RangeSet
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.swarm.broadcast import Broadcast
from hfpeer.transfer.swarm.have_log import HaveLog

PIECES = 8


class Fetch:
    """A fetch whose pieces come when a test says so."""

    def __init__(self) -> None:
        size_bytes = PIECES * MIB
        self.blob = WantedBlob(
            Digest("sha256", "ab" * 32), size_bytes, RepoId.parse("a/b"), Commit("c" * 40), FilePath("model.bin")
        )
        self.result: Future[FetchReport] = Future()
        self.is_given = True
        self.membership = {"ara": 1}
        self.claimed = 0
        self.times_told = 0
        self._present = RangeSet()
        self._have_log = HaveLog(PieceGrid(size_bytes), self._present)

    def came(self, piece: int) -> None:
        self._present.add(piece * MIB, (piece + 1) * MIB)
        self._have_log.came(piece * MIB, (piece + 1) * MIB, self._present)

    def lost(self, piece: int) -> None:
        self._present.discard(piece * MIB, (piece + 1) * MIB)
        self._have_log.discard(piece * MIB, (piece + 1) * MIB)

    def piece_map(self) -> PieceMap:
        return self._have_log.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        self.times_told += 1
        news = self._have_log.since(version, self.claimed)
        return self._have_log.version, news and replace(news, members=dict(self.membership))


class Follower:
    """Follows, and keeps the lines."""

    def __init__(self, broadcast: Broadcast) -> None:
        self.told: list[PieceMap | PieceNews] = []
        self.is_told = asyncio.Event()
        self.task = asyncio.create_task(self._follow(broadcast))

    async def _follow(self, broadcast: Broadcast) -> None:
        async with aclosing(broadcast.lines()) as lines:
            async for line in lines:
                self.told.append(line)
                self.is_told.set()

    async def has(self, count: int) -> list[PieceMap | PieceNews]:
        """The lines that it was told, once they are `count`."""
        while len(self.told) < count:
            self.is_told.clear()
            await asyncio.wait_for(self.is_told.wait(), 20.0)
        return self.told

    def knows(self, piece: int) -> bool:
        return any(line.has(piece) if isinstance(line, PieceMap) else piece in line.added for line in self.told)


@asynccontextmanager
async def following(broadcast: Broadcast, count: int = 1) -> AsyncIterator[list[Follower]]:
    followers = [Follower(broadcast) for _ in range(count)]
    try:
        yield followers
    finally:
        for follower in followers:
            follower.task.cancel()
        await asyncio.gather(*(follower.task for follower in followers), return_exceptions=True)


async def test_news_is_serialized_once_for_all_followers() -> None:
    fetch = Fetch()
    async with following(Broadcast(fetch, asyncio.Event()), 3) as followers:
        for follower in followers:
            await follower.has(3)
        fetch.came(5)
        lines = [(await follower.has(4))[3] for follower in followers]
        assert lines[0].to_line() == b'{"added":[5],"claimed":[],"firsthand":{}}\n'
        assert all(line is lines[0] for line in lines)


async def test_a_late_follower_is_told_everything_at_once() -> None:
    fetch = Fetch()
    broadcast = Broadcast(fetch, asyncio.Event())
    async with following(broadcast) as (early,):
        await early.has(2)
        fetch.came(0)
        fetch.claimed = 1 << 3
        await early.has(3)
        async with following(broadcast) as (late,):
            first, second, *_ = await late.has(2)
            assert isinstance(first, PieceMap)
            assert first.has(0)
            assert isinstance(second, PieceNews)
            assert second.claimed == (3,)
            assert second.members == {"ara": 1}
            fetch.came(1)
            await late.has(3)
            await early.has(4)
            assert late.knows(1)
            assert early.knows(1)


async def test_after_wrong_pieces_the_whole_map_is_told_again() -> None:
    fetch = Fetch()
    fetch.came(0)
    fetch.came(1)
    async with following(Broadcast(fetch, asyncio.Event())) as (follower,):
        await follower.has(2)
        fetch.lost(0)
        again = (await follower.has(3))[2]
        assert isinstance(again, PieceMap)
        assert [again.has(0), again.has(1)] == [False, True]


async def test_after_a_verified_fetch_the_last_map_is_of_the_whole_blob() -> None:
    fetch = Fetch()
    async with following(Broadcast(fetch, asyncio.Event())) as (follower,):
        await follower.has(2)
        fetch.result.set_result(FetchReport())
        await asyncio.wait_for(follower.task, 20.0)
        assert isinstance(follower.told[-1], PieceMap)
        assert follower.told[-1].bitfield is None


async def test_after_a_stop_of_the_fetch_or_the_node_there_is_no_such_map() -> None:
    for ends in ("fetch", "node"):
        fetch, until = Fetch(), asyncio.Event()
        async with following(Broadcast(fetch, until)) as (follower,):
            await follower.has(2)
            if ends == "fetch":
                fetch.result.cancel()
            else:
                until.set()
            await asyncio.wait_for(follower.task, 20.0)
            assert not any(isinstance(line, PieceMap) and line.bitfield is None for line in follower.told)


async def test_without_followers_no_news_is_gathered() -> None:
    fetch = Fetch()
    broadcast = Broadcast(fetch, asyncio.Event())
    async with following(broadcast, 2) as followers:
        for follower in followers:
            await follower.has(2)
    told = fetch.times_told
    async with following(Broadcast(Fetch(), asyncio.Event())) as (other,):
        await other.has(3)
    assert fetch.times_told == told
    async with following(broadcast) as (again,):
        fetch.came(7)
        await again.has(3)
        assert again.knows(7)
