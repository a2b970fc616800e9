"""What the bytes of a plain file can say against the listing that it came with. Pure.

Two things a listing from a peer can get past its proof: the size of a plain file, which no tree records, and an LFS
file passed off as the plain file that its pointer is. Both show as soon as the bytes are here, and before they are
visible.
"""

from __future__ import annotations

import hashlib

from hfpeer.errors import ForgedManifest
from hfpeer.gitproof import MAX_POINTER_BYTES, parse_pointer
from hfpeer.transfer.sources import WantedBlob


def check_plain(blob: WantedBlob, data: bytes | memoryview) -> None:
    """Raises ForgedManifest when these bytes are the blob's, but its listing lied about its size or its nature.

    No hub lists a pointer as a plain file: it lists what the pointer stands for.
    """
    if blob.digest.algorithm != "git-sha1":
        return
    if len(data) != blob.size_bytes and _blob_id(data) == blob.digest.hex:
        raise _forged(blob, f"says that {blob.path} has {blob.size_bytes} bytes, and it has {len(data)}")
    if len(data) <= MAX_POINTER_BYTES and parse_pointer(bytes(data)) is not None and _blob_id(data) == blob.digest.hex:
        raise _forged(blob, f"passes the LFS pointer {blob.path} off as the file itself")


def _blob_id(data: bytes | memoryview) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _forged(blob: WantedBlob, how: str) -> ForgedManifest:
    return ForgedManifest(
        f"The listing of {blob.repo} at {blob.commit.short} {how}.",
        hint="It is forgotten; run the command again when an upstream or another peer can be asked.",
        repo=str(blob.repo),
        commit=str(blob.commit),
        path=str(blob.path),
    )
