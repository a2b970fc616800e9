"""The bytes behind the repositories: LFS objects by sha256, and plain git blobs unpacked for serving.

Owns files on disk, written once and never changed. Must never interpret them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from . import git
from .content import sha256_of_file


class ObjectStore:
    """Content-addressed files under one folder."""

    def __init__(self, root: Path) -> None:
        self._lfs = root / "lfs"
        self._blobs = root / "blobs"
        self._lfs.mkdir(parents=True)
        self._blobs.mkdir()

    def lfs_path(self, sha256: str) -> Path:
        return self._lfs / sha256

    def has_lfs(self, sha256: str) -> bool:
        return self.lfs_path(sha256).exists()

    def blob_path(self, oid: str) -> Path:
        return self._blobs / oid

    def has_blob(self, oid: str) -> bool:
        return self.blob_path(oid).exists()

    def put_bytes(self, data: bytes) -> tuple[str, int]:
        """Keep an LFS object; its digest and size."""
        sha256 = hashlib.sha256(data).hexdigest()
        _write(self.lfs_path(sha256), data)
        return sha256, len(data)

    def put_file(self, path: Path) -> tuple[str, int]:
        """Keep a local file as an LFS object, linked where the volume allows it."""
        sha256 = sha256_of_file(path)
        if not self.has_lfs(sha256):
            try:
                os.link(path.resolve(), self.lfs_path(sha256))
            except OSError:
                shutil.copyfile(path, self.lfs_path(sha256))
        return sha256, path.stat().st_size

    def put_sparse(self, size_bytes: int, sha256: str | None) -> tuple[str, int]:
        """Keep an LFS object of zeros under its true or the claimed digest."""
        draft = self._lfs / f"sparse-{size_bytes}"
        with draft.open("wb") as file:
            file.truncate(size_bytes)
        sha256 = sha256 or sha256_of_file(draft)
        draft.replace(self.lfs_path(sha256))
        return sha256, size_bytes

    def add_blobs(self, git_dir: Path, oids: list[str]) -> None:
        """Unpack git blobs."""
        for oid, data in git.read_blobs(git_dir, oids):
            _write(self.blob_path(oid), data)


def _write(path: Path, data: bytes) -> None:
    if not path.exists():
        draft = path.with_name(path.name + ".draft")
        draft.write_bytes(data)
        draft.replace(path)
