"""Tells all who follow a fetch what is new, at the same moments: news are gathered, and written, once for all of them.

With twelve nodes that follow each other, telling is the busiest work of a node but for the bytes. It belongs to one
event loop, and runs a timer only while somebody follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from hfpeer.transfer.fellows import Telling
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources import WantedBlob
from hfpeer.wire import PieceMap, PieceNews

NEWS_SECONDS = 0.1
"""How long news is gathered before it is told: each telling costs both ends."""


class Told(Protocol):
    """What goes on and is told to peers as it does: see `BlobFetch`."""

    @property
    def blob(self) -> WantedBlob: ...

    @property
    def result(self) -> Future[FetchReport]: ...

    def piece_map(self) -> PieceMap: ...

    def news_since(self, version: int) -> tuple[int, PieceNews | None]: ...


class Herald:
    """The herald of one fetch, until that has ended or `until` is set."""

    def __init__(self, told: Told, until: asyncio.Event) -> None:
        self.told = told
        self._until = until
        self._telling = Telling()
        self._version = self._version_before = 0
        self._line: PieceMap | PieceNews | None = None
        """What was told last, to those who knew what there was at `_version_before`."""
        self._has_news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._followers = 0

    async def lines(self) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """The map of the fetch, all that is known of its company, and the news as they come; a sign of life at least.
        When the fetch has ended well, a map that says so is the last."""
        self._join()
        try:
            first = self.told.piece_map()
            yield first
            version, line = self._since(first.version)
            while not self._is_over:
                yield line
                await self._has_news.wait()
                shared = self._line if version == self._version_before else None
                version, line = (self._version, shared) if shared is not None else self._since(version)
            if self._has_ended_well:
                yield replace(self.told.piece_map(), bits=None)
        finally:
            self._leave()

    @property
    def _is_over(self) -> bool:
        return self.told.result.done() or self._until.is_set()

    @property
    def _has_ended_well(self) -> bool:
        result = self.told.result
        return result.done() and not result.cancelled() and result.exception() is None

    def _since(self, version: int) -> tuple[int, PieceMap | PieceNews]:
        """What is new for one that knows a version, and the version that it knows then."""
        now, news = self.told.news_since(version)
        if news is not None:
            return now, news
        whole = self.told.piece_map()
        return whole.version, whole

    def _join(self) -> None:
        self._followers += 1
        if self._timer is None:
            self._version = self.told.piece_map().version
            self._timer = asyncio.get_running_loop().call_later(NEWS_SECONDS, self._tell)

    def _leave(self) -> None:
        self._followers -= 1
        if not self._followers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        """Wakes the followers if there is news, or the end."""
        loop = asyncio.get_running_loop()
        version, line = self._since(self._version)
        fresh = self._telling.fresh(line, loop.time()) if isinstance(line, PieceNews) else line
        if fresh is not None or self._is_over:
            self._version_before, self._version, self._line = self._version, version, fresh
            self._has_news.set()
            self._has_news = asyncio.Event()
        self._timer = None if self._is_over else loop.call_later(NEWS_SECONDS, self._tell)
