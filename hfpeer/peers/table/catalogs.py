"""The catalogs of peers in a compact form, within memory bounds per host and for all hosts together.

A catalog proves nothing; it only ranks the peers to ask. A peer whose catalog does not fit is kept without it, and is
still asked. Not thread-safe: `Catalogs` belongs to the event loop; a `Catalog` never changes.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hfpeer.budgets import (
    CATALOG_BYTES_PER_SECOND,
    MAX_CATALOGS_BYTES,
    MAX_HOST_CATALOG_BURST_BYTES,
    MAX_HOST_CATALOG_BYTES,
    MAX_REVISIONS_OF_REPO,
)
from hfpeer.names import Commit, RepoId
from hfpeer.peers.protocol.messages import CatalogMessage, RevisionMessage, parse_catalog

_ID_BYTES = 20
_compact = json.JSONEncoder(separators=(",", ":"))


class CommitSet:
    """Commits as their sorted raw ids: 20 bytes each instead of 150."""

    def __init__(self, commits: Iterable[str] = ()) -> None:
        self._ids = b"".join(sorted({bytes.fromhex(commit) for commit in commits}))

    def __contains__(self, commit: object) -> bool:
        if not isinstance(commit, Commit):
            return False
        wanted, low, high = bytes.fromhex(commit), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = self._ids[middle * _ID_BYTES : (middle + 1) * _ID_BYTES]
            if found == wanted:
                return True
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        return False

    def __len__(self) -> int:
        return len(self._ids) // _ID_BYTES

    @property
    def size_bytes(self) -> int:
        return len(self._ids)


NO_COMMITS = CommitSet()


class Catalog:
    """The revisions of one peer, one line of text each, sorted by repo. `read_bytes` is the size of the message."""

    def __init__(self, generation: int, revisions: Iterable[RevisionMessage], read_bytes: int = 0) -> None:
        self._take(generation, [_line(revision) for revision in revisions], read_bytes)

    def _take(self, generation: int, lines: list[bytes], read_bytes: int) -> None:
        lines.sort()
        self.generation = generation
        self.read_bytes = read_bytes
        self._starts = array("I", [0])
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))
        self._text = b"".join(lines)
        lines.clear()
        self.commits = CommitSet(self._commits())

    @classmethod
    def from_json(cls, raw: bytes) -> Catalog:
        """Reads the body of `GET /catalog`, with little more memory than the message itself: each revision becomes its
        line as soon as it is parsed. Raises CorruptData or ValueError."""
        generation, lines = parse_catalog(json.loads(raw, object_hook=_line_if_revision), bytes)
        catalog = cls.__new__(cls)
        catalog._take(generation, lines, len(raw))
        return catalog

    @classmethod
    def of(cls, message: CatalogMessage) -> Catalog:
        return cls(message.generation, message.revisions)

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return len(self._text) + len(self._starts) * self._starts.itemsize + self.commits.size_bytes

    def of_repo(self, repo: RepoId) -> list[RevisionMessage]:
        """The first MAX_REVISIONS_OF_REPO revisions of one repo, found without reading the others."""
        wanted = repo.api_path.encode() + b" "
        first = bisect_left(_Lines(self._text, self._starts), wanted)
        found = []
        for number in range(first, min(len(self), first + MAX_REVISIONS_OF_REPO)):
            line = self._text[self._starts[number] : self._starts[number + 1]]
            if not line.startswith(wanted):
                break
            found.append(_revision(line))
        return found

    def __iter__(self) -> Iterator[RevisionMessage]:
        for number in range(len(self)):
            yield _revision(self._text[self._starts[number] : self._starts[number + 1]])

    def _commits(self) -> Iterator[str]:
        for number in range(len(self)):
            line = self._text[self._starts[number] : self._starts[number + 1]]
            yield line.split(b" ", 2)[1].decode()

    def __len__(self) -> int:
        return len(self._starts) - 1


class _Lines(Sequence[bytes]):
    """The lines, made one at a time, for `bisect`."""

    def __init__(self, text: bytes, starts: Sequence[int]) -> None:
        self._text, self._starts = text, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> bytes:  # type: ignore[override]
        return self._text[self._starts[number] : self._starts[number + 1]]


def _line_if_revision(document: dict[str, Any]) -> dict[str, Any] | bytes:
    """The line of a revision; any other object as it is. Only a revision has an object under `refs`."""
    if isinstance(document.get("refs"), dict):
        return _line(RevisionMessage.from_json(document))
    return document


def _line(revision: RevisionMessage) -> bytes:
    facts = (revision.is_complete, revision.files, revision.size_bytes, dict(revision.refs), revision.is_published)
    return f"{revision.repo.api_path} {revision.commit} {_compact.encode(facts)}".encode()


def _revision(line: bytes) -> RevisionMessage:
    repo, commit, facts = line.decode().split(" ", 2)
    return RevisionMessage(RepoId.from_api_path(repo), Commit(commit), *json.loads(facts))


@dataclass
class _Kept:
    catalog: Catalog
    host: str
    is_static: bool


class Catalogs:
    """The catalogs that fit into memory. Each host has a bound, however many nodes it runs. When all of them together
    are too large, the host with the most gives way to a host with less, and every host to configured peers."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._read: dict[str, tuple[float, float]] = {}
        """Host -> bytes that may be read from it, and the time of that number."""

    def get(self, key: str) -> Catalog | None:
        kept = self._kept.get(key)
        return kept.catalog if kept is not None else None

    def forget(self, key: str) -> None:
        self._kept.pop(key, None)

    @property
    def size_bytes(self) -> int:
        return sum(kept.catalog.size_bytes for kept in self._kept.values())

    def is_over_rate(self, host: str, now: float) -> bool:
        """Whether no catalog is read from this host now, because it has used up its rate."""
        return self._allowance(host, now) <= 0

    def note_read(self, host: str, size_bytes: int, now: float) -> None:
        """Counts bytes read from this host."""
        left = self._allowance(host, now) - size_bytes
        self._read = {
            other: (allowed, at)
            for other, (allowed, at) in self._read.items()
            if allowed + (now - at) * CATALOG_BYTES_PER_SECOND < MAX_HOST_CATALOG_BURST_BYTES
        }
        self._read[host] = (left, now)

    def keep(self, key: str, host: str, catalog: Catalog, *, is_static: bool) -> list[str] | None:
        """Keeps a catalog in place of the peer's last one. Returns the keys of the peers whose catalogs were dropped
        for it; None if it does not fit: the peer then has none."""
        self._kept.pop(key, None)
        size = catalog.size_bytes
        host_bytes = sum(kept.catalog.size_bytes for kept in self._kept.values() if kept.host == host)
        if host_bytes + size > MAX_HOST_CATALOG_BYTES and not is_static:
            return None
        gone = self._make_room(size, host_bytes + size, is_static=is_static)
        if gone is None:
            return None
        for other in gone:
            del self._kept[other]
        self._kept[key] = _Kept(catalog, host, is_static)
        return gone

    def _make_room(self, size: int, host_bytes: int, *, is_static: bool) -> list[str] | None:
        free = MAX_CATALOGS_BYTES - self.size_bytes - size
        by_host: dict[str, int] = {}
        others = {key: kept for key, kept in self._kept.items() if not kept.is_static}
        for kept in others.values():
            by_host[kept.host] = by_host.get(kept.host, 0) + kept.catalog.size_bytes
        gone: list[str] = []
        while free < 0:
            host = max(by_host, key=by_host.__getitem__, default=None)
            if host is None or (not is_static and by_host[host] <= host_bytes):
                return None
            of_host = [key for key, kept in others.items() if kept.host == host]
            key = max(of_host, key=lambda key: others[key].catalog.size_bytes)
            freed = others.pop(key).catalog.size_bytes
            by_host[host] -= freed
            if not by_host[host]:
                del by_host[host]
            free += freed
            gone.append(key)
        return gone

    def _allowance(self, host: str, now: float) -> float:
        left, at = self._read.get(host, (MAX_HOST_CATALOG_BURST_BYTES, now))
        return min(MAX_HOST_CATALOG_BURST_BYTES, left + (now - at) * CATALOG_BYTES_PER_SECOND)
