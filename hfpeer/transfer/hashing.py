"""The buffers between the receivers of a blob and the one thread that hashes it in order.

Receivers fill fixed buffers, write them to the partial file and hand them over; the hashing thread takes them in
file order while they are warm and reads back from the page cache what came out of order. The fixed number of
buffers is the back pressure: receivers never run far ahead of the hash. When the hash itself waits for a byte
that is missing, the buffer furthest ahead is taken back, so one slow source stops nobody.
"""

from __future__ import annotations

import threading
from mmap import mmap

from hfpeer.ranges import PIECE_SIZE_BYTES, RangeSet


class BufferPool:
    """`count` buffers of one piece each, and those that wait to be hashed, by offset.

    `lock` must be held around every method; `acquire` and `starve` wait, and let go of it meanwhile. Nobody is woken in
    vain: with many pieces a second that would cost more than hashing them.
    """

    def __init__(self, count: int, lock: threading.Lock) -> None:
        self._freed = threading.Condition(lock)
        self._came = threading.Condition(lock)
        self._unmade = count
        self._idle: list[mmap] = []
        self._waiting: dict[int, tuple[mmap, int]] = {}
        self._starved_at: int | None = None
        """Where the hash waits for bytes."""
        self.is_closed = False

    def acquire(self) -> mmap | None:
        """A buffer to fill; waits for one. None once the pool is closed."""
        while not self.is_closed:
            if self._idle:
                return self._idle.pop()
            if self._unmade:
                self._unmade -= 1
                # Unlike a bytearray's, its memory is first touched by who fills it, who holds no lock.
                return mmap(-1, PIECE_SIZE_BYTES)
            if self._starved_at is not None and self._waiting:
                buffer, _ = self._waiting.pop(max(self._waiting))
                return buffer
            self._freed.wait()
        return None

    def hand_over(self, offset: int, buffer: mmap, size_bytes: int) -> None:
        """A filled and written buffer, for the hash."""
        replaced = self._waiting.pop(offset, None)
        self._waiting[offset] = (buffer, size_bytes)
        if replaced is not None:
            self.give_back(replaced[0])
        if self._starved_at is not None:
            self._freed.notify()
            if offset <= self._starved_at < offset + size_bytes:
                self._came.notify()

    def give_back(self, buffer: mmap) -> None:
        self._idle.append(buffer)
        self._freed.notify()

    def starve(self, position: int, seconds: float) -> None:
        """The hash waits, at most so long, for the bytes at `position`: receivers may take back what waits for it."""
        self._starved_at = position
        self._freed.notify_all()
        if not self.is_closed:
            self._came.wait(seconds)
        self._starved_at = None

    def close(self) -> None:
        """Nobody gets a buffer any more, and the hash waits for nothing."""
        self.is_closed = True
        self._freed.notify_all()
        self._came.notify_all()

    def take(self, offset: int) -> tuple[mmap, int] | None:
        """The waiting buffer that starts at `offset`."""
        return self._waiting.pop(offset, None)

    def drop_before(self, offset: int) -> None:
        """Frees waiting buffers the hash has already passed by reading back."""
        for start in [start for start in self._waiting if start < offset]:
            self.give_back(self._waiting.pop(start)[0])

    def next_waiting(self, offset: int) -> int | None:
        """The first offset at or after `offset` at which a buffer waits."""
        return min((start for start in self._waiting if start >= offset), default=None)

    def clear(self) -> None:
        """Frees every waiting buffer: what is in them is not to be hashed."""
        while self._waiting:
            self.give_back(self._waiting.popitem()[1][0])


def readable_stop(present: RangeSet, position: int, pool: BufferPool) -> int:
    """How far the hash may read back from `position`: to the end of what is present, the next waiting buffer, or a
    piece, whichever comes first; `position` itself when nothing is there."""
    gap = next(present.gaps(position, position + PIECE_SIZE_BYTES), None)
    limit = position + PIECE_SIZE_BYTES if gap is None else gap.start
    waiting = pool.next_waiting(position)
    return limit if waiting is None else min(limit, waiting)
