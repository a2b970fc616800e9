"""The queue on disk: `transfers.jsonl` in the home. The last line of a transfer counts.

Only the daemon writes it, and holds the home's lock meanwhile. No token is written.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from hfpeer.control.codec import decode, encode
from hfpeer.control.operations import PRIORITIES
from hfpeer.control.transfers import STATES
from hfpeer.errors import InvalidName
from hfpeer.node.operations.transfers.json_lines import JsonLines
from hfpeer.node.operations.transfers.transfer import Transfer

FILE = "transfers.jsonl"
MIN_LINES = 1_000
"""The file is written anew when it has more lines than these, and four for each transfer."""


class Journal:
    """The file below `home`. Blocking; thread-safe. Raises NoSpace or BrokenCache."""

    def __init__(self, home: Path) -> None:
        self._lines = JsonLines(home / FILE)
        self._lock = threading.Lock()
        self._known: dict[int, dict[str, Any]] = {}
        self._count = 0
        self._last_id = 0

    def read(self) -> tuple[list[Transfer], int]:
        """The transfers, and the largest id that was ever given. Changes nothing."""
        with self._lock:
            return self._read()

    def open(self) -> tuple[list[Transfer], int]:
        """The same, for the process that goes on to write; the file is made short."""
        with self._lock:
            found = self._read()
            if self._count:
                self._shorten()
            return found

    def write(self, transfer: Transfer, *, is_synced: bool = True) -> None:
        """Notes what a transfer is now."""
        self._append({"transfer": encode(transfer)}, is_synced=is_synced)

    def drop(self, id: int) -> None:
        """Notes that a transfer has left the list. Its id is not given again."""
        self._append({"dropped": id}, is_synced=False)

    def _append(self, document: dict[str, Any], *, is_synced: bool) -> None:
        with self._lock:
            self._lines.append(document, is_synced=is_synced)
            self._hear(document)
            if self._count > max(MIN_LINES, 4 * len(self._known)):
                self._shorten()

    def _shorten(self) -> None:
        documents: list[dict[str, Any]] = [
            {"last_id": self._last_id},
            *({"transfer": one} for one in self._known.values()),
        ]
        self._lines.replace(documents)
        self._count = len(documents)

    def _read(self) -> tuple[list[Transfer], int]:
        self._known, self._count, self._last_id = {}, 0, 0
        for document in self._lines.read():
            self._hear(document)
        transfers = list(filter(None, map(_decoded, self._known.values())))
        return transfers, self._last_id

    def _hear(self, document: dict[str, Any]) -> None:
        """Takes up one line, as far as it makes sense."""
        self._count += 1
        transfer = document.get("transfer")
        if isinstance(transfer, dict) and type(transfer.get("id")) is int:
            self._known[transfer["id"]] = transfer
        elif type(document.get("dropped")) is int:
            self._known.pop(document["dropped"], None)
        ids = (document.get("last_id"), document.get("dropped"), transfer.get("id") if transfer else None)
        self._last_id = max(self._last_id, *(id for id in ids if type(id) is int))


def _decoded(document: dict[str, Any]) -> Transfer | None:
    """A transfer of the file; None for one that this version cannot read."""
    try:
        found = decode(Transfer, document)
    except InvalidName:
        return None
    is_known = isinstance(found, Transfer) and found.state in STATES and found.priority in PRIORITIES
    return found if is_known else None
