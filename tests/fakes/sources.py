"""Sources of a blob in memory: honest ones, and every way to be another.

A source has at most one vice, given by name to its constructor. Must never import what it is there to test: only the
wire's words.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field

from hfpeer.net.body import Body, SourceFault
from hfpeer.peers.protocol.pieces import PIECE_DIGEST_BYTES, piece_digest
from hfpeer.ranges import PieceGrid
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.sources.tiers import SourceKind, Tier


@dataclass
class FakeSource:
    """Gives `data`, `chunk_bytes` at a time, `bytes_per_second` a body (0: at once).

    `dies_after` bytes in all it refuses everything; `is_silent_after` that many bytes of each body nothing comes any
    more; with `never_answers` not even the body; with `ends_after` a body is shorter than announced. `lies_at` are
    offsets of the blob whose bytes it inverts. `refuses` is the fault of every request.
    """

    name: str
    data: bytes
    kind: SourceKind = "peer"
    address: str = "127.0.0.1:9437"
    chunk_bytes: int = 1 << 18
    bytes_per_second: float = 0.0
    dies_after: int | None = None
    is_silent_after: int | None = None
    never_answers: bool = False
    ends_after: int | None = None
    lies_at: frozenset[int] | range = frozenset()
    refuses: SourceFault | None = None
    takes_ranges: bool = True
    ignores_ranges: bool = False
    """It sends the whole blob, whatever range it is asked for."""
    passed_over_bytes: int = 0
    tells_digests: bool = True
    digests_lie_at: frozenset[int] = frozenset()
    """Pieces of which it tells a wrong digest."""
    digests_told: int = 0
    node_id: str = ""
    is_named: bool = False
    given: list[tuple[int, int]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    open_bodies: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    has_sent_whole: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tier(self) -> Tier:
        return Tier.of(self.kind, is_named=self.is_named)

    @property
    def is_open(self) -> bool:
        return self.kind == "peer"

    @property
    def given_bytes(self) -> int:
        with self._lock:
            return sum(stop - start for start, stop in self.given)

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        self.asked.set()
        if self.refuses is not None:
            raise self.refuses
        if self.never_answers:
            self.released.wait(30.0)
            raise SourceFault("no response within 30 s")
        if self.is_dead:
            raise SourceFault("the connection was refused")
        if self.ignores_ranges and start and not self.has_sent_whole:
            self.has_sent_whole = True
            raise SourceFault("ignores ranges", ignores_ranges=True)
        with self._lock:
            self.open_bodies += 1
        return FakeBody(self, start, stop, start if self.ignores_ranges else 0)

    def open_piece_digests(self, blob: WantedBlob, pieces: range) -> Body:
        if self.kind != "peer" or not self.tells_digests:
            raise SourceFault("knows no digests of pieces", is_permanent=True)
        grid = PieceGrid(blob.size_bytes)
        extents = [(piece, grid.range_of(piece)) for piece in pieces]
        digests = [
            "00" * PIECE_DIGEST_BYTES if piece in self.digests_lie_at else piece_digest(self.data[start:stop])
            for piece, (start, stop) in extents
        ]
        self.digests_told += len(pieces)
        text = bytes.fromhex("".join(digests))
        return FakeBody(FakeSource(self.name, text, open_bodies=1), 0, len(text))

    @property
    def is_dead(self) -> bool:
        return self.dies_after is not None and self.given_bytes >= self.dies_after

    def piece(self, start: int, stop: int) -> bytes:
        """The bytes as this source gives them."""
        found = bytearray(self.data[start:stop])
        lies = self.lies_at
        if isinstance(lies, range):
            lies = lies[bisect_left(lies, start) : bisect_left(lies, stop)]
        for offset in lies:
            if start <= offset < stop:
                found[offset - start] ^= 0xFF
        with self._lock:
            self.given.append((start, stop))
        return bytes(found)


class FakeBody:
    """One answer of a FakeSource."""

    def __init__(self, source: FakeSource, start: int, stop: int, before_bytes: int = 0) -> None:
        self._before_bytes = before_bytes
        self._source = source
        self._start = self._position = start
        self._stop = stop
        self._aborted = threading.Event()
        self._is_closed = False

    def readinto(self, view: memoryview) -> int:
        source, given = self._source, self._position - self._start
        if self._position == self._stop or (source.ends_after is not None and given >= source.ends_after):
            return 0
        if source.is_silent_after is not None and given >= source.is_silent_after:
            self._aborted.wait(30.0)
        if source.bytes_per_second:
            self._aborted.wait(min(len(view), source.chunk_bytes) / source.bytes_per_second)
        if self._aborted.is_set():
            raise SourceFault("was aborted")
        if source.is_dead:
            raise SourceFault("the connection broke")
        size = min(len(view), source.chunk_bytes, self._stop - self._position)
        view[:size] = source.piece(self._position, self._position + size)
        self._position += size
        return size

    def pass_over(self, view: memoryview) -> int:
        size = min(len(view), self._before_bytes)
        if self._source.bytes_per_second:
            self._aborted.wait(size / self._source.bytes_per_second)
        self._before_bytes -= size
        self._source.passed_over_bytes += size
        return size

    def close(self) -> None:
        assert not self._is_closed, "closed twice"
        self._is_closed = True
        with self._source._lock:
            self._source.open_bodies -= 1

    def abort(self) -> None:
        self._aborted.set()
