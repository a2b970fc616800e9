"""The journal of a partial blob: which bytes are present, which sources gave them, and which survive a power cut.

It is a file of records of fixed size, each with a checksum, appended in single writes. The first record names the blob.

- `BOOT` marks a new boot of the machine. Within one boot every whole record counts, because the page cache outlives a
  killed process. Of an earlier boot only synced ranges count.
- `HAVE` adds a range with its source, `DROP` removes one.
- `MARK` is written before the data is synced, `SYNC` after it: ranges present at the `MARK` are then on the disk.
- `OPEN` follows the first record: all bytes so far were given openly. `CLOSED` ends that.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hfpeer.errors import InvalidName
from hfpeer.names import Digest
from hfpeer.ranges import RangeSet, touching

RECORD_BYTES = 128
_BODY = struct.Struct("<BBH Q Q 104s")
_CHECK = struct.Struct("<I")
_VERSION = 1
_HEAD, _BOOT, _HAVE, _DROP, _MARK, _SYNC, _OPEN, _CLOSED = range(1, 9)
MAX_SOURCE_BYTES = 104
"""Bytes kept of the name of a source."""
_END = 1 << 63


class Sources:
    """The source of each byte: the last one that wrote it."""

    def __init__(self) -> None:
        # Sorted disjoint runs; neighbours of one source are merged.
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._names: list[str] = []

    def give(self, start: int, stop: int, source: str) -> None:
        if start >= stop:
            return
        self.drop(start, stop)
        low = high = bisect_left(self._starts, start)
        if low and self._stops[low - 1] == start and self._names[low - 1] == source:
            low -= 1
            start = self._starts[low]
        if high < len(self._starts) and self._starts[high] == stop and self._names[high] == source:
            stop = self._stops[high]
            high += 1
        self._replace(low, high, [(start, stop, source)])

    def drop(self, start: int, stop: int) -> None:
        low, high = touching(self._starts, self._stops, start, stop)
        if low < high:
            before = (self._starts[low], start, self._names[low])
            after = (stop, self._stops[high - 1], self._names[high - 1])
            self._replace(low, high, [run for run in (before, after) if run[0] < run[1]])

    def inside(self, start: int, stop: int) -> list[tuple[int, int, str]]:
        """The parts of `[start, stop)` that a source gave, in order."""
        low, high = touching(self._starts, self._stops, start, stop)
        return [
            (max(self._starts[run], start), min(self._stops[run], stop), self._names[run]) for run in range(low, high)
        ]

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        return zip(self._starts, self._stops, self._names, strict=True)

    def _replace(self, low: int, high: int, runs: list[tuple[int, int, str]]) -> None:
        self._starts[low:high] = [start for start, _, _ in runs]
        self._stops[low:high] = [stop for _, stop, _ in runs]
        self._names[low:high] = [source for _, _, source in runs]


@dataclass
class Replay:
    """The state that a journal describes: the present bytes and their sources. The first `good_bytes` of the journal
    are valid records. `is_given`: all bytes that ever arrived were given openly."""

    present: RangeSet = field(default_factory=RangeSet)
    sources: Sources = field(default_factory=Sources)
    good_bytes: int = 0
    boot: str | None = None
    is_given: bool = False
    _marked: RangeSet = field(default_factory=RangeSet)
    _synced: RangeSet = field(default_factory=RangeSet)

    def enter(self, boot: str) -> None:
        """A boot begins. Of an earlier boot only the synced ranges are left. "" never equals an earlier boot."""
        if self.boot is not None and (boot != self.boot or not boot):
            self.present = self._synced.copy()
            for gap in self.present.gaps(0, _END):
                self.sources.drop(*gap)
        self.boot = boot

    def apply(self, kind: int, start: int, stop: int, text: str) -> None:
        """Applies one record."""
        if kind == _BOOT:
            self.enter(text)
        elif kind == _HAVE:
            self.present.add(start, stop)
            self.sources.give(start, stop, text)
        elif kind == _DROP:
            for ranges in (self.present, self._marked, self._synced):
                ranges.discard(start, stop)
            self.sources.drop(start, stop)
        elif kind == _MARK:
            self._marked = self.present.copy()
        elif kind == _SYNC:
            self._synced = self._marked.copy()
        elif kind in (_OPEN, _CLOSED):
            self.is_given = kind == _OPEN and not self.present


def have(parts: Iterable[tuple[int, int, str]]) -> bytes:
    """The records that add `(start, stop, source)` each."""
    return b"".join(_record(_HAVE, start, stop, source) for start, stop, source in parts)


def drop(start: int, stop: int) -> bytes:
    return _record(_DROP, start, stop)


def mark() -> bytes:
    """Written before the data is synced."""
    return _record(_MARK)


def synced() -> bytes:
    """Written after the data was synced: the ranges present at the last `mark` are on the disk."""
    return _record(_SYNC)


def opened() -> bytes:
    """Written when a journal begins."""
    return _record(_OPEN)


def closed() -> bytes:
    """Written before the first bytes that were not given openly."""
    return _record(_CLOSED)


def booted(boot: str) -> bytes:
    return _record(_BOOT, text=boot)


def head(digest: Digest, size_bytes: int) -> bytes:
    return _record(_HEAD, _VERSION, size_bytes, str(digest))


def replay(journal: bytes, digest: Digest, size_bytes: int, boot: str) -> Replay:
    """Reads a journal up to the first torn or invalid record; `boot` is the current boot.

    For a journal of another blob, size or version the result is empty, and its `good_bytes` is 0.
    """
    result = Replay()
    if journal[:RECORD_BYTES] != head(digest, size_bytes):
        return result
    for kind, start, stop, text in _records(journal):
        if kind != _HEAD and not _makes_sense(start, stop, size_bytes):
            break
        result.apply(kind, start, stop, text)
        result.good_bytes += RECORD_BYTES
    result.enter(boot)
    return result


@dataclass(frozen=True)
class Prefix:
    """A blob of which the first `kept_bytes` are present."""

    digest: Digest
    size_bytes: int
    kept_bytes: int


def kept_prefix(journal: bytes, boot: str) -> Prefix | None:
    """The blob of a journal with its first present bytes; None if the journal names no blob."""
    for kind, version, size_bytes, text in _records(journal[:RECORD_BYTES]):
        if (kind, version) != (_HEAD, _VERSION):
            return None
        try:
            digest = Digest.parse(text)
        except InvalidName:
            return None
        present = replay(journal, digest, size_bytes, boot).present
        return Prefix(digest, size_bytes, next((start for start, _ in present.gaps(0, size_bytes)), size_bytes))
    return None


def recorded_bytes(journal: bytes) -> int:
    """The number of present bytes in a journal of this boot, of any blob. For watching the fetches of a process from
    outside."""
    result = Replay()
    for record in _records(journal):
        result.apply(*record)
    return result.present.total


def _makes_sense(start: int, stop: int, size_bytes: int) -> bool:
    return start <= stop <= size_bytes


def _record(kind: int, start: int = 0, stop: int = 0, text: str = "") -> bytes:
    encoded = text.encode()[:MAX_SOURCE_BYTES]
    body = _BODY.pack(kind, 0, len(encoded), start, stop, encoded)
    return body + _CHECK.pack(zlib.crc32(body))


def _records(journal: bytes) -> Iterator[tuple[int, int, int, str]]:
    for at in range(0, len(journal) - RECORD_BYTES + 1, RECORD_BYTES):
        body = journal[at : at + _BODY.size]
        (check,) = _CHECK.unpack_from(journal, at + _BODY.size)
        kind, _, length, start, stop, text = _BODY.unpack(body)
        if check != zlib.crc32(body) or not _HEAD <= kind <= _CLOSED:
            return
        yield kind, start, stop, text[:length].decode("utf-8", "replace")


def boot_id() -> str:
    """The id of the current boot of this machine; "" where it is unknown, which counts as a new boot each time."""
    if sys.platform == "linux":
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
    return _boot_time()


def _boot_time() -> str:
    """The kernel's boot time on the BSDs and macOS, by `sysctl kern.boottime`."""
    import subprocess

    try:
        answer = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.boottime"], capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.decode(errors="replace").strip()[: MAX_SOURCE_BYTES - 8]


def append(fd: int, records: bytes) -> None:
    """Appends whole records to a journal opened with O_APPEND. Raises OSError.

    A write that the disk cuts short is undone, so that later records stay readable.
    """
    written = os.write(fd, records)
    if written == len(records):
        return
    end = os.lseek(fd, 0, os.SEEK_END)
    os.ftruncate(fd, end - written)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
