"""Sources of a blob in memory: honest ones, and every way to be another.

A source has at most one vice, given by name to its constructor. Must never import what it is there to test: only the
wire's words.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from hfpeer.transfer.sources import SourceKind, WantedBlob
from hfpeer.wire import Body, SourceFault


@dataclass
class FakeSource:
    """Gives `data`, `chunk_bytes` at a time, `bytes_per_second` a body (0: at once).

    `dies_after` bytes in all it refuses everything; `is_silent_after` so many bytes of each body nothing comes any
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
    node_id: str = ""
    given: list[tuple[int, int]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    open_bodies: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
            raise SourceFault("no answer within 30 s")
        if self.is_dead:
            raise SourceFault("the connection was refused")
        with self._lock:
            self.open_bodies += 1
        return FakeBody(self, start, stop)

    @property
    def is_dead(self) -> bool:
        return self.dies_after is not None and self.given_bytes >= self.dies_after

    def piece(self, start: int, stop: int) -> bytes:
        """The bytes as this source gives them."""
        found = bytearray(self.data[start:stop])
        if isinstance(self.lies_at, range):
            for offset in range(max(start, self.lies_at.start), min(stop, self.lies_at.stop)):
                if offset in self.lies_at:
                    found[offset - start] ^= 0xFF
        else:
            for offset in self.lies_at:
                if start <= offset < stop:
                    found[offset - start] ^= 0xFF
        with self._lock:
            self.given.append((start, stop))
        return bytes(found)


class FakeBody:
    """One answer of a FakeSource."""

    def __init__(self, source: FakeSource, start: int, stop: int) -> None:
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

    def close(self) -> None:
        assert not self._is_closed, "closed twice"
        self._is_closed = True
        with self._source._lock:
            self._source.open_bodies -= 1

    def abort(self) -> None:
        self._aborted.set()


def wait_until(condition: object, seconds: float = 10.0) -> bool:
    """Whether a condition, asked again and again, holds in time."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
