"""The state that the threads of one fetch share, under one lock that no other object takes.

Deciding is the picker's, receiving the workers', hashing the conductor's, checking `piece_check`'s and `whole_check`'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from copy import copy

from hfpeer.net.body import Body, SourceFault
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import PIECE_SIZE_BYTES, ByteRange, RangeSet
from hfpeer.transfer.credit import Credit
from hfpeer.transfer.fetch.announcements import Announcements
from hfpeer.transfer.fetch.buffers import BufferPool
from hfpeer.transfer.fetch.job import FetchJob
from hfpeer.transfer.fetch.piece_check import COMPARED, Contradiction, PieceCheck
from hfpeer.transfer.fetch.readers import Readers
from hfpeer.transfer.fetch.running import RunningRequests
from hfpeer.transfer.picker.assignment import Assignment
from hfpeer.transfer.picker.bitfield import bits_of
from hfpeer.transfer.picker.membership import Membership
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.seed_policy import SeedPolicy
from hfpeer.transfer.picker.source_state import RangeRequest, SourceState
from hfpeer.transfer.sources.local_files import spans_of_files
from hfpeer.transfer.sources.sources import Source
from hfpeer.transfer.swarm.have_log import HaveLog


class FetchState:
    """A monitor: each method is one critical section. Only `next_request` waits; only `discard` touches the disk."""

    def __init__(self, job: FetchJob, own_id: str, pool: BufferPool, readers: Readers) -> None:
        self._job = job
        self._pool = pool
        self._readers = readers
        self.discarded: list[ByteRange] = []
        """The ranges found wrong, in that order; it only grows."""
        self._lock = threading.Lock()
        self._requests_changed = threading.Condition(self._lock)
        """For workers without a request. One is woken at a time: it wakes the next if it finds a request."""
        digest, grid = str(job.blob.digest), job.grid
        of_files = RangeSet(spans_of_files(job.partial))  # no peer gets them before the whole blob is verified
        membership = Membership(own_id, digest, int(time.time()))
        have_log = HaveLog(grid, job.partial.present, of_files)
        policy = SeedPolicy(Assignment(own_id, digest, grid.count), membership) if own_id else None
        self._picker = Picker(grid, job.partial.present, job.limits, policy)
        self._announcements = Announcements(self._picker, have_log, membership)
        self._piece_check = PieceCheck(grid, self._picker, have_log)
        self._sources: dict[str, Source] = {}
        self._excluded: set[str] = set()
        """Sources that are not asked while their bytes are compared, also those that are not met yet."""
        self._running = RunningRequests(self._picker, job.limits.silence_seconds)
        self._progressed_at: float | None = None
        """When bytes came last; None before the start."""
        self._is_over = False
        self._failure: BaseException | None = None

    # Sources

    def add_source(self, source: Source, pieces: PieceMap | None, credit: Credit) -> None:
        """A source joins, or has a new piece map (None: the whole blob)."""
        tier = source.tier
        with self._lock:
            self._sources.setdefault(source.name, source)
            self._job.report.add_source(source)
            self._picker.add_source(source.name, tier, tier.blob_requests, pieces, source.node_id, credit)
            self._picker.sources[source.name].takes_ranges &= source.takes_ranges
            if pieces is not None and pieces.bitfield is not None and source.node_id:
                self._announcements.membership.note_leecher(source.node_id, self._job.clock())
            misfit = _misfit(pieces, self._job.blob.size_bytes)
            if misfit is not None or source.name in self._excluded:
                self._picker.remove_source(source.name, misfit or COMPARED)
            self._requests_changed.notify()

    def hear(self, name: str, news: PieceNews) -> None:
        """News of a leecher; see `PieceNews`."""
        news = news.within(self._job.grid.count)
        with self._lock:
            may_help = self._picker.swarm.note_news(name, bits_of(news.added), bits_of(news.claimed))
            self._piece_check.hear(name, news.firsthand)
            self._announcements.membership.update(news.members, self._job.clock())
            if may_help or news.members:
                self._requests_changed.notify()

    def leecher_left(self, name: str) -> None:
        """A leecher does not answer, or has stopped fetching."""
        with self._lock:
            self._picker.swarm.note_left(name)
            if name in self._sources:
                self._announcements.membership.note_left(self._sources[name].node_id)
            self._requests_changed.notify()

    def move_source(self, source: Source) -> None:
        """The source of this name is asked at another address from now on; its running requests end."""
        with self._lock:
            if source.name not in self._sources or self._is_over:
                return
            self._sources[source.name] = source
            self._job.report.add_source(source)
            self._picker.reset_source(source.name, self._job.clock())
            self._running.withdraw(source.name)
            self._requests_changed.notify_all()

    def exclude(self, names: set[str]) -> None:
        """These sources, and no others, are not asked while their bytes are compared."""
        with self._lock:
            for name in self._excluded - names:
                if name in self._picker.sources:
                    self._picker.restore_source(name)
            for name in names:
                self._picker.remove_source(name, COMPARED)
            self._excluded = names
            self._progressed_at = self._job.clock()

    def source(self, name: str) -> Source:
        with self._lock:
            return self._sources[name]

    def sources(self) -> dict[str, SourceState]:
        """A copy of what the picker knows of each source."""
        with self._lock:
            return {name: copy(source) for name, source in self._picker.sources.items()}

    def unanswered(self) -> set[str]:
        """The node ids of the sources that give nothing where they are asked."""
        with self._lock:
            return {self._sources[name].node_id for name in self._running.unanswered(self._job.clock())} - {""}

    # Requests

    def next_request(self, previous: str | None) -> RangeRequest | None:
        """Blocking: waits for a request, which this thread opens now; None when there will be none.

        A request to `previous`, whose last one this thread has just settled, was due anyway; one to another source may
        mean that there are requests for other threads too.
        """
        with self._lock:
            while not self._is_over and self._failure is None:
                now = self._job.clock()
                request = self._running.next_request(now)
                if request is not None:
                    if request.source != previous:
                        self._requests_changed.notify()
                    return request
                previous, wake_at = None, self._picker.wake_at(now)
                self._requests_changed.wait(None if wake_at is None else max(0.01, wake_at - now))
            return None

    def answered(self, request: RangeRequest, body: Body | None) -> bool:
        """The source of a request has answered. Whether the request still stands."""
        with self._lock:
            return self._running.answered(request, body, is_over=self._is_over)

    def pause(self, request: RangeRequest) -> None:
        """The request waits for this node, not for its source: its silence timer stops."""
        with self._lock:
            self._picker.paused(request)

    def resume(self, request: RangeRequest) -> None:
        with self._lock:
            self._picker.resumed(request, self._job.clock())

    def received(self, request: RangeRequest, size_bytes: int) -> None:
        """The next bytes of a request are on disk."""
        with self._lock:
            start, now = request.position, self._job.clock()
            self._running.received(request, size_bytes, now)
            self._announcements.have_log.came(start, request.position, self._picker.present)
            self._piece_check.arrived(request)
            self._progressed_at = now
            self._job.report.count(request.source, size_bytes)
        self._readers.came(start // PIECE_SIZE_BYTES)

    def settle(self, request: RangeRequest, fault: SourceFault | None) -> bool:
        """A thread is done with a request. Whether `fault` is to be told: the request did not end on purpose."""
        with self._lock:
            has_failed = self._running.settle(request, fault, self._job.clock())
            is_unfinished = request.position < request.stop
            if is_unfinished:
                self._requests_changed.notify()
            is_over = self._is_over
        if is_unfinished:
            self._readers.wake()
        return has_failed and not is_over

    def end_overdue(self) -> list[tuple[str, str]]:
        """Ends the stalled requests, and wakes a worker to look again. The source and the reason of each new one."""
        with self._lock:
            self._requests_changed.notify()
            return self._running.end_overdue(self._job.clock())

    def workers_wanted(self, limit: int) -> int:
        """How many threads there may be requests for: at most `limit`, and those lost to sources without an answer."""
        with self._lock:
            if self._picker.is_complete or self._is_over:
                return 0
            slots = sum(source.limit for source in self._picker.sources.values() if source.excluded_because is None)
            return min(limit, slots, self._job.grid.count) + self._running.lost_threads()

    def opening_threads(self) -> set[threading.Thread]:
        """Threads that wait for a source to answer: they do not touch the partial."""
        with self._lock:
            return self._running.opening_threads()

    # Bytes

    def discard(self, spans: Sequence[ByteRange], *, refetches: bool = True) -> None:
        """Takes back bytes that are wrong: on disk, from the hash, from readers and peers. The only way to do so."""
        # On disk first: as soon as the picker knows, the bytes may come again.
        for span in spans:
            self._job.partial.discard(*span)
        with self._lock:
            for span in spans:
                self._picker.discard(*span)
                self._announcements.have_log.discard(*span)
                self._job.report.refetched_bytes += span.size_bytes if refetches else 0
            self.discarded += spans
            self._progressed_at = self._job.clock()
        self._pool.clear()
        self._readers.changed()

    def present(self) -> RangeSet:
        """A copy of what is on disk."""
        with self._lock:
            return self._picker.present.copy()

    def present_for_peers(self) -> RangeSet:
        """The same without what local files gave."""
        with self._lock:
            present = self._picker.present.copy()
            for span in self._announcements.have_log.untold:
                present.discard(*span)
            return present

    def readable_stop(self, start: int, stop: int) -> int:
        """How far the bytes from `start` are on disk without a gap, at most to `stop`."""
        with self._lock:
            gap = next(self._picker.present.gaps(start, stop), None)
            return stop if gap is None else gap.start

    def is_coming(self, start: int, stop: int) -> bool:
        """Whether all that is missing of `[start, stop)` is requested from seeds, and local files gave none of it."""
        with self._lock:
            is_of_files = bool(self._announcements.have_log.untold.within(start, stop))
            return not (self._is_over or is_of_files) and self._picker.swarm.is_coming(start, stop)

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """A reader waits for `[start, stop)`; for nothing if that is empty."""
        with self._lock:
            self._picker.readers.wait_for(reader, start, stop)

    def bytes_by_source(self) -> dict[str, int]:
        """A copy of what came, by the name of the source."""
        with self._lock:
            return dict(self._job.report.bytes_by_source)

    def count_sample(self, name: str, size_bytes: int) -> None:
        """A source has given bytes for comparison, beside all requests; none if `size_bytes` is 0."""
        with self._lock:
            self._progressed_at = self._job.clock()
            if size_bytes:
                self._job.report.count(name, size_bytes)
                self._job.report.refetched_bytes += size_bytes

    # Pieces that leechers vouch for

    def piece_to_compare(self, request: RangeRequest, start: int, size_bytes: int) -> int | None:
        """See `PieceCheck.piece_to_compare`."""
        with self._lock:
            return self._piece_check.piece_to_compare(request, start, size_bytes)

    def is_disputed(self, request: RangeRequest, piece: int, digest: str) -> bool:
        """See `PieceCheck.is_disputed`."""
        with self._lock:
            return self._piece_check.is_disputed(request, piece, digest, self._job.clock())

    def judge_pieces(self) -> list[int]:
        """See `PieceCheck.judge`."""
        with self._lock:
            return self._piece_check.judge(self._job.clock())

    def contradictions(self) -> dict[str, Contradiction]:
        """See `PieceCheck.contradictions`."""
        with self._lock:
            return self._piece_check.contradictions

    # Peers

    def piece_map(self) -> PieceMap:
        """The whole pieces that peers may be told of; its version is for `news_since`."""
        with self._lock:
            return self._announcements.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        """See `Announcements.since`."""
        with self._lock:
            return self._announcements.since(version, self._job.clock(), has_begun=self._progressed_at is not None)

    def envoys_to_follow(self) -> tuple[str, ...]:
        """The node ids of the envoys that this node follows beside its neighbours."""
        with self._lock:
            return self._announcements.membership.to_follow(self._job.clock())

    # Start and end

    def start(self) -> None:
        """The patience with sources begins."""
        with self._lock:
            self._progressed_at = self._job.clock()

    def end(self) -> None:
        """No more requests and no more buffers; every blocked read fails, every wait ends."""
        with self._lock:
            self._is_over = True
            self._running.abort()
            self._requests_changed.notify_all()
        self._pool.close()
        self._readers.wake()

    def fail(self, error: BaseException) -> None:
        """Something unforeseen in a worker ends the fetch; the first error counts."""
        with self._lock:
            self._failure = self._failure or error
            self._requests_changed.notify_all()

    @property
    def is_over(self) -> bool:
        return self._is_over

    def rest_seconds(self) -> float:
        """See `Picker.rest_seconds`."""
        with self._lock:
            return self._picker.rest_seconds(self._job.clock())

    def is_hopeless(self) -> bool:
        """Whether bytes are missing and no source will bring them, or none has within the patience. Raises what failed
        in a worker."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._picker.is_complete:
                return False
            limits, progressed_at = self._job.limits, self._progressed_at or 0.0
            rest_ends_at = self._picker.rest_ends_at(progressed_at + limits.rest_seconds)
            seconds = self._job.clock() - max(progressed_at, rest_ends_at)
            is_patient = seconds <= limits.patience_seconds or self._running.are_any_paused
            return self._picker.is_stuck() or not is_patient


def _misfit(pieces: PieceMap | None, size_bytes: int) -> str | None:
    """Why a piece map cannot be one of this blob; None if it can."""
    if pieces is not None and pieces.size_bytes != size_bytes:
        return f"has {pieces.size_bytes} bytes under this digest"
    if pieces is not None and pieces.piece_size_bytes != PIECE_SIZE_BYTES:
        return f"has pieces of {pieces.piece_size_bytes} bytes"
    return None
