"""Remembers which unverified bytes each client was sent, and which of them turned out to be wrong. Pure.

A client whose connection breaks asks for the rest of the file. If the bytes that it has are wrong, it must be sent the
whole file instead. Belongs to one event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hfpeer.names import Digest
from hfpeer.net.lru_cache import LruCache
from hfpeer.ranges import ByteRange, RangeSet

MAX_BLOBS = 1024
"""Number of blobs, those used last, whose reads are remembered."""


@dataclass
class _Blob:
    sent: dict[str, RangeSet] = field(default_factory=dict)
    clients_with_wrong_bytes: set[str] = field(default_factory=set)


class UnverifiedReads:
    """All reads, by blob and client. A client is any string that tells one client program from another."""

    def __init__(self) -> None:
        self._blobs: LruCache[Digest, _Blob] = LruCache(MAX_BLOBS)

    def of(self, client: str, digest: Digest) -> ClientReads:
        """The reads of one blob by one client."""
        return ClientReads(self, client, digest)

    def note_sent(self, client: str, digest: Digest, part: ByteRange) -> None:
        """Unverified bytes are about to be sent to a client."""
        self._blob(digest).sent.setdefault(client, RangeSet()).add(*part)

    def note_wrong(self, digest: Digest, part: ByteRange) -> None:
        """Bytes that could be read until now are wrong. To be called before better ones can be read."""
        blob = self._blob(digest)
        blob.clients_with_wrong_bytes |= {client for client, sent in blob.sent.items() if sent.within(*part)}

    def mark_client(self, client: str, digest: Digest) -> None:
        """This client was sent wrong bytes."""
        self._blob(digest).clients_with_wrong_bytes.add(client)

    def note_verified(self, digest: Digest) -> None:
        """The blob is verified, so further reads need not be remembered."""
        blob = self._blobs.get(digest)
        if blob is not None and not blob.clients_with_wrong_bytes:
            self._blobs.drop(digest)

    def has_wrong_bytes(self, client: str, digest: Digest) -> bool:
        """Whether any byte that this client was sent has turned out to be wrong."""
        blob = self._blobs.get(digest)
        return blob is not None and client in blob.clients_with_wrong_bytes

    def forget(self, client: str, digest: Digest) -> None:
        """The client was sent the whole blob, which replaces the bytes that it had before.

        Anything less does not count: a client that wanted only the rest may close the connection and keep its bytes.
        """
        blob = self._blobs.get(digest)
        if blob is not None:
            blob.sent.pop(client, None)
            blob.clients_with_wrong_bytes.discard(client)

    def _blob(self, digest: Digest) -> _Blob:
        return self._blobs.get_or_put(digest, _Blob)


@dataclass(frozen=True)
class ClientReads:
    """The reads of one blob by one client, for the reader that serves it."""

    reads: UnverifiedReads
    client: str
    digest: Digest

    @property
    def has_wrong_bytes(self) -> bool:
        return self.reads.has_wrong_bytes(self.client, self.digest)

    def note_sent(self, part: ByteRange) -> None:
        self.reads.note_sent(self.client, self.digest, part)

    def mark_wrong(self) -> None:
        self.reads.mark_client(self.client, self.digest)

    def forget(self) -> None:
        self.reads.forget(self.client, self.digest)
