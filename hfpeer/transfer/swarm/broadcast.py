"""Tells all followers of a fetch its news, at the same moments: news is gathered and serialized once for all of them.

Among twelve nodes that follow each other this costs a node more than anything except the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import WantedBlob

NEWS_SECONDS = 0.1
"""Seconds for which news is gathered before it is told: each line costs both ends."""
MEMBERS_SECONDS = 0.5
"""Seconds after which new heartbeats of known members are told although there is no other news."""
SIGN_OF_LIFE_SECONDS = 5.0
"""Seconds after which a line is told although there is no news."""


class FollowerState:
    """The news that one follower has been told, except pieces."""

    def __init__(self) -> None:
        self._claimed: tuple[int, ...] = ()
        self._members: dict[str, int] = {}
        self._told_at = -SIGN_OF_LIFE_SECONDS

    def fresh(self, news: PieceNews, now: float) -> PieceNews | None:
        """The part of the news that is worth telling now; None when nothing is.

        New pieces, changed claims and new members are told at once, heartbeats of known members with the next news.
        """
        members = {node_id: beat for node_id, beat in news.members.items() if self._members.get(node_id, -1) < beat}
        quiet_seconds = now - self._told_at
        is_due = quiet_seconds >= (MEMBERS_SECONDS if members else SIGN_OF_LIFE_SECONDS)
        if not (news.added or news.claimed != self._claimed or members.keys() - self._members.keys() or is_due):
            return None
        self._claimed, self._members, self._told_at = news.claimed, dict(news.members), now
        return replace(news, members=members)


class BroadcastFetch(Protocol):
    """A fetch that peers can follow: of a blob, or of a bundle."""

    @property
    def blob(self) -> WantedBlob: ...

    @property
    def result(self) -> Future[FetchReport]: ...

    @property
    def is_given(self) -> bool:
        """Whether all that has come was given openly."""
        ...

    def piece_map(self) -> PieceMap: ...

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        """The version now, and the news since the given one; None when the whole map has to be told again."""
        ...


class Broadcast:
    """Of one fetch, until that has ended or `until` is set. Belongs to an event loop; has a timer only while it has
    followers."""

    def __init__(self, fetch: BroadcastFetch, until: asyncio.Event) -> None:
        self.fetch = fetch
        self._until = until
        self._state = FollowerState()
        self._version = self._version_before = 0
        self._line: PieceMap | PieceNews | None = None
        """The line for followers that know the fetch as of `_version_before`."""
        self._has_news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._followers = 0

    async def lines(self) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """The piece map, all members, then the news as it comes, or a sign of life. After a verified fetch the last
        line is a map of the whole blob."""
        self._join()
        try:
            first = self.fetch.piece_map()
            yield first
            version, line = self._since(first.version)
            while not self._is_over:
                yield line
                await self._has_news.wait()
                shared = self._line if version == self._version_before else None
                version, line = (self._version, shared) if shared is not None else self._since(version)
            if self._is_verified:
                yield replace(self.fetch.piece_map(), bitfield=None)
        finally:
            self._leave()

    @property
    def _is_over(self) -> bool:
        return self.fetch.result.done() or self._until.is_set()

    @property
    def _is_verified(self) -> bool:
        result = self.fetch.result
        return result.done() and not result.cancelled() and result.exception() is None

    def _since(self, version: int) -> tuple[int, PieceMap | PieceNews]:
        """The line for a follower that knows a version, and the version that it knows then."""
        now, news = self.fetch.news_since(version)
        if news is not None:
            return now, news
        whole = self.fetch.piece_map()
        return whole.version, whole

    def _join(self) -> None:
        self._followers += 1
        if self._timer is None:
            self._version = self.fetch.piece_map().version
            self._timer = asyncio.get_running_loop().call_later(NEWS_SECONDS, self._tell)

    def _leave(self) -> None:
        self._followers -= 1
        if not self._followers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        """Wakes the followers if there is news, or the fetch is over."""
        loop = asyncio.get_running_loop()
        version, line = self._since(self._version)
        fresh = self._state.fresh(line, loop.time()) if isinstance(line, PieceNews) else line
        if fresh is not None or self._is_over:
            self._version_before, self._version, self._line = self._version, version, fresh
            self._has_news.set()
            self._has_news = asyncio.Event()
        self._timer = None if self._is_over else loop.call_later(NEWS_SECONDS, self._tell)
