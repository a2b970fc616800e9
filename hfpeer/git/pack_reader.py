"""Reads commits, trees and blobs from a git pack, and lists its objects. Pure.

Before dulwich unpacks anything, the sizes that the pack declares are added up: a pack of a few megabytes can unpack to
any size. Format: gitformat-pack.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Collection, Iterator, Mapping

from dulwich.errors import ApplyDeltaError, ChecksumMismatch, ObjectFormatException
from dulwich.object_format import SHA1
from dulwich.pack import PackData, UnpackedObjectIterator, UnresolvedDeltas

from hfpeer.budgets import MAX_TREE_BYTES
from hfpeer.git.proof import object_id
from hfpeer.git.varint import read_varint
from hfpeer.system.cancellation import check_stop

_KINDS = {1: "commit", 2: "tree"}
_ALL_KINDS = {**_KINDS, 3: "blob", 4: "tag"}
_OFFSET_DELTA, _REF_DELTA = 6, 7
_HEADER_BYTES, _TRAILER_BYTES = 12, 20
_WINDOW_BYTES, _PIECE_BYTES = 4096, 64 * 1024
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
"""Raised while reading bytes that are no valid pack. dulwich checks some of its input with assertions."""


class BrokenPack(Exception):
    """The bytes are no valid pack, or unpack to more than the bound."""


def read_objects(pack: bytes, max_bytes: int) -> dict[str, bytes]:
    """Git id -> raw body of every commit and tree in a pack. The ids are computed here, from the bodies.

    Raises BrokenPack, also when all objects together, deltas included, exceed `max_bytes`, or one exceeds
    MAX_TREE_BYTES.
    """
    try:
        _check_sizes(pack, max_bytes, MAX_TREE_BYTES)
        with PackData("pack", SHA1, file=io.BytesIO(pack)) as data:
            return dict(_objects(data))
    except _BROKEN as error:
        raise _broken(error) from error


def object_ids(pack: bytes, max_bytes: int) -> frozenset[str]:
    """The git ids of all objects in a pack. Raises BrokenPack, as `read_objects` does."""
    try:
        _check_sizes(pack, max_bytes)
        with PackData("pack", SHA1, file=io.BytesIO(pack)) as data:
            return frozenset(id for id, _ in _objects(data, _ALL_KINDS))
    except _BROKEN as error:
        raise _broken(error) from error


def read_blobs(pack: bytes, ids: Collection[str], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Git id and body of the blobs in a pack that are among `ids`. Raises BrokenPack, as `read_objects` does."""
    try:
        _check_sizes(pack, max_bytes)
        with PackData("pack", SHA1, file=io.BytesIO(pack)) as data:
            yield from ((id, body) for id, body in _objects(data, {3: "blob"}) if id in ids)
    except _BROKEN as error:
        raise _broken(error) from error


def _broken(error: Exception) -> BrokenPack:
    """dulwich's message can contain a whole delta, so it is cut."""
    return BrokenPack(str(error)[:200] or type(error).__name__)


def _objects(data: PackData, kinds: Mapping[int, str] = _KINDS) -> Iterator[tuple[str, bytes]]:
    for unpacked in UnpackedObjectIterator.for_pack_data(data):
        check_stop()
        kind = kinds.get(unpacked.obj_type_num or 0)
        if kind is not None:
            body = b"".join(unpacked.obj_chunks or [])
            yield object_id(kind, body), body


def _check_sizes(pack: bytes, max_bytes: int, max_object_bytes: int | None = None) -> None:
    total = 0
    for size in _declared_sizes(pack):
        check_stop()
        total += size
        if max_object_bytes is not None and size > max_object_bytes:
            raise BrokenPack(f"one of its objects takes more than {max_object_bytes} bytes")
        if total > max_bytes:
            raise BrokenPack(f"its objects take more than {max_bytes} bytes")


def _declared_sizes(pack: bytes) -> Iterator[int]:
    """The size of each object in bytes; for a delta its own size and that of its result."""
    offset, end = _HEADER_BYTES, len(pack) - _TRAILER_BYTES
    for _ in range(int.from_bytes(pack[8:12], "big")):
        kind = pack[offset] >> 4 & 7
        size, offset = read_varint(pack, offset, first_bits=4)
        if kind == _OFFSET_DELTA:
            _, offset = read_varint(pack, offset)
        elif kind == _REF_DELTA:
            offset += 20
        yield size
        start, offset = _skip_zlib(pack, offset, end, size)
        if kind in (_OFFSET_DELTA, _REF_DELTA):
            _, index = read_varint(start, 0)
            yield read_varint(start, index)[0]


def _skip_zlib(pack: bytes, offset: int, end: int, size: int) -> tuple[bytes, int]:
    """The first bytes that a zlib stream unpacks to, and the offset after the stream. Keeps no more in memory."""
    inflater = zlib.decompressobj()
    start, unpacked = b"", 0
    while not inflater.eof:
        window = pack[offset : min(offset + _WINDOW_BYTES, end)]
        piece = inflater.decompress(window, _PIECE_BYTES)
        # After the end of the stream both attributes hold the remaining input; before it, only `unconsumed_tail` is
        # right.
        offset += len(window) - len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
        if not window and not piece and not inflater.eof:
            raise ValueError("it ends too early")
        start, unpacked = start or piece[:32], unpacked + len(piece)
        if unpacked > size:
            raise ValueError("an object is larger than it says")
    if unpacked < size:
        raise ValueError("an object is smaller than it says")
    return start, offset
