"""How many bytes have come from whom and gone out: counted in memory, written to the catalogue now and then.

Noting never waits for anything. A count that cannot be written now is kept and written later, or lost with the
process: it is a statistic.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Any

from hfpeer.cache.catalog import Catalog
from hfpeer.errors import StorageError

FLUSH_SECONDS = 5.0
"""Whoever writes to the catalogue anyway writes the counts too, at most this often."""


class Tally:
    """Bytes received by kind and source, and bytes sent. Thread-safe."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._received: dict[tuple[str, str], int] = defaultdict(int)
        self._sent_bytes = 0
        self._flushed_at = time.monotonic()

    def note_received(self, kind: str, source: str, size_bytes: int) -> None:
        """Counts bytes from a source; `kind` is peer, mirror or origin."""
        with self._lock:
            self._received[kind, source] += size_bytes

    def note_sent(self, size_bytes: int) -> None:
        with self._lock:
            self._sent_bytes += size_bytes

    def flush_if_due(self) -> None:
        """Writes the counts if that was not done lately."""
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the counts. What cannot be written is kept."""
        with self._lock:
            received, self._received = self._received, defaultdict(int)
            sent_bytes, self._sent_bytes = self._sent_bytes, 0
            self._flushed_at = time.monotonic()
        try:
            self._catalog.add_traffic(received, sent_bytes)
        except StorageError:
            for (kind, source), size_bytes in received.items():
                self.note_received(kind, source, size_bytes)
            self.note_sent(sent_bytes)

    def totals(self) -> dict[str, Any]:
        """`sent_bytes`, `received_bytes` by kind and `received_by_source` by source, since the catalogue was made."""
        self.flush()
        by_kind: dict[str, int] = defaultdict(int)
        by_source: dict[str, int] = defaultdict(int)
        for (kind, source), size_bytes in self._catalog.received().items():
            by_kind[kind] += size_bytes
            by_source[source] += size_bytes
        return {
            "sent_bytes": self._catalog.sent_bytes,
            "received_bytes": dict(by_kind),
            "received_by_source": dict(by_source),
        }
