"""The state that the threads of a bundle fetch share, under one lock that only this module takes.

Each method is one critical section. `picker` decides, `from_peers` and `from_upstreams` ask, and `keeper` puts into
the cache.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hfpeer.errors import AccessDenied
from hfpeer.names import Digest
from hfpeer.net.body import SourceFault
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.events import SourceFailed
from hfpeer.transfer.no_source_left import WRONG_BYTES
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.small.failures import SourceFailures
from hfpeer.transfer.small.picker import BatchEnd, BundlePicker
from hfpeer.transfer.small.promises import Hold
from hfpeer.transfer.small.requests import LEECHER_SECONDS, REQUEST_SECONDS, Abortable, OpenRequests
from hfpeer.transfer.small.verified import Unkept, VerifiedBlob
from hfpeer.transfer.sources.sources import PeerSource, Source, WantedBlob

KEEP_SECONDS = 0.05
"""Seconds in which more blobs may come that are put into the cache together."""
LOOK_SECONDS = 0.1
"""Seconds between two looks for overdue requests."""


@dataclass
class Step:
    """The next tasks of the loop of a fetch."""

    released: list[Digest]
    """Files that another fetch was getting and that this one has to request now."""
    unasked: list[Source]
    """Sources that can be asked and that no thread asks."""
    failed: list[SourceFailed] = field(default_factory=list)
    is_over: bool = False


class BundleState:
    """The state of one fetch. Thread-safe."""

    def __init__(self, picker: BundlePicker, report: FetchReport) -> None:
        """Takes over both: only this object may use the picker from now on."""
        self.report = report
        self.joined = FetchReport()
        """The bytes that other fetches of this node got; those fetches account for them."""
        self._picker = picker
        self._changed = threading.Condition()
        self._requests = OpenRequests()
        self._failures = SourceFailures()
        self._released: list[Digest] = []
        self._unkept = Unkept()
        self._is_cancelled = False
        self._failure: BaseException | None = None

    # The end

    def cancel(self) -> None:
        with self._changed:
            self._is_cancelled = True
            self._abort_all()

    def fail(self, error: BaseException) -> None:
        """A disk that fails, or a bug, ends the fetch. The first such error counts."""
        with self._changed:
            self._failure = self._failure or error
            self._abort_all()

    @property
    def is_over(self) -> bool:
        return self._is_cancelled or self._failure is not None or not self._picker.bundle.todo

    def error(self) -> BaseException | None:
        """The error that ended the fetch; None if everything came, or it was cancelled."""
        with self._changed:
            if self.is_over:
                return self._failure
            return self._failures.error(self._picker.missing(), is_partly=self._picker.is_partly)

    def _abort_all(self) -> None:
        self._requests.abort_all()
        self._changed.notify_all()

    # Sources

    def meet(self, source: Source, place: int) -> None:
        """A source that may have any file; `place` is its turn in its tier."""
        with self._changed:
            self._picker.meet(source, place, time.monotonic())
            self.report.add_source(source)

    def add_leecher(self, source: PeerSource, pieces: PieceMap) -> None:
        """A peer fetches the bundle too and has these files, or has all of it by now."""
        with self._changed:
            if self._picker.add_leecher(source, pieces, time.monotonic()):
                self.report.add_source(source)
                self._changed.notify_all()

    def hear(self, name: str, news: PieceNews) -> None:
        """A leecher has got more files."""
        with self._changed:
            if self._picker.hear(name, news, time.monotonic()):
                self._changed.notify_all()

    def leecher_left(self, name: str) -> None:
        with self._changed:
            self._picker.bundle.leecher_left(name)
            self._changed.notify_all()

    def is_leecher(self, name: str) -> bool:
        """Whether a peer has said which files it has."""
        with self._changed:
            return self._picker.is_leecher(name)

    def moved(self, source: PeerSource) -> None:
        """A peer has another address."""
        with self._changed:
            if self._picker.knows(source.name) and source.name not in self.report.liars:
                self.report.add_source(source)
                self._picker.moved(source, time.monotonic())
                self._changed.notify_all()

    def unanswered(self) -> Collection[str]:
        """The node ids of the peers that give too little, or cannot be reached."""
        with self._changed:
            return self._picker.promises.unanswered(time.monotonic())

    # The loop

    def next_step(self, asked: Sequence[Source]) -> Step:
        """Waits a moment if nothing has to be done. `asked` are the sources that threads ask now.

        Aborts overdue requests, and takes files from peers that do not keep their promises.
        """
        with self._changed:
            if not (self._released or self._picker.unasked(asked) or self._ends(asked)):
                self._changed.wait(LOOK_SECONDS)
            now = time.monotonic()
            self._requests.abort_overdue(now)
            failed = self._picker.end_broken_promises(now)
            step = Step(self._released, self._picker.unasked(asked), failed)
            step.is_over = self.is_over or not (step.released or step.unasked or not self._ends(asked))
            self._released = []
            if step.is_over:
                self._requests.abort_all()
            self._changed.notify_all()  # also because more shares of leechers may be taken over with time
            return step

    def begin_asking(self, source: Source) -> int:
        """How many threads have to ask a source now."""
        with self._changed:
            count = self._picker.threads(source)
            self._failures.begin(source.name, count)
            return count

    def _ends(self, asked: Sequence[Source]) -> bool:
        return self.is_over or not self._picker.may_go_on(asked, time.monotonic())

    # Requests

    def claim(self, source: Source, count: int, hold: Hold | None = None) -> list[WantedBlob]:
        """The next files to ask a source for, at most `count`.

        Waits while others are asked for the files, because they may fail. Empty when the source is of no more use.
        """
        with self._changed:
            while not self.is_over and self._picker.may_be_of_use(source):
                now = time.monotonic()
                batch = self._picker.claim(source, count, now, self._requests.slowest_seconds)
                if batch:
                    if hold is not None:
                        hold.begin(batch, now)
                    return batch
                self._changed.wait()
        return []

    def unclaim(self, source: Source, blob: WantedBlob, *, may_be_asked_again: bool = False) -> None:
        """The request for a single file has ended."""
        with self._changed:
            self._picker.unclaim(source, [blob], may_be_asked_again=may_be_asked_again)
            self._changed.notify_all()

    @contextmanager
    def reading(self, source: Source, response: Abortable, hold: Hold | None = None) -> Iterator[None]:
        """While the block runs, the response is aborted when it is overdue, its hold is lost, or the fetch ends."""
        with self._changed:
            seconds = LEECHER_SECONDS if self._picker.is_leecher(source.name) else REQUEST_SECONDS
            self._requests.begin(response, seconds, time.monotonic())
            if hold is not None:
                hold.response = response
            if self.is_over or (hold is not None and hold.is_lost):
                response.abort()
        try:
            yield
        finally:
            with self._changed:
                self._requests.end(response, time.monotonic())
                if hold is not None:
                    hold.response = None

    def rest(self, seconds: float) -> None:
        """Blocks for this time, or until the fetch ends."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_over, seconds)

    def may_rest(self, seconds: float) -> bool:
        """See `BundlePicker.may_rest`."""
        with self._changed:
            return self._picker.may_rest(seconds, time.monotonic())

    def rest_source(self, source: Source, seconds: float) -> None:
        """Blocks while a source rests, or until the fetch ends. Meanwhile other sources are asked in its place."""
        with self._changed:
            self._picker.bundle.rests(source.name, True)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.is_over, seconds)
            self._picker.bundle.rests(source.name, False)

    def is_patience_over(self, since: float, rest_seconds: float) -> bool:
        """Whether no file will have come for `patience_seconds` after a rest; `since` the request began."""
        with self._changed:
            idle_seconds = time.monotonic() + rest_seconds - max(since, self._picker.progressed_at)
            return idle_seconds > self._picker.patience_seconds

    # Promises of peers

    def promise(self, peer: PeerSource) -> Hold:
        """A thread begins to ask a peer."""
        with self._changed:
            return self._picker.promises.begin(peer)

    def fulfil(self, hold: Hold, files: int, size_bytes: int) -> None:
        """Files of a batch have come."""
        with self._changed:
            hold.came(files, size_bytes, time.monotonic())

    def end_batch(self, hold: Hold, batch: Sequence[WantedBlob], fault: SourceFault | None) -> BatchEnd:
        """The request for a batch has ended, perhaps with a fault."""
        with self._changed:
            end = self._picker.end_batch(hold, batch, fault, time.monotonic())
            self._changed.notify_all()
            return end

    def release(self, hold: Hold) -> None:
        """The thread does not ask the peer any more, or begins anew."""
        with self._changed:
            self._picker.promises.end(hold)

    # Failures

    def note_liar(self, source: Source, blob: WantedBlob) -> bool:
        """A source gave wrong bytes. Whether it is the first time.

        A peer is not asked any more, because it answers for the files that it says it has. An upstream may have one
        wrong file among many right ones.
        """
        with self._changed:
            is_new = source.name not in self.report.liars
            if is_new:
                self.report.liars.append(source.name)
            self.report.refetched_bytes += blob.size_bytes
            self._failures.of_file(source.name, blob.digest, WRONG_BYTES)
            if source.kind == "peer" or self._failures.missed(source.name):
                self._failures.of_source(source.name, WRONG_BYTES)
                self._picker.bundle.gone(source.name)
            return is_new

    def give_up(self, source: Source, blob: WantedBlob, fault: SourceFault, *, is_useless: bool = False) -> None:
        """A source does not give a file. It is not asked any more if it `is_useless`, if it is a peer and this was its
        last thread, or if it is an upstream that refuses file after file."""
        with self._changed:
            refusal = fault.__cause__ if isinstance(fault.__cause__, AccessDenied) else None
            self._failures.of_file(source.name, blob.digest, fault.reason, refusal)
            if source.tier.is_upstream and fault.retry_after_seconds is not None:
                self._failures.limited(fault.retry_after_seconds)
            if source.kind == "peer":
                is_useless |= self._failures.is_last_thread(source.name)
            elif refusal is not None:
                is_useless |= self._failures.missed(source.name)
            if is_useless:
                self._failures.of_source(source.name, fault.reason)
                self._picker.bundle.gone(source.name)
                self._changed.notify_all()

    def hopeless(self, blobs: Iterable[WantedBlob]) -> list[Digest]:
        """Those of these files that are missing and that no source can be asked for."""
        with self._changed:
            return self._picker.bundle.hopeless(blob.digest for blob in blobs)

    # Files that came

    def came(self, blobs: Sequence[VerifiedBlob], *, is_joined: bool = False) -> None:
        """Blobs are verified, and are to be kept. Waits while too many bytes are not kept yet.

        With `is_joined` they came to another fetch of this node, which accounts for them.
        """
        report = self.joined if is_joined else self.report
        with self._changed:
            self._changed.wait_for(lambda: self.is_over or not self._unkept.is_full)
            if self.is_over:
                return
            missing = set(self._picker.came([verified.blob.digest for verified in blobs], time.monotonic()))
            for verified in blobs:
                report.kinds[verified.source] = verified.kind
                report.count(verified.source, len(verified.data))
                self._failures.gave(verified.source)
                if verified.blob.digest in missing:
                    missing.remove(verified.blob.digest)
                    report.small.setdefault(verified.source, []).append(verified.blob)
                    self._unkept.add(verified)
            self._changed.notify_all()

    def next_unkept(self) -> list[VerifiedBlob]:
        """Waits for blobs to put into the cache, and a moment for more of them; empty when no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._unkept or self._unkept.is_closed)
            self._changed.wait_for(lambda: self._unkept.is_much or self._unkept.is_closed, KEEP_SECONDS)
            blobs = self._unkept.take_all()
            self._changed.notify_all()
            return blobs

    def close_unkept(self) -> None:
        with self._changed:
            self._unkept.is_closed = True
            self._changed.notify_all()

    def kept(self, digests: Iterable[Digest]) -> None:
        """Blobs are in the cache now."""
        with self._changed:
            self._picker.bundle.kept(digests)

    # Files that another fetch of this node requests

    def request(self, digests: Iterable[Digest]) -> None:
        """This fetch has to request files itself; the loop looks first whether they are in the cache by now."""
        with self._changed:
            self._released += digests
            self._changed.notify_all()

    def free(self, digests: Sequence[Digest], here: Collection[Digest]) -> None:
        """Sources are asked for released files, but not for those that are `here`, in the cache."""
        with self._changed:
            self._picker.bundle.free(digests)
            self._picker.bundle.kept(self._picker.bundle.came([digest for digest in digests if digest in here]))
            self._changed.notify_all()

    def prefer(self, digests: Iterable[Digest]) -> None:
        with self._changed:
            self._picker.bundle.prefer(digests)

    # What leechers are told

    @property
    def is_given(self) -> bool:
        """Whether all that has come was given openly."""
        return self._unkept.is_given

    def piece_map(self) -> PieceMap:
        with self._changed:
            return self._picker.bundle.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        with self._changed:
            return self._picker.bundle.news_since(version)
