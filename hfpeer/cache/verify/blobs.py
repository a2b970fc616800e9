"""A file with bytes, as an inspection found it."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from hfpeer.names import Digest


@dataclass(slots=True)
class Blob:
    """A file with bytes: in `blobs/`, or in a snapshot. `size_bytes` is the size on the disk.

    There may be very many, so what another field tells, or few of them have, takes no memory.
    """

    folder: str
    file: str
    """The path of its folder, and its name there."""
    size_bytes: int
    listed: Digest | None = None
    """Of a file in a snapshot: the digest that a list names."""
    is_in_blobs: bool = True
    names: int = 1
    inode: tuple[int, int] | None = None
    """Device and inode; None for a file in `blobs/` without another name."""
    is_writable: bool = False
    commit: str = ""
    used_as: str = ""
    """Commit and path of the first file of a snapshot that needs it."""
    may_be: tuple[Digest, ...] = ()
    """Of a file that no list names: the digests of blobs of the same size."""
    is_needed: bool = False
    """Whether a file of a snapshot or a list needs it."""
    has_wrong_size: bool = False

    @property
    def name(self) -> str:
        """Its path, as text."""
        return f"{self.folder}{os.sep}{self.file}"

    @property
    def path(self) -> Path:
        return Path(self.folder, self.file)

    @property
    def digest(self) -> Digest | None:
        """The digest that its bytes should have, if that is known."""
        return digest_of(self.file) if self.is_in_blobs else self.listed

    def note_use(self, commit: str, path: str) -> None:
        """Notes that a file of a snapshot needs it."""
        if not self.commit or (commit, path) < (self.commit, self.used_as):
            self.commit, self.used_as = commit, path


def digest_of(etag: str) -> Digest:
    """The digest in the name of a blob, of 40 or 64 hex digits."""
    return Digest("sha256" if len(etag) == 64 else "git-sha1", etag)


def blob_of(
    entry: os.DirEntry[str], facts: os.stat_result, listed: Digest | None = None, *, is_in_blobs: bool = True
) -> Blob:
    folder = sys.intern(entry.path[: -len(entry.name) - 1])
    blob = Blob(folder, entry.name, facts.st_size, listed, is_in_blobs)
    if facts.st_nlink > 1 or not is_in_blobs or entry.is_symlink():
        blob.names, blob.inode = facts.st_nlink, (facts.st_dev, facts.st_ino)
        blob.is_writable = bool(facts.st_mode & stat.S_IWUSR)
    return blob


def are_twins(copy: Blob, blob: Blob) -> bool:
    """Whether a regular file may be a second copy of a blob: of its size, and not the same file by another name."""
    return copy.size_bytes == blob.size_bytes > 0 and copy.inode != blob.inode
