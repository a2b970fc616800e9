"""A blob that is read while it may still be growing or unverified: how far it can be read now, and until when to wait.

Of every blob the same few bytes are held back until the whole is verified: whoever asks, in however many ranges, over
however many lives of the daemon, wrong bytes never make a complete file. They lie a little before the end, so that what
readers look for first, the end itself, comes as soon as it is here. While a caller waits for them, some go out now and
then, because a client takes ten seconds without a byte for the end; the last of them never does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Protocol

from hfpeer.errors import CorruptData, HfpeerError, Unreachable
from hfpeer.ranges import MIB, ByteRange
from hfpeer.transfer.fetch import BlobFetch

RESERVE_BYTES = 64 * 1024
"""How much is held back until the whole is verified."""
END_BYTES = 8 * MIB
"""How far before the end that is, or a quarter of the blob if that is less. Indexes lie behind it: a zip's directory, a
parquet file's footer."""
TRICKLE_SECONDS = 3.0
TRICKLE_BYTES = 128
WINDOW_BYTES = 32 * MIB
"""How much from where a caller stands is fetched before everything else."""
STRETCH_BYTES = 16 * MIB
"""The most that is handed out at once."""

_numbers = count(1)


class Growth(Protocol):
    """Where the bytes of a reading come from."""

    @property
    def is_verified(self) -> bool: ...

    def readable_stop(self, start: int, stop: int) -> int:
        """How far the bytes from `start` are there without a gap, at most to `stop`."""
        ...

    def prefer(self, reader: int, start: int, stop: int) -> None: ...

    def check(self) -> None:
        """Raises what ended it without success."""
        ...

    def wrong_since(self, number: int) -> list[ByteRange]:
        """Bytes found wrong, but for the first `number` finds."""
        ...


def reserve_of(size_bytes: int) -> ByteRange:
    """What is held back of an unverified blob of this size; never empty but for an empty blob."""
    stop = size_bytes - min(END_BYTES, size_bytes // 4)
    return ByteRange(max(0, stop - RESERVE_BYTES), stop)


class Reading:
    """One caller's reading of an open file. `fd` stays readable whatever becomes of the file's name."""

    def __init__(
        self, fd: int, size_bytes: int, growth: Growth | None, on_close: Callable[[], Awaitable[None]]
    ) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        self._growth = growth
        self._reserve = reserve_of(size_bytes)
        self._on_close = on_close
        self._changed = asyncio.Event()
        self._wrong_seen = len(growth.wrong_since(0)) if growth else 0
        self._began_at: int | None = None
        self.number = next(_numbers)

    @property
    def is_verified(self) -> bool:
        return self._growth is None or self._growth.is_verified

    def changed(self) -> None:
        """To be called in the loop whenever there may be more to read."""
        self._changed.set()

    async def readable(self, position: int, stop: int) -> int:
        """Waits until there is something to read at `position`; how far, at most to `stop`.

        Raises what ended the fetch, CorruptData when bytes before `position` have turned out to be wrong.
        """
        self._began_at = position if self._began_at is None else self._began_at
        growth = self._growth
        if growth is None:
            return min(stop, position + STRETCH_BYTES)
        growth.prefer(self.number, position, min(self.size_bytes, position + WINDOW_BYTES))
        while True:
            self._check_given(growth, position)
            is_free = growth.is_verified or position >= self._reserve.stop
            limit = self.size_bytes if is_free else self._reserve.start
            end = growth.readable_stop(position, min(stop, limit, position + STRETCH_BYTES))
            if end > position:
                return end
            growth.check()
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), TRICKLE_SECONDS)
            except asyncio.TimeoutError:
                end = growth.readable_stop(position, min(stop, position + TRICKLE_BYTES, self._reserve.stop - 1))
                if end > position:
                    return end

    async def close(self) -> None:
        """In a thread, and nobody waits: closing the last descriptor of a large removed file takes its time."""
        asyncio.get_running_loop().run_in_executor(None, os.close, self.fd)
        await self._on_close()

    def _check_given(self, growth: Growth, position: int) -> None:
        assert self._began_at is not None
        for part in growth.wrong_since(self._wrong_seen):
            self._wrong_seen += 1
            if part.start < position and part.stop > self._began_at:
                raise CorruptData("Bytes that were sent already have turned out to be wrong.", hint="Start again.")


class Fetching:
    """A blob that is being fetched; `task` is what fetches it."""

    def __init__(self, fetch: BlobFetch, task: asyncio.Task[object]) -> None:
        self._fetch = fetch
        self._task = task

    @property
    def is_verified(self) -> bool:
        return self._fetch.is_verified

    def readable_stop(self, start: int, stop: int) -> int:
        return self._fetch.readable_stop(start, stop)

    def prefer(self, reader: int, start: int, stop: int) -> None:
        self._fetch.prefer(reader, start, stop)

    def check(self) -> None:
        if self._task.done() and not self._fetch.is_verified:
            raise _end_of(self._task)

    def wrong_since(self, number: int) -> list[ByteRange]:
        return self._fetch.discarded[number:]


class Checking:
    """A whole file that others put into the cache, read while `task` hashes it."""

    def __init__(self, task: asyncio.Future[bool], name: str) -> None:
        self._task = task
        self._name = name

    @property
    def is_verified(self) -> bool:
        return self._task.done() and not self._task.cancelled() and not self._task.exception() and self._task.result()

    def readable_stop(self, start: int, stop: int) -> int:
        return stop

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """Everything is there already."""

    def check(self) -> None:
        if self._task.done() and not self.is_verified:
            if self._task.cancelled() or self._task.exception():
                raise _end_of(self._task)
            raise CorruptData(f"{self._name} in the cache does not hash to its name.", hint="Ask again: it is fetched.")

    def wrong_since(self, number: int) -> list[ByteRange]:
        return []


def _end_of(task: asyncio.Future[Any]) -> BaseException:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, HfpeerError):
        return error
    return error or Unreachable("The fetch was stopped.", hint="Ask again: it continues where it was.")
