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
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dulwich.errors import GitProtocolError
from dulwich.protocol import PktLineParser

from hfpeer.cache.snapshots import write_file
from hfpeer.endpoint.once import Recent
from hfpeer.errors import StorageError
from hfpeer.names import RepoId
from hfpeer.ranges import ByteRange
from hfpeer.upstream.pack import BrokenPack, object_ids

MAX_BYTES = 2 << 30
MAX_PACK_BYTES = 1 << 30
MAX_SEARCHED_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 512 << 20
MAX_IDS = 200_000
"""As many ids are remembered."""
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
        name = hashlib.sha256(json.dumps([filter, sorted(commits)]).encode()).hexdigest()[:32]
        place = self._folder / repo.folder / f"{name}.pack"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            return PackKeeper(self, place, {"filter": filter, "tips": sorted(commits)})
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

    def sweep(self) -> None:
        """Removes the packs used longest ago until the rest fits, and what a kill has left."""
        with contextlib.suppress(OSError):
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
    """Hears a `fetch` answer of protocol version 2 as it passes, and keeps its pack if all of it came. Blocking."""

    def __init__(self, packs: KeptPacks, place: Path, facts: dict[str, object]) -> None:
        self._packs = packs
        self._place = place
        self._facts = facts
        self._lines = PktLineParser(self._hear_line)
        self._hash = hashlib.sha1(usedforsecurity=False)
        self._end = b""
        self._size_bytes = 0
        self._is_in_pack = self._is_over = self._is_wrong = False
        fd, name = tempfile.mkstemp(".incomplete", "", place.parent)
        self._fresh, self._file = Path(name), os.fdopen(fd, "wb")

    def hear(self, chunk: bytes) -> None:
        """The next bytes of the answer."""
        if self._is_wrong:
            return
        try:
            self._lines.parse(chunk)
        except (GitProtocolError, OSError):
            self._is_wrong = True

    def close(self) -> None:
        """The answer has ended, or was broken off: then nothing is kept."""
        try:
            self._file.write(self._end)
            self._file.close()
            if self._is_over and not self._is_wrong and self._hash.digest() == self._end:
                self._fresh.replace(self._place)
                write_file(self._place.with_suffix(".json"), json.dumps(self._facts), 0o600)
                self._packs.sweep()
        except (OSError, StorageError):
            self._place.unlink(missing_ok=True)
        finally:
            self._fresh.unlink(missing_ok=True)

    def _hear_line(self, line: bytes | None) -> None:
        if line is None:
            self._is_over = self._is_in_pack
        elif not self._is_in_pack:
            # Any other section means that this is more, or less, than commits with all their history.
            self._is_in_pack = line == b"packfile\n"
            self._is_wrong = not self._is_in_pack
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
