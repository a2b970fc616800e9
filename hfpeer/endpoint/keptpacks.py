"""Packs with the whole history of some commits, as a hub gave them to a clone, kept for the next one.

A pack is kept with the commits that it was made for; it serves every clone of some of them, with what came
since. Bounded and deletable. What is in a pack is not believed here: git hashes it all. Only its own checksum is
proved, so that none is kept that was cut off. Files are readable by their owner only, because a private repo's
history is private too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.snapshots import write_file
from hfpeer.endpoint.once import Recent
from hfpeer.errors import StorageError
from hfpeer.names import RepoId
from hfpeer.ranges import ByteRange
from hfpeer.upstream.pack import BrokenPack, object_ids, read_blobs

MAX_BYTES = 2 << 30
MAX_PACK_BYTES = 1 << 30
MAX_SEARCHED_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 512 << 20
MAX_IDS = 200_000
"""As many ids are remembered."""
ABANDONED_SECONDS = 86400.0
HEADER_BYTES, CHECKSUM_BYTES = 12, 20
DATA, FATAL = b"\1", b"\3"


@dataclass(frozen=True)
class KeptPack:
    """A whole pack in a file: the commits that it was made for, and how many objects it has."""

    path: Path
    tips: frozenset[str]
    count: int
    size_bytes: int

    @property
    def body(self) -> ByteRange:
        """Where its objects lie, between header and checksum."""
        return ByteRange(HEADER_BYTES, self.size_bytes - CHECKSUM_BYTES)


class KeptPacks:
    """By repo, filter and commits. Blocking, for worker threads."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._ids: Recent[Path, frozenset[str]] = Recent(MAX_IDS, len)

    def find(self, repo: RepoId, commits: Collection[str], filter: str | None) -> KeptPack | None:
        """The pack made for the most of these commits, with all their history that the filter takes."""
        found = [kept for kept in self._of(repo, filter) if not kept.tips.isdisjoint(commits)]
        best = max(found, key=lambda kept: len(kept.tips.intersection(commits)), default=None)
        if best is not None:
            with contextlib.suppress(OSError):
                os.utime(best.path)
        return best

    def keep(self, repo: RepoId, commits: Collection[str], filter: str | None) -> PackKeeper | None:
        """What is to hear the answer to a clone of these commits; None where the disk takes nothing."""
        facts: dict[str, object] = {"filter": filter, "tips": sorted(commits)}
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        return self._keeper(repo, self._folder / repo.folder / f"{name}.pack", facts)

    def pass_by(self, repo: RepoId) -> PackKeeper | None:
        """The same for a pack that is no whole clone's: it lies there until its keeper removes it."""
        return self._keeper(repo, None, {})

    def _keeper(self, repo: RepoId, place: Path | None, facts: dict[str, object]) -> PackKeeper | None:
        try:
            (self._folder / repo.folder).mkdir(parents=True, exist_ok=True)
            return PackKeeper(self, self._folder / repo.folder, place, facts)
        except OSError:
            return None

    def ids(self, kept: KeptPack) -> frozenset[str] | None:
        """The ids of all that is in a pack; None for one that is too large to be looked through."""
        if kept.size_bytes > MAX_SEARCHED_BYTES:
            return None
        with self._lock:
            found = self._ids.get(kept.path)
        try:
            found = found or object_ids(kept.path.read_bytes(), MAX_UNPACKED_BYTES)
        except (OSError, BrokenPack):
            return None
        with self._lock:
            self._ids.put(kept.path, found)
        return found

    def blobs(self, path: Path, ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Id and body of those of these blobs that are in a pack; fewer if it is large or broken."""
        with contextlib.suppress(OSError, BrokenPack):
            if path.stat().st_size <= MAX_SEARCHED_BYTES:
                yield from read_blobs(path.read_bytes(), ids, MAX_UNPACKED_BYTES)

    def sweep(self) -> None:
        """Removes the packs used longest ago until the rest fits, and what a kill has left."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*/*.incomplete"):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
            found = [(path.stat(), path) for path in self._folder.glob("*/*.pack")]
            total = sum(facts.st_size for facts, _ in found)
            for facts, path in sorted(found, key=lambda pair: pair[0].st_mtime):
                if total <= self._max_bytes:
                    return
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                total -= facts.st_size

    def _of(self, repo: RepoId, filter: str | None) -> Iterator[KeptPack]:
        for path in (self._folder / repo.folder).glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                document = json.loads(path.read_bytes())
                with path.with_suffix(".pack").open("rb") as file:
                    head = file.read(HEADER_BYTES)
                    size_bytes = os.fstat(file.fileno()).st_size
                if document["filter"] == filter and len(head) == HEADER_BYTES:
                    count = int.from_bytes(head[8:], "big")
                    yield KeptPack(path.with_suffix(".pack"), frozenset(document["tips"]), count, size_bytes)


class PackKeeper:
    """Hears a `fetch` answer of protocol version 2 as it passes, and keeps its pack if all of it came. Blocking.

    Without a `place` nobody else will find the pack.
    """

    def __init__(self, packs: KeptPacks, folder: Path, place: Path | None, facts: dict[str, object]) -> None:
        self._packs = packs
        self._place = place
        self._facts = facts
        self._hash = hashlib.sha1(usedforsecurity=False)
        self._unread = self._end = b""
        self._size_bytes = 0
        self._is_in_pack = self._is_over = self._is_wrong = False
        fd, name = tempfile.mkstemp(".incomplete", "", folder)
        self._fresh, self._file = Path(name), os.fdopen(fd, "wb")

    def hear(self, chunk: bytes) -> None:
        """The next bytes of the answer."""
        try:
            for line in self._lines(chunk):
                self._hear_line(line)
        except (ValueError, OSError):
            self._is_wrong = True

    def close(self) -> Path | None:
        """Where the pack lies, if the answer has ended and was whole. To be called again does no harm."""
        if not self._file.closed:
            try:
                self._file.write(self._end)
                self._file.close()
                self._is_wrong = self._is_wrong or not self._is_over or self._hash.digest() != self._end
                if not self._is_wrong and self._place is not None:
                    self._register(self._place)
            except (OSError, StorageError):
                self._is_wrong = True
            if self._is_wrong:
                self.remove()
        return None if self._is_wrong else self._place or self._fresh

    def remove(self) -> None:
        """Removes a pack that has no place of its own."""
        self._fresh.unlink(missing_ok=True)

    def _register(self, place: Path) -> None:
        self._fresh.replace(place)
        write_file(place.with_suffix(".json"), json.dumps(self._facts), 0o600)
        self._packs.sweep()

    def _lines(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that are whole now; None for what stands between sections. Raises ValueError for nonsense."""
        unread, start = self._unread + chunk, 0
        while not self._is_wrong and start + 4 <= len(unread):
            size = int(unread[start : start + 4], 16)
            stop = start + max(size, 4)
            if stop > len(unread):
                break
            yield unread[start + 4 : stop] if size >= 4 else None
            start = stop
        self._unread = unread[start:]

    def _hear_line(self, line: bytes | None) -> None:
        if line is None:
            self._is_over = self._is_in_pack
        elif not self._is_in_pack:
            # Any other section means that these are not commits with all their history.
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
