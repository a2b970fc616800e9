"""The fetch of one blob: from many sources at once into a partial file, until it hashes to its digest.

Worker threads carry out the picker's orders; one conductor thread hashes in order, watches for sources that fall
behind, and has the last word. A fetch ends with a verified partial, never with an unverified one: when the hash
disagrees, what a suspect gave is fetched again elsewhere until it agrees, and the liar is named. It does not
publish, and it decides nothing about which sources to ask; both belong to its owner.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from hfpeer.cache.blobs import BlobHash, PartialBlob
from hfpeer.errors import AccessDenied, CorruptData, HfpeerError, NoSourceLeft
from hfpeer.ranges import MIB, PIECE_SIZE_BYTES, ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.events import Listener, SourceFailed
from hfpeer.transfer.hashing import BufferPool, readable_stop
from hfpeer.transfer.picker import Order, Picker
from hfpeer.transfer.sources import CONNECTIONS, TIERS, Source, SourceKind, WantedBlob
from hfpeer.wire import Body, PieceMap, SourceFault

MAX_WORKERS = 8
SYNC_EVERY_BYTES = 256 * MIB
TICK_SECONDS = 0.25
FLUSH_SECONDS = 1.0
"""A piece that takes longer is written as far as it came, for those who read along."""


@dataclass
class FetchReport:
    """What a fetch cost: payload bytes by source name, each source's kind, and what had to be fetched twice."""

    bytes_by_source: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, SourceKind] = field(default_factory=dict)
    refetched_bytes: int = 0
    liars: list[str] = field(default_factory=list)


@dataclass
class _Suspect:
    """A source whose bytes are being fetched again elsewhere, with what it gave: piece start -> digest of its bytes."""

    name: str
    given: dict[ByteRange, bytes]


class BlobFetch:
    """Fetches `blob` into `partial`. Start it once; `result` is the report, or the error that ended it."""

    def __init__(
        self,
        blob: WantedBlob,
        partial: PartialBlob,
        listener: Listener,
        *,
        patience_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blob = blob
        self.partial = partial
        self.result: Future[FetchReport] = Future()
        self.report = FetchReport()
        self._listener = listener
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._picker = Picker(PieceGrid(blob.size_bytes), partial.present)
        self._sources: dict[str, Source] = {}
        self._bodies: dict[int, Body] = {}
        self._aborted: dict[int, str] = {}
        self._pool = BufferPool(MAX_WORKERS + 4, self._changed)
        self._conductor: threading.Thread | None = None
        self._workers: list[threading.Thread] = []
        self._unsynced_bytes = 0
        self._progressed_at = clock()
        self._failure: HfpeerError | None = None
        self._refusal: AccessDenied | None = None
        self._is_over = False
        self._suspects: list[_Suspect] = []
        self._innocent: set[str] = set()
        self._readers: dict[int, Callable[[], None]] = {}
        self.discarded: list[ByteRange] = []

    # For the owner

    def add_source(self, source: Source, pieces: PieceMap | None = None) -> None:
        """A source joins, or has a new piece map (None: the whole blob). One with another grid is turned away."""
        if pieces is not None and (pieces.size_bytes, pieces.piece_size_bytes) != (
            self.blob.size_bytes,
            PIECE_SIZE_BYTES,
        ):
            return
        if pieces is not None and pieces.bits is None:
            pieces = None
        with self._changed:
            self._sources.setdefault(source.name, source)
            self.report.kinds[source.name] = source.kind
            self._picker.add_source(source.name, TIERS[source.kind], CONNECTIONS[source.kind], pieces)
            self._changed.notify_all()

    def remove_source(self, name: str, reason: str) -> None:
        """A source has left."""
        with self._changed:
            self._picker.remove_source(name, reason)
            self._changed.notify_all()

    def start(self) -> None:
        """Begins; returns at once."""
        self._conductor = threading.Thread(target=self._conduct, name=f"fetch {self.blob.path}", daemon=True)
        self._conductor.start()

    def stop(self) -> None:
        """Ends the fetch and waits until no thread of it touches the partial any more. What came stays there."""
        with self._changed:
            self._is_over = True
            self._abort_all()
            self._changed.notify_all()
        if self._conductor is not None:
            self._conductor.join()

    def present(self) -> RangeSet:
        """What is on disk now."""
        with self._changed:
            return self._picker.present.copy()

    @property
    def present_bytes(self) -> int:
        with self._changed:
            return self._picker.present.total

    def bytes_by_source(self) -> dict[str, int]:
        with self._changed:
            return dict(self.report.bytes_by_source)

    # For those who read along

    def join(self, reader: int, on_change: Callable[[], None]) -> None:
        """`on_change` is called, from any thread, whenever bytes came, were found wrong, or the fetch has ended."""
        with self._changed:
            self._readers[reader] = on_change
        self.result.add_done_callback(lambda _: on_change())

    def leave(self, reader: int) -> None:
        with self._changed:
            self._readers.pop(reader, None)

    def readable_stop(self, start: int, stop: int) -> int:
        """How far the bytes from `start` are on disk without a gap, at most to `stop`; nobody has verified them."""
        with self._changed:
            gap = next(self._picker.present.gaps(start, stop), None)
        return stop if gap is None else gap.start

    @property
    def is_verified(self) -> bool:
        """Whether the whole blob is on disk and hashes to its digest."""
        return self.result.done() and not self.result.cancelled() and self.result.exception() is None

    def _tell_readers(self) -> None:
        for on_change in list(self._readers.values()):
            on_change()

    # The conductor

    def _conduct(self) -> None:
        try:
            verified = self._hash_until_right()
        except BaseException as error:  # noqa: BLE001  an unforeseen one must reach whoever waits, too
            self._end()
            if self.result.set_running_or_notify_cancel():
                self.result.set_exception(error)
        else:
            self._end()
            if verified and self.result.set_running_or_notify_cancel():
                self.result.set_result(self.report)
            else:
                self.result.cancel()

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            self._pool.is_closed = True
            self._abort_all()
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _hash_until_right(self) -> bool:
        """True once the blob hashes to its digest, False when cancelled. Raises what ended it otherwise."""
        while True:
            found = self._hash_once()
            if found is None:
                return False
            if found == self.blob.digest.hex:
                self._name_liars()
                return True
            self._suspect_next()

    def _hash_once(self) -> str | None:
        blob_hash = BlobHash(self.blob.digest.algorithm, self.blob.size_bytes)
        scratch = bytearray(PIECE_SIZE_BYTES)
        position, ticked_at = 0, 0.0
        while position < self.blob.size_bytes:
            now = self._clock()
            with self._changed:
                if now - ticked_at >= TICK_SECONDS:
                    self._tick(now)
                    ticked_at = now
                if self._is_over:
                    return None
                warm = self._pool.take(position)
                stop = position if warm else readable_stop(self._picker.present, position, self._pool)
                if warm is None and stop == position:
                    self._pool.is_hash_starving = True
                    self._changed.notify_all()
                    self._changed.wait(TICK_SECONDS)
                    continue
                self._pool.is_hash_starving = False
            if warm is not None:
                buffer, size = warm
                blob_hash.update(memoryview(buffer)[:size])
                position += size
            else:
                view = memoryview(scratch)[: stop - position]
                self.partial.read(position, view)
                blob_hash.update(view)
                position = stop
            with self._changed:
                if warm is not None:
                    self._pool.give_back(warm[0])
                self._pool.drop_before(position)
                self._changed.notify_all()
        return blob_hash.hexdigest()

    def _tick(self, now: float) -> None:
        """With the lock held: wake workers for what is free, abort what is overdue, give up when nothing is left."""
        if self._failure is not None:
            raise self._failure
        for order, reason in self._picker.overdue(now):
            body = self._bodies.get(order.number)
            if body is not None and order.number not in self._aborted:
                self._aborted[order.number] = reason
                body.abort()
        if not self._picker.is_complete and not self._picker.orders:
            is_patience_over = now - self._progressed_at > self._patience_seconds
            if is_patience_over or self._picker.is_stuck(now):
                raise self._no_source_left()
        self._hire()

    def _hire(self) -> None:
        """Starts workers as long as there may be orders for them; each lives until the fetch ends."""
        slots = sum(s.limit for s in self._picker.sources.values() if s.out_because is None)
        wanted = min(MAX_WORKERS, slots, -(-self.blob.size_bytes // PIECE_SIZE_BYTES))
        while len(self._workers) < wanted and not self._picker.is_complete:
            worker = threading.Thread(
                target=self._work, name=f"receive {self.blob.path} {len(self._workers)}", daemon=True
            )
            self._workers.append(worker)
            worker.start()

    def _no_source_left(self) -> HfpeerError:
        reasons = {
            source.name: source.out_because or source.last_reason or "has not got it"
            for source in self._picker.sources.values()
        }
        if self._refusal is not None:
            return self._refusal
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no source knows it"
        if self.report.liars or self._suspects:
            return CorruptData(
                f"{self.blob.path} could not be had right: {said}.",
                hint="What verified is kept. Try again when another peer or the hub can be reached.",
                path=str(self.blob.path),
                sources=reasons,
            )
        return NoSourceLeft(
            f"Nobody can give the rest of {self.blob.path}: {said}.",
            hint="What came is kept; run the same command again later and it continues.",
            path=str(self.blob.path),
            sources=reasons,
        )

    # The workers

    def _work(self) -> None:
        while True:
            with self._changed:
                order = self._wait_for_order()
            if order is None:
                return
            self._carry_out(order)

    def _wait_for_order(self) -> Order | None:
        while not self._is_over:
            now = self._clock()
            order = self._picker.next_order(now)
            if order is not None:
                return order
            wake_at = self._picker.wake_at(now)
            self._changed.wait(None if wake_at is None else max(0.01, wake_at - now))
        return None

    def _carry_out(self, order: Order) -> None:
        source = self._sources[order.source]
        body: Body | None = None
        fault: SourceFault | None = None
        try:
            body = source.open_range(self.blob, order.start, order.stop)
            with self._changed:
                self._bodies[order.number] = body
                if self._is_over:
                    body.abort()
            self._receive(order, body)
        except SourceFault as error:
            fault = error
        except HfpeerError as error:
            self._fail(error)
        finally:
            with self._changed:
                self._bodies.pop(order.number, None)
                self._settle(order, fault)
                self._changed.notify_all()
            if body is not None:
                body.close()
        if fault is not None and not self._is_over:
            self._listener(SourceFailed(source.name, str(self.blob.path), self._aborted_reason(order) or fault.reason))

    def _aborted_reason(self, order: Order) -> str | None:
        return self._aborted.get(order.number)

    def _settle(self, order: Order, fault: SourceFault | None) -> None:
        overdue = self._aborted_reason(order)
        if fault is not None and isinstance(fault.__cause__, AccessDenied):
            self._refusal = fault.__cause__
        if order.position >= order.stop:
            self._picker.finished(order)
        elif fault is None and overdue is None:
            self._picker.failed(order, "ended early", self._clock())
        else:
            self._picker.failed(
                order,
                overdue or (fault.reason if fault else ""),
                self._clock(),
                is_permanent=fault is not None and fault.is_permanent,
                retry_after_seconds=fault.retry_after_seconds if fault else None,
                is_overdue=overdue is not None,
            )

    def _receive(self, order: Order, body: Body) -> None:
        while order.position < order.stop:
            with self._changed:
                buffer = self._pool.acquire()
            if buffer is None:
                return
            kept = False
            try:
                kept = self._receive_piece(order, body, buffer)
            finally:
                if not kept:
                    with self._changed:
                        self._pool.give_back(buffer)
                        self._changed.notify_all()

    def _receive_piece(self, order: Order, body: Body, buffer: bytearray) -> bool:
        """Up to the next piece boundary, or for a second. Whether the buffer went to the hash. What came before a
        fault is kept."""
        offset = order.position
        boundary = (offset // PIECE_SIZE_BYTES + 1) * PIECE_SIZE_BYTES
        view = memoryview(buffer)[: min(boundary, order.stop) - offset]
        filled, began_at = 0, self._clock()
        try:
            while filled < len(view) and (not filled or self._clock() - began_at < FLUSH_SECONDS):
                received = body.readinto(view[filled:])
                if received == 0:
                    raise SourceFault(f"broke off after {offset + filled - order.start} bytes")
                filled += received
        finally:
            if filled:
                self._keep(order, offset, view[:filled])
        return self._hand_over(offset, buffer, filled)

    def _keep(self, order: Order, offset: int, view: memoryview) -> None:
        self.partial.write(offset, view)
        self.partial.record(offset, offset + len(view), order.source)
        with self._changed:
            now = self._clock()
            self._picker.received(order, len(view), now)
            self._progressed_at = now
            counted = self.report.bytes_by_source
            counted[order.source] = counted.get(order.source, 0) + len(view)
            self._unsynced_bytes += len(view)
            is_sync_due = self._unsynced_bytes >= SYNC_EVERY_BYTES
            if is_sync_due:
                self._unsynced_bytes = 0
        self._tell_readers()
        if is_sync_due:
            self.partial.sync()

    def _hand_over(self, offset: int, buffer: bytearray, size_bytes: int) -> bool:
        with self._changed:
            self._pool.hand_over(offset, buffer, size_bytes)
            self._changed.notify_all()
        return True

    def _fail(self, error: HfpeerError) -> None:
        """The disk failed: nothing a source could mend."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _abort_all(self) -> None:
        self._pool.is_closed = True
        for body in self._bodies.values():
            body.abort()

    # Lies

    def _suspect_next(self) -> None:
        """The whole is wrong: have what the likeliest liar gave fetched again by others.

        Earlier suspects are innocent when their bytes came back the same. Raises CorruptData when nobody is left
        to suspect or to ask.
        """
        with self._changed:
            self._clear_innocent()
            suspect = self._likeliest_liar()
            if suspect is None:
                raise self._wrong_everywhere()
            self._pool.clear()
            ranges = [(start, stop) for start, stop, source in self.partial.sources() if source == suspect]
            self._suspects.append(_Suspect(suspect, self._digests(ranges)))
            self._picker.remove_source(suspect, "its bytes are being compared with others'")
            for start, stop in ranges:
                self.partial.discard(start, stop)
                self._picker.discard(start, stop)
                self.discarded.append(ByteRange(start, stop))
                self.report.refetched_bytes += stop - start
            self._progressed_at = self._clock()
            self._changed.notify_all()
        self._tell_readers()

    def _digests(self, ranges: Iterable[tuple[int, int]]) -> dict[ByteRange, bytes]:
        digests = {}
        grid = PieceGrid(self.blob.size_bytes)
        for start, stop in ranges:
            for piece in grid.pieces_touching(start, stop):
                low, high = grid.range_of(piece)
                span = ByteRange(max(low, start), min(high, stop))
                digests[span] = self._digest(span)
        return digests

    def _digest(self, span: ByteRange) -> bytes:
        view = memoryview(bytearray(span.size_bytes))
        self.partial.read(span.start, view)
        return hashlib.sha256(view).digest()

    def _likeliest_liar(self) -> str | None:
        """The source not yet checked that is least to be trusted: peers first, those that gave most first."""
        given: dict[str, int] = {}
        for start, stop, source in self.partial.sources():
            given[source] = given.get(source, 0) + stop - start
        checked = {suspect.name for suspect in self._suspects} | self._innocent
        candidates = [name for name in given if name not in checked]
        return min(candidates, key=lambda name: (self._tier(name), -given[name]), default=None)

    def _tier(self, name: str) -> int:
        """A source of an earlier run is not known any more: suspect it like a peer."""
        source = self._sources.get(name)
        return TIERS[source.kind] if source else 0

    def _clear_innocent(self) -> None:
        for suspect in list(self._suspects):
            if all(self._digest(span) == digest for span, digest in suspect.given.items()):
                self._suspects.remove(suspect)
                self._innocent.add(suspect.name)
                if suspect.name in self._picker.sources:
                    self._picker.pardon(suspect.name)

    def _name_liars(self) -> None:
        """The whole is right now: whoever gave other bytes before has lied."""
        for suspect in self._suspects:
            if any(self._digest(span) != digest for span, digest in suspect.given.items()):
                self.report.liars.append(suspect.name)
                self._listener(
                    SourceFailed(
                        suspect.name, str(self.blob.path), "gave bytes that are not the file's", was_lying=True
                    )
                )

    def _wrong_everywhere(self) -> HfpeerError:
        names = sorted({source for _, _, source in self.partial.sources()})
        self.partial.discard(0, self.blob.size_bytes)
        return CorruptData(
            f"{self.blob.path} does not hash to {self.blob.digest}; it came from {', '.join(names) or 'nobody'}.",
            hint="Nothing of it was kept. Try again later, or from another network.",
            path=str(self.blob.path),
            sources=names,
        )
