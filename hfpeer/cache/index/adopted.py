"""The catalog's table of adopted files: files of other tools, by path and by the digests that this node computed.

A row holds only while the file has the same size, mtime, ctime and inode; a change drops it.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from hfpeer.cache.disk.mounts import mount_of
from hfpeer.cache.index.database import Database, batches, values_of
from hfpeer.cache.index.schema import ADOPTED, AdoptedRow
from hfpeer.names import Digest

NO_INODE = 0
"""The inode of a row whose volume may number the same file anew at any time."""


class AdoptedTable:
    """The rows of all adopted files. Thread-safe. Raises NoSpace, BrokenCache, or Locked as the catalog does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_empty: tuple[int, bool] = (-1, True)

    def put(self, rows: Iterable[AdoptedRow]) -> None:
        """Keeps rows. Older rows of the same files have to be dropped before. On a volume that numbers its files anew,
        size and mtime alone tell a file: its bytes are hashed again on their way into the cache anyway."""
        stable: dict[int, bool] = {}
        self._database.put(ADOPTED, (values_of(_lasting(row, stable)) for row in rows))

    def all(self) -> list[AdoptedRow]:
        with self._database.reading() as connection:
            return [AdoptedRow(*row) for row in connection.execute(sa.select(ADOPTED).order_by(ADOPTED.c.path))]

    def of_paths(self, paths: Iterable[str]) -> dict[str, list[AdoptedRow]]:
        """The rows of files, by path."""
        return self._rows(ADOPTED.c.path, paths, lambda row: row.path)

    def drop(self, paths: Iterable[str]) -> None:
        """Forgets files."""
        for batch in batches(paths):
            self._database.execute(sa.delete(ADOPTED).where(ADOPTED.c.path.in_(batch)))

    def below(self, folder: str) -> dict[str, int]:
        """The files that are this path, or lie below it, with their sizes in bytes."""
        prefix = folder.rstrip(os.sep) + os.sep
        is_below = sa.or_(
            ADOPTED.c.path == folder,
            sa.and_(ADOPTED.c.path >= prefix, ADOPTED.c.path < prefix[:-1] + chr(ord(os.sep) + 1)),
        )
        with self._database.reading() as connection:
            found = connection.execute(sa.select(ADOPTED.c.path, ADOPTED.c.size_bytes).where(is_below))
            return {str(path): int(size_bytes) for path, size_bytes in found}

    def forget(self, folder: str = os.sep) -> tuple[int, int]:
        """Forgets the files below a folder. Returns their number and bytes. No file is touched."""
        gone = self.below(folder)
        self.drop(gone)
        return len(gone), sum(gone.values())

    def with_digests(self, digests: Iterable[Digest]) -> dict[Digest, list[AdoptedRow]]:
        """The files that have these digests and have not changed since they were hashed. Those that have are forgotten;
        those that are not there may come back, with the volume that they lie on."""
        if self._has_none():
            return {}
        found = self._rows(ADOPTED.c.digest, map(str, digests), lambda row: row.digest)
        stale = {row.path for rows in found.values() for row in rows if not holds(row)}
        self.drop(path for path in stale if os.path.lexists(path))
        kept = {digest: [row for row in rows if row.path not in stale] for digest, rows in found.items()}
        return {Digest.parse(digest): rows for digest, rows in kept.items() if rows}

    def _rows(
        self, column: sa.Column[str], values: Iterable[str], key: Callable[[AdoptedRow], str]
    ) -> dict[str, list[AdoptedRow]]:
        found: dict[str, list[AdoptedRow]] = defaultdict(list)
        for batch in batches(values):
            with self._database.reading() as connection:
                for row in connection.execute(sa.select(ADOPTED).where(column.in_(batch))):
                    found[key(AdoptedRow(*row))].append(AdoptedRow(*row))
        return found

    def _has_none(self) -> bool:
        """Whether there is no adopted file, so that nothing need be looked up. Read again after every change."""
        version, is_empty = self._is_empty
        now = self._database.data_version
        if now != version:
            with self._database.reading() as connection:
                is_empty = connection.execute(sa.select(ADOPTED.c.path).limit(1)).first() is None
            self._is_empty = (now, is_empty)
        return is_empty


def stamp_of(facts: os.stat_result) -> tuple[int, int, int, int]:
    """Size, mtime and ctime in nanoseconds, and inode."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def holds(row: AdoptedRow) -> bool:
    """Whether the file of a row has not changed since it was hashed."""
    try:
        facts = os.stat(row.path)  # noqa: PTH116  a Path for each of many files takes longer
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(facts.st_mode) or (facts.st_size, facts.st_mtime_ns) != (row.size_bytes, row.mtime_ns):
        return False
    return row.inode == NO_INODE or (facts.st_ctime_ns, facts.st_ino) == (row.ctime_ns, row.inode)


def _lasting(row: AdoptedRow, stable: dict[int, bool]) -> AdoptedRow:
    """The row without what its volume does not keep. `stable` remembers the answer for each device."""
    folder = Path(row.path).parent
    try:
        device = folder.stat().st_dev
    except OSError:
        return row
    if device not in stable:
        stable[device] = mount_of(folder).has_stable_inodes
    return row if stable[device] else replace(row, ctime_ns=0, inode=NO_INODE)
