"""Blobs small enough to be held in memory: many in one request from a peer, one by one from a hub.

Each is verified before it is handed on, so a wrong one costs no more than itself. A repo of thousands of small
files is bound by requests, not by bytes: here a request carries up to `MAX_BATCH_BLOBS` of them. It is bound by the
disk as well, so one thread keeps what has come while the others fetch: the slower the disk, the more it keeps at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Protocol

from hfpeer.cache.blobs import BlobHash
from hfpeer.errors import AccessDenied, HfpeerError, NoSourceLeft
from hfpeer.transfer.events import Listener, SourceFailed
from hfpeer.transfer.forgery import check_plain
from hfpeer.transfer.lots import Lot, lot_digest
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.retry import backoff_seconds
from hfpeer.transfer.sources import PeerSource, Source, UpstreamSource, WantedBlob
from hfpeer.wire import MAX_BATCH_BLOB_BYTES, MAX_BATCH_BLOBS, PieceMap, PieceNews, SourceFault

BATCH_BYTES = 2 * 1024 * 1024
HUB_CONNECTIONS = 8
PEER_CONNECTIONS = 2
PEER_TRIES = 3
HUB_TRIES = 6
REQUEST_SECONDS = 20.0
"""No request may take longer: at most 2 MiB, from a peer on the LAN or one small file from a hub."""
MAX_UNKEPT_BYTES = 64 * 1024 * 1024
LOOK_SECONDS = 0.1
FELLOW_BATCH_BLOBS = 32
"""Where files are shared out, fewer travel at once, so that fellows have them sooner."""
FELLOW_SECONDS = 3.0
"""What a fellow has told of must have come within this time; then others are asked."""
TAKE_OVER_SECONDS, TAKE_OVER_REQUESTS = 0.3, 3
"""Shares of fellows are taken over after this time, and that of so many of the slowest requests, without any news."""
FELLOW_PATIENCE_SECONDS = 3.0
LIKELY_TIER, UNLIKELY_TIER, HUB_TIER = 0, 1, 2
"""Peers that seem to have the commit, other peers, and from here up the hubs: each is asked for what those before it
did not give."""

Keeper = Callable[[Sequence[tuple[WantedBlob, bytes]]], None]
"""Takes verified blobs and makes them visible. Called from one thread at a time; may raise StorageError."""


def is_small(blob: WantedBlob) -> bool:
    return blob.size_bytes <= MAX_BATCH_BLOB_BYTES


class Abortable(Protocol):
    """An answer that is being read in another thread."""

    def abort(self) -> None: ...


class SmallBlobs:
    """Fetches `wanted`, each at most `MAX_BATCH_BLOB_BYTES`. Blocking: `run` it in a thread, `cancel` from another.

    `patience_seconds` without a blob from a hub end the tries there. With a `lot`, which has them all, nodes that want
    them too are fellows: peers that are followed for `blob` give what they have, and take their share of the rest.
    """

    def __init__(
        self,
        wanted: Iterable[WantedBlob],
        keep: Keeper,
        listener: Listener,
        *,
        patience_seconds: float = 60.0,
        lot: Lot | None = None,
    ) -> None:
        self._wanted = {blob.digest: blob for blob in wanted}
        self._lot = lot or Lot(list(self._wanted), self._wanted)
        self._unkept: list[tuple[WantedBlob, bytes]] = []
        self._keep = keep
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._sources: dict[str, Source] = {}
        self._threads: dict[str, list[threading.Thread]] = {}
        self._failing: dict[str, int] = {}
        """Of each source the threads that have not given it up."""
        self._open: dict[Abortable, float] = {}
        """When the answers that are being read must have come."""
        self._progressed_at = time.monotonic()
        self._slowest_seconds = 0.0
        self._reasons: dict[str, str] = {}
        self._last_hub: str | None = None
        self._failure: BaseException | None = None
        self._refusal: AccessDenied | None = None
        self._is_cancelled = False
        self.result: Future[FetchReport] = Future()
        self.report = FetchReport()
        self._listener = self.report.overheard(listener)

    def cancel(self) -> None:
        """Ends `run` soon; what came is kept. Thread-safe."""
        with self._changed:
            self._is_cancelled = True
            self._abort(self._open)

    def run(self, peers: Sequence[PeerSource], upstreams: Sequence[UpstreamSource]) -> FetchReport:
        """Fetches everything, from peers first. Raises NoSourceLeft for what nobody could give; the rest is kept."""
        self._last_hub = upstreams[-1].name if upstreams else None
        try:
            with self._changed:
                for peer in peers:
                    self._meet(peer, LIKELY_TIER if peer.is_likely else UNLIKELY_TIER)
                for tier, upstream in enumerate(upstreams, HUB_TIER):
                    self._meet(upstream, tier)
            with self._kept_beside():
                self._work()
            if self._failure is not None:
                raise self._failure
            if self._lot.todo and not self._is_cancelled:
                raise self._no_source_left()
        except BaseException as error:
            self.result.set_exception(error)
            raise
        self.result.set_result(self.report)
        return self.report

    @property
    def _is_over(self) -> bool:
        return self._is_cancelled or self._failure is not None or not self._lot.todo

    # What fellows tell, and are told

    @property
    def blob(self) -> WantedBlob:
        """The lot as peers follow it: a blob of a byte for each file."""
        first = next(iter(self._wanted.values()))
        return WantedBlob(lot_digest(first.repo, first.commit), self._lot.count, first.repo, first.commit, first.path)

    def add_source(self, source: PeerSource, pieces: PieceMap) -> None:
        """A peer fetches the lot too and has so much of it, or has all of it by now."""
        if (pieces.size_bytes, pieces.piece_size_bytes) != (self._lot.count, 1):
            return
        with self._changed:
            self._meet(source, LIKELY_TIER)
            if pieces.bits is None:
                self._lot.has_all(source.name)
            else:
                self._lot.fetches(source.name, int.from_bytes(pieces.bits, "little"))
            self._changed.notify_all()

    def hear(self, name: str, news: PieceNews) -> None:
        """A fellow has got more."""
        with self._changed:
            if news.added and name in self._sources:
                self._lot.gains(name, news.added)
                self._progressed_at = time.monotonic()
                self._changed.notify_all()

    def fellow_left(self, name: str) -> None:
        """A fellow does not answer any more, or has stopped."""
        with self._changed:
            if name in self._sources:
                self._lot.fellow_left(name)
                self._changed.notify_all()

    def envoys_to_follow(self) -> tuple[str, ...]:
        """Of small files each fellow takes its share: there are no envoys."""
        return ()

    def is_fellow(self, name: str) -> bool:
        """Whether a peer has said what it has of the lot."""
        with self._changed:
            return name in self._sources and self._lot.tells(name)

    def piece_map(self) -> PieceMap:
        with self._changed:
            return self._lot.piece_map()

    def news_since(self, version: int) -> tuple[int, PieceNews | None]:
        with self._changed:
            return self._lot.news_since(version)

    def _meet(self, source: Source, tier: int) -> None:
        self._sources.setdefault(source.name, source)
        self._lot.meet(source.name, tier, source.node_id)
        self.report.meet(source)

    # Threads

    def _work(self) -> None:
        """Threads for each source, also for those that join, until all has come or nobody is left to ask.

        Requests that take too long are broken off. Threads whose source does not answer are left to end by themselves.
        """
        while True:
            with self._changed:
                for source in self._sources.values():
                    if not self._is_asked(source.name) and self._lot.may_be_of_use(source.name):
                        self._threads[source.name] = self._make_threads(source)
                if self._is_over or not self._is_anybody_left():
                    self._abort(self._open)
                    return
                self._changed.wait(LOOK_SECONDS)
                now = time.monotonic()
                self._abort([answer for answer, deadline in self._open.items() if deadline < now])

    def _is_asked(self, name: str) -> bool:
        return any(thread.is_alive() for thread in self._threads.get(name, ()))

    def _make_threads(self, source: Source) -> list[threading.Thread]:
        is_peer = source.kind == "peer"
        drain: Callable[..., None] = self._drain_peer if is_peer else self._drain_hub
        if self._lot.tells(source.name):
            count = 1
        else:
            count = PEER_CONNECTIONS if is_peer else min(HUB_CONNECTIONS, self._lot.todo.bit_count())
        self._failing[source.name] = count
        threads = [
            threading.Thread(target=self._guarded, args=(drain, source), name=f"small from {source.name}", daemon=True)
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _is_anybody_left(self) -> bool:
        """Fellows alone are waited for only as long as they bring something."""
        alive = [name for name in self._threads if self._is_asked(name)]
        has_time = time.monotonic() - self._progressed_at < FELLOW_PATIENCE_SECONDS
        return any(has_time or bool(self._open) or not self._lot.tells(name) for name in alive)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Runs a thread's work; a disk that fails, or a bug, ends everything and reaches the caller of `run`."""
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001
            with self._changed:
                self._failure = self._failure or error
                self._abort(self._open)

    def _abort(self, answers: Iterable[Abortable]) -> None:
        for answer in answers:
            answer.abort()
        self._changed.notify_all()

    @contextmanager
    def _reading(self, answer: Abortable, seconds: float = REQUEST_SECONDS) -> Iterator[None]:
        began_at = time.monotonic()
        with self._changed:
            self._open[answer] = began_at + seconds
            if self._is_over:
                answer.abort()
        try:
            yield
        finally:
            with self._changed:
                del self._open[answer]
                self._slowest_seconds = max(0.9 * self._slowest_seconds, time.monotonic() - began_at)

    # What is to be asked of whom

    def _claim(self, source: Source, count: int) -> list[WantedBlob]:
        """The next blobs to ask this source for, about `BATCH_BYTES` together. Waits for those that others are asked
        for, who may fail; empty when there will be none."""
        with self._changed:
            while not self._is_over and self._lot.may_be_of_use(source.name):
                if self._lot.has_fellows:
                    count = min(count, FELLOW_BATCH_BLOBS)
                digests = self._lot.claim(source.name, count, self._rank())
                if digests:
                    return self._within_batch(source, [self._wanted[digest] for digest in digests])
                self._changed.wait()
        return []

    def _rank(self) -> int:
        """How far down the shares of fellows may be taken over: the further, the longer nobody has brought anything."""
        idle_seconds = time.monotonic() - self._progressed_at
        return 1 + int(idle_seconds / (TAKE_OVER_SECONDS + TAKE_OVER_REQUESTS * self._slowest_seconds))

    def _within_batch(self, source: Source, blobs: Sequence[WantedBlob]) -> list[WantedBlob]:
        batch: list[WantedBlob] = []
        room = BATCH_BYTES
        for blob in blobs:
            if room <= 0:
                break
            batch.append(blob)
            room -= blob.size_bytes
        rest = (blob.digest for blob in blobs[len(batch) :])
        self._lot.unclaim(source.name, rest, may_be_asked_again=True)
        return batch

    def _unclaim(self, source: Source, blobs: Iterable[WantedBlob], *, may_be_asked_again: bool = False) -> None:
        with self._changed:
            digests = [blob.digest for blob in blobs]
            self._lot.unclaim(source.name, digests, may_be_asked_again=may_be_asked_again)
            self._changed.notify_all()

    # Peers: batches

    def _drain_peer(self, peer: PeerSource) -> None:
        """Batch after batch, until this peer has been asked for everything that is still missing.

        One that breaks off is asked again if it gave something, or if it said when.
        """
        tries = 1
        while batch := self._claim(peer, MAX_BATCH_BLOBS):
            is_worth_it = False
            try:
                self._take_batch(peer, batch)
                tries = 1
            except SourceFault as fault:
                missing = self._still_missing(batch)
                is_worth_it = len(missing) < len(batch) or fault.retry_after_seconds is not None
                if fault.is_permanent or tries == PEER_TRIES or not is_worth_it:
                    self._give_up(peer, batch[0], fault)
                    return
                self._rest(backoff_seconds(tries) if fault.retry_after_seconds is None else fault.retry_after_seconds)
                tries = tries + 1 if len(missing) == len(batch) else 1
            finally:
                self._unclaim(peer, batch, may_be_asked_again=is_worth_it)

    def _still_missing(self, batch: Sequence[WantedBlob]) -> list[WantedBlob]:
        with self._changed:
            missing = frozenset(self._lot.missing())
        return [blob for blob in batch if blob.digest in missing]

    def _take_batch(self, peer: PeerSource, batch: Sequence[WantedBlob]) -> None:
        """Keeps what is right of a batch, and asks a peer that lied no more."""
        by_digest = {blob.digest: blob for blob in batch}
        answer = peer.open_batch(list(by_digest))
        right: list[tuple[WantedBlob, bytes]] = []
        try:
            with self._reading(answer, FELLOW_SECONDS if self.is_fellow(peer.name) else REQUEST_SECONDS):
                for digest, data in answer:
                    if data is None:
                        continue
                    check_plain(by_digest[digest], data)
                    if not _is_right(by_digest[digest], data):
                        self._blame(peer, by_digest[digest])
                        return
                    right.append((by_digest[digest], data))
        finally:
            answer.close()
            self._came(peer, right)

    # Hubs: one by one

    def _drain_hub(self, upstream: UpstreamSource) -> None:
        while claimed := self._claim(upstream, 1):
            try:
                self._ask_for_one(upstream, claimed[0])
            finally:
                self._unclaim(upstream, claimed)

    def _ask_for_one(self, upstream: UpstreamSource, blob: WantedBlob) -> None:
        """One blob, with a few tries. A hub that refuses, or gives nothing any more, is not asked for the others, nor
        one that cannot be reached where another follows it."""
        asked_at = time.monotonic()
        for attempt in range(1, HUB_TRIES + 1):
            try:
                data = self._read_whole(upstream, blob)
            except SourceFault as fault:
                rest = backoff_seconds(attempt) if fault.retry_after_seconds is None else fault.retry_after_seconds
                is_passed_over = fault.is_unreachable and upstream.name != self._last_hub
                is_hopeless = is_passed_over or isinstance(fault.__cause__, AccessDenied)
                is_hopeless = is_hopeless or self._is_patience_over(asked_at, rest)
                if is_hopeless or fault.is_permanent or attempt == HUB_TRIES or self._is_over:
                    self._give_up(upstream, blob, fault, is_for_all=is_hopeless)
                    return
                self._rest(rest)
                continue
            check_plain(blob, data)
            if _is_right(blob, data):
                self._came(upstream, [(blob, data)])
            else:
                self._blame(upstream, blob)
            return

    def _read_whole(self, upstream: UpstreamSource, blob: WantedBlob) -> bytes:
        found = bytearray(blob.size_bytes)
        if not found:
            return b""
        body = upstream.open_range(blob, 0, blob.size_bytes)
        try:
            with self._reading(body):
                filled = 0
                while filled < len(found):
                    received = body.readinto(memoryview(found)[filled:])
                    if received == 0:
                        raise SourceFault(f"broke off after {filled} bytes")
                    filled += received
        finally:
            body.close()
        return bytes(found)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_over, seconds)

    def _is_patience_over(self, asked_at: float, rest_seconds: float) -> bool:
        return time.monotonic() + rest_seconds - max(asked_at, self._progressed_at) > self._patience_seconds

    # What came

    def _came(self, source: Source, blobs: Sequence[tuple[WantedBlob, bytes]]) -> None:
        """Verified blobs from a source: for the keeping thread, which may be behind."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or _total(self._unkept) < MAX_UNKEPT_BYTES)
            if self._is_over:
                return
            for blob, data in blobs:
                if self._lot.came(blob.digest):
                    self._unkept.append((blob, data))
                    self.report.small[blob.digest] = blob, source.name
                self.report.count(source.name, len(data))
            self._progressed_at = time.monotonic()
            self._changed.notify_all()

    @contextmanager
    def _kept_beside(self) -> Iterator[None]:
        """While the block runs, a thread of its own keeps what comes; all of it is kept when the block is left."""
        is_over = threading.Event()

        def keep() -> None:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._unkept or is_over.is_set())
                    blobs, self._unkept = self._unkept, []
                    self._changed.notify_all()
                if not blobs:
                    return
                self._keep(blobs)
                with self._changed:
                    self._lot.kept(blob.digest for blob, _ in blobs)

        keeper = threading.Thread(target=self._guarded, args=(keep,), name="keep small", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            with self._changed:
                is_over.set()
                self._changed.notify_all()
            keeper.join()

    # Accounts

    def _blame(self, source: Source, blob: WantedBlob) -> None:
        with self._changed:
            is_new = source.name not in self.report.liars
            if is_new:
                self.report.liars.append(source.name)
            self.report.refetched_bytes += blob.size_bytes
            self._reasons[source.name] = "gave wrong bytes"
            self._lot.gone(source.name)
        if is_new:
            reason = "gave bytes that are not the file's"
            self._listener(SourceFailed(source.name, str(blob.path), reason, was_lying=True))

    def _give_up(self, source: Source, blob: WantedBlob, fault: SourceFault, *, is_for_all: bool = False) -> None:
        with self._changed:
            self._reasons.setdefault(source.name, fault.reason)
            self._failing[source.name] -= source.kind == "peer"
            if is_for_all or not self._failing[source.name]:
                self._lot.gone(source.name)
                self._changed.notify_all()
            if isinstance(fault.__cause__, AccessDenied):
                self._refusal = fault.__cause__
        if not self._is_over:
            self._listener(SourceFailed(source.name, str(blob.path), fault.reason))

    def _no_source_left(self) -> HfpeerError:
        if self._refusal is not None:
            return self._refusal
        missing = self._lot.missing()
        first = self._wanted[missing[0]]
        others = f" and {len(missing) - 1} more small files" if len(missing) > 1 else ""
        said = "; ".join(f"{name}: {reason}" for name, reason in self._reasons.items()) or "no source has got it"
        return NoSourceLeft(
            f"Nobody can give {first.path}{others}: {said}.",
            hint="What came is kept; run the same command again later and it continues.",
            path=str(first.path),
            sources=self._reasons,
        )


def _total(blobs: Iterable[tuple[WantedBlob, bytes]]) -> int:
    return sum(len(data) for _, data in blobs)


def _is_right(blob: WantedBlob, data: bytes) -> bool:
    if len(data) != blob.size_bytes:
        return False
    blob_hash = BlobHash(blob.digest.algorithm, blob.size_bytes)
    blob_hash.update(memoryview(data))
    return blob_hash.hexdigest() == blob.digest.hex
