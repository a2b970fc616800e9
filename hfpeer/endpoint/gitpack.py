"""Writes a git pack piece by piece, so that none is ever held whole. Format: gitformat-pack; every object stands whole.

Pure: it is given bytes and gives bytes.
"""

from __future__ import annotations

import hashlib
import zlib

from dulwich.object_format import SHA1
from dulwich.pack import pack_header_chunks, pack_object_header

from hfpeer.endpoint.gitobjects import Kind

_NUMBERS: dict[Kind, int] = {"commit": 1, "tree": 2, "blob": 3}
_LEVEL = 1
"""Packs go to this machine or over the LAN: speed counts more than size."""


class PackWriter:
    """In order: `start`, perhaps `packed`, for each object `whole` or `begin`, `more`, `end`, then `finish`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha1(usedforsecurity=False)
        self._deflating = zlib.compressobj(_LEVEL)

    def start(self, count: int) -> bytes:
        """The header of a pack of so many objects."""
        return self._hashed(b"".join(pack_header_chunks(count)))

    def whole(self, kind: Kind, body: bytes) -> bytes:
        """One object."""
        return self._hashed(_header(kind, len(body)) + zlib.compress(body, _LEVEL))

    def begin(self, kind: Kind, size_bytes: int) -> bytes:
        """The start of an object of so many bytes, which `more` gives."""
        self._deflating = zlib.compressobj(_LEVEL)
        return self._hashed(_header(kind, size_bytes))

    def more(self, chunk: bytes) -> bytes:
        """The next bytes of the object that has begun; what comes of them may be nothing yet."""
        return self._hashed(self._deflating.compress(chunk))

    def end(self) -> bytes:
        """The end of the object that has begun."""
        return self._hashed(self._deflating.flush())

    def packed(self, piece: bytes) -> bytes:
        """Bytes of another pack, after its header and before its checksum. All of them must come first, because deltas
        point back from where they stand."""
        return self._hashed(piece)

    def finish(self) -> bytes:
        """The checksum of all."""
        return self._hash.digest()

    def _hashed(self, piece: bytes) -> bytes:
        self._hash.update(piece)
        return piece


def _header(kind: Kind, size_bytes: int) -> bytes:
    return bytes(pack_object_header(_NUMBERS[kind], None, size_bytes, SHA1))
