"""Decides which source a bundle fetch asks for which files next. Its owner holds a lock; time is handed in.

`Bundle` knows which files a source may be asked for; this adds the sources themselves, what peers have promised, and
how long nothing has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hfpeer.names import Digest
from hfpeer.net.body import SourceFault
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.credit import Credit, Credits
from hfpeer.transfer.events import SourceFailed
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.small.bundle import Bundle
from hfpeer.transfer.small.promises import Hold, Promises
from hfpeer.transfer.sources.sources import PeerSource, Source, WantedBlob

BATCH_BYTES = 2 * 1024 * 1024
"""A batch ends with the file that reaches this size."""
LEECHER_BATCH_BLOBS = 32
"""At most this many files in a batch while there are leechers, so that they have files sooner."""
TAKE_OVER_SECONDS, TAKE_OVER_REQUESTS = 0.3, 3
"""Shares of leechers are taken over after these seconds plus this many of the slowest requests without a new file."""
LEECHER_PATIENCE_SECONDS = 3.0
"""Seconds without a new file after which leechers alone are no reason to wait."""
FOUND_AGAIN_SECONDS = 6.0
"""Seconds that a fetch without other sources waits for unreachable peers to be found at another address."""


@dataclass(frozen=True)
class BatchEnd:
    """How a batch of a peer ended."""

    is_in_place: bool
    """The peer is still asked at this address."""
    is_lost: bool
    """The peer gave too little for too long, and others were asked."""
    has_given: bool


class BundlePicker:
    """The sources of one fetch of `wanted`. `credits` are what the node knows of peers from other fetches."""

    def __init__(
        self,
        wanted: Mapping[Digest, WantedBlob],
        bundle: Bundle | None,
        credits: Credits,
        patience_seconds: float,
        now: float,
        rest_seconds: float = StallLimits.rest_seconds,
    ) -> None:
        self._wanted = wanted
        self.bundle = bundle or Bundle(list(self._wanted), self._wanted)
        self.bundle.hold(self._wanted)
        self.promises = Promises()
        self.patience_seconds = patience_seconds
        self._rest_seconds = rest_seconds
        self.progressed_at = now
        """When the last file came, or a leecher last told of one."""
        self._credits = credits
        self._sources: dict[str, Source] = {}

    def missing(self) -> list[WantedBlob]:
        return [self._wanted[digest] for digest in self.bundle.missing()]

    @property
    def is_partly(self) -> bool:
        """Whether any file came."""
        return self.bundle.todo.bit_count() < len(self._wanted)

    # Sources

    def meet(self, source: Source, place: int, now: float) -> None:
        """A source that may have any file; `place` is its turn in its tier."""
        is_new = source.name not in self._sources
        self._sources.setdefault(source.name, source)
        self.bundle.meet(source.name, source.tier, source.node_id, place)
        if is_new and source.node_id and self._credits.of(source.node_id).is_lost(now):
            self.bundle.comes_last(source.name)

    def knows(self, name: str) -> bool:
        return name in self._sources

    def is_in_place(self, source: Source) -> bool:
        """Whether a source is still asked at this address."""
        return self._sources[source.name] is source

    def may_be_of_use(self, source: Source) -> bool:
        """Whether a source could be asked for anything at this address, now or later."""
        return self.is_in_place(source) and self.bundle.may_be_of_use(source.name)

    def is_leecher(self, name: str) -> bool:
        """Whether a source has said which files it has."""
        return name in self._sources and self.bundle.tells(name)

    def add_leecher(self, source: PeerSource, pieces: PieceMap, now: float) -> bool:
        """A peer fetches the bundle too and has these files, or has all of it by now. False if its map is of another
        bundle."""
        if (pieces.size_bytes, pieces.piece_size_bytes) != (self.bundle.count, 1):
            return False
        self.meet(source, 0, now)
        if pieces.bitfield is None:
            self.bundle.has_all(source.name)
        else:
            self.bundle.fetches(source.name, int.from_bytes(pieces.bitfield, "little"))
        self.promises.told(source.name, now)
        return True

    def hear(self, name: str, news: PieceNews, now: float) -> bool:
        """A leecher has got more files. Whether that is news."""
        if not news.added or name not in self._sources or not self.bundle.gains(name, news.added):
            return False
        self.progressed_at = now
        self.promises.told(name, now)
        return True

    def moved(self, source: PeerSource, now: float) -> None:
        """A peer has another address: its requests at the old address are given up."""
        self._sources[source.name] = source
        self.promises.found(source.node_id)
        credit = self._credits.of(source.node_id)
        credit.reset(now)
        self.bundle.returns(source.name)
        if credit.is_lost(now):
            self.bundle.comes_last(source.name)
        for hold in self.promises.of(source.name):
            self._lose(hold)

    def unasked(self, asked: Sequence[Source]) -> list[Source]:
        """The sources that could be asked, without those that threads ask now."""
        return [
            source
            for source in self._sources.values()
            if not any(one is source for one in asked) and self.bundle.may_be_of_use(source.name)
        ]

    def threads(self, source: Source) -> int:
        """How many threads ask a source."""
        tier = source.tier
        if self.bundle.tells(source.name):
            return 1
        return min(tier.bundle_requests, self.bundle.todo.bit_count()) if tier.is_upstream else tier.bundle_requests

    def may_go_on(self, asked: Sequence[Source], now: float) -> bool:
        """Whether the missing files can still come, from the sources that threads ask, or from another fetch.

        Leechers alone are waited for only while they are asked for a file, or files come; without any source, peers
        that cannot be reached may be found at another address.
        """
        has_time = self.bundle.has_requests or now - self.progressed_at < LEECHER_PATIENCE_SECONDS
        if self.bundle.awaits_others or any(has_time or not self.bundle.tells(source.name) for source in asked):
            return True
        return self.promises.may_be_found(now, min(FOUND_AGAIN_SECONDS, self.patience_seconds))

    def may_rest(self, seconds: float, now: float) -> bool:
        """Whether the fetch waits this time for an upstream that limits requests."""
        return now + seconds - self.progressed_at <= self._rest_seconds

    # Requests

    def claim(self, source: Source, count: int, now: float, slowest_seconds: float) -> list[WantedBlob]:
        """The next files to ask a source for: about `BATCH_BYTES`, at most `count`.

        `slowest_seconds` is what the slowest of the last requests took: the longer no file has come, the more shares
        of leechers are taken over.
        """
        if self.bundle.has_leechers:
            count = min(count, LEECHER_BATCH_BLOBS)
        idle_seconds = now - self.progressed_at
        rank = 1 + int(idle_seconds / (TAKE_OVER_SECONDS + TAKE_OVER_REQUESTS * slowest_seconds))
        claimed = [self._wanted[digest] for digest in self.bundle.claim(source.name, count, rank)]
        batch: list[WantedBlob] = []
        room = BATCH_BYTES
        for blob in claimed:
            if room <= 0:
                break
            batch.append(blob)
            room -= blob.size_bytes
        self.unclaim(source, claimed[len(batch) :], may_be_asked_again=True)
        return batch

    def unclaim(self, source: Source, blobs: Iterable[WantedBlob], *, may_be_asked_again: bool = False) -> None:
        """A request has ended: files that did not come are free for other sources."""
        digests = [blob.digest for blob in blobs]
        self.bundle.unclaim(source.name, digests, may_be_asked_again=may_be_asked_again)

    def end_batch(self, hold: Hold, batch: Sequence[WantedBlob], fault: SourceFault | None, now: float) -> BatchEnd:
        """The request for a batch has ended. If it broke off, the peer may be asked again if it gave a file, or said
        when to come back."""
        has_given = not self.bundle.are_missing(blob.digest for blob in batch)
        if not hold.is_lost:
            again = fault is not None and (has_given or fault.retry_after_seconds is not None)
            self.unclaim(hold.peer, batch, may_be_asked_again=again)
            if fault is None:
                hold.end()
        if fault is not None and not (fault.is_permanent or has_given):
            self.promises.unreachable(hold.peer.node_id, now)
        return BatchEnd(self.is_in_place(hold.peer), hold.is_lost, has_given)

    def end_broken_promises(self, now: float) -> list[SourceFailed]:
        """A peer that gives too little is asked after all others, and a leecher that does nothing has no share."""
        for name in self.promises.idle(now):
            self.bundle.idles(name)
        failed = []
        for hold in self.promises.under_way():
            name = hold.peer.name
            is_slow = hold.is_slow(now)
            if is_slow is not None:
                self.bundle.is_slow(name, is_slow)
            credit = self._credits.of(hold.peer.node_id) if hold.peer.node_id else Credit()
            keeps_it = not hold.is_over(now) and credit.keeps_request(now, is_slow=bool(is_slow))
            if keeps_it or not self.bundle.has_others(name):
                continue
            self.bundle.comes_last(name)
            credit.lose(now)
            reason = f"gave too few files in {now - hold.since:.0f} s"
            failed.append(SourceFailed(name, str(hold.batch[0].path), reason))
            self._lose(hold)
        return failed

    def _lose(self, hold: Hold) -> None:
        hold.is_lost = True
        self.unclaim(hold.peer, hold.batch, may_be_asked_again=True)
        if hold.response is not None:
            hold.response.abort()

    # Files

    def came(self, digests: Sequence[Digest], now: float) -> list[Digest]:
        """Files came. Returns those that were still missing."""
        self.progressed_at = now
        return self.bundle.came(digests)
