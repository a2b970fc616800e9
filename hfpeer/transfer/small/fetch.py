"""The fetch of a bundle of small files, each held in memory whole: in batches from peers, one by one from upstreams.

This is the loop: it starts the threads that ask each source, also those that join, and ends when all files came or no
source is left. `state` is what the threads share.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future

from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.events import OnEvent
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.small.bundle import Bundle, bundle_digest
from hfpeer.transfer.small.from_peers import FromPeers
from hfpeer.transfer.small.from_upstreams import FromUpstreams
from hfpeer.transfer.small.in_flight import InFlight
from hfpeer.transfer.small.keeper import Find, Keep, Keeper
from hfpeer.transfer.small.picker import BundlePicker
from hfpeer.transfer.small.state import BundleState
from hfpeer.transfer.sources.sources import PeerSource, Source, UpstreamSource, WantedBlob


def is_small(blob: WantedBlob) -> bool:
    """Whether a blob is fetched in a bundle."""
    return blob.size_bytes <= MAX_BATCH_BLOB_BYTES


class BundleFetch:
    """Fetches these blobs, each of which `is_small`. Blocking: `run` it in a thread, `cancel` from another.

    `patience_seconds` without a blob from an upstream end the tries there, `rest_seconds` the wait for one that limits
    requests. With a `bundle` of all small files of the
    commit, peers that fetch it too are leechers. Fetches with the same `in_flight` share what they request.
    """

    def __init__(
        self,
        blobs: Iterable[WantedBlob],
        keep: Keep,
        on_event: OnEvent,
        *,
        find: Find = lambda blobs: (),
        patience_seconds: float = 60.0,
        rest_seconds: float = StallLimits.rest_seconds,
        bundle: Bundle | None = None,
        credits: Credits | None = None,
        in_flight: InFlight | None = None,
        only_given: bool = False,
        is_kept_later: bool = False,
    ) -> None:
        """For `keep`, `find`, `only_given` and `is_kept_later` see `keeper`; `credits` are the accounts of peers."""
        wanted = {blob.digest: blob for blob in blobs}
        self.first = next(iter(wanted.values()))
        self.result: Future[FetchReport] = Future()
        self.report = FetchReport()
        self._on_event = self.report.noting_failures(on_event)
        picker = BundlePicker(wanted, bundle, credits or Credits(), patience_seconds, time.monotonic(), rest_seconds)
        self._file_count = picker.bundle.count
        self._state = BundleState(picker, self.report)
        self.joined = self._state.joined
        self._keeper = Keeper(
            self._state,
            wanted,
            keep,
            find,
            in_flight or InFlight(),
            only_given=only_given,
            is_kept_later=is_kept_later,
        )

    def cancel(self) -> None:
        """Ends `run` soon; files that came are kept. Thread-safe."""
        self._state.cancel()

    def run(self, peers: Sequence[PeerSource], upstreams: Sequence[UpstreamSource]) -> FetchReport:
        """Fetches everything, peers first, then the upstreams in order.

        Raises NoSourceLeft, CorruptData or AccessDenied for files that no source gives; the others are kept.
        """
        try:
            for peer in peers:
                self._state.meet(peer, 0 if peer.is_likely else 1)
            for place, upstream in enumerate(upstreams):
                self._state.meet(upstream, place)
            with self._keeper.running():
                self._ask_sources(upstreams[-1].name if upstreams else None)
            error = self._state.error()
            if error is not None:
                raise error
        except BaseException as error:
            self.result.set_exception(error)
            raise
        self.result.set_result(self.report)
        return self.report

    def _ask_sources(self, last_upstream: str | None) -> None:
        """Runs threads for each source. Threads whose source does not answer are left to end by themselves."""
        from_peers = FromPeers(self._state, self._keeper, self._on_event)
        from_upstreams = FromUpstreams(self._state, self._keeper, self._on_event, last_upstream)
        threads: list[tuple[Source, threading.Thread]] = []
        while True:
            threads = [(source, thread) for source, thread in threads if thread.is_alive()]
            step = self._state.next_step([source for source, _ in threads])
            for event in step.failed:
                self._on_event(event)
            if step.is_over:
                return
            if step.released:
                self._keeper.check(step.released)
            for source in step.unasked:
                drain: Callable[..., None] = from_peers.drain if source.kind == "peer" else from_upstreams.drain
                threads += [(source, self._start(drain, source)) for _ in range(self._state.begin_asking(source))]

    def _start(self, drain: Callable[..., None], source: Source) -> threading.Thread:
        def work() -> None:
            try:
                drain(source)
            except BaseException as error:  # noqa: BLE001  it reaches the caller of `run`
                self._state.fail(error)

        thread = threading.Thread(target=work, name=f"small from {source.name}", daemon=True)
        thread.start()
        return thread

    # For peers that follow the fetch, and those that it follows: see `BroadcastFetch` and `FollowedFetch`

    @property
    def blob(self) -> WantedBlob:
        """The bundle as peers follow it: a blob of one byte a file."""
        first = self.first
        digest = bundle_digest(first.repo, first.commit)
        return WantedBlob(digest, self._file_count, first.repo, first.commit, first.path)

    @property
    def is_given(self) -> bool:
        """Whether all that has come was given openly."""
        return self._state.is_given

    def add_source(self, source: PeerSource, pieces: PieceMap) -> None:
        """A peer fetches the bundle too and has this much of it, or has all of it by now."""
        self._state.add_leecher(source, pieces)

    def hear(self, name: str, news: PieceNews) -> None:
        """A leecher has got more files."""
        self._state.hear(name, news)

    def leecher_left(self, name: str) -> None:
        """A leecher does not answer any more, or has stopped."""
        self._state.leecher_left(name)

    def is_leecher(self, name: str) -> bool:
        """Whether a peer has said which files of the bundle it has."""
        return self._state.is_leecher(name)

    def envoys_to_follow(self) -> tuple[str, ...]:
        """None: each leecher asks seeds for its own share of small files."""
        return ()

    def unanswered(self) -> Collection[str]:
        """The node ids of the peers that give nothing at their address."""
        return self._state.unanswered()

    def moved(self, source: PeerSource) -> None:
        """A peer of this name has another address from now on."""
        self._state.moved(source)

    def piece_map(self) -> PieceMap:
        return self._state.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        return self._state.news_since(version)
