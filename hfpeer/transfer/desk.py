"""What all threads of one fetch have in common, on one desk under one lock.

It owns nothing but the state and the rules that keep it together; who decides, receives, hashes or judges sits
elsewhere. No method of it waits, or touches a disk or a network.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from hfpeer.cache.blobs import PartialBlob
from hfpeer.ranges import ByteRange, PieceGrid
from hfpeer.transfer.errands import Errands
from hfpeer.transfer.events import Listener
from hfpeer.transfer.fellows import Chronicle
from hfpeer.transfer.hashing import BufferPool
from hfpeer.transfer.picker import Picker
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources import Source, WantedBlob
from hfpeer.transfer.standing import Pace


class Desk:
    """The state of a fetch. All that changes is read and written with `lock` held."""

    def __init__(
        self,
        blob: WantedBlob,
        partial: PartialBlob,
        listener: Listener,
        pace: Pace,
        errands: Errands | None,
        buffers: int,
        clock: Callable[[], float],
    ) -> None:
        self.blob = blob
        self.partial = partial
        self.report = FetchReport()
        self.listener = self.report.overheard(listener)
        self.pace = pace
        self.clock = clock
        self.lock = threading.Lock()
        self.orders_changed = threading.Condition(self.lock)
        """For workers without an order. One is woken at a time: who finds one that way wakes the next."""
        self.grid = PieceGrid(blob.size_bytes)
        self.picker = Picker(self.grid, partial.present, pace, errands)
        self.chronicle = Chronicle(self.grid, self.picker.present)
        self.sources: dict[str, Source] = {}
        self.pool = BufferPool(buffers, self.lock)
        self.progressed_at = clock()
        self.is_over = False
        self.failure: BaseException | None = None
        """What ended it unforeseen, in any thread."""
        self.excluded: set[str] = set()
        """The sources that an inquiry does without."""
        self.hashed_bytes = 0
        """How far the blob is hashed; of what follows a piece may be under way."""
        self.must_hash_again = False
        """Bytes were discarded that may have been hashed already."""
        self.discarded: list[ByteRange] = []
        """What was found wrong, in the order in which it was; for those who read along."""
        self.readers: dict[int, Callable[[], object]] = {}
        self.bytes_came = threading.Condition(self.lock)
        """For those who pass a piece on as it comes: more of it came, or it comes no more."""
        self.awaited: Counter[int] = Counter()
        """The pieces of which they wait for more, and how many do: what comes of these is written at once."""

    def fail(self, error: BaseException) -> None:
        """Something unforeseen ends the fetch; the first such thing counts."""
        with self.lock:
            self.failure = self.failure or error
            self.orders_changed.notify_all()

    def tell_readers(self) -> None:
        """Bytes came, or were found wrong. Not with the lock held."""
        with self.lock:
            readers = list(self.readers.values())
        for on_change in readers:
            on_change()

    def discard(self, span: ByteRange) -> None:
        """With the lock held: bytes that are here are wrong, and no reader may have more of them."""
        self.picker.discard(*span)
        self.chronicle.lost(*span)
        self.discarded.append(span)
        self.report.refetched_bytes += span.size_bytes
