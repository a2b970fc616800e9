"""Counts the bytes received from each source and the bytes sent to peers.

Counting is in memory and never blocks; `flush` writes the counts to the catalog. They are statistics: after a crash
those of the last seconds are lost.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from hfpeer.cache.index.database import Database, count_in
from hfpeer.cache.index.schema import RECEIVED
from hfpeer.errors import StorageError

FLUSH_SECONDS = 5.0
"""Seconds between two writes by `flush_if_due`."""
SENT_WINDOW_SECONDS = 10
"""Whole seconds over which the rate of sending is averaged: large bodies are counted in large steps."""
_OF_MONTH = "from peers in "
"""The beginning of the names of counters, one for each month."""


class Traffic:
    """Bytes received by kind and source, and bytes sent. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._sent_in_second: dict[int, int] = {}
        self._lock = threading.Lock()
        self._received: dict[tuple[str, str], int] = defaultdict(int)
        self._by_month: dict[str, int] = defaultdict(int)
        self._sent_bytes = 0
        self._flushed_at = time.monotonic()

    def note_received(self, kind: str, source: str, size_bytes: int) -> None:
        """Counts bytes from a source; `kind` is peer, mirror, modelscope or origin."""
        with self._lock:
            self._received[kind, source] += size_bytes
            if kind == "peer":
                self._by_month[time.strftime("%Y-%m", time.gmtime())] += size_bytes

    def note_sent(self, size_bytes: int) -> None:
        """Counts bytes that were sent to peers."""
        with self._lock:
            self._sent_bytes += size_bytes
            second = int(self._clock())
            self._sent_in_second[second] = self._sent_in_second.get(second, 0) + size_bytes
            if len(self._sent_in_second) > SENT_WINDOW_SECONDS:
                del self._sent_in_second[min(self._sent_in_second)]

    @property
    def sent_bytes_per_second(self) -> float:
        """The rate at which bytes were sent to peers in the last SENT_WINDOW_SECONDS."""
        since = int(self._clock()) - SENT_WINDOW_SECONDS
        with self._lock:
            return sum(size for second, size in self._sent_in_second.items() if second > since) / SENT_WINDOW_SECONDS

    def flush_if_due(self) -> None:
        """Writes the counts if the last write is more than FLUSH_SECONDS ago."""
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the counts to the catalog. Keeps those that it cannot write, for the next flush."""
        with self._lock:
            received, self._received = self._received, defaultdict(int)
            by_month, self._by_month = self._by_month, defaultdict(int)
            sent_bytes, self._sent_bytes = self._sent_bytes, 0
            self._flushed_at = time.monotonic()
        try:
            self._write(received, by_month, sent_bytes)
        except StorageError:
            with self._lock:
                for place, size_bytes in received.items():
                    self._received[place] += size_bytes
                for month, size_bytes in by_month.items():
                    self._by_month[month] += size_bytes
                self._sent_bytes += sent_bytes

    def totals(self) -> dict[str, Any]:
        """`sent_bytes`, `sent_bytes_per_second`, `received_bytes` by kind, `received_by_source` by source and
        `peer_bytes_by_month`, the latest month first. All but the rate count since the catalog was made."""
        self.flush()
        by_kind: dict[str, int] = defaultdict(int)
        by_source: dict[str, int] = defaultdict(int)
        with self._database.reading() as connection:
            for kind, source, size_bytes in connection.execute(sa.select(RECEIVED)):
                by_kind[kind] += size_bytes
                by_source[source] += size_bytes
        return {
            "sent_bytes": self._database.counter("sent"),
            "sent_bytes_per_second": self.sent_bytes_per_second,
            "received_bytes": dict(by_kind),
            "received_by_source": dict(by_source),
            "peer_bytes_by_month": dict(sorted(self._database.counters(_OF_MONTH).items(), reverse=True)),
        }

    def _write(self, received: Mapping[tuple[str, str], int], by_month: Mapping[str, int], sent_bytes: int) -> None:
        rows = [{"kind": kind, "source": source, "size_bytes": size} for (kind, source), size in received.items()]
        query = insert(RECEIVED)
        total = RECEIVED.c.size_bytes + query.excluded.size_bytes
        query = query.on_conflict_do_update(index_elements=["kind", "source"], set_={"size_bytes": total})
        counted = {**{f"{_OF_MONTH}{month}": size for month, size in by_month.items()}, "sent": sent_bytes}
        counted = {key: size for key, size in counted.items() if size}
        if not (rows or counted):
            return
        with self._database.writing() as connection:
            if rows:
                connection.execute(query, rows)
            for key, size_bytes in counted.items():
                count_in(connection, key, size_bytes)
