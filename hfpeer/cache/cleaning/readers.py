"""The blobs that peers and tools read from this node: now, so that a removal leaves them alone, and since the last time
that their uses were taken. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection

from hfpeer.names import Digest

LINGER_SECONDS = 2.0
"""Seconds after its last reader in which a blob still counts: a peer fetches a blob by many requests, one by one."""


class Readers:
    """Counts the open readers of each blob."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[Digest] = Counter()
        self._ended_at: dict[Digest, float] = {}
        self._swept_at = 0.0
        self._used: set[Digest] = set()

    def begin(self, digest: Digest) -> None:
        """A reader opens a blob."""
        with self._lock:
            self._open[digest] += 1
            self._used.add(digest)

    def note_use(self, digests: Collection[Digest]) -> None:
        """A reader has read small blobs at once."""
        now = time.monotonic()
        with self._lock:
            self._used.update(digests)
            self._ended_at.update(dict.fromkeys(digests, now))
            self._sweep(now)

    def take_used(self) -> set[Digest]:
        """The blobs that were read since the last call."""
        with self._lock:
            used, self._used = self._used, set()
        return used

    def end(self, digest: Digest) -> None:
        """A reader closes a blob."""
        now = time.monotonic()
        with self._lock:
            self._open[digest] -= 1
            if self._open[digest] <= 0:
                del self._open[digest]
                self._ended_at[digest] = now
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Forgets, now and then, blobs that were read long ago."""
        if now - self._swept_at >= LINGER_SECONDS:
            self._swept_at = now
            self._ended_at = {key: at for key, at in self._ended_at.items() if now - at < LINGER_SECONDS}

    def read_now(self) -> set[str]:
        """The digests of the blobs with an open reader, or with one a moment ago."""
        now = time.monotonic()
        with self._lock:
            lately = {digest for digest, at in self._ended_at.items() if now - at < LINGER_SECONDS}
            return set(map(str, lately | self._open.keys()))
