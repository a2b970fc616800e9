"""Reads a blob that may still be fetched or unverified: how far it can be read now, and how long to wait for more.

A few bytes of every unverified blob are held back until the blob is verified. So wrong bytes never become a complete
file, in however many ranges, and over however many restarts of the daemon, a client reads it. The bytes are a little
before the end, because many readers want the end first. While a client waits for them, a few of them are sent every few
seconds, because clients give up after ten seconds without a byte; the last of them is sent only when the blob is
verified.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import count
from typing import Any, Protocol

from hfpeer.endpoint.files.unverified import ClientReads
from hfpeer.errors import CorruptData, HfpeerError, HubUnreachable, RateLimited, Unreachable
from hfpeer.ranges import MIB, ByteRange
from hfpeer.transfer.fetch.fetch import BlobFetch

RESERVE_BYTES = 64 * 1024
"""Number of bytes that are held back until the blob is verified."""
END_BYTES = 8 * MIB
"""Distance of these bytes from the end, or a quarter of a smaller blob. Behind them are indexes: the directory of a
zip, the footer of a parquet file."""
TRICKLE_SECONDS = 3.0
TRICKLE_BYTES = 128
"""While a client waits, this many of the bytes held back are sent every TRICKLE_SECONDS."""
WINDOW_BYTES = 32 * MIB
"""The fetch requests this many bytes from the client's position first."""
STRETCH_BYTES = 16 * MIB
"""Most bytes that are handed out at once."""

_numbers = count(1)


class GrowingBlob(Protocol):
    """A blob that is not verified yet."""

    @property
    def is_verified(self) -> bool: ...

    def readable_stop(self, start: int, stop: int) -> int:
        """End of the gapless bytes from `start`, at most `stop`."""
        ...

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """Requests this range first, for the reader with this number."""
        ...

    def check(self) -> None:
        """Raises the error that ended the fetch or the check."""
        ...

    def check_rest(self) -> None:
        """Raises RateLimited if nothing comes because all sources rest."""
        ...

    def wrong_since(self, number: int) -> list[ByteRange]:
        """The ranges found wrong, without the first `number` of them."""
        ...


def reserve_of(size_bytes: int) -> ByteRange:
    """The bytes of a blob that are held back until it is verified; empty only for an empty blob."""
    stop = size_bytes - min(END_BYTES, size_bytes // 4)
    return ByteRange(max(0, stop - RESERVE_BYTES), stop)


class BlobReader:
    """Reads an open file for one client. `fd` stays readable even if the file is renamed or removed."""

    def __init__(
        self,
        fd: int,
        size_bytes: int,
        growing: GrowingBlob | None,
        on_close: Callable[[], Awaitable[None]],
        reads: ClientReads | None = None,
    ) -> None:
        """`growing` is None for a verified blob. Without `reads` nothing is remembered of what the client was sent."""
        self.fd = fd
        self.size_bytes = size_bytes
        self._growing = growing
        self._reads = reads
        self._reserve = reserve_of(size_bytes)
        self._on_close = on_close
        self._changed = asyncio.Event()
        self._wrong_noted = len(growing.wrong_since(0)) if growing else 0
        self._began_at: int | None = None
        self.number = next(_numbers)
        self.is_late = False
        """Whether the fetch had begun before this reader came: its error may be older than the reader."""

    @property
    def is_verified(self) -> bool:
        return self._growing is None or self._growing.is_verified

    def changed(self) -> None:
        """Wakes the reader. To be called in the event loop when more bytes may be readable."""
        self._changed.set()

    async def stretches(self, part: ByteRange) -> AsyncGenerator[ByteRange, None]:
        """The bytes of `part`, in stretches to be sent in order, each as soon as it is readable; one empty stretch for
        an empty part.

        Raises the error that ended the fetch. Raises CorruptData if this client was sent wrong bytes, perhaps over
        another connection, because several can make one file; its next request then has to be for the whole blob.
        """
        is_whole = part.size_bytes == self.size_bytes
        try:
            position = part.start
            stop = await self.readable(position, part.stop) if part.size_bytes else position
            is_repair = is_whole and self._has_wrong_bytes
            while True:
                if not is_repair and self._has_wrong_bytes:
                    raise _sent_wrong_bytes()
                if self._reads is not None and not self.is_verified:
                    self._reads.note_sent(ByteRange(position, stop))
                yield ByteRange(position, stop)
                position = stop
                if position >= part.stop:
                    break
                stop = await self.readable(position, part.stop)
        except CorruptData:
            if self._reads is not None:
                self._reads.mark_wrong()
            raise
        if is_whole and self._reads is not None:
            self._reads.forget()

    async def readable(self, position: int, stop: int) -> int:
        """Waits until bytes at `position` are readable; returns their end, at most `stop`.

        Raises the error that ended the fetch, RateLimited while all sources rest, and CorruptData if bytes before
        `position` turned out to be wrong.
        """
        self._began_at = position if self._began_at is None else self._began_at
        growing = self._growing
        if growing is None:
            return min(stop, position + STRETCH_BYTES)
        growing.prefer(self.number, position, min(self.size_bytes, position + WINDOW_BYTES))
        while True:
            self._check_bytes_before(growing, position)
            has_no_reserve = growing.is_verified or position >= self._reserve.stop
            limit = self.size_bytes if has_no_reserve else self._reserve.start
            end = growing.readable_stop(position, min(stop, limit, position + STRETCH_BYTES))
            if end > position:
                return end
            growing.check()
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), TRICKLE_SECONDS)
            except asyncio.TimeoutError:
                end = growing.readable_stop(position, min(stop, position + TRICKLE_BYTES, self._reserve.stop - 1))
                if end > position:
                    return end
                growing.check_rest()

    async def close(self) -> None:
        """Closes the file, in a thread: closing the last descriptor of a large removed file takes long."""
        asyncio.get_running_loop().run_in_executor(None, os.close, self.fd)
        await self._on_close()

    @property
    def _has_wrong_bytes(self) -> bool:
        return self._reads is not None and self._reads.has_wrong_bytes

    def _check_bytes_before(self, growing: GrowingBlob, position: int) -> None:
        assert self._began_at is not None
        for part in growing.wrong_since(self._wrong_noted):
            self._wrong_noted += 1
            if part.start < position and part.stop > self._began_at:
                raise _sent_wrong_bytes()


class Fetching:
    """A blob that `task` fetches now."""

    def __init__(self, fetch: BlobFetch, task: asyncio.Task[object], *, only_given: bool = False) -> None:
        """With `only_given` nothing can be read any more once bytes have come that were not given openly."""
        self._fetch = fetch
        self._task = task
        self._only_given = only_given

    @property
    def is_verified(self) -> bool:
        return self._fetch.is_verified

    def readable_stop(self, start: int, stop: int) -> int:
        readable = self._fetch.readable_stop(start, stop)
        # In this order, because bytes that are not given openly are marked before they become readable.
        if self._only_given and not self._fetch.is_given:
            raise not_given()
        return readable

    def prefer(self, reader: int, start: int, stop: int) -> None:
        self._fetch.prefer(reader, start, stop)

    def check(self) -> None:
        if self._task.done() and not self._fetch.is_verified:
            raise _error_of(self._task)

    def check_rest(self) -> None:
        seconds = self._fetch.rest_seconds
        if seconds > TRICKLE_SECONDS:
            raise RateLimited(
                "The hubs limit requests, and no peer gives this file.",
                hint=f"Ask again in {seconds:.0f} s.",
                retry_after_seconds=seconds,
            )

    def wrong_since(self, number: int) -> list[ByteRange]:
        return self._fetch.discarded[number:]


class Checking:
    """A whole file that another program put into the cache, and that `task` hashes now."""

    def __init__(self, task: asyncio.Future[bool], name: str) -> None:
        self._task = task
        self._name = name

    @property
    def is_verified(self) -> bool:
        return self._task.done() and not self._task.cancelled() and not self._task.exception() and self._task.result()

    def readable_stop(self, start: int, stop: int) -> int:
        return stop

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """Does nothing: the whole file is here."""

    def check(self) -> None:
        if self._task.done() and not self.is_verified:
            if self._task.cancelled() or self._task.exception():
                raise _error_of(self._task)
            raise CorruptData(f"{self._name} in the cache does not hash to its name.", hint="Ask again: it is fetched.")

    def check_rest(self) -> None:
        """Does nothing: no source is needed."""

    def wrong_since(self, number: int) -> list[ByteRange]:
        return []


def not_given() -> HubUnreachable:
    """The error for a caller that may have only files that were given openly."""
    return HubUnreachable(
        "This file is here, but no origin says that you may have it, and it was not given openly.",
        hint="Try again when the hub can be reached, or share it: `hfpeer model share`.",
    )


def _sent_wrong_bytes() -> CorruptData:
    return CorruptData("Bytes that were sent already have turned out to be wrong.", hint="Start again.")


def _error_of(task: asyncio.Future[Any]) -> BaseException:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, HfpeerError):
        return error
    return error or Unreachable("The fetch was stopped.", hint="Ask again: it continues where it was.")
