"""The buffers between the threads that receive a blob and the one thread that hashes it in file order.

A receiver fills a buffer, writes it to the partial file and hands it over. The hash takes buffers in file order and
reads from the file what came out of order. The number of buffers is fixed, so receivers cannot run far ahead of the
hash. While the hash waits for missing bytes, receivers reuse the buffer furthest ahead: one slow source stops no other.
"""

from __future__ import annotations

import threading
from mmap import mmap

from hfpeer.ranges import PIECE_SIZE_BYTES


class BufferPool:
    """`count` buffers of one piece each, and which of them wait to be hashed, by offset. A monitor.

    Wakes only a thread that can go on: at many pieces a second, needless wake-ups cost more than the hashing.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._came = threading.Condition(self._lock)
        self._unmade = count
        self._idle: list[mmap] = []
        self._waiting: dict[int, tuple[mmap, int]] = {}
        self._starved_at: int | None = None
        """The offset of the bytes that the hash waits for."""
        self._is_closed = False

    def acquire(self) -> mmap | None:
        """Waits for a buffer to fill. None once the pool is closed."""
        with self._lock:
            while not self._is_closed:
                if self._idle:
                    return self._idle.pop()
                if self._unmade:
                    self._unmade -= 1
                    # Its pages are first touched when it is filled, outside the lock; a bytearray's would be here.
                    return mmap(-1, PIECE_SIZE_BYTES)
                if self._starved_at is not None and self._waiting:
                    buffer, _ = self._waiting.pop(max(self._waiting))
                    return buffer
                self._freed.wait()
            return None

    def hand_over(self, offset: int, buffer: mmap, size_bytes: int) -> None:
        """Gives a buffer to the hash, filled with the `size_bytes` at `offset`, which are in the file too."""
        with self._lock:
            replaced = self._waiting.pop(offset, None)
            self._waiting[offset] = (buffer, size_bytes)
            if replaced is not None:
                self._free(replaced[0])
            if self._starved_at is not None:
                self._freed.notify()
                if offset <= self._starved_at < offset + size_bytes:
                    self._came.notify()

    def give_back(self, buffer: mmap) -> None:
        """Frees a buffer that was acquired or taken."""
        with self._lock:
            self._free(buffer)

    def take(self, offset: int) -> tuple[mmap, int] | None:
        """The waiting buffer that starts at `offset`, with the number of its bytes; the hash gives it back."""
        with self._lock:
            return self._waiting.pop(offset, None)

    def next_waiting(self, offset: int) -> int | None:
        """The first offset at or after `offset` at which a buffer waits."""
        with self._lock:
            return min((start for start in self._waiting if start >= offset), default=None)

    def starve(self, position: int, seconds: float) -> None:
        """The hash waits, at most `seconds`, for the bytes at `position`; meanwhile receivers may reuse what waits."""
        with self._lock:
            is_here = any(start <= position < start + size for start, (_, size) in self._waiting.items())
            if is_here or self._is_closed:
                return
            self._starved_at = position
            self._freed.notify_all()
            self._came.wait(seconds)
            self._starved_at = None

    def drop_before(self, offset: int) -> None:
        """Frees the waiting buffers that the hash has passed by reading the file."""
        with self._lock:
            for start in [start for start in self._waiting if start < offset]:
                self._free(self._waiting.pop(start)[0])

    def clear(self) -> None:
        """Frees every waiting buffer: some of their bytes are wrong."""
        with self._lock:
            while self._waiting:
                self._free(self._waiting.popitem()[1][0])

    def close(self) -> None:
        """Ends every wait."""
        with self._lock:
            self._is_closed = True
            self._freed.notify_all()
            self._came.notify_all()

    def _free(self, buffer: mmap) -> None:
        """With the lock held."""
        self._idle.append(buffer)
        self._freed.notify()
