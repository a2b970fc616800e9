"""The threads that carry out the picker's requests: from a source into the partial file, one range after the other.

The bytes are written, noted and handed to the hash. Which source is asked, and whether its bytes are right, is
decided elsewhere.
"""

from __future__ import annotations

import threading
from mmap import mmap

from hfpeer.errors import AccessDenied, RateLimited
from hfpeer.net.body import Body, SourceFault
from hfpeer.peers.protocol.pieces import piece_digest
from hfpeer.ranges import MIB, PIECE_SIZE_BYTES, ByteRange
from hfpeer.transfer.fetch.buffers import BufferPool
from hfpeer.transfer.fetch.job import FetchJob
from hfpeer.transfer.fetch.piece_check import COMPARED
from hfpeer.transfer.fetch.readers import Readers
from hfpeer.transfer.fetch.state import FetchState
from hfpeer.transfer.picker.membership import MAX_ENVOYS
from hfpeer.transfer.picker.source_state import RangeRequest

MAX_WORKERS = MAX_ENVOYS + 2
"""At most this many threads a fetch: one for each envoy, and two for a seed."""
PASSED_OVER_BYTES = MIB
"""At most this many bytes are passed over at once."""
SYNC_EVERY_BYTES = 256 * MIB
"""Bytes after which the partial is synced to disk."""
WRITES_PER_SILENCE = 5
"""A piece that takes long is written this many times per silence limit, so that its source does not count as silent."""


class Workers:
    """The threads of one fetch; they live until it is over."""

    def __init__(self, job: FetchJob, state: FetchState, pool: BufferPool, readers: Readers) -> None:
        self._job = job
        self._state = state
        self._pool = pool
        self._readers = readers
        self._write_seconds = job.limits.silence_seconds / WRITES_PER_SILENCE
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._unsynced_bytes = 0
        self.refusal: AccessDenied | None = None
        """A hub's refusal, which a person can do something about."""

    def hire(self) -> None:
        """Starts as many threads as there may be requests for."""
        wanted = self._state.workers_wanted(MAX_WORKERS)
        with self._lock:
            while len(self._threads) < wanted:
                worker = threading.Thread(target=self._work, name=f"receive {self._job.blob.path}", daemon=True)
                self._threads.add(worker)
                worker.start()

    def join(self) -> None:
        """Waits until no thread touches the partial. The fetch is over by then."""
        opening = self._state.opening_threads()
        with self._lock:
            touching = self._threads - opening
        for worker in touching:
            worker.join()

    # One thread

    def _work(self) -> None:
        source: str | None = None
        try:
            while (request := self._state.next_request(source)) is not None and self._carry_out(request):
                source = request.source
        except BaseException as error:  # noqa: BLE001  a disk that fails, or a bug: it ends the fetch
            self._state.fail(error)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _carry_out(self, request: RangeRequest) -> bool:
        """Whether the thread goes on: it ends if its request was given to others before the source answered."""
        body: Body | None = None
        fault: SourceFault | None = None
        try:
            source = self._state.source(request.source)
            body = source.open_range(self._job.blob, request.start, request.stop, cut_through=request.is_cut_through)
        except SourceFault as error:
            fault = error
        finally:
            is_wanted = self._state.answered(request, body)
        try:
            if body is not None and is_wanted:
                self._receive(request, body)
        except SourceFault as error:
            fault = error
        finally:
            if is_wanted:
                self._settle(request, fault)
            if body is not None:
                body.close()
        return is_wanted

    def _settle(self, request: RangeRequest, fault: SourceFault | None) -> None:
        if fault is not None and isinstance(fault.__cause__, AccessDenied):
            self.refusal = fault.__cause__
        if self._state.settle(request, fault) and fault is not None and not isinstance(fault.__cause__, RateLimited):
            self._job.source_failed(request.source, fault.reason)

    def _pass_over(self, request: RangeRequest, body: Body) -> None:
        """Passes over the bytes before the request, which a source without ranges sends first."""
        view = memoryview(bytearray(PASSED_OVER_BYTES))
        while size_bytes := body.pass_over(view):
            self._state.count_sample(request.source, size_bytes)

    def _receive(self, request: RangeRequest, body: Body) -> None:
        self._pass_over(request, body)
        while request.position < request.stop:
            self._state.pause(request)
            buffer = self._pool.acquire()
            self._state.resume(request)
            if buffer is None:
                return
            is_handed_over = False
            try:
                offset, size_bytes = request.position, self._receive_piece(request, body, buffer)
                self._pool.hand_over(offset, buffer, size_bytes)
                is_handed_over = True
            finally:
                if not is_handed_over:
                    self._pool.give_back(buffer)

    def _receive_piece(self, request: RangeRequest, body: Body, buffer: mmap) -> int:
        """Receives and writes up to the next piece boundary; the number of bytes. Bytes before a fault are kept."""
        piece = request.position // PIECE_SIZE_BYTES
        view = memoryview(buffer)[: min((piece + 1) * PIECE_SIZE_BYTES, request.stop) - request.position]
        filled = written = 0
        write_at = self._job.clock() + self._write_seconds
        try:
            while filled < len(view):
                received = body.readinto(view[filled:])
                if received == 0:
                    came = request.position + filled - written - request.start
                    raise SourceFault(f"broke off after {came} bytes")
                filled += received
                is_due = self._readers.is_awaited(piece) or self._job.clock() >= write_at
                if filled < len(view) and is_due:
                    self._write(request, view[written:filled])
                    written, write_at = filled, self._job.clock() + self._write_seconds
            filled = written
            self._compare(request, request.position - written, view)
            filled = len(view)
        finally:
            if filled > written:
                self._write(request, view[written:filled])
        return filled

    def _compare(self, request: RangeRequest, start: int, view: memoryview) -> None:
        """Raises SourceFault when the piece at `start` is another than a leecher says, and discards what is written."""
        piece = self._state.piece_to_compare(request, start, len(view))
        if piece is not None and self._state.is_disputed(request, piece, piece_digest(view)):
            if start < request.position:
                self._state.discard([ByteRange(start, request.position)])
            raise SourceFault(COMPARED)

    def _write(self, request: RangeRequest, view: memoryview) -> None:
        self._state.pause(request)
        partial, start = self._job.partial, request.position
        partial.write(start, view)
        is_open = self._state.source(request.source).is_open
        partial.record(start, start + len(view), request.source, is_open=is_open)
        self._state.received(request, len(view))
        if self._is_sync_due(len(view)):
            self._state.pause(request)
            partial.sync()

    def _is_sync_due(self, size_bytes: int) -> bool:
        with self._lock:
            self._unsynced_bytes += size_bytes
            if self._unsynced_bytes < SYNC_EVERY_BYTES:
                return False
            self._unsynced_bytes = 0
            return True
