"""Counts what a fetch costs while it runs, and makes its record for the cache when it has ended.

It decides nothing. The partial knows the source of every byte, and hands that in.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from hfpeer.cache.records import Contribution, Failure, FetchRecord
from hfpeer.cache.store import Store
from hfpeer.peers.interfaces import interface_to
from hfpeer.ranges import ByteRange
from hfpeer.transfer.events import Event, OnEvent, SourceFailed
from hfpeer.transfer.sources.local_files import THIS_MACHINE, THIS_MACHINE_SHOWN
from hfpeer.transfer.sources.sources import Source, WantedBlob
from hfpeer.transfer.sources.tiers import SourceKind

MAX_FAILURES = 100
"""At most this many failures are kept for one fetch."""
MAX_RANGES = 500
"""At most this many ranges of one source are kept for one blob. Further ranges are only counted."""


@dataclass
class FetchReport:
    """The cost of one fetch: payload bytes by source name, and the bytes that had to be fetched twice.

    `kinds` and `addresses` are by source name, `failures` are with the file's path. `small` are the small blobs by
    source name, each once.
    """

    bytes_by_source: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, SourceKind] = field(default_factory=dict)
    refetched_bytes: int = 0
    liars: list[str] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, Failure]] = field(default_factory=list)
    small: dict[str, list[WantedBlob]] = field(default_factory=dict)
    local_bytes: int = 0
    """Bytes that came from files of this machine; no network was needed for them."""
    began_at: float = field(default_factory=time.time)

    def add_source(self, source: Source) -> None:
        """A source may be asked from now on."""
        self.kinds[source.name] = source.kind
        self.addresses[source.name] = source.address

    def count(self, source: str, size_bytes: int) -> None:
        """`size_bytes` came from a source."""
        self.bytes_by_source[source] = self.bytes_by_source.get(source, 0) + size_bytes

    def noting_failures(self, on_event: OnEvent) -> OnEvent:
        """A callback that notes the sources that fail and calls `on_event` with each event."""

        def note(event: Event) -> None:
            if isinstance(event, SourceFailed) and len(self.failures) < MAX_FAILURES:
                self.failures.append((event.path, Failure(event.source, event.reason, event.was_lying, time.time())))
            on_event(event)

        return note

    def note_in(self, store: Store) -> None:
        """Adds the bytes to the statistics of the node, and keeps the records of small blobs. To be called once."""
        for name, size_bytes in self.bytes_by_source.items():
            store.traffic.note_received(self.kinds[name], name, size_bytes)
        failed, networks = {path for path, _ in self.failures}, self._networks()
        for source, blobs in self.small.items():
            record = self._record(None, [(0, 0, source)], networks)
            store.history.note_whole(
                record, [(blob.digest, blob.size_bytes) for blob in blobs if blob.path not in failed]
            )
            odd = [blob for blob in blobs if blob.path in failed]
            store.history.note([self._record(blob, [(0, blob.size_bytes, source)], networks) for blob in odd])

    def record(
        self, blob: WantedBlob, parts: Sequence[tuple[int, int, str]], wrong: Sequence[ByteRange], *, is_verified: bool
    ) -> FetchRecord:
        """The record of one blob. `parts` are (start, stop, source), `wrong` the ranges that were found wrong."""
        wrong_ranges = tuple((part.start, part.stop) for part in wrong[:MAX_RANGES])
        record = self._record(blob, parts, self._networks(), is_verified=is_verified)
        return replace(record, wrong_ranges=wrong_ranges, refetched_bytes=self.refetched_bytes)

    def _record(
        self,
        blob: WantedBlob | None,
        parts: Iterable[tuple[int, int, str]],
        networks: dict[str, tuple[str, str]],
        *,
        is_verified: bool = True,
    ) -> FetchRecord:
        """Without a blob it is the record of many, for `History.note_whole`."""
        now = time.time()
        return FetchRecord(
            digest="" if blob is None else str(blob.digest),
            size_bytes=0 if blob is None else blob.size_bytes,
            began_at=self.began_at,
            ended_at=now,
            verified_at=now if is_verified else None,
            contributions=tuple(self._contributions(parts, networks)),
            failures=tuple(failure for path, failure in self.failures if blob and path == blob.path),
        )

    def _contributions(
        self, parts: Iterable[tuple[int, int, str]], networks: dict[str, tuple[str, str]]
    ) -> Iterable[Contribution]:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for start, stop, source in parts:
            ranges.setdefault(source, []).append((start, stop))
        for source, own in ranges.items():
            network, interface = networks.get(source, ("", ""))
            is_local = source == THIS_MACHINE
            yield Contribution(
                name=THIS_MACHINE_SHOWN if is_local else source,
                kind="local" if is_local else self.kinds.get(source, ""),
                address=self.addresses.get(source, ""),
                network=network,
                interface=interface,
                size_bytes=sum(stop - start for start, stop in own),
                ranges=tuple(own[:MAX_RANGES]),
                more_ranges=max(0, len(own) - MAX_RANGES),
            )

    def _networks(self) -> dict[str, tuple[str, str]]:
        """For each source that gave bytes its network, "lan" or "wan", and the interface of this machine to it."""
        return {
            name: ("lan" if self._is_near(name) else "wan", interface_to(_host(address)))
            for name, address in self.addresses.items()
            if name in self.bytes_by_source
        }

    def _is_near(self, name: str) -> bool:
        """Whether a source is on the LAN: a peer, or an upstream with a private address or this machine's."""
        if self.kinds[name] == "peer":
            return True
        try:
            return ipaddress.ip_address(_host(self.addresses[name])).is_private
        except ValueError:
            return _host(self.addresses[name]) == "localhost"


def _host(address: str) -> str:
    """The host of `HOST:PORT` or of a URL."""
    return urlsplit(address if "//" in address else f"//{address}").hostname or ""
