"""Blobs small enough to be held in memory: many in one request from a peer, one by one from a hub.

Each is verified before it is handed on, so a wrong one costs no more than itself. A repo of thousands of small
files is bound by requests, not by bytes: here a request carries up to `MAX_BATCH_BLOBS` of them. It is bound by the
disk as well, so one thread keeps what has come while the others fetch: the slower the disk, the more it keeps at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from hfpeer.cache.blobs import BlobHash
from hfpeer.errors import AccessDenied, HfpeerError, NoSourceLeft
from hfpeer.names import Digest
from hfpeer.transfer.events import Listener, SourceFailed
from hfpeer.transfer.forgery import check_plain
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.retry import backoff_seconds
from hfpeer.transfer.sources import PeerSource, Source, UpstreamSource, WantedBlob
from hfpeer.wire import MAX_BATCH_BLOB_BYTES, MAX_BATCH_BLOBS, SourceFault

BATCH_BYTES = 2 * 1024 * 1024
HUB_CONNECTIONS = 8
PEER_CONNECTIONS = 2
PEER_TRIES = 3
HUB_TRIES = 6
REQUEST_SECONDS = 20.0
"""No request may take longer: at most 2 MiB, from a peer on the LAN or one small file from a hub."""
MAX_UNKEPT_BYTES = 64 * 1024 * 1024
LOOK_SECONDS = 0.25

Keeper = Callable[[Sequence[tuple[WantedBlob, bytes]]], None]
"""Takes verified blobs and makes them visible. Called from one thread at a time; may raise StorageError."""


def is_small(blob: WantedBlob) -> bool:
    return blob.size_bytes <= MAX_BATCH_BLOB_BYTES


class Abortable(Protocol):
    """An answer that is being read in another thread."""

    def abort(self) -> None: ...


class SmallBlobs:
    """Fetches `wanted`, each at most `MAX_BATCH_BLOB_BYTES`. Blocking: `run` it in a thread, `cancel` from another.

    `patience_seconds` without a blob from a hub end the tries there.
    """

    def __init__(
        self,
        wanted: Iterable[WantedBlob],
        keep: Keeper,
        listener: Listener,
        *,
        patience_seconds: float = 60.0,
    ) -> None:
        self._todo = {blob.digest: blob for blob in wanted}
        self._claimed: set[Digest] = set()
        self._unkept: list[tuple[WantedBlob, bytes]] = []
        self._keep = keep
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._open: dict[Abortable, float] = {}
        self._progressed_at = time.monotonic()
        self._reasons: dict[str, str] = {}
        self._gone: set[str] = set()
        self._failure: BaseException | None = None
        self._refusal: AccessDenied | None = None
        self._is_cancelled = False
        self.report = FetchReport()
        self._listener = self.report.overheard(listener)

    def cancel(self) -> None:
        """Ends `run` soon; what came is kept. Thread-safe."""
        with self._changed:
            self._is_cancelled = True
            self._abort(self._open)

    def run(self, peers: Sequence[PeerSource], upstreams: Sequence[UpstreamSource]) -> FetchReport:
        """Fetches everything, from peers first. Raises NoSourceLeft for what nobody could give; the rest is kept."""
        sources: list[Source] = [*peers, *upstreams]
        for source in sources:
            self.report.meet(source)
        with self._kept_beside():
            self._ask_all([(self._drain_peer, peer) for peer in peers for _ in range(PEER_CONNECTIONS)])
            for upstream in upstreams:
                with self._changed:
                    self._progressed_at = time.monotonic()
                    connections = min(HUB_CONNECTIONS, len(self._todo))
                self._ask_all([(self._drain_hub, upstream)] * connections)
        if self._failure is not None:
            raise self._failure
        if self._todo and not self._is_cancelled:
            raise self._no_source_left()
        return self.report

    @property
    def _is_stopped(self) -> bool:
        return self._is_cancelled or self._failure is not None

    # Threads

    def _ask_all(self, work: Sequence[tuple[Callable[..., None], Source]]) -> None:
        """A thread for each, until all are done; requests that take too long are broken off.

        When all is over, threads whose source does not answer are left to end by themselves.
        """
        queues = {source.name: deque(self._todo.values()) for _, source in work}
        threads = [
            threading.Thread(
                target=self._guarded,
                args=(drain, source, queues[source.name]),
                name=f"small from {source.name}",
                daemon=True,
            )
            for drain, source in work
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self._is_stopped:
                thread.join(LOOK_SECONDS)
                late = time.monotonic() - REQUEST_SECONDS
                with self._changed:
                    self._abort([answer for answer, opened_at in self._open.items() if opened_at < late])

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
    def _reading(self, answer: Abortable) -> Iterator[None]:
        with self._changed:
            self._open[answer] = time.monotonic()
            if self._is_stopped:
                answer.abort()
        try:
            yield
        finally:
            with self._changed:
                del self._open[answer]

    # What is to be asked of whom

    def _claim(self, source: Source, queue: deque[WantedBlob], count: int) -> list[WantedBlob]:
        """The next blobs to ask this source for. Waits for those that others are asked for, who may fail; empty when
        there will be none."""
        with self._changed:
            while not self._is_stopped and source.name not in self._gone:
                batch = self._pick(queue, count)
                if batch or not queue:
                    return batch
                self._changed.wait()
        return []

    def _pick(self, queue: deque[WantedBlob], count: int) -> list[WantedBlob]:
        """The first that are still missing and not claimed, at most `count`, about `BATCH_BYTES` together."""
        batch: list[WantedBlob] = []
        claimed_elsewhere = []
        room = BATCH_BYTES
        while queue and len(batch) < count and room > 0:
            blob = queue.popleft()
            if blob.digest in self._claimed:
                claimed_elsewhere.append(blob)
            elif blob.digest in self._todo:
                batch.append(blob)
                room -= blob.size_bytes
        queue.extend(claimed_elsewhere)
        self._claimed.update(blob.digest for blob in batch)
        return batch

    def _unclaim(self, batch: Sequence[WantedBlob]) -> None:
        with self._changed:
            self._claimed.difference_update(blob.digest for blob in batch)
            self._changed.notify_all()

    # Peers: batches

    def _drain_peer(self, peer: PeerSource, queue: deque[WantedBlob]) -> None:
        """Batch after batch, until this peer has been asked for everything that is still missing.

        One that breaks off is asked again if it gave something, or if it said when.
        """
        tries = 1
        while batch := self._claim(peer, queue, MAX_BATCH_BLOBS):
            try:
                self._take_batch(peer, batch)
                tries = 1
            except SourceFault as fault:
                missing = [blob for blob in batch if blob.digest in self._todo]
                is_worth_it = len(missing) < len(batch) or fault.retry_after_seconds is not None
                if fault.is_permanent or tries == PEER_TRIES or not is_worth_it:
                    self._give_up(peer, batch[0], fault)
                    return
                self._rest(backoff_seconds(tries) if fault.retry_after_seconds is None else fault.retry_after_seconds)
                tries = tries + 1 if len(missing) == len(batch) else 1
                with self._changed:
                    queue.extendleft(missing)
            finally:
                self._unclaim(batch)

    def _take_batch(self, peer: PeerSource, batch: Sequence[WantedBlob]) -> None:
        """Keeps what is right of a batch, and asks a peer that lied no more."""
        by_digest = {blob.digest: blob for blob in batch}
        answer = peer.open_batch(list(by_digest))
        right: list[tuple[WantedBlob, bytes]] = []
        try:
            with self._reading(answer):
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

    def _drain_hub(self, upstream: UpstreamSource, queue: deque[WantedBlob]) -> None:
        while claimed := self._claim(upstream, queue, 1):
            try:
                self._ask_for_one(upstream, claimed[0])
            finally:
                self._unclaim(claimed)

    def _ask_for_one(self, upstream: UpstreamSource, blob: WantedBlob) -> None:
        """One blob, with a few tries. A hub that refuses, or gives nothing any more, is not asked for the others."""
        for attempt in range(1, HUB_TRIES + 1):
            try:
                data = self._read_whole(upstream, blob)
            except SourceFault as fault:
                rest = backoff_seconds(attempt) if fault.retry_after_seconds is None else fault.retry_after_seconds
                is_hopeless = isinstance(fault.__cause__, AccessDenied) or self._is_patience_over(rest)
                if is_hopeless or fault.is_permanent or attempt == HUB_TRIES or self._is_stopped:
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
            self._changed.wait_for(lambda: self._is_stopped, seconds)

    def _is_patience_over(self, rest_seconds: float) -> bool:
        return time.monotonic() + rest_seconds - self._progressed_at > self._patience_seconds

    # What came

    def _came(self, source: Source, blobs: Sequence[tuple[WantedBlob, bytes]]) -> None:
        """Verified blobs from a source: for the keeping thread, which may be behind."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or _total(self._unkept) < MAX_UNKEPT_BYTES)
            for blob, data in blobs:
                if self._todo.pop(blob.digest, None) is not None:
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
            self._gone.add(source.name)
        if is_new:
            reason = "gave bytes that are not the file's"
            self._listener(SourceFailed(source.name, str(blob.path), reason, was_lying=True))

    def _give_up(self, source: Source, blob: WantedBlob, fault: SourceFault, *, is_for_all: bool = False) -> None:
        with self._changed:
            self._reasons.setdefault(source.name, fault.reason)
            if is_for_all:
                self._gone.add(source.name)
            if isinstance(fault.__cause__, AccessDenied):
                self._refusal = fault.__cause__
        if not self._is_stopped:
            self._listener(SourceFailed(source.name, str(blob.path), fault.reason))

    def _no_source_left(self) -> HfpeerError:
        if self._refusal is not None:
            return self._refusal
        first = next(iter(self._todo.values()))
        others = f" and {len(self._todo) - 1} more small files" if len(self._todo) > 1 else ""
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
