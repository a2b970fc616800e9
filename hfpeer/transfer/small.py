"""Blobs small enough to be held in memory: many in one request from a peer, one by one from a hub.

Each is verified before it is handed on, so a wrong one costs no more than itself. A repo of thousands of small
files is bound by requests, not by bytes; here a request carries up to `MAX_BATCH_BLOBS` of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from hfpeer.cache.blobs import BlobHash
from hfpeer.errors import AccessDenied, HfpeerError, NoSourceLeft
from hfpeer.transfer.events import Listener, SourceFailed
from hfpeer.transfer.fetch import FetchReport
from hfpeer.transfer.retry import backoff_seconds
from hfpeer.transfer.sources import PeerSource, Source, UpstreamSource, WantedBlob
from hfpeer.wire import MAX_BATCH_BLOB_BYTES, MAX_BATCH_BLOBS, SourceFault

BATCH_BYTES = 2 * 1024 * 1024
HUB_CONNECTIONS = 8
PEER_CONNECTIONS = 2
MAX_TRIES = 6

Keeper = Callable[[Sequence[tuple[WantedBlob, bytes]]], None]
"""Takes verified blobs and makes them visible. Called from several threads; may raise StorageError."""


def is_small(blob: WantedBlob) -> bool:
    return blob.size_bytes <= MAX_BATCH_BLOB_BYTES


class SmallBlobs:
    """Fetches `wanted`, each at most `MAX_BATCH_BLOB_BYTES`. Blocking: `run` it in a thread, `cancel` from another."""

    def __init__(
        self,
        wanted: Iterable[WantedBlob],
        keep: Keeper,
        listener: Listener,
        *,
        patience_seconds: float = 60.0,
    ) -> None:
        self._todo = {blob.digest: blob for blob in wanted}
        self._keep = keep
        self._listener = listener
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}
        self._failure: HfpeerError | None = None
        self._refusal: AccessDenied | None = None
        self._cancelled = threading.Event()
        self.report = FetchReport()

    def cancel(self) -> None:
        """Ends `run` after the requests under way. Thread-safe."""
        self._cancelled.set()

    def run(self, peers: Sequence[PeerSource], upstreams: Sequence[UpstreamSource]) -> FetchReport:
        """Fetches everything, from peers first. Raises NoSourceLeft for what nobody could give; the rest is kept."""
        sources: list[Source] = [*peers, *upstreams]
        for source in sources:
            self.report.kinds[source.name] = source.kind
        self._ask_peers(peers)
        for upstream in upstreams:
            self._ask_upstream(upstream)
        if self._failure is not None:
            raise self._failure
        if self._todo and not self._cancelled.is_set():
            raise self._no_source_left()
        return self.report

    @property
    def _is_stopped(self) -> bool:
        return self._cancelled.is_set() or self._failure is not None

    # Peers: batches

    def _ask_peers(self, peers: Sequence[PeerSource]) -> None:
        if not peers or not self._todo:
            return
        claimed: set[WantedBlob] = set()
        with ThreadPoolExecutor(len(peers) * PEER_CONNECTIONS, "small from peer") as pool:
            for peer in peers:
                asked: set[WantedBlob] = set()
                for _ in range(PEER_CONNECTIONS):
                    pool.submit(self._drain_peer, peer, asked, claimed)

    def _drain_peer(self, peer: PeerSource, asked: set[WantedBlob], claimed: set[WantedBlob]) -> None:
        """Batch after batch, until this peer has been asked for everything that is still missing."""
        while not self._is_stopped and (batch := self._next_batch(asked, claimed)):
            try:
                is_honest = self._take_batch(peer, batch)
            except SourceFault as fault:
                self._give_up(peer, batch[0], fault)
                return
            except HfpeerError as error:
                self._failure = error
                return
            finally:
                with self._lock:
                    claimed.difference_update(batch)
            if not is_honest:
                return

    def _next_batch(self, asked: set[WantedBlob], claimed: set[WantedBlob]) -> list[WantedBlob]:
        batch: list[WantedBlob] = []
        with self._lock:
            room = BATCH_BYTES
            for blob in self._todo.values():
                if blob in asked or blob in claimed:
                    continue
                batch.append(blob)
                room -= blob.size_bytes
                if len(batch) == MAX_BATCH_BLOBS or room <= 0:
                    break
            asked.update(batch)
            claimed.update(batch)
        return batch

    def _take_batch(self, peer: PeerSource, batch: list[WantedBlob]) -> bool:
        """Keeps what is right of a batch. Whether nothing in it was wrong."""
        by_digest = {blob.digest: blob for blob in batch}
        right: list[tuple[WantedBlob, bytes]] = []
        lie: WantedBlob | None = None
        try:
            for digest, data in peer.open_batch(list(by_digest)):
                blob = by_digest[digest]
                if data is not None and _is_right(blob, data):
                    right.append((blob, data))
                elif data is not None:
                    lie = blob
                    break
        finally:
            self._kept(peer, right)
        if lie is not None:
            self._blame(peer, lie)
        return lie is None

    # Hubs: one by one

    def _ask_upstream(self, upstream: UpstreamSource) -> None:
        if not self._todo or self._is_stopped:
            return
        deadline = time.monotonic() + self._patience_seconds
        with ThreadPoolExecutor(HUB_CONNECTIONS, "small from hub") as pool:
            for _ in pool.map(lambda blob: self._ask_for_one(upstream, blob, deadline), list(self._todo.values())):
                pass

    def _ask_for_one(self, upstream: UpstreamSource, blob: WantedBlob, deadline: float) -> None:
        for attempt in range(1, MAX_TRIES + 1):
            if self._is_stopped or upstream.name in self.report.liars:
                return
            try:
                data = _read_whole(upstream, blob)
            except SourceFault as fault:
                rest = backoff_seconds(attempt) if fault.retry_after_seconds is None else fault.retry_after_seconds
                if fault.is_permanent or attempt == MAX_TRIES or time.monotonic() + rest > deadline:
                    self._give_up(upstream, blob, fault)
                    return
                self._cancelled.wait(rest)
                continue
            if not _is_right(blob, data):
                self._blame(upstream, blob)
                return
            try:
                self._kept(upstream, [(blob, data)])
            except HfpeerError as error:
                self._failure = error
            return

    # Accounts

    def _kept(self, source: Source, blobs: Sequence[tuple[WantedBlob, bytes]]) -> None:
        if not blobs:
            return
        self._keep(blobs)
        with self._lock:
            for blob, data in blobs:
                self._todo.pop(blob.digest, None)
                given = self.report.bytes_by_source
                given[source.name] = given.get(source.name, 0) + len(data)

    def _blame(self, source: Source, blob: WantedBlob) -> None:
        with self._lock:
            self.report.liars.append(source.name)
            self.report.refetched_bytes += blob.size_bytes
            self._reasons[source.name] = "gave wrong bytes"
        self._listener(SourceFailed(source.name, str(blob.path), "gave bytes that are not the file's", was_lying=True))

    def _give_up(self, source: Source, blob: WantedBlob, fault: SourceFault) -> None:
        with self._lock:
            self._reasons[source.name] = fault.reason
            if isinstance(fault.__cause__, AccessDenied):
                self._refusal = fault.__cause__
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


def _is_right(blob: WantedBlob, data: bytes) -> bool:
    if len(data) != blob.size_bytes:
        return False
    blob_hash = BlobHash(blob.digest.algorithm, blob.size_bytes)
    blob_hash.update(memoryview(data))
    return blob_hash.hexdigest() == blob.digest.hex


def _read_whole(source: Source, blob: WantedBlob) -> bytes:
    buffer = bytearray(blob.size_bytes)
    if not buffer:
        return b""
    body = source.open_range(blob, 0, blob.size_bytes)
    try:
        view = memoryview(buffer)
        filled = 0
        while filled < len(view):
            received = body.readinto(view[filled:])
            if received == 0:
                raise SourceFault(f"broke off after {filled} bytes")
            filled += received
    finally:
        body.close()
    return bytes(buffer)
