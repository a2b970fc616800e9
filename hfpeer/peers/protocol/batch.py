"""A batch: many small blobs in the body of one response."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hfpeer.errors import InvalidName
from hfpeer.names import Digest
from hfpeer.peers.protocol import fields
from hfpeer.peers.protocol.paths import BATCH_PATH

MAX_BATCH_BLOBS = 512
"""At most this many blobs in a batch: the question stays below MAX_HEAD_BYTES."""
FORMER_BATCH_BLOBS = 64
"""At most this many for a peer that does not say how many it takes."""
MAX_BATCH_BLOB_BYTES = 256 * 1024
"""Largest blob in a batch. Each blob of a batch is checked against its digest."""
MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of blobs after which a node gives no more of them in one batch."""


def batch_path(digests: Iterable[Digest]) -> str:
    """`/batch?digests=a,b,c`, at most as many as the node message says. The response has a Content-Length. For each
    digest, in order, it has one line of `encode_batch_header`, followed by the blob's bytes unless the node does not
    give it."""
    return f"{BATCH_PATH}?digests={','.join(map(str, digests))}"


def parse_batch_digests(text: str) -> tuple[Digest, ...]:
    """The digests in a batch's query, each once. Raises InvalidName for none or too many."""
    digests = tuple(dict.fromkeys(Digest.parse(part) for part in text.split(",", MAX_BATCH_BLOBS)))
    if not 1 <= len(digests) <= MAX_BATCH_BLOBS:
        raise InvalidName(f"A batch has 1 to {MAX_BATCH_BLOBS} blobs.", digests=text[:200])
    return digests


def encode_batch_header(digest: Digest, size_bytes: int | None) -> bytes:
    """`<digest> <size>\\n`, or `<digest> -\\n` for a blob that the node does not share or that is too large."""
    return f"{digest} {'-' if size_bytes is None else size_bytes}\n".encode()


MAX_BATCH_HEADER_BYTES = 128


def parse_batch_header(line: bytes, expected: Digest) -> int | None:
    """The size in bytes in a line of `encode_batch_header`, which has to be of the `expected` blob; None for "-".
    Raises CorruptData for anything else, and for a size above the limit."""
    with fields.reading("batch header"):
        digest, _, size = line.decode("ascii").partition(" ")
        if digest != expected:
            raise ValueError(f"{digest!r:.80} instead of {expected}")
        if size == "-\n":
            return None
        if _SIZE.fullmatch(size) is None:
            raise ValueError(repr(line[:MAX_BATCH_HEADER_BYTES]))
        if int(size) > MAX_BATCH_BLOB_BYTES:
            raise ValueError(f"{size.strip()} bytes are too many for a batch")
        return int(size)


_SIZE = re.compile(r"[0-9]{1,12}\n")
