"""Writes the pictures of one part, byte by byte as they are: as files named by hash, as references, or as base64.

Equal pictures are one file. A file is written in the folder of the part and renamed, so that one with its final name is
whole; after a power cut a shorter one is written again. Pictures are many and small: what is done for each is done by
calls of the system on texts, since a `Path` and a buffered file for each take longer than its hash.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from hfpeer.conversion.media.kinds import is_media_name, media_name, suffix_of
from hfpeer.conversion.media.roots import Found, ImageRoots, is_address
from hfpeer.conversion.results import MAX_NAMED, Miss

MAX_KNOWN = 200_000
"""At most this many names of written pictures are kept, to spare a look at the disk."""


class RowDropped:
    """In the place of a picture that is missing: its row is to be left out."""


ROW_DROPPED = RowDropped()


class MediaWriter:
    """The pictures of one part. `reference` is the address of the commit, `folder` where `images/` is, `scratch` the
    folder for unfinished files."""

    def __init__(
        self,
        way: str,
        when_missing: str,
        roots: ImageRoots,
        folder: Path,
        scratch: Path,
        reference: str,
    ) -> None:
        self._way = way
        self._when_missing = when_missing
        self._roots = roots
        self._folder = str(folder)
        self._fresh = str(scratch / "picture.partial")
        self._reference = reference
        self._known: dict[bytes, str] = {}
        self._made: set[str] = set()
        self.pictures = 0
        self.missing = 0
        self.misses: list[Miss] = []

    def value(
        self, content: bytes | memoryview | None, path: str | None, source: str, row: int, column: str
    ) -> str | RowDropped | None:
        """What a row has in the place of a picture; None for none."""
        if content is None and not path:
            return None
        if content is None:
            assert path is not None
            if is_address(path):
                return path
            found = self._roots.find(path, source)
            if found is None:
                return self._missed(path, source, row, column)
            self.pictures += 1
            return self._written_found(found, path)
        self.pictures += 1
        if self._way == "ref":
            return f"{self._reference}/{source}#{column}[{row}]"
        return self._written(content, path)

    def found_bytes(self, path: str, source: str, row: int, column: str) -> bytes | RowDropped | None:
        """The bytes of a picture that a row names, for a format that has them in it."""
        found = self._roots.find(path, source)
        if found is None:
            missed = self._missed(path, source, row, column)
            return missed if isinstance(missed, RowDropped) else None
        return found.content

    def _written_found(self, found: Found, path: str) -> str:
        if self._way != "ref":
            return self._written(found.content, path)
        if not found.place:
            return path
        place = f"{self._reference}/{found.place}"
        return f"zip://{found.inside}::{place}" if found.inside else place

    def _written(self, content: bytes | memoryview, path: str | None) -> str:
        if self._way == "base64":
            return base64.b64encode(content).decode("ascii")
        return self.saved(content, path)

    def saved(self, content: bytes | memoryview, path: str | None) -> str:
        """Writes a picture as a file, unless it is there. Returns its path below the folder."""
        digest = hashlib.sha256(content).digest()
        known = self._known.get(digest)
        if known is not None:
            return known
        name = media_name(digest.hex(), suffix_of(content, path))
        if not _has_size(f"{self._folder}/{name}", len(content)):
            self._put(name, content)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[digest] = name
        return name

    def _put(self, name: str, content: bytes | memoryview) -> None:
        target = f"{self._folder}/{name}"
        parent = name.rpartition("/")[0]
        if parent not in self._made:
            Path(self._folder, parent).mkdir(parents=True, exist_ok=True)
            self._made.add(parent)
        fd = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
        os.replace(self._fresh, target)  # noqa: PTH105

    def _missed(self, path: str, source: str, row: int, column: str) -> str | RowDropped | None:
        self.missing += 1
        if len(self.misses) < MAX_NAMED:
            self.misses.append(Miss(source, row, column, path[:500]))
        if self._when_missing == "drop":
            return ROW_DROPPED
        return path if self._when_missing == "keep" else None


def written_media(folders: Sequence[Path]) -> dict[str, int]:
    """How many files `images/` of these folders have, and their bytes."""
    sizes = [
        file.stat().st_size
        for folder in folders
        for file in (folder / "images").glob("??/*")
        if is_media_name(file.name)
    ]
    return {"files": len(sizes), "size_bytes": sum(sizes)}


def _has_size(path: str, size_bytes: int) -> bool:
    try:
        return os.stat(path).st_size == size_bytes  # noqa: PTH116
    except FileNotFoundError:
        return False
