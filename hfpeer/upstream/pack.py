"""Takes commits and trees out of a git pack, and tells what is in one. Pure.

dulwich unpacks; before it may, every size that the pack declares is added up, because a pack of a few megabytes can
declare, and unpack to, as much as it likes. Format: gitformat-pack.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Collection, Iterator, Mapping

from dulwich.errors import ApplyDeltaError, ChecksumMismatch, ObjectFormatException
from dulwich.object_format import SHA1
from dulwich.pack import PackData, UnpackedObjectIterator, UnresolvedDeltas

from hfpeer.gitproof import object_id

_KINDS = {1: "commit", 2: "tree"}
_ALL_KINDS = {**_KINDS, 3: "blob", 4: "tag"}
_OFFSET_DELTA, _REF_DELTA = 6, 7
_HEADER_BYTES, _TRAILER_BYTES, _WINDOW_BYTES = 12, 20, 4096
_BROKEN = (
    ApplyDeltaError,
    ChecksumMismatch,
    ObjectFormatException,
    UnresolvedDeltas,
    zlib.error,
    AssertionError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)
"""What reading a pack raises when it is none; dulwich guards its input by assertions, too."""


class BrokenPack(Exception):
    """The bytes are no sound pack of bounded size."""


def read_objects(pack: bytes, max_bytes: int) -> dict[str, bytes]:
    """Git id -> raw body, of every commit and tree in a pack. The ids are computed here, from the bodies.

    Raises BrokenPack, also when all objects together, deltas included, take more than `max_bytes`.
    """
    try:
        _check_sizes(pack, max_bytes)
        with PackData("pack", SHA1, file=io.BytesIO(pack)) as data:
            return dict(_objects(data))
    except _BROKEN as error:
        raise BrokenPack(str(error) or type(error).__name__) from error


def object_ids(pack: bytes, max_bytes: int) -> frozenset[str]:
    """The git ids of all objects in a pack. Raises BrokenPack, as `read_objects` does."""
    try:
        _check_sizes(pack, max_bytes)
        with PackData("pack", SHA1, file=io.BytesIO(pack)) as data:
            return frozenset(id for id, _ in _objects(data, _ALL_KINDS))
    except _BROKEN as error:
        raise BrokenPack(str(error) or type(error).__name__) from error


def read_blobs(pack: bytes, ids: Collection[str], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Git id and body of those of these blobs that are in a pack. Raises BrokenPack, as `read_objects` does."""
    try:
        _check_sizes(pack, max_bytes)
        with PackData("pack", SHA1, file=io.BytesIO(pack)) as data:
            yield from ((id, body) for id, body in _objects(data, {3: "blob"}) if id in ids)
    except _BROKEN as error:
        raise BrokenPack(str(error) or type(error).__name__) from error


def _objects(data: PackData, kinds: Mapping[int, str] = _KINDS) -> Iterator[tuple[str, bytes]]:
    for unpacked in UnpackedObjectIterator.for_pack_data(data):
        kind = kinds.get(unpacked.obj_type_num or 0)
        if kind is not None:
            body = b"".join(unpacked.obj_chunks or [])
            yield object_id(kind, body), body


def _check_sizes(pack: bytes, max_bytes: int) -> None:
    total = 0
    for size in _declared_sizes(pack):
        total += size
        if total > max_bytes:
            raise BrokenPack(f"its objects take more than {max_bytes} bytes")


def _declared_sizes(pack: bytes) -> Iterator[int]:
    """The size of each object in bytes; of a delta both its own and that of what it makes."""
    offset, end = _HEADER_BYTES, len(pack) - _TRAILER_BYTES
    for _ in range(int.from_bytes(pack[8:12], "big")):
        kind = pack[offset] >> 4 & 7
        size, offset = _number(pack, offset, first_bits=4)
        if kind == _OFFSET_DELTA:
            _, offset = _number(pack, offset)
        elif kind == _REF_DELTA:
            offset += 20
        yield size
        start, offset = _skip_zlib(pack, offset, end, size)
        if kind in (_OFFSET_DELTA, _REF_DELTA):
            _, index = _number(start, 0)
            yield _number(start, index)[0]


def _number(buffer: bytes, offset: int, first_bits: int = 7) -> tuple[int, int]:
    """A little-endian number of 7 bits a byte (fewer in the first), and the offset behind it."""
    value, shift, bits = 0, 0, first_bits
    while True:
        byte = buffer[offset]
        offset += 1
        value |= (byte & ((1 << bits) - 1)) << shift
        shift, bits = shift + bits, 7
        if byte < 0x80:
            return value, offset
        if shift > 63:
            raise ValueError("a number has no end")


def _skip_zlib(pack: bytes, offset: int, end: int, size: int) -> tuple[bytes, int]:
    """The first bytes of what a zlib stream unpacks to, and the offset behind the stream. Keeps no more in memory."""
    inflater = zlib.decompressobj()
    start, unpacked = b"", 0
    while not inflater.eof:
        window = pack[offset : min(offset + _WINDOW_BYTES, end)]
        if not window:
            raise ValueError("it ends too early")
        while window and not inflater.eof:
            piece = inflater.decompress(window, 64 * 1024)
            offset += len(window) - len(inflater.unconsumed_tail) - len(inflater.unused_data)
            window = inflater.unconsumed_tail
            start, unpacked = start or piece[:32], unpacked + len(piece)
            if unpacked > size:
                raise ValueError("an object is larger than it says")
    return start, offset
