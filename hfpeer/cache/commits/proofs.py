"""The proof of a commit in the repo's own folder: `<repo folder>/.hfpeer/<commit>.json`, the manifest with its commit
object.

A copy of the repo's folder carries it, so that the copy can be checked without a network, by any node. Other users may
be allowed to write there: no link is followed, and a manifest is proved again whenever it is read. `huggingface_hub`
ignores the folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import BinaryIO

from hfpeer.budgets import MAX_LISTING_BYTES
from hfpeer.cache import snapshots
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import open_file, opened
from hfpeer.errors import BrokenCache, CorruptData
from hfpeer.git.proof import prove
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId

COMPARED_BYTES = 1024 * 1024
"""Bytes of two files that are compared at a time."""
log = logging.getLogger(__name__)


def write_proof(cache: Path, manifest: Manifest) -> None:
    """Keeps a proved manifest in its repo's folder, unless a file is there already. Does nothing without a commit
    object, for a manifest of more than MAX_LISTING_BYTES, and where the folder cannot be written.

    Raises NoSpace.
    """
    if manifest.is_attested:
        return
    path = layout.proof_path(cache, manifest.repo, manifest.commit)
    if _size(cache, path) is not None:
        return
    if sum(map(len, manifest.json_parts())) > MAX_LISTING_BYTES:
        return
    try:
        snapshots.write_inside(cache, manifest.repo, path, manifest.json_parts())
    except BrokenCache as error:
        log.info("The proof of %s at %s is not kept in its folder: %s", manifest.repo, manifest.commit, error)


def read_proof(cache: Path, repo: RepoId, commit: Commit) -> Manifest | None:
    """The manifest that the repo's folder proves; None if there is none, or none that can be read.

    Raises CorruptData for a file that proves nothing of this commit.
    """
    path = layout.proof_path(cache, repo, commit)
    try:
        with _open(cache, path) as file:
            text = file.read(MAX_LISTING_BYTES + 1)
    except (OSError, BrokenCache):
        return None
    if len(text) > MAX_LISTING_BYTES:
        raise CorruptData(f"{path} has more than {MAX_LISTING_BYTES} bytes.", hint="Remove it.", path=str(path))
    manifest = Manifest.from_json(text)
    del text  # it is large
    if (manifest.repo, manifest.commit) != (repo, commit):
        raise CorruptData(f"{path} is of another commit.", hint="Remove it.", path=str(path))
    prove(manifest)
    return manifest


def is_proof_same(cache: Path, repo: RepoId, commit: Commit, known: Path) -> bool:
    """Whether the file that should prove a commit has the very bytes of the file `known`, which is of this user."""
    try:
        with _open(cache, layout.proof_path(cache, repo, commit)) as file, known.open("rb") as other:
            while (part := file.read(COMPARED_BYTES)) == other.read(COMPARED_BYTES):
                if not part:
                    return True
    except (OSError, BrokenCache):
        pass
    return False


def _open(cache: Path, path: Path) -> BinaryIO:
    """A file in a folder of the cache that is reached without a link. Raises OSError, BrokenCache."""
    with opened(cache, path.parent) as folder:
        return open(open_file(folder / path.name, os.O_RDONLY, is_written=False), "rb")


def remove_proof(cache: Path, repo: RepoId, commit: Commit) -> None:
    """Removes the proof of a commit, and the folder if it is empty then. Links are not followed."""
    path = layout.proof_path(cache, repo, commit)
    with contextlib.suppress(OSError, BrokenCache):
        with opened(cache, path.parent) as folder:
            (folder / path.name).unlink(missing_ok=True)
        with opened(cache, path.parent.parent) as around:
            (around / path.parent.name).rmdir()


def _size(cache: Path, path: Path) -> int | None:
    """The bytes of a file in a folder of the cache that is reached without a link; None if there is none."""
    try:
        with opened(cache, path.parent) as folder:
            return (folder / path.name).lstat().st_size
    except (OSError, BrokenCache):
        return None
