"""Checks a plain file against the listing that it came with. Pure.

The proof of a listing does not cover two lies of a peer: a wrong size of a plain file, which git's trees do not record,
and an LFS pointer listed as the file itself. The bytes show both, before they become visible.
"""

from __future__ import annotations

import hashlib

from hfpeer.errors import ForgedManifest
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer
from hfpeer.transfer.sources.sources import WantedBlob


def check_plain(blob: WantedBlob, data: bytes | memoryview) -> None:
    """Raises ForgedManifest when these bytes have the blob's digest, but not the listed size, or are an LFS pointer.

    A hub never lists a pointer as a plain file: it lists the file that the pointer stands for.
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
