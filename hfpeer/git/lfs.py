"""Pointers of git LFS: the small text files that git stores in place of large files. Pure.

Source: git-lfs/docs/spec.md.
"""

from __future__ import annotations

import re

from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest


def pointer_of(file: ManifestFile) -> bytes:
    """The pointer text that git stores for an LFS file."""
    return file.pointer or pointer_text(file.digest.hex, file.size_bytes)


MAX_POINTER_BYTES = 1024
"""Longer texts are never LFS pointers. Source: git-lfs `docs/spec.md`."""
_POINTER_OID = re.compile(r"sha256:([0-9a-f]{64})")
_POINTER_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_POINTER_VERSIONS = frozenset(
    {"https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2"}
)


def pointer_text(sha256_hex: str, size_bytes: int) -> bytes:
    """The canonical LFS pointer of a file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256_hex}\nsize {size_bytes}\n".encode()


def parse_pointer(text: bytes) -> tuple[Digest, int] | None:
    """The digest and size in bytes that an LFS pointer names; None if the text is no pointer.

    Accepts pointers that are not canonical, as git-lfs does: extra keys, CRLF, no newline at the end.
    """
    if len(text) > MAX_POINTER_BYTES or not text.startswith(b"version "):
        return None
    try:
        lines = [line.partition(" ") for line in text.decode("utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError:
        return None
    fields = {key: value.rstrip() for key, _, value in lines}
    oid = _POINTER_OID.fullmatch(fields.get("oid", ""))
    size = _POINTER_SIZE.fullmatch(fields.get("size", ""))
    if len(fields) != len(lines) or fields["version"] not in _POINTER_VERSIONS or oid is None or size is None:
        return None
    return Digest("sha256", oid[1]), int(size[0])
