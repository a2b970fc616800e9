"""The kinds of files of a simulated repository: plain bytes, or one of these.

Owns the vocabulary of the content builder. Must never touch a repository.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

LFS_THRESHOLD_BYTES = 10_000_000


@dataclass(frozen=True)
class Symlink:
    """A symbolic link (mode 120000) to `target`."""

    target: str


@dataclass(frozen=True)
class Executable:
    """A plain file with the exec bit (mode 100755)."""

    data: bytes


@dataclass(frozen=True)
class Submodule:
    """A gitlink (mode 160000) to a commit of another repository."""

    commit: str = "5ab0d01e" * 5


@dataclass(frozen=True)
class Lfs:
    """An LFS file, however small."""

    data: bytes


@dataclass(frozen=True)
class SparseFile:
    """An LFS file of zeros that takes no disk.

    Without `sha256` the true digest is computed, at about a second per GB; give a made-up one for a size that
    is only to be claimed.
    """

    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine: LFS by the same rules as bytes, linked instead of copied where possible."""

    path: Path


Content = bytes | Symlink | Executable | Submodule | Lfs | SparseFile | LocalFile


def pointer_text(sha256: str, size_bytes: int) -> bytes:
    """The canonical LFS pointer."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n".encode()


def read_pointer(data: bytes) -> tuple[str, int] | None:
    """(sha256, size) when the data is an LFS pointer, else None."""
    if not data.startswith(b"version https://git-lfs.github.com/spec/v1\n"):
        return None
    fields = dict(line.split(" ", 1) for line in data.decode().splitlines() if " " in line)
    return fields["oid"].removeprefix("sha256:"), int(fields["size"])


def sha256_of_file(path: Path) -> str:
    """The digest of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
