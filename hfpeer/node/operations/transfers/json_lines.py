"""A file of hfpeer's home with one JSON object a line. It only grows, until it is written anew.

A line that was cut off, by a kill or a full disk, is passed over when the file is read; those around it stay.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hfpeer.cache.disk.os_errors import MOVES_HOME, translated
from hfpeer.cache.snapshots import write_file
from hfpeer.system.ownership import make_own_folder, open_own, read_own


class JsonLines:
    """The file at `path`, which need not exist. Raises NoSpace or BrokenCache."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """The objects that can be read, in order."""
        with translated("read a file", self.path, elsewhere=MOVES_HOME):
            try:
                lines = read_own(self.path).splitlines()
            except FileNotFoundError:
                return []
        return [found for line in lines if (found := _object(line)) is not None]

    def append(self, document: dict[str, Any], *, is_synced: bool = False) -> int:
        """Adds an object, with `is_synced` so that it outlives a power cut. Returns the size of the file."""
        line = _line(document)
        with translated("write a file", self.path, len(line), elsewhere=MOVES_HOME):
            make_own_folder(self.path.parent)
            fd = open_own(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line
                if os.write(fd, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if is_synced:
                    os.fsync(fd)
            finally:
                os.close(fd)
        return size + len(line)

    def replace(self, documents: Iterable[dict[str, Any]]) -> None:
        """Writes the file anew, with these objects alone."""
        make_own_folder(self.path.parent)
        write_file(self.path, b"".join(map(_line, documents)).decode(), 0o600, is_synced=True)


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
