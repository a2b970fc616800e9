"""Small blobs whose bytes are in memory and hash to their digest."""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.cache.partial.hashing import hash_of
from hfpeer.transfer.integrity.forgery import check_plain
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.sources.tiers import SourceKind

MAX_UNKEPT_BYTES, MAX_UNKEPT_BLOBS = 64 * 1024 * 1024, 4096
"""Receivers wait while at least this many bytes, or blobs, are not in the cache yet."""
MUCH_BYTES, MUCH_BLOBS = 4 * 1024 * 1024, 2048
"""So much is put into the cache without waiting for more."""


@dataclass(frozen=True, slots=True)
class VerifiedBlob:
    """A blob, its bytes, and the source that gave them."""

    blob: WantedBlob
    data: bytes
    source: str
    kind: SourceKind
    is_given: bool
    """Whether the source gives the same bytes to any caller without a token."""


class Unkept:
    """Verified blobs on their way to the cache. Pure; its owner holds a lock."""

    def __init__(self) -> None:
        self._blobs: list[VerifiedBlob] = []
        self._size_bytes = 0
        self.is_closed = False
        """No more blobs will be added."""
        self.is_given = True
        """Whether all that were added were given openly."""

    def __bool__(self) -> bool:
        return bool(self._blobs)

    @property
    def is_full(self) -> bool:
        return self._size_bytes >= MAX_UNKEPT_BYTES or len(self._blobs) >= MAX_UNKEPT_BLOBS

    @property
    def is_much(self) -> bool:
        return self._size_bytes >= MUCH_BYTES or len(self._blobs) >= MUCH_BLOBS

    def add(self, blob: VerifiedBlob) -> None:
        self._blobs.append(blob)
        self._size_bytes += len(blob.data)
        self.is_given &= blob.is_given

    def take_all(self) -> list[VerifiedBlob]:
        blobs, self._blobs, self._size_bytes = self._blobs, [], 0
        return blobs


def is_right(blob: WantedBlob, data: bytes) -> bool:
    """Whether these bytes are the blob's. Raises ForgedManifest when they are, but the listing lied about the blob."""
    check_plain(blob, data)
    return len(data) == blob.size_bytes and hash_of(data, blob.digest.algorithm) == blob.digest.hex
