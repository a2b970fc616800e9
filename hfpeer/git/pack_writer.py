"""Writes a git pack in parts, so that it is never in memory as a whole. Format: gitformat-pack, without deltas.

Pure: takes bytes and returns bytes.
"""

from __future__ import annotations

import hashlib
import zlib

from dulwich.object_format import SHA1
from dulwich.pack import pack_header_chunks, pack_object_header

from hfpeer.git.objects import Kind

_NUMBERS: dict[Kind, int] = {"commit": 1, "tree": 2, "blob": 3}
_LEVEL = 1
"""Packs go to this machine or over the LAN: speed counts more than size."""


class PackWriter:
    """Calls, in order: `start`; perhaps `packed`; for each object `whole`, or `begin`, `more`, `end`; then `finish`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha1(usedforsecurity=False)
        self._deflating = zlib.compressobj(_LEVEL)

    def start(self, count: int) -> bytes:
        """The header of a pack with `count` objects."""
        return self._hashed(b"".join(pack_header_chunks(count)))

    def whole(self, kind: Kind, body: bytes) -> bytes:
        """One object."""
        return self._hashed(_header(kind, len(body)) + zlib.compress(body, _LEVEL))

    def begin(self, kind: Kind, size_bytes: int) -> bytes:
        """The start of an object of `size_bytes`, whose content comes through `more`."""
        self._deflating = zlib.compressobj(_LEVEL)
        return self._hashed(_header(kind, size_bytes))

    def more(self, chunk: bytes) -> bytes:
        """The next bytes of the current object. The result may be empty: zlib buffers."""
        return self._hashed(self._deflating.compress(chunk))

    def end(self) -> bytes:
        """The end of the current object."""
        return self._hashed(self._deflating.flush())

    def packed(self, piece: bytes) -> bytes:
        """Bytes of another pack, without its header and checksum. They must come before all other objects, because
        offset deltas count back from their own position."""
        return self._hashed(piece)

    def finish(self) -> bytes:
        """The checksum of the pack."""
        return self._hash.digest()

    def _hashed(self, piece: bytes) -> bytes:
        self._hash.update(piece)
        return piece


def _header(kind: Kind, size_bytes: int) -> bytes:
    return bytes(pack_object_header(_NUMBERS[kind], None, size_bytes, SHA1))
