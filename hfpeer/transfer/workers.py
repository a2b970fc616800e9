"""The threads that carry out the picker's orders: from a source into the partial file, one range after the other.

They own the open bodies and nothing else. What they receive is written, noted and handed to the hash; whether it is
right, and whom to ask for what, is for others to say.
"""

from __future__ import annotations

import threading
from mmap import mmap

from hfpeer.errors import AccessDenied
from hfpeer.ranges import MIB, PIECE_SIZE_BYTES
from hfpeer.transfer.company import MAX_ENVOYS
from hfpeer.transfer.desk import Desk
from hfpeer.transfer.events import SourceFailed
from hfpeer.transfer.lies import Lies
from hfpeer.transfer.standing import Order
from hfpeer.wire import Body, SourceFault

MAX_WORKERS = MAX_ENVOYS + 2
"""One for each fellow of a company that is no crowd, and two for a holder."""
SYNC_EVERY_BYTES = 256 * MIB
KEEPS_PER_SILENCE = 5
"""A piece that takes long is written as it comes, so often that a slow source is not taken for a silent one."""


class Workers:
    """The workers of one fetch; they live until it is over."""

    def __init__(self, desk: Desk, lies: Lies) -> None:
        self._desk = desk
        self._lies = lies
        self._keep_seconds = desk.pace.silence_seconds / KEEPS_PER_SILENCE
        self._bodies: dict[int, Body] = {}
        self._overdue: dict[int, str] = {}
        self._threads: set[threading.Thread] = set()
        self._opening: dict[threading.Thread, int] = {}
        """Workers that wait for a source to answer, with their orders; they do not touch the partial."""
        self._unsynced_bytes = 0
        self.refusal: AccessDenied | None = None
        """That a hub wants a token, or another one."""

    # For the conductor

    def abort(self) -> None:
        """With the lock held: makes every blocked read fail."""
        for body in self._bodies.values():
            body.abort()

    def join(self) -> None:
        """Waits until none touches the partial any more. Nothing is on order then, or the fetch is over."""
        with self._desk.lock:
            touching = self._threads - self._opening.keys()
        for worker in touching:
            worker.join()

    def end_overdue(self, now: float) -> list[SourceFailed]:
        """With the lock held: ends the orders that are overdue. What is to be told of them."""
        failed = []
        for order, reason in self._desk.picker.overdue(now):
            if order.number not in self._overdue:
                failed.append(SourceFailed(order.source, str(self._desk.blob.path), reason))
            self._end(order, reason, now)
        return failed

    def hire(self) -> None:
        """With the lock held: starts workers as long as there may be orders for them; each lives until the fetch ends.
        One whose order was taken from it while its source does not answer is lost, and replaced."""
        lost = sum(number not in self._desk.picker.orders for number in self._opening.values())
        slots = sum(source.limit for source in self._desk.picker.sources.values() if source.out_because is None)
        wanted = min(MAX_WORKERS, slots, self._desk.picker.grid.count) + lost
        while len(self._threads) < wanted and not self._desk.picker.is_complete and not self._desk.is_over:
            worker = threading.Thread(target=self._work, name=f"receive {self._desk.blob.path}", daemon=True)
            self._threads.add(worker)
            worker.start()

    def _end(self, order: Order, reason: str, now: float) -> None:
        """Makes a blocked read fail. A source that has not even answered loses its order at once: whatever it
        answers later is not read."""
        self._overdue[order.number] = reason
        body = self._bodies.get(order.number)
        if body is not None:
            body.abort()
        elif order.number in self._opening.values():
            self._desk.picker.overtaken(order, reason, now)

    # One worker

    def _work(self) -> None:
        source: str | None = None
        try:
            while (order := self._wait_for_order(source)) is not None and self._carry_out(order):
                source = order.source
        except BaseException as error:  # noqa: BLE001  a disk that fails, or a bug: it ends the fetch
            self._desk.fail(error)
        finally:
            with self._desk.lock:
                self._threads.discard(threading.current_thread())

    def _wait_for_order(self, source: str | None) -> Order | None:
        """The next order of this worker, which is now opening it; None when there will be none. One of the `source`
        whose order it has just done was due anyway; where there is another, there may be one for others too."""
        with self._desk.lock:
            while not self._desk.is_over and self._desk.failure is None:
                now = self._desk.clock()
                order = self._desk.picker.next_order(now)
                if order is not None:
                    self._opening[threading.current_thread()] = order.number
                    if order.source != source:
                        self._desk.orders_changed.notify()
                    return order
                source, wake_at = None, self._desk.picker.wake_at(now)
                self._desk.orders_changed.wait(None if wake_at is None else max(0.01, wake_at - now))
            return None

    def _carry_out(self, order: Order) -> bool:
        """Whether the worker goes on: not if its order was taken from it before the source answered."""
        body: Body | None = None
        fault: SourceFault | None = None
        try:
            source = self._desk.sources[order.source]
            body = source.open_range(self._desk.blob, order.start, order.stop, cut_through=order.is_cut_through)
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
        with self._desk.lock:
            del self._opening[threading.current_thread()]
            is_mine = not self._desk.is_over and order.number in self._desk.picker.orders
            if is_mine and body is not None:
                self._bodies[order.number] = body
            return is_mine

    def _settle(self, order: Order, fault: SourceFault | None) -> None:
        with self._desk.lock:
            self._bodies.pop(order.number, None)
            overdue = self._overdue.get(order.number)
            now = self._desk.clock()
            if fault is not None and isinstance(fault.__cause__, AccessDenied):
                self.refusal = fault.__cause__
            if order.position >= order.stop:
                fault = None
                self._desk.picker.finished(order)
            elif overdue is not None:
                self._desk.picker.overtaken(order, overdue, now)
            else:
                self._desk.picker.failed(
                    order,
                    fault.reason if fault is not None else "ended early",
                    now,
                    is_permanent=fault is not None and fault.is_permanent,
                    retry_after_seconds=fault.retry_after_seconds if fault is not None else None,
                )
            if order.position < order.stop:
                self._desk.orders_changed.notify()
                self._desk.bytes_came.notify_all()
            is_news = fault is not None and overdue is None and not self._desk.is_over
        if fault is not None and is_news:
            self._desk.listener(SourceFailed(order.source, str(self._desk.blob.path), fault.reason))

    def _receive(self, order: Order, body: Body) -> None:
        while order.position < order.stop:
            with self._desk.lock:
                self._desk.picker.paused(order)
                buffer = self._desk.pool.acquire()
                self._desk.picker.resumed(order, self._desk.clock())
            if buffer is None:
                return
            is_handed_over = False
            try:
                offset, size_bytes = order.position, self._receive_piece(order, body, buffer)
                with self._desk.lock:
                    self._desk.pool.hand_over(offset, buffer, size_bytes)
                    self._lies.arrived(order)
                is_handed_over = True
            finally:
                if not is_handed_over:
                    with self._desk.lock:
                        self._desk.pool.give_back(buffer)

    def _receive_piece(self, order: Order, body: Body, buffer: mmap) -> int:
        """Bytes up to the next piece boundary; how many. What came before a fault is kept."""
        boundary = (order.position // PIECE_SIZE_BYTES + 1) * PIECE_SIZE_BYTES
        view = memoryview(buffer)[: min(boundary, order.stop) - order.position]
        filled = kept = 0
        keep_at = self._desk.clock() + self._keep_seconds
        try:
            while filled < len(view):
                received = body.readinto(view[filled:])
                if received == 0:
                    raise SourceFault(f"broke off after {order.position + filled - kept - order.start} bytes")
                filled += received
                is_due = order.position // PIECE_SIZE_BYTES in self._desk.awaited or self._desk.clock() >= keep_at
                if filled < len(view) and is_due:
                    self._keep(order, view[kept:filled])
                    kept, keep_at = filled, self._desk.clock() + self._keep_seconds
            filled = kept
            self._lies.compare(order, order.position - kept, view)
            filled = len(view)
        finally:
            if filled > kept:
                self._keep(order, view[kept:filled])
        return filled

    def _keep(self, order: Order, view: memoryview) -> None:
        with self._desk.lock:
            self._desk.picker.paused(order)
        self._desk.partial.write(order.position, view)
        self._desk.partial.record(order.position, order.position + len(view), order.source)
        with self._desk.lock:
            start = order.position
            self._desk.picker.received(order, len(view), self._desk.clock())
            self._desk.chronicle.came(start, order.position, self._desk.picker.present)
            self._desk.progressed_at = self._desk.clock()
            self._desk.report.count(order.source, len(view))
            if start // PIECE_SIZE_BYTES in self._desk.awaited:
                self._desk.bytes_came.notify_all()
            is_sync_due = self._is_sync_due(len(view))
            if is_sync_due:
                self._desk.picker.paused(order)
        self._desk.tell_readers()
        if is_sync_due:
            self._desk.partial.sync()

    def _is_sync_due(self, size_bytes: int) -> bool:
        self._unsynced_bytes += size_bytes
        if self._unsynced_bytes < SYNC_EVERY_BYTES:
            return False
        self._unsynced_bytes = 0
        return True
