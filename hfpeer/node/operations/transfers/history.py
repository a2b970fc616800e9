"""The record of past fetches, with askers and sources: `history.jsonl` in the home, of bounded size.

Every node of the home adds to it, also one in a command. It is a record for people, and nothing is decided by it: when
two processes make it short at one time, an entry may be lost.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from hfpeer.control.codec import decode, encode
from hfpeer.control.transfers import HistoryEntry
from hfpeer.errors import InvalidName, StorageError
from hfpeer.node.operations.transfers.json_lines import JsonLines

FILE = "history.jsonl"
MAX_FILE_BYTES = 4 * 1024 * 1024
"""A larger file is made short: its newer half stays. An entry has about 500 bytes."""

_log = logging.getLogger(__name__)


class History:
    """The file below `home`. Blocking."""

    def __init__(self, home: Path) -> None:
        self._lines = JsonLines(home / FILE)

    def note(self, entry: HistoryEntry) -> None:
        """Adds an entry, or drops it if it cannot be written: an add must not fail for it."""
        try:
            if self._lines.append(encode(entry)) > MAX_FILE_BYTES:
                documents = self._lines.read()
                self._lines.replace(documents[len(documents) // 2 :])
        except StorageError as error:
            _log.warning("The history is not written: %s", error.message)

    def since(self, at: float) -> list[HistoryEntry]:
        """The entries that ended after `at`, in seconds since the epoch, oldest first. Raises BrokenCache."""
        found = []
        for document in self._lines.read():
            with contextlib.suppress(InvalidName):
                entry: HistoryEntry = decode(HistoryEntry, document)
                if entry.ended_at > at:
                    found.append(entry)
        return sorted(found, key=lambda entry: entry.ended_at)
