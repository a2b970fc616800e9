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


def parse_batch_header(line: bytes) -> tuple[Digest, int | None]:
    """The inverse of `encode_batch_header`. Raises CorruptData for anything else, and for a size above the limit."""
    with fields.reading("batch header"):
        found = _BATCH_HEADER.fullmatch(line.decode("ascii"))
        if found is None:
            raise ValueError(repr(line[:MAX_BATCH_HEADER_BYTES]))
        size_bytes = None if found[2] == "-" else int(found[2])
        if size_bytes is not None and size_bytes > MAX_BATCH_BLOB_BYTES:
            raise ValueError(f"{size_bytes} bytes are too many for a batch")
        return Digest.parse(found[1]), size_bytes


_BATCH_HEADER = re.compile(r"(\S+) (-|[0-9]{1,12})\n")
