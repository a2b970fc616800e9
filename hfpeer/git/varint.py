"""The numbers of variable length in packs and deltas (gitformat-pack, "Size encoding"). Pure."""

from __future__ import annotations

import mmap


def read_varint(buffer: bytes | mmap.mmap, offset: int, first_bits: int = 7) -> tuple[int, int]:
    """A little-endian number of 7 bits a byte, fewer in the first, and the offset after it. Raises ValueError for one
    of more than 64 bits, IndexError at the end of the buffer."""
    value, shift, bits = 0, 0, first_bits
    while shift < 64:
        byte = buffer[offset]
        offset += 1
        value |= (byte & ((1 << bits) - 1)) << shift
        shift, bits = shift + bits, 7
        if byte < 0x80:
            return value, offset
    raise ValueError("a number has no end")
