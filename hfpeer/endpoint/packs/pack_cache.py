"""A cache on disk of packs with the whole history of some commits, recorded while a hub sent them to a clone.

A pack is stored with the commits that it was made for, and serves later clones of any of them. Bounded; may be deleted
at any time. Only the pack's own checksum is verified here, so that no truncated pack is stored; git hashes its objects.
The files are readable by their owner only, because the history of a private repo is private.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hfpeer.cache.snapshots import write_file
from hfpeer.errors import StorageError
from hfpeer.git.pack_reader import BrokenPack, object_ids, read_blobs
from hfpeer.names import RepoId
from hfpeer.net.lru_cache import LruCache
from hfpeer.ranges import ByteRange

MAX_BYTES = 2 << 30
"""Most bytes of all packs; those used longest ago are removed first."""
MAX_PACK_BYTES = 1 << 30
"""Size of the largest pack that is recorded."""
MAX_SEARCHED_BYTES = 64 << 20
"""Size of the largest pack whose objects are searched."""
MAX_UNPACKED_BYTES = 512 << 20
"""Most bytes that a searched pack may unpack to."""
MAX_IDS = 200_000
"""Number of object ids that are remembered in memory."""
HEADER_BYTES, CHECKSUM_BYTES = 12, 20
DATA, FATAL = b"\1", b"\3"


@dataclass(frozen=True)
class CachedPack:
    """A complete pack in a file: the commits that it was made for (`tips`), and the number of its objects."""

    path: Path
    tips: frozenset[str]
    count: int
    size_bytes: int

    @property
    def body(self) -> ByteRange:
        """The range of its objects, between header and checksum."""
        return ByteRange(HEADER_BYTES, self.size_bytes - CHECKSUM_BYTES)


class PackCache:
    """Packs by repo, filter and commits. Thread-safe and blocking, for worker threads."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._ids: LruCache[Path, frozenset[str]] = LruCache(MAX_IDS, len)
        self._incomplete: set[Path] = set()
        """Files that are being written now. Only this process writes here."""

    def find(self, repo: RepoId, commits: Collection[str], filter: str | None) -> CachedPack | None:
        """The pack that was made with this filter for most of these commits; None if there is none."""
        found = [pack for pack in self._of(repo, filter) if not pack.tips.isdisjoint(commits)]
        best = max(found, key=lambda pack: len(pack.tips.intersection(commits)), default=None)
        if best is not None:
            with contextlib.suppress(OSError):
                os.utime(best.path)
        return best

    def record(self, repo: RepoId, commits: Collection[str], filter: str | None) -> PackRecorder | None:
        """Records the response to a clone of these commits into the cache; None if the disk refuses."""
        facts: dict[str, object] = {"filter": filter, "tips": sorted(commits)}
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        return self._recorder(repo, self._folder / repo.folder / f"{name}.pack", facts)

    def record_aside(self, repo: RepoId) -> PackRecorder | None:
        """Records a pack that is not for the cache, because it is no whole clone; its recorder removes it."""
        return self._recorder(repo, None, {})

    def _recorder(self, repo: RepoId, place: Path | None, facts: dict[str, object]) -> PackRecorder | None:
        try:
            (self._folder / repo.folder).mkdir(parents=True, exist_ok=True)
            return PackRecorder(self, self._folder / repo.folder, place, facts)
        except OSError:
            return None

    def ids(self, pack: CachedPack) -> frozenset[str] | None:
        """The ids of all objects in a pack; None if it is larger than MAX_SEARCHED_BYTES or broken."""
        if pack.size_bytes > MAX_SEARCHED_BYTES:
            return None
        with self._lock:
            found = self._ids.get(pack.path)
        try:
            found = found or object_ids(pack.path.read_bytes(), MAX_UNPACKED_BYTES)
        except (OSError, BrokenPack):
            return None
        with self._lock:
            self._ids.put(pack.path, found)
        return found

    def blobs(self, path: Path, ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Id and body of each of these blobs that is in a pack; none if the pack is too large or broken."""
        with contextlib.suppress(OSError, BrokenPack):
            if path.stat().st_size <= MAX_SEARCHED_BYTES:
                yield from read_blobs(path.read_bytes(), ids, MAX_UNPACKED_BYTES)

    def begin(self, folder: Path) -> tuple[Path, IO[bytes]]:
        """A new file in `folder`, which no sweep removes until `end`. Raises OSError."""
        with self._lock:
            fd, name = tempfile.mkstemp(".incomplete", "", folder)
            self._incomplete.add(Path(name))
        return Path(name), os.fdopen(fd, "wb")

    def end(self, fresh: Path) -> None:
        """Removes a file of `begin`, unless it was registered."""
        fresh.unlink(missing_ok=True)
        self._incomplete.discard(fresh)

    def register(self, fresh: Path, place: Path, facts: dict[str, object]) -> None:
        """Moves a complete file of `begin` to its `place`. Raises OSError, NoSpace or BrokenCache."""
        with self._lock:
            fresh.replace(place)
            write_file(place.with_suffix(".json"), json.dumps(facts), 0o600)
            self._incomplete.discard(fresh)
        self.sweep()

    def sweep(self) -> None:
        """Removes files of a killed process, and the packs used longest ago until the rest fits."""
        with contextlib.suppress(OSError), self._lock:
            for path in set(self._folder.glob("*/*.incomplete")) - self._incomplete:
                path.unlink(missing_ok=True)
            found = [(path.stat(), path) for path in self._folder.glob("*/*.pack")]
            total = sum(facts.st_size for facts, _ in found)
            for facts, path in sorted(found, key=lambda pair: pair[0].st_mtime):
                if total <= self._max_bytes:
                    return
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                total -= facts.st_size

    def _of(self, repo: RepoId, filter: str | None) -> Iterator[CachedPack]:
        for path in (self._folder / repo.folder).glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                document = json.loads(path.read_bytes())
                with path.with_suffix(".pack").open("rb") as file:
                    head = file.read(HEADER_BYTES)
                    size_bytes = os.fstat(file.fileno()).st_size
                if document["filter"] == filter and len(head) == HEADER_BYTES:
                    count = int.from_bytes(head[8:], "big")
                    yield CachedPack(path.with_suffix(".pack"), frozenset(document["tips"]), count, size_bytes)


class PackRecorder:
    """Records the pack in a `fetch` response of protocol version 2 while it passes, and stores it if it is complete.

    Blocking. Without a `place` the pack cannot be found in the cache.
    """

    def __init__(self, packs: PackCache, folder: Path, place: Path | None, facts: dict[str, object]) -> None:
        self._packs = packs
        self._place = place
        self._facts = facts
        self._hash = hashlib.sha1(usedforsecurity=False)
        self._unread = self._end = b""
        self._size_bytes = 0
        self._is_in_pack = self._is_over = self._is_wrong = False
        self._fresh, self._file = packs.begin(folder)

    def write(self, chunk: bytes) -> None:
        """The next bytes of the response."""
        try:
            for line in self._lines(chunk):
                self._read_line(line)
        except (ValueError, OSError):
            self._is_wrong = True

    def close(self) -> Path | None:
        """The path of the pack if the response was complete, else None. May be called more than once."""
        if not self._file.closed:
            try:
                self._file.write(self._end)
                self._file.close()
                self._is_wrong = self._is_wrong or not self._is_over or self._hash.digest() != self._end
                if not self._is_wrong and self._place is not None:
                    self._packs.register(self._fresh, self._place, self._facts)
            except (OSError, StorageError):
                self._is_wrong = True
            if self._is_wrong:
                self.remove()
        return None if self._is_wrong else self._place or self._fresh

    def remove(self) -> None:
        """Removes a pack without a place."""
        self._packs.end(self._fresh)

    def _lines(self, chunk: bytes) -> Iterator[bytes | None]:
        """The complete pkt-lines; None between sections. Raises ValueError for a malformed length."""
        unread, start = self._unread + chunk, 0
        while not self._is_wrong and start + 4 <= len(unread):
            size = int(unread[start : start + 4], 16)
            stop = start + max(size, 4)
            if stop > len(unread):
                break
            yield unread[start + 4 : stop] if size >= 4 else None
            start = stop
        self._unread = unread[start:]

    def _read_line(self, line: bytes | None) -> None:
        if line is None:
            self._is_over = self._is_in_pack
        elif not self._is_in_pack:
            # Another section before the pack means that the history is not complete.
            self._is_in_pack = line == b"packfile\n"
            self._is_wrong = not self._is_in_pack and self._place is not None
        elif line[:1] == DATA:
            self._take(line[1:])
        elif line[:1] == FATAL:
            self._is_wrong = True

    def _take(self, data: bytes) -> None:
        held = self._end + data
        body, self._end = held[:-CHECKSUM_BYTES], held[-CHECKSUM_BYTES:]
        self._hash.update(body)
        self._file.write(body)
        self._size_bytes += len(body)
        self._is_wrong = self._is_wrong or self._size_bytes > MAX_PACK_BYTES
