"""Hashes the files of a set as they lie on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from hfpeer.prepared.manifest import SetFile
from hfpeer.system.cancellation import check_stop

CHUNK_BYTES = 1024 * 1024

OnBytes = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def hashed(path: Path, name: str, on_bytes: OnBytes = lambda count: None) -> SetFile:
    """The size and the sha256 of a file that is no link. Raises OSError."""
    digest, size_bytes = hashlib.sha256(), 0
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            check_stop()
            digest.update(chunk)
            size_bytes += len(chunk)
            on_bytes(len(chunk))
    return SetFile(name, size_bytes, digest.hexdigest())
