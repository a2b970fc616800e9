"""The fetch of one blob: from many sources at once into a partial file, until it hashes to its digest.

Worker threads carry out the picker's orders; one conductor thread hashes in order, watches for sources that fall
behind, and has the last word. A fetch ends with a verified partial, never with an unverified one: when the hash
disagrees, what a suspect gave is fetched again elsewhere until it agrees, and the liar is named. It does not
publish, and it decides nothing about which sources to ask; both belong to its owner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from hfpeer.cache.blobs import BlobHash, PartialBlob
from hfpeer.errors import AccessDenied, BrokenCache, CorruptData, HfpeerError, NoSourceLeft
from hfpeer.gitproof import MAX_POINTER_BYTES
from hfpeer.ranges import MIB, PIECE_SIZE_BYTES, ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.blame import Inquiry, ask_once
from hfpeer.transfer.events import Listener, SourceFailed
from hfpeer.transfer.fellows import Chronicle, Vouchers, bits_of, span_of
from hfpeer.transfer.forgery import check_plain
from hfpeer.transfer.hashing import BufferPool, readable_stop
from hfpeer.transfer.picker import Order, Pace, Picker
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.shares import Shares
from hfpeer.transfer.sources import CONNECTIONS, TIERS, Source, WantedBlob
from hfpeer.wire import Body, PieceMap, PieceNews, SourceFault, piece_digest

MAX_WORKERS = 8
SYNC_EVERY_BYTES = 256 * MIB
TICK_SECONDS = 0.25
SAMPLE_SILENCES = 3
"""How long a source may take to give one piece for comparison, in the time after which it counts as silent."""
KEEPS_PER_SILENCE = 5
"""A piece that takes long is written as it comes, so often that a slow source is not taken for a silent one."""


class _Exhausted(Exception):
    """Bytes are missing and nobody who is not excluded will bring them."""


class BlobFetch:
    """Fetches `blob` into `partial`. Start it once; `result` is the report, or the error that ended it.

    `patience_seconds` without a byte from anybody end it. `result` is cancelled when the fetch is stopped before.
    """

    def __init__(
        self,
        blob: WantedBlob,
        partial: PartialBlob,
        listener: Listener,
        *,
        patience_seconds: float = 60.0,
        pace: Pace | None = None,
        own_id: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own_id` is this node's, by which it shares the pieces out with others that want the blob; "" shares none."""
        self.blob = blob
        self.partial = partial
        self.result: Future[FetchReport] = Future()
        self.report = FetchReport()
        self._listener = self.report.overheard(listener)
        self._patience_seconds = patience_seconds
        self._pace = pace or Pace(silence_seconds=min(Pace.silence_seconds, patience_seconds / 3))
        self._keep_seconds = self._pace.silence_seconds / KEEPS_PER_SILENCE
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes_changed = threading.Condition(self._lock)
        """For the conductor and for those who wait for a buffer."""
        self._orders_changed = threading.Condition(self._lock)
        """For workers without an order. One is woken at a time: who finds an order wakes the next."""
        self._grid = PieceGrid(blob.size_bytes)
        shares = Shares(own_id, str(blob.digest), self._grid.count) if own_id else None
        self._picker = Picker(self._grid, partial.present, self._pace, shares)
        self._chronicle = Chronicle(self._grid, self._picker.present)
        self._vouchers = Vouchers()
        self._sources: dict[str, Source] = {}
        self._bodies: dict[int, Body] = {}
        self._overdue: dict[int, str] = {}
        self._pool = BufferPool(MAX_WORKERS + 4, self._bytes_changed)
        self._conductor: threading.Thread | None = None
        self._workers: set[threading.Thread] = set()
        self._opening: dict[threading.Thread, int] = {}
        """Workers that wait for a source to answer, with their orders; they do not touch the partial."""
        self._unsynced_bytes = 0
        self._progressed_at = clock()
        self._failure: BaseException | None = None
        self._refusal: AccessDenied | None = None
        self._is_over = False
        self._inquiry = Inquiry(partial, self._sample, self._tiers, self._whole_sources)
        self._excluded: set[str] = set()
        self._must_hash_again = False
        """Bytes were discarded that may have been hashed already."""
        self._readers: dict[int, Callable[[], object]] = {}
        self.discarded: list[ByteRange] = []
        """What was found wrong, in the order in which it was; for those who read along."""

    # For the owner

    def add_source(self, source: Source, pieces: PieceMap | None = None) -> None:
        """A source joins, or has a new piece map (None: the whole blob). One with another grid is turned away."""
        with self._lock:
            self._sources.setdefault(source.name, source)
            self.report.meet(source)
            tier, limit = TIERS[source.kind], CONNECTIONS[source.kind]
            self._picker.add_source(source.name, tier, limit, pieces, source.node_id)
            if pieces is not None and pieces.size_bytes != self.blob.size_bytes:
                self._picker.remove_source(source.name, f"has {pieces.size_bytes} bytes under this digest")
            elif pieces is not None and pieces.piece_size_bytes != PIECE_SIZE_BYTES:
                self._picker.remove_source(source.name, f"has pieces of {pieces.piece_size_bytes} bytes")
            elif source.name in self._excluded:
                self._picker.remove_source(source.name, _COMPARED)
            self._orders_changed.notify()

    def hear(self, name: str, news: PieceNews) -> None:
        """What a fellow, a source that fetches this blob too, has got and is getting."""
        news = news.within(self._grid.count)
        with self._lock:
            self._picker.hear(name, bits_of(news.added), bits_of(news.claimed))
            self._vouchers.hear(name, news.firsthand)
            self._orders_changed.notify()

    def fellow_left(self, name: str) -> None:
        """A fellow does not answer any more, or has stopped fetching; it may come back."""
        with self._lock:
            self._picker.left(name)
            self._orders_changed.notify()

    def piece_map(self) -> PieceMap:
        """All whole pieces that are here; its version is for `news_since`."""
        with self._lock:
            return self._chronicle.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        """The version now, and what is new since the given one; None when the whole map has to be told again."""
        with self._lock:
            return self._chronicle.version, self._chronicle.since(version, self._picker.claims())

    def remove_source(self, name: str, reason: str) -> None:
        """A source has left."""
        with self._lock:
            self._picker.remove_source(name, reason)

    def start(self) -> None:
        """Begins; returns at once."""
        self._progressed_at = self._clock()
        self._conductor = threading.Thread(target=self._conduct, name=f"fetch {self.blob.path}", daemon=True)
        self._conductor.start()

    def stop(self) -> None:
        """Ends the fetch and waits until no thread of it touches the partial any more. What came stays there.

        A thread that waits for a source to answer may live on until it does, and then ends.
        """
        self._give_out()
        if self._conductor is None:
            self.result.cancel()
        else:
            self._conductor.join()

    def present(self) -> RangeSet:
        """What is on disk now."""
        with self._lock:
            return self._picker.present.copy()

    @property
    def present_bytes(self) -> int:
        with self._lock:
            return self._picker.present.total

    def bytes_by_source(self) -> dict[str, int]:
        with self._lock:
            return dict(self.report.bytes_by_source)

    # For those who read along

    def join(self, reader: int, on_change: Callable[[], object]) -> None:
        """`on_change` is called, from any thread, whenever bytes came, were found wrong, or the fetch has ended."""
        with self._lock:
            self._readers[reader] = on_change
        self.result.add_done_callback(lambda _: on_change())

    def leave(self, reader: int) -> None:
        with self._lock:
            self._readers.pop(reader, None)
            self._picker.prefer(reader, 0, 0)

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """`reader` waits for `[start, stop)`: these bytes are ordered before others until it says otherwise."""
        with self._lock:
            self._picker.prefer(reader, start, stop)

    def readable_stop(self, start: int, stop: int) -> int:
        """How far the bytes from `start` are on disk without a gap, at most to `stop`; nobody has verified them."""
        with self._lock:
            gap = next(self._picker.present.gaps(start, stop), None)
        return stop if gap is None else gap.start

    @property
    def is_verified(self) -> bool:
        """Whether the whole blob is on disk and hashes to its digest."""
        return self.result.done() and not self.result.cancelled() and self.result.exception() is None

    def _tell_readers(self) -> None:
        with self._lock:
            readers = list(self._readers.values())
        for on_change in readers:
            on_change()

    # The conductor

    def _conduct(self) -> None:
        error: BaseException | None = None
        is_verified = False
        try:
            is_verified = self._hash_until_right()
        except BaseException as reason:  # noqa: BLE001  an unforeseen one must reach whoever waits, too
            error = reason
        self._end()
        if not is_verified and error is None:
            self.result.cancel()
        elif self.result.set_running_or_notify_cancel():  # whoever waited may have lost interest
            if error is None:
                self.result.set_result(self.report)
            else:
                self.result.set_exception(error)

    def _give_out(self) -> None:
        """No more orders, no more buffers, and every blocked read fails."""
        with self._lock:
            self._is_over = True
            self._pool.close()
            self._orders_changed.notify_all()
            for body in self._bodies.values():
                body.abort()

    def _end(self) -> None:
        self._give_out()
        with self._lock:
            touching = self._workers - self._opening.keys()
        for worker in touching:
            worker.join()

    def _hash_until_right(self) -> bool:
        """True once the blob hashes to its digest, False when stopped. Raises what ended it otherwise."""
        while True:
            self._must_hash_again = False
            try:
                found = self._hash_once()
            except _Exhausted:
                if not self._inquiry.is_open:
                    raise self._no_source_left() from None
                self._inquiry.is_exhausted = True
            else:
                if found is None:
                    return False
                if self._must_hash_again:
                    continue
                if found == self.blob.digest.hex:
                    self._check_nature()
                    self._name_liars()
                    return True
            self._try_otherwise()

    def _check_nature(self) -> None:
        """Raises ForgedManifest when this small file is a pointer, listed as if it were the file it stands for."""
        if self.blob.size_bytes <= MAX_POINTER_BYTES:
            check_plain(self.blob, self._read_back(0, memoryview(bytearray(self.blob.size_bytes))))

    def _hash_once(self) -> str | None:
        """The blob's hash, as soon as all of it is there; None when stopped."""
        blob_hash = BlobHash(self.blob.digest.algorithm, self.blob.size_bytes)
        scratch = bytearray(PIECE_SIZE_BYTES)
        position, tick_at = 0, self._clock()
        while position < self.blob.size_bytes:
            if self._clock() >= tick_at:
                self._tick()
                tick_at = self._clock() + TICK_SECONDS
            with self._lock:
                if self._is_over:
                    return None
                warm, stop = self._next_bytes(position)
            if warm is not None:
                buffer, size_bytes = warm
                blob_hash.update(memoryview(buffer)[:size_bytes])
                position += size_bytes
            elif stop > position:
                blob_hash.update(self._read_back(position, memoryview(scratch)[: stop - position]))
                position = stop
            with self._lock:
                if warm is not None:
                    self._pool.give_back(warm[0])
                self._pool.drop_before(position)
        return blob_hash.hexdigest()

    def _next_bytes(self, position: int) -> tuple[tuple[bytearray, int] | None, int]:
        """With the lock held: the warm buffer at `position`, or else how far can be read back. Waits a while for
        either."""
        warm = self._pool.take(position)
        stop = position if warm else readable_stop(self._picker.present, position, self._pool)
        self._pool.is_hash_starving = warm is None and stop == position
        if self._pool.is_hash_starving:
            self._pool.starve()
            self._bytes_changed.wait(TICK_SECONDS)
        return warm, stop

    def _read_back(self, position: int, view: memoryview) -> memoryview:
        if self.partial.read(position, view) != len(view):
            raise BrokenCache(
                f"The partial file of {self.blob.path} has become shorter: {self.partial.path}.",
                hint="Something else changed it. Run the command again.",
                path=str(self.partial.path),
            )
        return view

    def _tick(self) -> None:
        """Ends what is overdue, gives up when nobody is left, starts workers, wakes those who wait for an order."""
        failed = []
        with self._lock:
            if self._failure is not None:
                raise self._failure
            now = self._clock()
            for order, reason in self._picker.overdue(now):
                if order.number not in self._overdue:
                    failed.append(SourceFailed(order.source, str(self.blob.path), reason))
                self._end_overdue(order, reason, now)
            if not self._picker.is_complete and (self._picker.is_stuck() or self._is_patience_over(now)):
                raise _Exhausted
            self._hire()
            self._orders_changed.notify()
        for event in failed:
            self._listener(event)

    def _end_overdue(self, order: Order, reason: str, now: float) -> None:
        """Makes a blocked read fail. A source that has not even answered loses its order at once: whatever it
        answers later is not read."""
        self._overdue[order.number] = reason
        body = self._bodies.get(order.number)
        if body is not None:
            body.abort()
        elif order.number in self._opening.values():
            self._picker.overtaken(order, reason, now)

    def _is_patience_over(self, now: float) -> bool:
        is_our_turn = any(order.is_paused for order in self._picker.orders.values())
        return not is_our_turn and now - self._progressed_at > self._patience_seconds

    def _hire(self) -> None:
        """Starts workers as long as there may be orders for them; each lives until the fetch ends. One whose order
        was taken from it while its source does not answer is lost, and replaced."""
        lost = sum(number not in self._picker.orders for number in self._opening.values())
        slots = sum(source.limit for source in self._picker.sources.values() if source.out_because is None)
        wanted = min(MAX_WORKERS, slots, self._picker.grid.count) + lost
        while len(self._workers) < wanted and not self._picker.is_complete and not self._is_over:
            worker = threading.Thread(target=self._work, name=f"receive {self.blob.path}", daemon=True)
            self._workers.add(worker)
            worker.start()

    def _no_source_left(self) -> HfpeerError:
        with self._lock:
            reasons = {
                source.name: source.out_because
                or source.last_reason
                or ("was not asked" if source.is_whole else "has not got all of it")
                for source in self._picker.sources.values()
            }
        if self._refusal is not None:
            return self._refusal
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no source knows it"
        return NoSourceLeft(
            f"Nobody can give the rest of {self.blob.path}: {said}.",
            hint="What came is kept; run the same command again later and it continues.",
            path=str(self.blob.path),
            sources=reasons,
        )

    # The workers

    def _work(self) -> None:
        try:
            while (order := self._wait_for_order()) is not None and self._carry_out(order):
                pass
        except BaseException as error:  # noqa: BLE001  a disk that fails, or a bug: it ends the fetch
            with self._lock:
                self._failure = self._failure or error
                self._bytes_changed.notify_all()
                self._orders_changed.notify_all()
        finally:
            with self._lock:
                self._workers.discard(threading.current_thread())

    def _wait_for_order(self) -> Order | None:
        """The next order of this worker, which is now opening it; None when there will be none."""
        with self._lock:
            while not self._is_over and self._failure is None:
                now = self._clock()
                order = self._picker.next_order(now)
                if order is not None:
                    self._opening[threading.current_thread()] = order.number
                    self._orders_changed.notify()
                    return order
                wake_at = self._picker.wake_at(now)
                self._orders_changed.wait(None if wake_at is None else max(0.01, wake_at - now))
            return None

    def _carry_out(self, order: Order) -> bool:
        """Whether the worker goes on: not if its order was taken from it before the source answered."""
        body: Body | None = None
        fault: SourceFault | None = None
        try:
            body = self._sources[order.source].open_range(self.blob, order.start, order.stop)
        except SourceFault as error:
            fault = error
        finally:
            is_mine = self._has_opened(order, body)
        try:
            if body is not None and is_mine:
                self._receive(order, body)
        except SourceFault as error:
            fault = error
        finally:
            if is_mine:
                self._settle(order, fault)
            if body is not None:
                body.close()
        return is_mine

    def _has_opened(self, order: Order, body: Body | None) -> bool:
        """Whether the order still stands, now that its source has answered."""
        with self._lock:
            del self._opening[threading.current_thread()]
            is_mine = not self._is_over and order.number in self._picker.orders
            if is_mine and body is not None:
                self._bodies[order.number] = body
            return is_mine

    def _settle(self, order: Order, fault: SourceFault | None) -> None:
        with self._lock:
            self._bodies.pop(order.number, None)
            overdue = self._overdue.get(order.number)
            now = self._clock()
            if fault is not None and isinstance(fault.__cause__, AccessDenied):
                self._refusal = fault.__cause__
            if order.position >= order.stop:
                fault = None
                self._picker.finished(order)
            elif overdue is not None:
                self._picker.overtaken(order, overdue, now)
            else:
                self._picker.failed(
                    order,
                    fault.reason if fault is not None else "ended early",
                    now,
                    is_permanent=fault is not None and fault.is_permanent,
                    retry_after_seconds=fault.retry_after_seconds if fault is not None else None,
                )
            self._bytes_changed.notify_all()
            self._orders_changed.notify()
            is_news = fault is not None and overdue is None and not self._is_over
        if fault is not None and is_news:
            self._listener(SourceFailed(order.source, str(self.blob.path), fault.reason))

    def _receive(self, order: Order, body: Body) -> None:
        while order.position < order.stop:
            with self._lock:
                self._picker.paused(order)
                buffer = self._pool.acquire()
                self._picker.resumed(order, self._clock())
            if buffer is None:
                return
            is_handed_over = False
            try:
                offset, size_bytes = order.position, self._receive_piece(order, body, buffer)
                with self._lock:
                    self._pool.hand_over(offset, buffer, size_bytes)
                is_handed_over = True
            finally:
                if not is_handed_over:
                    with self._lock:
                        self._pool.give_back(buffer)

    def _receive_piece(self, order: Order, body: Body, buffer: bytearray) -> int:
        """Bytes up to the next piece boundary; how many. What came before a fault is kept."""
        boundary = (order.position // PIECE_SIZE_BYTES + 1) * PIECE_SIZE_BYTES
        view = memoryview(buffer)[: min(boundary, order.stop) - order.position]
        filled = kept = 0
        keep_at = self._clock() + self._keep_seconds
        try:
            while filled < len(view):
                received = body.readinto(view[filled:])
                if received == 0:
                    raise SourceFault(f"broke off after {order.position + filled - kept - order.start} bytes")
                filled += received
                if filled < len(view) and self._clock() >= keep_at:
                    self._keep(order, view[kept:filled])
                    kept, keep_at = filled, self._clock() + self._keep_seconds
            filled = kept
            self._compare(order, order.position - kept, view)
            filled = len(view)
        finally:
            if filled > kept:
                self._keep(order, view[kept:filled])
        return filled

    def _compare(self, order: Order, start: int, view: memoryview) -> None:
        """Takes note of the digest of a piece that came at first hand, if anybody listens, and compares one that did
        not with what its first receiver says. Raises SourceFault when the sender changed it."""
        piece = span_of(self._grid, start, len(view))
        with self._lock:
            is_first_hand = self._picker.sources[order.source].is_holder
            is_known = piece is not None and self._vouchers.knows(piece)
            if piece is None or not (self._picker.has_fellows if is_first_hand else is_known):
                return
        digest = piece_digest(view)
        with self._lock:
            if is_first_hand:
                self._chronicle.vouch(piece, digest)
                return
            verdict = self._vouchers.judge(piece, digest, order.source)
            if verdict is None:
                return
            self.report.liars.append(verdict.liar)
            self._picker.remove_source(verdict.liar, _LIED)
            self.report.liars = [name for name in self.report.liars if name not in verdict.innocent]
            for innocent in verdict.innocent - self._excluded:
                self._picker.pardon(innocent)
        self._listener(SourceFailed(verdict.liar, str(self.blob.path), _LIED, was_lying=True))
        if verdict.liar == order.source:
            self._discard(ByteRange(start, order.position))
            raise SourceFault(_LIED, is_permanent=True)

    def _discard(self, span: ByteRange) -> None:
        """Forgets what a lying piece had brought before it was known to be one."""
        if span.size_bytes:
            self.partial.discard(*span)
            with self._lock:
                self._picker.discard(*span)
                self.discarded.append(span)
                self.report.refetched_bytes += span.size_bytes
                self._must_hash_again = True
            self._tell_readers()

    def _keep(self, order: Order, view: memoryview) -> None:
        with self._lock:
            self._picker.paused(order)
        self.partial.write(order.position, view)
        self.partial.record(order.position, order.position + len(view), order.source)
        with self._lock:
            start = order.position
            self._picker.received(order, len(view), self._clock())
            self._chronicle.came(start, order.position, self._picker.present)
            self._progressed_at = self._clock()
            self.report.count(order.source, len(view))
            self._bytes_changed.notify_all()
            is_sync_due = self._is_sync_due(len(view))
            if is_sync_due:
                self._picker.paused(order)
        self._tell_readers()
        if is_sync_due:
            self.partial.sync()

    def _is_sync_due(self, size_bytes: int) -> bool:
        self._unsynced_bytes += size_bytes
        if self._unsynced_bytes < SYNC_EVERY_BYTES:
            return False
        self._unsynced_bytes = 0
        return True

    # Lies

    def _try_otherwise(self) -> None:
        """The blob is wrong: do without whom the inquiry suspects, and fetch what those gave from others.

        Raises CorruptData when every way has been tried.
        """
        excluded = self._inquiry.next_exclusion()
        if excluded is None:
            raise self._wrong_everywhere()
        wrong = {name: self._inquiry.remember(name) for name in excluded}
        for span in (span for ranges in wrong.values() for span in ranges):
            self.partial.discard(*span)
        with self._lock:
            for name in self._excluded - excluded:
                if name in self._picker.sources:
                    self._picker.pardon(name)
            for name in excluded:
                self._picker.remove_source(name, _COMPARED)
            for span in (span for ranges in wrong.values() for span in ranges):
                self._picker.discard(*span)
                self._chronicle.lost(*span)
                self.discarded.append(span)
                self.report.refetched_bytes += span.size_bytes
            self._excluded = excluded
            self._pool.clear()
            self._progressed_at = self._clock()
        self._tell_readers()

    def _sample(self, name: str, span: ByteRange) -> bytes | None:
        """What a source gives for a range, asked at once and beside all orders."""
        with self._lock:
            source = self._sources[name]
        found = ask_once(
            lambda: source.open_range(self.blob, span.start, span.stop),
            span.size_bytes,
            SAMPLE_SILENCES * self._pace.silence_seconds,
            lambda: self._is_over,
        )
        with self._lock:
            self._progressed_at = self._clock()
            if found is not None:
                self.report.count(name, len(found))
                self.report.refetched_bytes += len(found)
        return found

    def _tiers(self) -> dict[str, int]:
        with self._lock:
            sources = self._picker.sources.values()
            return {source.name: source.tier for source in sources if source.out_because is None or source.is_barred}

    def _whole_sources(self) -> list[str]:
        with self._lock:
            return [source.name for source in self._picker.sources.values() if source.is_whole]

    def _name_liars(self) -> None:
        """The whole is right now: whoever gave other bytes before has lied."""
        if not self._inquiry.is_open:
            return
        self.report.liars = self._inquiry.liars()
        for name in self.report.liars:
            self._listener(SourceFailed(name, str(self.blob.path), _LIED, was_lying=True))

    def _wrong_everywhere(self) -> HfpeerError:
        self.report.liars = self._inquiry.convicted
        for name in self.report.liars:
            self._listener(SourceFailed(name, str(self.blob.path), _LIED, was_lying=True))
        names = sorted({*self._inquiry.suspected, *self._inquiry.givers()})
        self.partial.discard(0, self.blob.size_bytes)
        return CorruptData(
            f"{self.blob.path} does not hash to {self.blob.digest}; it came from {', '.join(names) or 'nobody'}.",
            hint="Nothing of it was kept. Try again later, or from another network.",
            path=str(self.blob.path),
            sources=names,
        )


_COMPARED = "its bytes are being compared with others'"
_LIED = "gave bytes that are not the file's"
