"""The fetch of one blob, as others see it: from many sources at once into a partial, until that has its digest.

Its owner adds sources and ingests the partial afterwards; readers and peers follow it meanwhile. Read next:
`conductor`, the loop in its thread, and `workers`, the threads that receive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import Future

from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import PIECE_SIZE_BYTES, ByteRange, RangeSet
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.events import OnEvent
from hfpeer.transfer.fetch.buffers import BufferPool
from hfpeer.transfer.fetch.conductor import Conductor
from hfpeer.transfer.fetch.job import FetchJob
from hfpeer.transfer.fetch.readers import Readers
from hfpeer.transfer.fetch.state import FetchState
from hfpeer.transfer.fetch.workers import MAX_WORKERS, Workers
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import PeerSource, Source, WantedBlob

SPARE_BUFFERS = 4
"""Buffers that can wait to be hashed while each worker fills one."""


class BlobFetch:
    """Thread-safe. Start it once; `result` is the report, or the error that ended it, and is cancelled by `stop`."""

    def __init__(
        self,
        blob: WantedBlob,
        partial: PartialBlob,
        on_event: OnEvent,
        *,
        limits: StallLimits | None = None,
        own_id: str = "",
        credits: Credits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own_id` is this node's id, by which the pieces are assigned among leechers; without it the node takes no
        part in a swarm. `credits` are its accounts of sources, for all blobs. `on_event` is called from any thread."""
        report = FetchReport()
        job = FetchJob(blob, partial, limits or StallLimits(), report, report.noting_failures(on_event), clock)
        pool = BufferPool(MAX_WORKERS + SPARE_BUFFERS)
        self.blob = blob
        self.partial = partial
        self.report = report
        """The bytes by source, and failures, until now."""
        self._readers = Readers()
        self._state = FetchState(job, own_id, pool, self._readers)
        self._workers = Workers(job, self._state, pool, self._readers)
        self._conductor = Conductor(job, self._state, pool, self._workers)
        self.result: Future[FetchReport] = self._conductor.result
        self._credits = credits or Credits()

    @property
    def is_given(self) -> bool:
        """Whether all that has come was given openly: by peers, or by mirrors that saw no token."""
        return self.partial.is_given

    @property
    def is_verified(self) -> bool:
        """Whether the whole blob is on disk and has its digest."""
        return self.result.done() and not self.result.cancelled() and self.result.exception() is None

    # For the owner

    def start(self) -> None:
        """Begins; returns at once."""
        self._conductor.start()

    def stop(self) -> None:
        """Ends the fetch and waits until no thread of it touches the partial. The bytes stay there.

        A thread that waits for a source to answer may live on until it does, and then ends.
        """
        self._conductor.stop()

    def add_source(self, source: Source, pieces: PieceMap | None = None) -> None:
        """A source joins, or has a new piece map (None: the whole blob). One with another grid is not asked."""
        self._state.add_source(source, pieces, self._credits.of(source.node_id or source.name))

    def present(self) -> RangeSet:
        """A copy of what is on disk now."""
        return self._state.present()

    def present_for_peers(self) -> RangeSet:
        """The same without what files of this machine gave."""
        return self._state.present_for_peers()

    @property
    def present_bytes(self) -> int:
        return self._state.present().total

    def bytes_by_source(self) -> dict[str, int]:
        return self._state.bytes_by_source()

    # For the follower of peers; see `FollowedFetch`

    def hear(self, name: str, news: PieceNews) -> None:
        """A leecher tells what it has got and what it claims."""
        self._state.hear(name, news)

    def leecher_left(self, name: str) -> None:
        """A leecher does not answer any more, or has stopped fetching; it may come back."""
        self._state.leecher_left(name)

    def envoys_to_follow(self) -> tuple[str, ...]:
        """The node ids of the envoys that this node follows beside its neighbours."""
        return self._state.envoys_to_follow()

    def unanswered(self) -> Collection[str]:
        """The node ids of the sources that give nothing where they are asked."""
        return self._state.unanswered()

    def moved(self, source: PeerSource) -> None:
        """The source of this name is asked at another address from now on."""
        self._state.move_source(source)
        self._workers.hire()

    # For peers; see `BroadcastFetch`

    def piece_map(self) -> PieceMap:
        """The whole pieces that are here; its version is for `news_since`."""
        return self._state.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        """The version now, and what is new since the given one; None when the whole map has to be told again. Its
        members are all that are known."""
        return self._state.news_since(version)

    def is_coming(self, start: int, stop: int) -> bool:
        """Whether all that is missing of `[start, stop)` is requested from seeds."""
        return self._state.is_coming(start, stop)

    def await_readable(self, start: int, stop: int, seconds: float) -> int:
        """Blocking: like `readable_stop`, but waits at most `seconds` for the first byte, while it is coming."""
        deadline = time.monotonic() + seconds
        with self._readers.awaiting(start // PIECE_SIZE_BYTES):
            while True:
                wakes, readable = self._readers.wakes, self._state.readable_stop(start, stop)
                if readable > start or not self._state.is_coming(start, start + 1):
                    return readable
                if not self._readers.wait(wakes, deadline - time.monotonic()):
                    return start

    # For readers

    @property
    def discarded(self) -> list[ByteRange]:
        """The ranges found wrong until now, in that order."""
        return self._state.discarded

    def join(self, reader: int, on_change: Callable[[], object]) -> None:
        """`on_change` is called, from any thread, whenever bytes came, were found wrong, or the fetch has ended."""
        self._readers.join(reader, on_change)
        self.result.add_done_callback(lambda _: on_change())

    def leave(self, reader: int) -> None:
        """The reader waits for nothing any more, and is told nothing."""
        self._readers.leave(reader)
        self._state.prefer(reader, 0, 0)

    @property
    def rest_seconds(self) -> float:
        """Seconds until a source can be asked, if all of them rest and an upstream asked for it; else 0."""
        return self._state.rest_seconds()

    def prefer(self, reader: int, start: int, stop: int) -> None:
        """`reader` waits for `[start, stop)`: these bytes are requested first, until it says otherwise."""
        self._state.prefer(reader, start, stop)

    def readable_stop(self, start: int, stop: int) -> int:
        """How far the bytes from `start` are on disk without a gap, at most to `stop`. They are not verified."""
        return self._state.readable_stop(start, stop)
