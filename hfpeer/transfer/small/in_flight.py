"""Which small blobs a node is fetching, so that two of its fetches never request the same blob.

The first fetch that wants a blob owns it: it alone requests the blob, and others get the bytes from it as soon as they
are verified. If the owner ends without the blob, the fetch that waited longest owns it next. A blob leaves when it is
in the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
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


class InFlight:
    """The small blobs that are fetched now. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[Digest, Party | None] = {}
        """Of each blob on its way. Without an owner its bytes are here, and are put into the cache later."""
        self._waiting: dict[Digest, list[Party]] = {}
        """The other fetches that want a blob, those that waited longest first."""
        self._verified: dict[Digest, VerifiedBlob] = {}
        """Blobs that came and are not in the cache yet."""
        self._kept_count = 0

    @property
    def kept_count(self) -> int:
        """How many blobs have come into the cache. While it stays the same, a look into the cache is up to date."""
        return self._kept_count

    def find(self, digest: Digest) -> VerifiedBlob | None:
        """A blob that came and is not in the cache yet."""
        return self._verified.get(digest)

    def join(self, party: Party, digests: Iterable[Digest]) -> None:
        """A fetch begins to want blobs. Those that it owns it is told to request; of the others it hears as they
        come."""
        own: list[Digest] = []
        here: list[VerifiedBlob] = []
        owners: dict[Party, list[Digest]] = {}
        with self._lock:
            for digest in digests:
                owner = self._owners.setdefault(digest, party)
                verified = self._verified.get(digest)
                if verified is not None:
                    here.append(verified)
                elif owner is party:
                    own.append(digest)
                else:
                    assert owner is not None
                    self._waiting.setdefault(digest, []).append(party)
                    owners.setdefault(owner, []).append(digest)
        for owner, wanted in owners.items():
            owner.prefer(wanted)
        party.request(own + [verified.blob.digest for verified in here if not party.accept(verified)])

    def came(self, party: Party, blobs: Iterable[VerifiedBlob]) -> None:
        """A fetch has verified blobs. Blobs that another fetch owns are its own affair."""
        deliveries: list[tuple[Party, VerifiedBlob]] = []
        with self._lock:
            for verified in blobs:
                digest = verified.blob.digest
                if self._owners.get(digest) is party and digest not in self._verified:
                    self._verified[digest] = verified
                    if digest in self._waiting:
                        deliveries += [(waiting, verified) for waiting in self._waiting.pop(digest)]
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
                if self._owners.get(digest) is party:
                    self._owners[digest] = None

    def pass_on(self, party: Party, digests: Iterable[Digest]) -> None:
        """A fetch has no source for blobs: it does not own them any more. If others wait for them, they have their
        turn, and this fetch waits."""
        with self._lock:
            turns = self._disown(party, digests)
            for digest in (digest for wanted in turns.values() for digest in wanted):
                self._waiting.setdefault(digest, []).append(party)
        _tell(turns)

    def leave(self, party: Party, digests: Sequence[Digest]) -> None:
        """A fetch has ended, and wants none of these blobs any more."""
        with self._lock:
            for digest in digests if self._waiting else ():
                if party in self._waiting.get(digest, ()):
                    self._waiting[digest].remove(party)
            turns = self._disown(party, digests)
        _tell(turns)

    def _disown(self, party: Party | None, digests: Iterable[Digest]) -> dict[Party, list[Digest]]:
        """With the lock held: each of these blobs that a fetch owns passes to the fetch that waited longest for it,
        which the caller has to tell. A blob that no fetch waits for is forgotten."""
        turns: dict[Party, list[Digest]] = {}
        for digest in digests:
            if digest not in self._owners or self._owners[digest] is not party:
                continue
            waiting = self._waiting.get(digest)
            if waiting:  # so its bytes have not come
                self._owners[digest] = owner = waiting.pop(0)
                turns.setdefault(owner, []).append(digest)
            else:
                del self._owners[digest]
                self._verified.pop(digest, None)
                self._waiting.pop(digest, None)
        return turns


def _tell(turns: Mapping[Party, Sequence[Digest]]) -> None:
    for owner, digests in turns.items():
        owner.request(digests)
