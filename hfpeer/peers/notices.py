"""The blobs that this node is about to remove: no peer counts them as copies. Thread-safe.

A notice is given before peers are asked whether they have a blob, and withdrawn after the removal. So of two nodes that
remove the same blob at once, at least one sees the notice of the other.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from hfpeer.names import Digest


class Notices:
    """The blobs under notice, each counted by the removals that want it gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: Counter[Digest] = Counter()

    @contextmanager
    def given(self, digests: Collection[Digest]) -> Iterator[Notice]:
        """The blobs are under notice during the block."""
        notice = Notice(self, set(digests))
        with self._lock:
            self._given.update(notice.digests)
        try:
            yield notice
        finally:
            notice.withdraw(set(notice.digests))

    def among(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of these blobs that are under notice."""
        with self._lock:
            return {digest for digest in digests if self._given[digest] > 0}

    def _end(self, digests: Collection[Digest]) -> None:
        with self._lock:
            self._given.subtract(digests)
            self._given += Counter()  # drops those at zero


class Notice:
    """The notice of one removal."""

    def __init__(self, notices: Notices, digests: set[Digest]) -> None:
        self._notices = notices
        self.digests = digests

    def withdraw(self, digests: Collection[Digest]) -> None:
        """These blobs stay after all: peers may count them again."""
        ended = self.digests.intersection(digests)
        self.digests -= ended
        self._notices._end(ended)
