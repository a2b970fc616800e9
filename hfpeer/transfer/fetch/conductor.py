"""The loop of a fetch, in a thread of its own: hashes in file order, ends what stalls, and has the last word.

When the digest is wrong it goes on until the liars are found or every way has been tried, so a fetch ends with a
verified partial or with an error, never with an unverified one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from hfpeer.cache.partial.hashing import BlobHash
from hfpeer.errors import BrokenCache, HfpeerError
from hfpeer.git.lfs import MAX_POINTER_BYTES
from hfpeer.ranges import PIECE_SIZE_BYTES, ByteRange
from hfpeer.transfer.fetch.buffers import BufferPool
from hfpeer.transfer.fetch.job import FetchJob
from hfpeer.transfer.fetch.state import FetchState
from hfpeer.transfer.fetch.whole_check import WholeCheck
from hfpeer.transfer.fetch.workers import Workers
from hfpeer.transfer.integrity.forgery import check_plain
from hfpeer.transfer.no_source_left import no_source_left, refused
from hfpeer.transfer.picker.source_state import SourceState
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import WantedBlob

TICK_SECONDS = 0.25
"""Seconds between two looks at what has stalled."""


class _Exhausted(Exception):
    """Bytes are missing and no source that is not excluded will bring them."""


class _Stopped(Exception):
    """The fetch was stopped."""


class Conductor:
    """Of one fetch. `result` is the report, or the error that ended the fetch; cancelled when it was stopped."""

    def __init__(self, job: FetchJob, state: FetchState, pool: BufferPool, workers: Workers) -> None:
        self.result: Future[FetchReport] = Future()
        self._job = job
        self._state = state
        self._pool = pool
        self._workers = workers
        self._whole_check = WholeCheck(job, state)
        self._scratch = memoryview(bytearray(PIECE_SIZE_BYTES))
        """For what is read back from the file."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins; returns at once."""
        self._state.start()
        self._thread = threading.Thread(target=self._run, name=f"fetch {self._job.blob.path}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the fetch, and waits until no thread touches the partial."""
        self._state.end()
        if self._thread is None:
            self.result.cancel()
        else:
            self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._hash_until_right()
        except BaseException as reason:  # noqa: BLE001  an unforeseen one must reach the waiting caller too
            error = reason
        self._state.end()
        self._workers.join()
        if isinstance(error, _Stopped):
            self.result.cancel()
        elif self.result.set_running_or_notify_cancel():  # the caller may have cancelled it
            if error is None:
                self.result.set_result(self._job.report)
            else:
                self.result.set_exception(error)

    def _hash_until_right(self) -> None:
        """Returns once the blob has its digest. Raises what ended the fetch otherwise."""
        while True:
            run = _HashRun(self._job.blob, self._state.discarded)
            try:
                self._hash_all(run)
            except _Exhausted:
                if not self._whole_check.inquiry.is_open:
                    raise self._no_source_left() from None
                self._whole_check.inquiry.is_exhausted = True
            else:
                self._judge_pieces()
                if run.is_stale():
                    continue
                if run.hexdigest() == self._job.blob.digest.hex:
                    self._check_nature()
                    self._whole_check.name_liars(self._state.contradictions())
                    return
            self._whole_check.try_otherwise()

    def _hash_all(self, run: _HashRun) -> None:
        """Hashes the bytes as they come, until all are hashed."""
        tick_at = self._job.clock()
        while run.position < self._job.blob.size_bytes:
            if self._job.clock() >= tick_at:
                self._tick()
                tick_at = self._job.clock() + TICK_SECONDS
            if self._state.is_over:
                raise _Stopped
            self._hash_next(run, tick_at - self._job.clock())
            self._pool.drop_before(run.position)
            run.is_stale()

    def _hash_next(self, run: _HashRun, seconds: float) -> None:
        """Hashes the waiting buffer at the position, or else what the file has there, to the next waiting buffer or a
        piece at most. Waits for either, at most `seconds`."""
        if (waiting := self._pool.take(run.position)) is not None:
            buffer, size_bytes = waiting
            run.update(memoryview(buffer)[:size_bytes])
            self._pool.give_back(buffer)
            return
        limit = min(run.position + PIECE_SIZE_BYTES, self._job.blob.size_bytes)
        next_waiting = self._pool.next_waiting(run.position)
        stop = self._state.readable_stop(run.position, limit if next_waiting is None else min(limit, next_waiting))
        if stop > run.position:
            run.update(self._read_back(run.position, self._scratch[: stop - run.position]))
        else:
            self._pool.starve(run.position, max(0.0, seconds))

    def _tick(self) -> None:
        """Judges pieces, ends stalled requests, gives up when no source is left, and starts workers."""
        self._judge_pieces()
        for source, reason in self._state.end_overdue():
            self._job.source_failed(source, reason)
        if self._state.is_hopeless():
            raise _Exhausted
        self._workers.hire()

    def _judge_pieces(self) -> None:
        wrong = self._state.judge_pieces()
        if wrong:
            self._state.discard([self._job.grid.range_of(piece) for piece in wrong])

    def _check_nature(self) -> None:
        """Raises ForgedManifest when this small file is an LFS pointer, listed as if it were the file itself."""
        size_bytes = self._job.blob.size_bytes
        if size_bytes <= MAX_POINTER_BYTES:
            check_plain(self._job.blob, self._read_back(0, memoryview(bytearray(size_bytes))))

    def _read_back(self, position: int, view: memoryview) -> memoryview:
        partial = self._job.partial
        if partial.read(position, view) != len(view):
            raise BrokenCache(
                f"The partial file of {self._job.blob.path} has become shorter: {partial.path}.",
                hint="Something else changed it. Run the command again.",
                path=str(partial.path),
            )
        return view

    def _no_source_left(self) -> HfpeerError:
        if self._workers.refusal is not None:
            return refused(self._workers.refusal, str(self._job.blob.path))
        path = self._job.blob.path
        reasons = {name: _why_not(source) for name, source in self._state.sources().items()}
        return no_source_left(path, reasons, f"the rest of {path}")


class _HashRun:
    """One pass of the hash over a blob, in file order."""

    def __init__(self, blob: WantedBlob, discarded: Sequence[ByteRange]) -> None:
        """`discarded` are the ranges discarded before; it grows during the pass."""
        self._hash = BlobHash(blob.digest.algorithm, blob.size_bytes)
        self.position = 0
        self._discarded = discarded
        self._seen = len(discarded)
        self._is_stale = False

    def update(self, view: memoryview) -> None:
        """Hashes the next bytes. Releases the GIL."""
        self._hash.update(view)
        self.position += len(view)

    def is_stale(self) -> bool:
        """Whether bytes were discarded after they were hashed. To be asked after each update: bytes that are discarded
        ahead of the position are hashed when they have come again."""
        new = self._discarded[self._seen :]
        self._seen += len(new)
        self._is_stale |= any(span.start < self.position for span in new)
        return self._is_stale

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _why_not(source: SourceState) -> str:
    """Why a source does not give the rest, for people."""
    idle = "did not give it" if source.was_asked else "was not asked"
    return source.excluded_because or source.failures.reason or (idle if source.is_seed else "has not got all of it")
