"""The rows of files as they are on the disk now, with nothing known of their bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hfpeer.cache.disk.mounts import inode_of
from hfpeer.cache.index.schema import BlobRow
from hfpeer.names import Digest


def see_blob(cache: Path, path: Path | str, digest: Digest) -> BlobRow | None:
    """A row for the regular file at `path`, with nothing known of its bytes; None if there is none."""
    try:
        facts = os.stat(path)  # noqa: PTH116  a Path for each of many files takes longer
    except (OSError, ValueError):
        return None
    return row_of(str(cache), str(path), digest, facts) if stat.S_ISREG(facts.st_mode) else None


def row_of(
    cache: str,
    path: str,
    digest: str,
    facts: os.stat_result,
    verified_at: float | None = None,
    *,
    is_given: bool = False,
) -> BlobRow:
    """A row for a regular file. Without `verified_at` nothing is known of its bytes."""
    return BlobRow(
        path,
        path.removeprefix(f"{cache}{os.sep}").split(os.sep, 1)[0] or os.sep,
        str(digest),
        facts.st_size,
        facts.st_mtime_ns,
        inode_of(facts),
        verified_at,
        is_given=is_given,
        ctime_ns=ctime_of_link(facts),
        cache=cache,
    )


def stamp_of(facts: os.stat_result) -> tuple[int, int, int, int]:
    """The facts of a file that a row holds for; see `BlobRow.stamp`."""
    return facts.st_size, facts.st_mtime_ns, inode_of(facts), ctime_of_link(facts)


def ctime_of_link(facts: os.stat_result) -> int:
    """The ctime in nanoseconds of a read-only file with several names, 0 for any other file.

    Such a file may have a name outside the cache (`linking.HardLinks.READ_ONLY`), where another program can write to it
    and set its mtime back. Its ctime, which no program can set, then tells of the write.
    """
    is_link = facts.st_nlink > 1 and not facts.st_mode & 0o222
    return facts.st_ctime_ns if is_link else 0
