"""Counts the bytes received from each source and the bytes sent to peers.

Counting is in memory and never blocks; `flush` writes the counts to the catalog. They are statistics: after a crash
those of the last seconds are lost.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from hfpeer.cache.index.database import Database
from hfpeer.cache.index.schema import RECEIVED
from hfpeer.errors import StorageError

FLUSH_SECONDS = 5.0
"""Seconds between two writes by `flush_if_due`."""


class Traffic:
    """Bytes received by kind and source, and bytes sent. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._received: dict[tuple[str, str], int] = defaultdict(int)
        self._sent_bytes = 0
        self._flushed_at = time.monotonic()

    def note_received(self, kind: str, source: str, size_bytes: int) -> None:
        """Counts bytes from a source; `kind` is peer, mirror, modelscope or origin."""
        with self._lock:
            self._received[kind, source] += size_bytes

    def note_sent(self, size_bytes: int) -> None:
        """Counts bytes that were sent to peers."""
        with self._lock:
            self._sent_bytes += size_bytes

    def flush_if_due(self) -> None:
        """Writes the counts if the last write is more than FLUSH_SECONDS ago."""
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the counts to the catalog. Keeps those that it cannot write, for the next flush."""
        with self._lock:
            received, self._received = self._received, defaultdict(int)
            sent_bytes, self._sent_bytes = self._sent_bytes, 0
            self._flushed_at = time.monotonic()
        try:
            self._write(received, sent_bytes)
        except StorageError:
            for (kind, source), size_bytes in received.items():
                self.note_received(kind, source, size_bytes)
            self.note_sent(sent_bytes)

    def totals(self) -> dict[str, Any]:
        """`sent_bytes`, `received_bytes` by kind and `received_by_source` by source, since the catalog was made."""
        self.flush()
        by_kind: dict[str, int] = defaultdict(int)
        by_source: dict[str, int] = defaultdict(int)
        with self._database.reading() as connection:
            for kind, source, size_bytes in connection.execute(sa.select(RECEIVED)):
                by_kind[kind] += size_bytes
                by_source[source] += size_bytes
        return {
            "sent_bytes": self._database.counter("sent"),
            "received_bytes": dict(by_kind),
            "received_by_source": dict(by_source),
        }

    def _write(self, received: Mapping[tuple[str, str], int], sent_bytes: int) -> None:
        rows = [{"kind": kind, "source": source, "size_bytes": size} for (kind, source), size in received.items()]
        query = insert(RECEIVED)
        total = RECEIVED.c.size_bytes + query.excluded.size_bytes
        query = query.on_conflict_do_update(index_elements=["kind", "source"], set_={"size_bytes": total})
        if rows:
            with self._database.writing() as connection:
                connection.execute(query, rows)
        if sent_bytes:
            self._database.count("sent", sent_bytes)
