"""What callers were given of a blob before it was verified, and whether any of it has turned out to be wrong.

A client whose connection breaks comes back for the rest of what it has. If what it has is wrong it must not get the
rest, but the whole again. Pure bookkeeping; belongs to one event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from hfpeer.names import Digest
from hfpeer.ranges import ByteRange, RangeSet

MAX_BLOBS = 1024


@dataclass
class _Blob:
    given: dict[str, RangeSet] = field(default_factory=dict)
    misled: set[str] = field(default_factory=set)


class Suspicion:
    """By blob and caller; a caller is whatever string tells one from the other."""

    def __init__(self) -> None:
        self._blobs: OrderedDict[Digest, _Blob] = OrderedDict()

    def gave(self, caller: str, digest: Digest, start: int, stop: int) -> None:
        """Unverified bytes have gone to a caller."""
        self._blob(digest).given.setdefault(caller, RangeSet()).add(start, stop)

    def found_wrong(self, digest: Digest, part: ByteRange) -> None:
        """Bytes that were on disk till now are not the blob's: to be told once, before better ones are given."""
        blob = self._blob(digest)
        blob.misled |= {caller for caller, given in blob.given.items() if given.within(*part)}

    def misled(self, caller: str, digest: Digest) -> None:
        """This caller has wrong bytes."""
        self._blob(digest).misled.add(caller)

    def verified(self, digest: Digest) -> None:
        """The blob is whole and right: what is given from now on need not be remembered."""
        blob = self._blobs.get(digest)
        if blob is not None and not blob.misled:
            del self._blobs[digest]

    def has_wrong(self, caller: str, digest: Digest) -> bool:
        """Whether something that this caller was given has turned out to be wrong."""
        blob = self._blobs.get(digest)
        return blob is not None and caller in blob.misled

    def has_all(self, caller: str, digest: Digest) -> None:
        """The caller has got the blob from its first byte to its last: what it had before does not matter any more.

        Nothing less will do. A client that wanted only the rest may turn away from the whole, and keep what it had."""
        if digest in self._blobs:
            self._blobs[digest].given.pop(caller, None)
            self._blobs[digest].misled.discard(caller)

    def _blob(self, digest: Digest) -> _Blob:
        blob = self._blobs.setdefault(digest, _Blob())
        self._blobs.move_to_end(digest)
        while len(self._blobs) > MAX_BLOBS:
            self._blobs.popitem(last=False)
        return blob
