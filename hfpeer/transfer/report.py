"""What a fetch cost and how it went: counted while it runs, kept with the cache when it has ended.

It only listens. What came from whom it takes from the partial, which knows that for every byte.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hfpeer.cache.records import FetchRecord, Giver, Trouble
from hfpeer.cache.store import Store
from hfpeer.names import Digest
from hfpeer.peers.reach import interface_to
from hfpeer.ranges import ByteRange
from hfpeer.transfer.events import Event, Listener, SourceFailed
from hfpeer.transfer.sources import Source, SourceKind, WantedBlob

MAX_TROUBLES = 100
MAX_RANGES = 500
"""So many ranges of one source are kept for one blob; of the others only how many bytes they have."""


@dataclass
class FetchReport:
    """What a fetch cost: payload bytes by source name, each source's kind, and what had to be fetched twice.

    `addresses` are those of the sources; `troubles` are what went wrong, with the file's path. `small` are the blobs
    that came whole from one source.
    """

    bytes_by_source: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, SourceKind] = field(default_factory=dict)
    refetched_bytes: int = 0
    liars: list[str] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    troubles: list[tuple[str, Trouble]] = field(default_factory=list)
    small: dict[Digest, tuple[WantedBlob, str]] = field(default_factory=dict)
    began_at: float = field(default_factory=time.time)

    def meet(self, source: Source) -> None:
        """A source may be asked from now on."""
        self.kinds[source.name] = source.kind
        self.addresses[source.name] = source.address

    def count(self, source: str, size_bytes: int) -> None:
        """`size_bytes` came from a source."""
        self.bytes_by_source[source] = self.bytes_by_source.get(source, 0) + size_bytes

    def overheard(self, listener: Listener) -> Listener:
        """The same listener; what it is told of sources that failed is noted."""

        def hear(event: Event) -> None:
            if isinstance(event, SourceFailed) and len(self.troubles) < MAX_TROUBLES:
                self.troubles.append((event.path, Trouble(event.source, event.reason, event.was_lying, time.time())))
            listener(event)

        return hear

    def note_in(self, store: Store) -> None:
        """Adds what came to the statistics of the node, and keeps the records of small blobs; to be called once."""
        for name, size_bytes in self.bytes_by_source.items():
            store.note_received(self.kinds[name], name, size_bytes)
        if self.small:
            roads = self._roads()
            store.note_fetches([self._small_record(blob, source, roads) for blob, source in self.small.values()])

    def record(
        self, blob: WantedBlob, parts: Sequence[tuple[int, int, str]], wrong: Sequence[ByteRange], *, is_verified: bool
    ) -> FetchRecord:
        """The record of one blob: `parts` are (start, stop, source), `wrong` the ranges that were found wrong."""
        now = time.time()
        roads = self._roads()
        return FetchRecord(
            digest=str(blob.digest),
            size_bytes=blob.size_bytes,
            began_at=self.began_at,
            ended_at=now,
            verified_at=now if is_verified else None,
            givers=tuple(self._givers(parts, roads)),
            troubles=tuple(trouble for path, trouble in self.troubles if path == blob.path),
            wrong_ranges=tuple((part.start, part.stop) for part in wrong[:MAX_RANGES]),
            refetched_bytes=self.refetched_bytes,
        )

    def _small_record(self, blob: WantedBlob, source: str, roads: dict[str, tuple[str, str]]) -> FetchRecord:
        now = time.time()
        return FetchRecord(
            digest=str(blob.digest),
            size_bytes=blob.size_bytes,
            began_at=self.began_at,
            ended_at=now,
            verified_at=now,
            givers=tuple(self._givers([(0, blob.size_bytes, source)], roads)),
            troubles=tuple(trouble for path, trouble in self.troubles if path == blob.path),
        )

    def _givers(self, parts: Iterable[tuple[int, int, str]], roads: dict[str, tuple[str, str]]) -> Iterable[Giver]:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for start, stop, source in parts:
            ranges.setdefault(source, []).append((start, stop))
        for source, own in ranges.items():
            road, interface = roads.get(source, ("", ""))
            yield Giver(
                name=source,
                kind=self.kinds.get(source, ""),
                address=self.addresses.get(source, ""),
                road=road,
                interface=interface,
                size_bytes=sum(stop - start for start, stop in own),
                ranges=tuple(own[:MAX_RANGES]),
                more_ranges=max(0, len(own) - MAX_RANGES),
            )

    def _roads(self) -> dict[str, tuple[str, str]]:
        """Of each source that gave something the road (lan or wan) and this machine's interface to it."""
        return {
            name: ("lan" if self._is_near(name) else "wan", interface_to(_host(address)))
            for name, address in self.addresses.items()
            if name in self.bytes_by_source
        }

    def _is_near(self, name: str) -> bool:
        """A peer is; a hub is if its address says so by itself."""
        if self.kinds[name] == "peer":
            return True
        try:
            return ipaddress.ip_address(_host(self.addresses[name])).is_private
        except ValueError:
            return _host(self.addresses[name]) == "localhost"


def _host(address: str) -> str:
    """The host of `HOST:PORT` or of a URL."""
    return urlsplit(address if "//" in address else f"//{address}").hostname or ""
