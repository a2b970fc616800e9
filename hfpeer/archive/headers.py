"""The headers of a tar in the pax format, for files, links and hard links without owner. Pure.

A header depends on its parameters alone, so that any part of an archive can be made again. Source: POSIX.1-2017, pax.
"""

from __future__ import annotations

BLOCK_BYTES = 512
"""Bytes of a header. The content of a member is filled up to a multiple of it."""
END = b"\0" * (2 * BLOCK_BYTES)
"""The end of a tar."""
FILE, HARD_LINK, LINK, RECORDS = b"0", b"1", b"2", b"x"
"""The types of members: a file, a second name of an earlier member, a symbolic link, and records for the next one."""
_MAX_NAME_BYTES = 100
_MAX_SIZE_BYTES = 8**11 - 1
_RECORDS_NAME = b"././@PaxHeader"


def header(path: str, size_bytes: int, changed_at: int, kind: bytes = FILE, target: str = "") -> bytes:
    """The header of a member, with a pax header before it where path, target or size do not fit into the old fields.

    `changed_at` is seconds since the epoch. `target` is the path of a hard link, or the text of a symbolic link.
    """
    records = b""
    name, link, size = path.encode(), target.encode(), size_bytes
    if len(name) > _MAX_NAME_BYTES or not path.isascii():
        records, name = _record("path", name), _shortened(path)
    if len(link) > _MAX_NAME_BYTES or not target.isascii():
        records, link = records + _record("linkpath", link), _shortened(target)
    if size > _MAX_SIZE_BYTES:
        records, size = records + _record("size", b"%d" % size), 0
    before = b""
    if records:
        before = _block(_RECORDS_NAME, len(records), changed_at, RECORDS, b"") + padded(records)
    return before + _block(name, size, changed_at, kind, link)


def padded(content: bytes) -> bytes:
    """The content of a member, filled up with zeros to a whole number of blocks."""
    return content + b"\0" * padding_bytes(len(content))


def padding_bytes(size_bytes: int) -> int:
    """The zeros behind a content of this size."""
    return -size_bytes % BLOCK_BYTES


def _block(name: bytes, size_bytes: int, changed_at: int, kind: bytes, link: bytes) -> bytes:
    mode = b"0000777" if kind == LINK else b"0000644"
    fields = [
        name.ljust(100, b"\0"),
        mode + b"\0" + b"0000000\0" * 2,
        b"%011o\0%011o\0" % (size_bytes, changed_at),
        b" " * 8,
        kind,
        link.ljust(100, b"\0"),
        b"ustar\x0000",
        b"\0" * 64,
        b"0000000\0" * 2,
    ]
    block = b"".join(fields).ljust(BLOCK_BYTES, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _shortened(text: str) -> bytes:
    """A stand-in for a text whose real value is in a record."""
    return text.encode("ascii", "replace")[:_MAX_NAME_BYTES]


def _record(key: str, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`; the length counts its own digits."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest
