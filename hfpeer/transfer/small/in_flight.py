"""Which small blobs a node is fetching, so that two of its fetches never request the same blob.

The first fetch that wants a blob owns it: it alone requests the blob, and others get the bytes from it as soon as they
are verified. If the owner ends without the blob, the fetch that waited longest owns it next. A blob leaves when it is
in the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hfpeer.names import Digest
from hfpeer.transfer.small.verified import VerifiedBlob


class Party(Protocol):
    """A fetch that takes part. Its methods are called from any thread, without the lock of InFlight."""

    def accept(self, verified: VerifiedBlob) -> bool:
        """Another fetch has verified this blob. False if this one cannot use it and has to request the blob itself."""
        ...

    def request(self, digests: Iterable[Digest]) -> None:
        """This fetch owns these blobs from now on, or could not use what the owner got."""
        ...

    def prefer(self, digests: Iterable[Digest]) -> None:
        """Another fetch waits for these blobs, which this one owns."""
        ...


@dataclass
class _Flight:
    """A blob on its way: without an owner the bytes are here, and are put into the cache later."""

    owner: Party | None
    waiting: list[Party] = field(default_factory=list)
    verified: VerifiedBlob | None = None


class InFlight:
    """The small blobs that are fetched now. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Digest, _Flight] = {}
        self._kept_count = 0

    @property
    def kept_count(self) -> int:
        """How many blobs have come into the cache. While it stays the same, a look into the cache is up to date."""
        return self._kept_count

    def find(self, digest: Digest) -> VerifiedBlob | None:
        """A blob that came and is not in the cache yet."""
        flight = self._flights.get(digest)
        return None if flight is None else flight.verified

    def join(self, party: Party, digests: Iterable[Digest]) -> None:
        """A fetch begins to want blobs. Those that it owns it is told to request; of the others it hears as they
        come."""
        own: list[Digest] = []
        here: list[VerifiedBlob] = []
        owners: dict[Party, list[Digest]] = {}
        with self._lock:
            for digest in digests:
                flight = self._flights.setdefault(digest, _Flight(party))
                if flight.verified is not None:
                    here.append(flight.verified)
                elif flight.owner is party:
                    own.append(digest)
                else:
                    assert flight.owner is not None
                    flight.waiting.append(party)
                    owners.setdefault(flight.owner, []).append(digest)
        for owner, wanted in owners.items():
            owner.prefer(wanted)
        party.request(own + [verified.blob.digest for verified in here if not party.accept(verified)])

    def came(self, party: Party, blobs: Iterable[VerifiedBlob]) -> None:
        """A fetch has verified blobs. Blobs that another fetch owns are its own affair."""
        deliveries: list[tuple[Party, VerifiedBlob]] = []
        with self._lock:
            for verified in blobs:
                flight = self._flights.get(verified.blob.digest)
                if flight is not None and flight.owner is party and flight.verified is None:
                    flight.verified = verified
                    deliveries += [(waiting, verified) for waiting in flight.waiting]
                    flight.waiting = []
        for waiting, verified in deliveries:
            if not waiting.accept(verified):
                waiting.request([verified.blob.digest])

    def kept(self, party: Party | None, digests: Iterable[Digest]) -> None:
        """Blobs are in the cache now. `party` is the fetch that owns them, None after `kept_later`."""
        with self._lock:
            digests = list(digests)
            self._kept_count += len(digests)
            turns = self._disown(party, digests)
        _tell(turns)

    def kept_later(self, party: Party, digests: Iterable[Digest]) -> None:
        """Blobs that a fetch has verified are put into the cache after it ends: then `kept` has to be called without a
        party."""
        with self._lock:
            for digest in digests:
                flight = self._flights.get(digest)
                if flight is not None and flight.owner is party:
                    flight.owner = None

    def pass_on(self, party: Party, digests: Iterable[Digest]) -> None:
        """A fetch has no source for blobs: it does not own them any more. If others wait for them, they have their
        turn, and this fetch waits."""
        with self._lock:
            turns = self._disown(party, digests)
            for digest in (digest for wanted in turns.values() for digest in wanted):
                self._flights[digest].waiting.append(party)
        _tell(turns)

    def leave(self, party: Party, digests: Sequence[Digest]) -> None:
        """A fetch has ended, and wants none of these blobs any more."""
        with self._lock:
            for flight in (self._flights[digest] for digest in digests if digest in self._flights):
                if party in flight.waiting:
                    flight.waiting.remove(party)
            turns = self._disown(party, digests)
        _tell(turns)

    def _disown(self, party: Party | None, digests: Iterable[Digest]) -> dict[Party, list[Digest]]:
        """With the lock held: each of these blobs that a fetch owns passes to the fetch that waited longest for it,
        which the caller has to tell. A blob that no fetch waits for is forgotten."""
        turns: dict[Party, list[Digest]] = {}
        for digest in digests:
            flight = self._flights.get(digest)
            if flight is None or flight.owner is not party:
                continue
            if flight.waiting:  # so its bytes have not come
                flight.owner = flight.waiting.pop(0)
                turns.setdefault(flight.owner, []).append(digest)
            else:
                del self._flights[digest]
        return turns


def _tell(turns: Mapping[Party, Sequence[Digest]]) -> None:
    for owner, digests in turns.items():
        owner.request(digests)
