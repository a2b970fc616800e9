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
from dataclasses import replace
from mmap import mmap

from hfpeer.cache.blobs import BlobHash, PartialBlob
from hfpeer.errors import BrokenCache, HfpeerError, NoSourceLeft
from hfpeer.gitproof import MAX_POINTER_BYTES
from hfpeer.ranges import PIECE_SIZE_BYTES, ByteRange, PieceGrid, RangeSet
from hfpeer.transfer.company import Company
from hfpeer.transfer.desk import Desk
from hfpeer.transfer.errands import Errands
from hfpeer.transfer.events import Listener
from hfpeer.transfer.forgery import check_plain
from hfpeer.transfer.hashing import readable_stop
from hfpeer.transfer.lies import COMPARED, Lies
from hfpeer.transfer.pieces import bits_of
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.shares import Shares
from hfpeer.transfer.sources import CONNECTIONS, TIERS, Source, WantedBlob
from hfpeer.transfer.standing import Pace
from hfpeer.transfer.workers import MAX_WORKERS, Workers
from hfpeer.wire import PieceMap, PieceNews

TICK_SECONDS = 0.25
SPARE_BUFFERS = 4
"""Beside one that each worker fills: for those that wait to be hashed."""


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
        pace = pace or Pace(silence_seconds=min(Pace.silence_seconds, patience_seconds / 3))
        self._company = Company(own_id, str(blob.digest), int(time.time()))
        shares = Shares(own_id, str(blob.digest), PieceGrid(blob.size_bytes).count)
        errands = Errands(shares, self._company) if own_id else None
        self.blob = blob
        self.partial = partial
        self.result: Future[FetchReport] = Future()
        self._desk = Desk(blob, partial, listener, pace, errands, MAX_WORKERS + SPARE_BUFFERS, clock)
        self._lies = Lies(self._desk)
        self._workers = Workers(self._desk, self._lies)
        self._patience_seconds = patience_seconds
        self._conductor: threading.Thread | None = None

    @property
    def report(self) -> FetchReport:
        """What has been given by whom until now."""
        return self._desk.report

    @property
    def discarded(self) -> list[ByteRange]:
        """What was found wrong, in the order in which it was; for those who read along."""
        return self._desk.discarded

    # For the owner

    def add_source(self, source: Source, pieces: PieceMap | None = None) -> None:
        """A source joins, or has a new piece map (None: the whole blob). One with another grid is turned away."""
        with self._desk.lock:
            self._desk.sources.setdefault(source.name, source)
            self._desk.report.meet(source)
            tier, limit = TIERS[source.kind], CONNECTIONS[source.kind]
            self._desk.picker.add_source(source.name, tier, limit, pieces, source.node_id)
            if pieces is not None and pieces.bits is not None and source.node_id:
                self._company.meet(source.node_id, self._desk.clock())
            if pieces is not None and pieces.size_bytes != self.blob.size_bytes:
                self._desk.picker.remove_source(source.name, f"has {pieces.size_bytes} bytes under this digest")
            elif pieces is not None and pieces.piece_size_bytes != PIECE_SIZE_BYTES:
                self._desk.picker.remove_source(source.name, f"has pieces of {pieces.piece_size_bytes} bytes")
            elif source.name in self._desk.excluded:
                self._desk.picker.remove_source(source.name, COMPARED)
            self._desk.orders_changed.notify()

    def hear(self, name: str, news: PieceNews) -> None:
        """What a fellow, a source that fetches this blob too, has got and is getting."""
        news = news.within(self._desk.grid.count)
        with self._desk.lock:
            may_help = self._desk.picker.hear(name, bits_of(news.added), bits_of(news.claimed))
            self._lies.hear(name, news)
            self._company.hear(news.company, self._desk.clock())
            if may_help or news.company:
                self._desk.orders_changed.notify()

    def fellow_left(self, name: str) -> None:
        """A fellow does not answer any more, or has stopped fetching; it may come back."""
        with self._desk.lock:
            self._desk.picker.left(name)
            if name in self._desk.sources:
                self._company.left(self._desk.sources[name].node_id)
            self._desk.orders_changed.notify()

    def piece_map(self) -> PieceMap:
        """All whole pieces that are here; its version is for `news_since`."""
        with self._desk.lock:
            return self._desk.chronicle.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        """The version now, and what is new since the given one; None when the whole map has to be told again. Its
        company is all that is known."""
        with self._desk.lock:
            now = self._desk.clock()
            self._company.stand(self._conductor is None or self._desk.picker.has_holder(now))
            news = self._desk.chronicle.since(version, self._desk.picker.claims())
            return self._desk.chronicle.version, news and replace(news, company=self._company.told(now))

    def envoys_to_follow(self) -> tuple[str, ...]:
        """The node ids of those who fetch this blob that this node should follow, whoever else it does."""
        with self._desk.lock:
            return self._company.to_follow(self._desk.clock())

    def remove_source(self, name: str, reason: str) -> None:
        """A source has left."""
        with self._desk.lock:
            self._desk.picker.remove_source(name, reason)

    def start(self) -> None:
        """Begins; returns at once."""
        self._desk.progressed_at = self._desk.clock()
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
        with self._desk.lock:
            return self._desk.picker.present.copy()

    @property
    def present_bytes(self) -> int:
        with self._desk.lock:
            return self._desk.picker.present.total

    def bytes_by_source(self) -> dict[str, int]:
        with self._desk.lock:
            return dict(self._desk.report.bytes_by_source)

    # For those who read along

    def join(self, reader: int, on_change: Callable[[], object]) -> None:
        """`on_change` is called, from any thread, whenever bytes came, were found wrong, or the fetch has ended."""
        with self._desk.lock:
            self._desk.readers[reader] = on_change
        self.result.add_done_callback(lambda _: on_change())

    def leave(self, reader: int) -> None:
        with self._desk.lock:
            self._desk.readers.pop(reader, None)
            self._desk.picker.prefer(reader, 0, 0)

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """`reader` waits for `[start, stop)`: these bytes are ordered before others until it says otherwise."""
        with self._desk.lock:
            self._desk.picker.prefer(reader, start, stop)

    def readable_stop(self, start: int, stop: int) -> int:
        """How far the bytes from `start` are on disk without a gap, at most to `stop`; nobody has verified them."""
        with self._desk.lock:
            return self._readable_stop(start, stop)

    def _readable_stop(self, start: int, stop: int) -> int:
        gap = next(self._desk.picker.present.gaps(start, stop), None)
        return stop if gap is None else gap.start

    # For those who pass on what comes

    def is_coming(self, start: int, stop: int) -> bool:
        """Whether all that is missing of `[start, stop)` is on its way from holders."""
        with self._desk.lock:
            return not self._desk.is_over and self._desk.picker.is_coming(start, stop)

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        """Blocking: like `readable_stop`, but waits so long for the first byte, while it is on its way."""
        piece, deadline = start // PIECE_SIZE_BYTES, time.monotonic() + seconds
        with self._desk.lock:
            self._desk.awaited[piece] += 1
            try:
                while (readable := self._readable_stop(start, stop)) == start:
                    left_seconds = deadline - time.monotonic()
                    is_coming = not self._desk.is_over and self._desk.picker.is_coming(start, start + 1)
                    if not is_coming or not self._desk.bytes_came.wait(max(0.0, left_seconds)):
                        break
                return readable
            finally:
                self._desk.awaited[piece] -= 1
                self._desk.awaited = +self._desk.awaited

    @property
    def is_verified(self) -> bool:
        """Whether the whole blob is on disk and hashes to its digest."""
        return self.result.done() and not self.result.cancelled() and self.result.exception() is None

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
                self.result.set_result(self._desk.report)
            else:
                self.result.set_exception(error)

    def _give_out(self) -> None:
        """No more orders, no more buffers, and every blocked read fails."""
        with self._desk.lock:
            self._desk.is_over = True
            self._desk.pool.close()
            self._desk.bytes_came.notify_all()
            self._desk.orders_changed.notify_all()
            self._workers.abort()

    def _end(self) -> None:
        self._give_out()
        self._workers.join()

    def _hash_until_right(self) -> bool:
        """True once the blob hashes to its digest, False when stopped. Raises what ended it otherwise."""
        while True:
            self._desk.must_hash_again = False
            try:
                found = self._hash_once()
            except _Exhausted:
                if not self._lies.inquiry.is_open:
                    raise self._no_source_left() from None
                self._lies.inquiry.is_exhausted = True
            else:
                if found is None:
                    return False
                self._lies.judge_early()
                if self._desk.must_hash_again:
                    continue
                if found == self.blob.digest.hex:
                    self._check_nature()
                    self._lies.name_liars()
                    return True
            self._lies.try_otherwise()

    def _check_nature(self) -> None:
        """Raises ForgedManifest when this small file is a pointer, listed as if it were the file it stands for."""
        if self.blob.size_bytes <= MAX_POINTER_BYTES:
            check_plain(self.blob, self._read_back(0, memoryview(bytearray(self.blob.size_bytes))))

    def _hash_once(self) -> str | None:
        """The blob's hash, as soon as all of it is there; None when stopped."""
        blob_hash = BlobHash(self.blob.digest.algorithm, self.blob.size_bytes)
        scratch = bytearray(PIECE_SIZE_BYTES)
        position, tick_at = 0, self._desk.clock()
        self._desk.hashed_bytes = 0
        while position < self.blob.size_bytes:
            if self._desk.clock() >= tick_at:
                self._tick()
                tick_at = self._desk.clock() + TICK_SECONDS
            with self._desk.lock:
                if self._desk.is_over:
                    return None
                warm, stop = self._next_bytes(position, tick_at - self._desk.clock())
            if warm is not None:
                buffer, size_bytes = warm
                blob_hash.update(memoryview(buffer)[:size_bytes])
                position += size_bytes
            elif stop > position:
                blob_hash.update(self._read_back(position, memoryview(scratch)[: stop - position]))
                position = stop
            with self._desk.lock:
                if warm is not None:
                    self._desk.pool.give_back(warm[0])
                self._desk.pool.drop_before(position)
                self._desk.hashed_bytes = position
        return blob_hash.hexdigest()

    def _next_bytes(self, position: int, seconds: float) -> tuple[tuple[mmap, int] | None, int]:
        """With the lock held: the warm buffer at `position`, or else how far can be read back. Waits so long for
        either."""
        warm = self._desk.pool.take(position)
        stop = position if warm else readable_stop(self._desk.picker.present, position, self._desk.pool)
        if warm is None and stop == position:
            self._desk.pool.starve(position, max(0.0, seconds))
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
        """Judges what can be judged by now, ends what is overdue, gives up when nobody is left, starts workers, wakes
        those who wait for an order."""
        self._lies.judge_early()
        with self._desk.lock:
            if self._desk.failure is not None:
                raise self._desk.failure
            now = self._desk.clock()
            failed = self._workers.end_overdue(now)
            if not self._desk.picker.is_complete and (self._desk.picker.is_stuck() or self._is_patience_over(now)):
                raise _Exhausted
            self._workers.hire()
            self._desk.orders_changed.notify()
        for event in failed:
            self._desk.listener(event)

    def _is_patience_over(self, now: float) -> bool:
        is_our_turn = any(order.is_paused for order in self._desk.picker.orders.values())
        return not is_our_turn and now - self._desk.progressed_at > self._patience_seconds

    def _no_source_left(self) -> HfpeerError:
        with self._desk.lock:
            reasons = {
                source.name: source.out_because
                or source.last_reason
                or ("was not asked" if source.is_whole else "has not got all of it")
                for source in self._desk.picker.sources.values()
            }
        if self._workers.refusal is not None:
            return self._workers.refusal
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no source knows it"
        return NoSourceLeft(
            f"Nobody can give the rest of {self.blob.path}: {said}.",
            hint="What came is kept; run the same command again later and it continues.",
            path=str(self.blob.path),
            sources=reasons,
        )
